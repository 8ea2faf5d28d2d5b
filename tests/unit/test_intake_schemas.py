"""What the intake makes of the schemas that events are written with: news, reads of everything, new objects."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from consumer.assembly import TrackingTimes
from consumer.changes.schema import compile_schema
from consumer.delivery.positions import ProgressEntry, decode_entry
from consumer.events import Json, LossWindow, OutboundRecord
from consumer.intake import Intake
from consumer.ports import Restored
from consumer.tracking.arrivals import Closed, FactsRead, Progress
from consumer.tracking.values import EntityFacts
from tests.fake_org import FIELDS
from tests.fakes import ASSEMBLY, CHANNEL, TOPICS, internal_records, memory_store
from tests.tracking_values import ENTITY, S0
from tests.unit.test_schema_change import field, schema

ALL = "/data/ChangeEvents"
FIRST = schema(field("Name"), field("Status"))
WIDER = schema(field("Name"), field("Status"), field("New__c"))
NARROWER = schema(field("Name"))
RETYPED = schema(field("Name"), field("Status", "long"))
REWORDED = schema(field("Name", doc="Data:Text:00N1"), field("Status"))


class Desk:
    """An intake that hears of schemas.

    Attributes:
        progress: what is durable.
    """

    def __init__(
        self,
        channel: str = CHANNEL,
        *,
        snapshots: bool = False,
        windows: tuple[LossWindow, ...] = (),
        progress: dict[str, dict[str, Json]] | None = None,
    ) -> None:
        self.progress: dict[str, Any] = dict(progress or {})
        restored = Restored(None, windows={each.window_id: each for each in windows}, progress=dict(self.progress))
        self.intake: Intake = ASSEMBLY.processor(
            channel, internal_records(), memory_store(), restored, TrackingTimes(snapshots=snapshots)
        ).intake

    def uses(self, text: str, schema_id: str, at: int = 10, *, entity: str = ENTITY) -> list[dict[str, Any]]:
        """Let an event use a schema, and return what coverage tells."""
        compiled = compile_schema(schema_id, text)
        event = (f"event-{at}", S0 + at * 1000)
        fields = tuple(each.name for each in compiled.fields)
        records = self.intake.schema_used(entity, compiled, text, fields, event, S0 + at * 1000 + 500)
        self._keep(records)
        return [orjson.loads(each.value or b"") for each in records if each.topic == TOPICS.coverage]

    def _keep(self, records: list[OutboundRecord]) -> None:
        for each in records:
            if each.topic == TOPICS.positions:
                entry = decode_entry(each.key, each.value)
                if isinstance(entry, ProgressEntry):
                    self.progress[entry.name] = entry.state

    @property
    def wanted(self) -> dict[str, Any]:
        """Snapshots that are durably asked for."""
        return {name: state for name, state in self.progress.items() if name.startswith("snapshot:")}


def test_a_first_schema_is_remembered_and_nothing_is_said_of_it() -> None:
    desk = Desk(snapshots=True)
    news = desk.intake.news
    assert desk.uses(FIRST, "a") == []
    assert desk.progress == {f"schema:{ENTITY}": {"schema_id": "a", "schema_json": FIRST, "as_of_ms": S0 + 10_000}}
    assert desk.intake.news > news
    assert desk.intake.objects.names() == (ENTITY,)


def test_a_schema_that_is_known_from_before_a_restart_is_no_change() -> None:
    before = Desk()
    before.uses(FIRST, "a")
    desk = Desk(progress=before.progress)
    assert desk.uses(FIRST, "a", 20) == []
    assert desk.progress == before.progress, "it is in use since its first event"
    assert desk.intake.objects.names() == (ENTITY,), "rows are read by it"


@pytest.mark.parametrize(
    ("text", "wanted"), [(WIDER, True), (RETYPED, True), (NARROWER, False)], ids=["added", "retyped", "removed"]
)
def test_new_values_nobody_knows_are_durably_asked_for(text: str, wanted: bool) -> None:
    """A field that was added has values before the first event tells one; one that is gone has none."""
    desk = Desk()
    desk.uses(FIRST, "a")
    (told,) = desk.uses(text, "b", 20)
    assert (told["kind"], told["detail"]["new_schema_id"]) == ("schema_changed", "b")
    request = {"entity": ENTITY, "where": "", "issued_ms": S0 + 20_000}
    assert desk.wanted == ({"snapshot:schema-b": request} if wanted else {})
    assert desk.uses(text, "b", 30) == [], "it is asked once"


def test_a_schema_change_across_a_restart_is_noticed_too() -> None:
    before = Desk()
    before.uses(FIRST, "a")
    desk = Desk(progress=before.progress)
    assert [each["kind"] for each in desk.uses(WIDER, "b", 20)] == ["schema_changed"]
    assert list(desk.wanted) == ["snapshot:schema-b"]


@pytest.mark.parametrize("restarted", [False, True])
def test_an_event_with_an_older_schema_changes_nothing_back(restarted: bool) -> None:
    desk = Desk()
    desk.uses(WIDER, "b", 20)
    if restarted:
        desk = Desk(progress=desk.progress)
    assert desk.uses(FIRST, "a", 19) == []
    assert desk.progress[f"schema:{ENTITY}"]["schema_id"] == "b"
    assert desk.intake.objects.schema_id(ENTITY) == (None if restarted else "b")


@pytest.mark.parametrize(("text", "forgotten"), [(WIDER, True), (NARROWER, True), (REWORDED, False)])
def test_the_describe_is_forgotten_when_fields_changed(text: str, forgotten: bool) -> None:
    """Rows are read by it, and a field that it does not know, or that is gone, would be read wrongly."""
    desk = Desk()
    desk.uses(FIRST, "a")
    desk.intake.arrive(FactsRead(EntityFacts(ENTITY), S0, FIELDS))
    assert desk.intake.objects.plan(ENTITY) is not None
    desk.uses(text, "b", 20)
    assert (desk.intake.objects.plan(ENTITY) is None) is forgotten


def start(entity: str | None = None) -> LossWindow:
    return LossWindow("start", f"changes:{ALL}", "no_snapshot", None, None, (), entity)


def test_an_object_first_seen_on_a_channel_of_several_is_read_as_a_whole_once() -> None:
    desk = Desk(ALL, snapshots=True)
    news = desk.intake.news
    (told,) = desk.uses(FIRST, "a", entity="Account")
    assert (told["kind"], told["reason"], told["entity"]) == ("loss_opened", "no_snapshot", "Account")
    (window,) = desk.intake.windows.values()
    assert (window.entity, window.record_ids, window.from_ms, window.to_ms) == ("Account", (), None, S0 + 10_000)
    assert desk.intake.news >= news + 2, "the scan must hear of it"
    assert desk.uses(FIRST, "a", 20, entity="Account") == []
    desk.intake.windows.close(window.window_id)
    assert desk.uses(FIRST, "a", 30, entity="Account") == []
    assert Desk(ALL, snapshots=True, progress=desk.progress).uses(FIRST, "a", 40, entity="Account") == []


@pytest.mark.parametrize(
    "desk",
    [
        lambda: Desk(ALL, snapshots=True, windows=(start(),)),
        lambda: Desk(ALL, snapshots=False),
        lambda: Desk(CHANNEL, snapshots=True),
    ],
    ids=["the first snapshot is under way", "no snapshots are wanted", "a channel of one object"],
)
def test_other_first_sights_open_no_window(desk: Any) -> None:
    made = desk()
    assert made.uses(FIRST, "a") == []
    assert len(made.intake.windows) <= 1


def test_a_snapshot_request_that_is_done_is_forgotten() -> None:
    desk = Desk()
    desk.uses(FIRST, "a")
    desk.uses(WIDER, "b", 20)
    assert "snapshot:schema-b" in desk.intake.progress
    desk.intake.arrive(Closed(ENTITY, S0, progress=(Progress("snapshot:schema-b", done=True),)))
    assert "snapshot:schema-b" not in desk.intake.progress
