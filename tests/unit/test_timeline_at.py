"""The image at a time: told where it is known, and called unknown where anything may hide."""

from __future__ import annotations

from typing import Any

from consumer.tracking.timeline_at import ImageAt, image_at
from tests.unit.test_timeline import CLOSED, FULL, RECORD, T, change, state, told, window

ACTIVE = {**FULL, "Status": "Active"}
LIFE = [change(1, "c"), change(2, at=2000, after=ACTIVE, unknown=("PreviewDetails",))]


def at(of: Any, when: int, kept_from: int | None = T - 10_000) -> ImageAt:
    return image_at(of, T + when, kept_from)


def test_the_newest_change_at_or_before_the_time_tells_the_image() -> None:
    of = told(LIFE)
    assert at(of, 1999).image == FULL
    then = at(of, 2000)
    assert (then.known, then.image, then.unknown_fields) == (True, ACTIVE, ("PreviewDetails",))
    assert (then.as_of_ms, then.change_id) == (T + 2000, f"e2:{RECORD}")


def test_before_its_creation_and_after_its_deletion_there_is_no_record() -> None:
    of = told([*LIFE, change(3, "d", 3000)])
    assert (at(of, -1).known, at(of, -1).why) == (True, "not_created")
    assert (at(of, 2999).image, at(of, 3000).why, at(of, 3000).image) == (ACTIVE, "deleted", None)


def test_before_the_first_kept_change_its_before_image_is_true_as_far_back_as_all_is_kept() -> None:
    old = {**FULL, "CreatedDate": "2020-01-01T00:00:00.000Z"}
    before = {name: value for name, value in old.items() if name != "OwnerId"}
    of = told([change(5, at=2000, before=before, after=old, unknown=("X",))])
    then = at(of, 1000, T)
    assert (then.known, then.image, then.unknown_fields) == (True, before, ("OwnerId", "X"))
    assert then.as_of_ms is None
    assert (at(of, -1, T).known, at(of, -1, T).why) == (False, "before_retention")
    assert at(of, 1000, None).why == "before_retention"


def test_a_first_change_without_an_image_before_tells_nothing() -> None:
    old = {"Id": RECORD}
    first = change(5, at=2000, before=old, after={"Id": RECORD, "Status": "Active"})
    assert at(told([first]), 1000).why == "nothing_known"
    assert at(told([change(5, "r", 2000, before=None, after=old)]), 1000).why == "nothing_known"


def test_without_any_kept_change_the_state_has_been_so_since_all_is_kept() -> None:
    image = {**FULL, "CreatedDate": "2020-01-01T00:00:00.000Z"}
    assert at(told(state=state(image=image, unknown=("X",))), 0).image == image
    assert at(told(state=state(image=image, unknown=("X",))), 0).unknown_fields == ("X",)
    assert at(told(state=state(image=image)), -20_000).why == "before_retention"
    assert at(told(state=state(image=image, stale=True)), 0).why == "nothing_known"
    assert at(told(state=state(image={}, deleted=True)), 0).why == "deleted"
    assert at(told(), 0).why == "nothing_known"


def test_inside_a_loss_window_nothing_is_known_and_behind_a_closed_one_it_is() -> None:
    for values, inside, behind in (
        (CLOSED, False, True),
        ({}, False, False),
        ({**CLOSED, "restored": frozenset()}, False, False),
    ):
        of = told(LIFE[:1], windows=[window(**values)])
        assert at(of, 999).known is True
        then = at(of, 1000)
        assert (then.known, then.why, then.window_id) == (inside, "loss_window", "w")
        assert at(of, 1998).known is inside
        assert at(of, 2500).known is behind


def test_the_repairing_change_and_a_row_read_later_tell_what_the_window_hid() -> None:
    repaired = change(2, at=1000, after=ACTIVE, row=True, received_ms=T + 8000, window_id="w", event_id=None)
    of = told([LIFE[0], repaired], windows=[window(**CLOSED)])
    assert at(of, 1500).image == ACTIVE
    snapshot = change(2, "r", 500, received_ms=T + 8000)
    of = told([LIFE[0], snapshot], windows=[window()])
    assert at(of, 1500).known is True, "a row says that nothing changed between its stamp and its reading"
    assert at(of, 8001).known is True, "and it was read behind the window"
    early = change(2, "r", 500, received_ms=T + 900)
    assert at(told([LIFE[0], early], windows=[window()]), 1500).known is False


def test_behind_an_open_window_of_a_record_its_next_change_names_what_is_unknown() -> None:
    of = told(LIFE, windows=[window()])
    assert at(of, 2000).known is True
    whole = told(LIFE, windows=[window(record_ids=())])
    assert at(whole, 2000).known is False, "of a whole object no field is marked"
    undeleted = [change(1, "c"), change(2, "d", 500), change(3, "c", 5000, change_type="UNDELETE")]
    assert at(told(undeleted, windows=[window(record_ids=())]), 6000).known is True, "it tells the whole record"
    assert at(told(undeleted[:2], windows=[window(record_ids=())]), 6000).known is False


def test_a_late_event_does_not_bring_a_newer_image_to_an_older_time() -> None:
    row = change(2, "r", 3000, after={**FULL, "Status": "Ended"})
    late = change(3, at=2000, late=True, after=row.after, late_values={"Status": "Active", "Address": {"City": "Ulm"}})
    of = told([change(1, "c", after={**FULL, "Address": {"City": None, "Zip": "1"}}, unknown=("Status",)), row, late])
    then = at(of, 2500)
    assert then.image is not None
    assert (then.image["Status"], then.image["Address"]) == ("Active", {"City": "Ulm", "Zip": "1"})
    assert (then.as_of_ms, then.unknown_fields) == (T + 2000, ())
    assert at(of, 1999).image is not None
    assert at(of, 1999).image["Status"] == "Waiting"  # type: ignore[index]  # checked above
    assert at(of, 3000).image["Status"] == "Ended"  # type: ignore[index]  # a change at that time is kept
