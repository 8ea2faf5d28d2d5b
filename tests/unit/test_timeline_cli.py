"""What `timeline` prints for people."""

from __future__ import annotations

import pytest

from consumer.cli.timeline import _fact_row, _print, _print_reach, _stay_row
from consumer.cli.timeline_words import duration, shown
from consumer.kafka.lookup import Reach
from consumer.tracking.timeline_at import image_at
from consumer.tracking.timeline_values import Stay
from tests.unit.test_timeline import CLOSED, FULL, T, change, fact, told, window


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (999, "0s"), (-5, "0s"), (200_000, "3m 20s"), (3_600_000, "1h 0m"), (190_000_000, "2d 4h")],
)
def test_durations_in_their_two_greatest_units(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_values_stand_on_one_line_and_bring_no_escape_sequence_to_the_terminal() -> None:
    assert [shown("a", "Ada"), shown("", None), shown(None, None), shown(1.5, None)] == [
        "a (Ada)",
        '""',
        "null",
        "1.5",
    ]
    for text in ("a\nb", "\x1b[2J", "\x9b2J", "\u202e"):
        assert shown(text, text).isprintable()
    assert len(shown("x" * 300, None)) == 61
    assert len(shown("x" * 300, None, whole=True)) == 300


@pytest.mark.parametrize(
    ("values", "match", "shown"),
    [
        ("known", "confirmed", ["a", "b", "confirmed by Salesforce's history"]),
        ("old_unknown", "pending", ["(unknown)", "b", "not confirmed yet"]),
        ("not_stored", "not_tracked", ["(not stored)", "(not stored)", "not tracked by Salesforce"]),
        ("truncated_255", "row_only", ["a (cut)", "b (cut)", "by Salesforce's history only"]),
        ("known", None, ["a", "b", "by the change record only"]),
        ("known", "of_tomorrow", ["a", "b", "of_tomorrow"]),
    ],
)
def test_a_fact_says_how_certain_it_is(values: str, match: str | None, shown: list[str]) -> None:
    row = _fact_row(fact("F", "a", "b", 0, values=values, match=match))
    assert [row[2], row[4], row[6]] == shown


def test_a_fact_from_two_images_says_so() -> None:
    row = _fact_row(fact("F", "a", "b", 0, origin="resync", match="not_tracked"))
    assert row[6] == "difference of two images, not tracked by Salesforce"


def test_a_stay_without_beginning_has_no_duration_and_one_in_the_future_none_below_zero() -> None:
    assert _stay_row(Stay("v", None, None, T, None, certain=False), T)[0] == "  not known"
    assert _stay_row(Stay("v", None, None, T, None, certain=False), T)[3] == ""
    assert _stay_row(Stay("v", None, T, None, None, certain=True), T - 5000)[3] == "0s"


def test_everything_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    open_one = window(window_id="gap:2", from_ms=T + 400_000, to_ms=None)
    restored = window(**CLOSED, unrecoverable_fields=("AgentCount",))
    of = told(
        [change(1, "c"), change(2, at=2000, unknown=("PreviewDetails",), after={**FULL, "Status": "Active"})],
        [fact("Status", "Waiting", "Active", 2000, by=None)],
        windows=[restored, open_one, window(window_id="all", **{**CLOSED, "restored": frozenset()})],
    )
    _print(of, image_at(of, T + 2500, T), T + 7_200_000)
    _print_reach({"changes": Reach(T, dropped=True), "history": Reach(None, dropped=False), "sharing": None})
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line and line[0].islower()] == [
        "created 2026-09-21T14:13:20Z by 005000000000001AAA",
        "status",
        "owner",
        "changes",
        "loss windows",
        "at 2026-09-21T14:13:22.500Z",
        "changes: kept since 2026-09-21T14:13:20Z, older records were dropped by retention",
        "history: the record's partition is empty",
        "sharing: the topic does not exist",
    ]
    assert "closed, state restored: transitions of AgentCount are missing" in out
    assert "closed, nothing restored: transitions of all fields are missing" in out
    assert "2026-09-21T14:20:00Z  …" in out
    assert "unknown" in out
