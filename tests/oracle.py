"""The emulated org's truth against what a read-committed reader of Kafka ends up with.

Judges what images, history and coverage promise. It shares no code with the service.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.contract.topic_schemas import RecordShapeError, kind_of, validate_record
from tests.kafka_reader import ReadRecord

_SHOWN = 8
_SECOND = 1000
"""Commit times have whole seconds."""
_DERIVED = frozenset(
    {
        "ChannelEndUserFormula",
        "ChannelType",
        "ChannelName",
        "ChannelKey",
        "EndUserAccountId",
        "EndUserContactId",
        "PreviewDetails",
        "AgentMessageCount",
        "EndUserMessageCount",
    }
)
"""Fields that no event carries: they are read when a session has ended, and may be unknown before."""

_SILENT_FIELDS = frozenset({"LastModifiedDate", "LastModifiedById", "SystemModstamp"})

Image = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """What truly happened.

    Attributes:
        records: image of every live record.
        deleted: ids of records that are gone, in the recycle bin or for good.
        changes: every field change, as ``GET /control/oracle/changes`` tells it.
        losses: what no event told, as ``GET /control/oracle/losses`` tells it.
    """

    records: Mapping[str, Image]
    deleted: frozenset[str]
    changes: Sequence[Mapping[str, Any]]
    losses: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Window:
    """A loss window as the coverage topic tells it.

    Attributes:
        closed: the ``loss_closed`` record, None while it is open.
    """

    window_id: str
    reason: str
    from_ms: int | None
    to_ms: int | None
    record_ids: frozenset[str]
    closed: Mapping[str, Any] | None

    def covers(self, record_id: str, commit_ms: int) -> bool:
        """Tell whether it owns up to a change."""
        if self.record_ids and record_id not in self.record_ids:
            return False
        return (self.from_ms is None or self.from_ms - _SECOND <= commit_ms) and (
            self.to_ms is None or commit_ms <= self.to_ms + _SECOND
        )


@dataclass(slots=True)
class Verdict:
    """What the comparison found; every list says precisely what is wrong.

    Attributes:
        images: states that do not equal the org's record.
        upserts: rows of the strict upsert reader that do not, or columns it saw nulled that are not null.
        history: changes that stand in no fact, or in several, and in no window; facts that tell no true change.
        coverage: losses that no window names, and windows that never closed.
        malformed: records not of the promised shape.
        counted: how much was compared.
    """

    images: list[str] = field(default_factory=list)
    upserts: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    coverage: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> dict[str, list[str]]:
        """Everything that must be empty."""
        names = ("images", "upserts", "history", "coverage", "malformed")
        return {name: found for name in names if (found := getattr(self, name))}

    def __str__(self) -> str:
        lines = [", ".join(f"{count} {name}" for name, count in self.counted.items())]
        for name, found in self.faults.items():
            lines.append(f"{len(found)} {name}")
            lines += [f"    {each}" for each in found[:_SHOWN]]
        return "\n  ".join(lines)

    def require_clean(self) -> None:
        """Raise AssertionError, with what was found, unless every promise was kept."""
        assert not self.faults, str(self)


def judge(truth: Truth, records: Sequence[ReadRecord], *, never_in_rows: Iterable[str] = ()) -> Verdict:
    """Compare the truth with what is committed.

    Args:
        truth: what happened.
        records: every committed record, in order of offset within each partition.
        never_in_rows: fields left out of every comparison.
    """
    verdict = Verdict()
    values: dict[str, list[tuple[ReadRecord, Any]]] = defaultdict(list)
    for record in records:
        kind = kind_of(record.topic)
        try:
            value = validate_record(kind, record.key, record.value, tuple(record.headers.items()))
        except RecordShapeError as error:
            verdict.malformed.append(f"{kind} {record.topic}-{record.partition}@{record.offset}: {error}")
            continue
        values[kind].append((record, value))
    left_out = frozenset(never_in_rows)
    windows = read_windows(value for _, value in values["coverage"])
    _images(truth, values["state"], verdict, left_out)
    _upserts(truth, values["changes"], verdict, left_out)
    _history(truth, values["history"], windows, verdict)
    _coverage(truth, windows, verdict)
    return verdict


def read_windows(values: Iterable[Mapping[str, Any]]) -> list[Window]:
    """Return the loss windows that coverage records tell of; the closing record has the last word on the span."""
    opened: dict[str, Mapping[str, Any]] = {}
    closed: dict[str, Mapping[str, Any]] = {}
    for value in values:
        if value["kind"] == "loss_opened":
            opened.setdefault(value["window_id"], value)
        elif value["kind"] == "loss_closed":
            closed[value["window_id"]] = value
    return [
        Window(
            window_id,
            value["reason"],
            _ms(closed.get(window_id, value)["from"]),
            _ms(closed.get(window_id, value)["to"]),
            frozenset(value["record_ids"]),
            closed.get(window_id),
        )
        for window_id, value in opened.items()
    ]


def _images(truth: Truth, states: Sequence[tuple[ReadRecord, Any]], verdict: Verdict, left_out: frozenset[str]) -> None:
    newest = {(record.key or b"").decode(): value for record, value in states}
    verdict.counted["states"] += len(newest)
    for record_id, image in truth.records.items():
        verdict.images += image_faults(record_id, image, newest.get(record_id), left_out)
    for record_id, state in newest.items():
        if state is not None and not state["deleted"] and record_id not in truth.records:
            verdict.images.append(f"{record_id} lives in state, and is gone in the org")


def image_faults(
    record_id: str, image: Image, state: Mapping[str, Any] | None, left_out: frozenset[str] = frozenset()
) -> list[str]:
    """Return what is wrong with the newest state of a record that lives.

    Args:
        record_id: its id.
        image: the org's record.
        state: the state as Kafka has it, None if it has none.
        left_out: fields that are not compared.
    """
    if state is None or state["deleted"]:
        return [f"{record_id} is {'deleted' if state else 'missing'} in state, and lives in the org"]
    hidden = left_out | _not_yet(image)
    wrong = _differences(image, state["image"], hidden)
    unknown = sorted(set(state["unknown_fields"]) - hidden)
    if wrong or state["stale"] or unknown:
        return [f"{record_id}: stale={state['stale']} unknown={unknown} {wrong}"]
    return []


def _upserts(
    truth: Truth, changes: Sequence[tuple[ReadRecord, Any]], verdict: Verdict, left_out: frozenset[str]
) -> None:
    """Keep a table as a strict Debezium reader does: columns of ``after`` overwrite, absent ones stay."""
    table: dict[str, Image] = {}
    versions: dict[str, int] = {}
    verdict.counted["changes"] += len(changes)
    for record, value in changes:
        record_id, version = (record.key or b"").decode(), value["source"]["record_version"]
        if version != versions.get(record_id, 0) + 1:
            verdict.upserts.append(f"{record_id}: version {version} follows {versions.get(record_id, 0)}")
        versions[record_id] = version
        if value["op"] == "d":
            table.pop(record_id, None)
        elif value["op"] == "c":
            table[record_id] = dict(value["after"])
        else:
            table.setdefault(record_id, {}).update(value["after"])
    for record_id, image in truth.records.items():
        row = table.get(record_id)
        if row is None:
            verdict.upserts.append(f"{record_id} is missing in the table")
        elif wrong := _differences(image, row, left_out | _not_yet(image)):
            verdict.upserts.append(f"{record_id}: {wrong}")
    verdict.upserts += [f"{record_id} is still in the table" for record_id in table.keys() - truth.records.keys()]


def _not_yet(image: Mapping[str, Any]) -> frozenset[str]:
    return frozenset() if image.get("Status") == "Ended" else _DERIVED


def _differences(image: Mapping[str, Any], found: Mapping[str, Any], left_out: frozenset[str]) -> list[str]:
    return [
        f"{name}: org {image[name]!r}, here {found.get(name, 'ABSENT')!r}"
        for name in image
        if name not in left_out and (name not in found or _plain(found[name]) != _plain(image[name]))
    ]


def _plain(value: Any) -> Any:
    """Return a compound without its null parts: an image may leave them out."""
    return {part: each for part, each in value.items() if each is not None} if isinstance(value, dict) else value


def _history(
    truth: Truth, facts: Sequence[tuple[ReadRecord, Any]], windows: Sequence[Window], verdict: Verdict
) -> None:
    newest: dict[str, Any] = {}
    finals: Counter[str] = Counter()
    for _, value in facts:
        known = newest.get(value["change_id"])
        finals[value["change_id"]] += value["final"]
        if known is None or value["revision"] > known["revision"]:
            newest[value["change_id"]] = value
    verdict.history += [f"{change_id} has {count} final revisions" for change_id, count in finals.items() if count > 1]
    by_place: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for value in newest.values():
        if value["origin"] != "resync":
            by_place[value["record_id"], value["field"]].append(value)
    purged = {change["record_id"] for change in truth.changes if change["op"] in {"erase", "purge"}}
    for change in truth.changes:
        if change["op"] not in {"update", "create"} or change["loss"] == "derived" or change["field"] in _SILENT_FIELDS:
            continue
        _require_fact(change, by_place, windows, verdict, purged)
    for leftover in by_place.values():
        verdict.history += [
            f"{value['change_id']} ({value['field']} {value['old_value']!r} to {value['new_value']!r} at "
            f"{value['changed_at']}, {value['match']}) tells no true change"
            for value in leftover
        ]


def _require_fact(
    change: Mapping[str, Any],
    by_place: dict[tuple[str, str], list[Any]],
    windows: Sequence[Window],
    verdict: Verdict,
    purged: Collection[str],
) -> None:
    """Take the one fact of a true change away from those that are there, or find the window that owns up to it."""
    verdict.counted["true field changes"] += 1
    record_id, commit_ms = change["record_id"], change["commit_ms"]
    name = "created" if change["op"] == "create" else change["field"]
    candidates = by_place.get((record_id, name), [])
    for value in candidates:
        same_time = abs((_ms(value["changed_at"]) or 0) - commit_ms) <= 1000
        if same_time and (name == "created" or _same(value["new_value"], change["new"], value["values"])):
            candidates.remove(value)
            verdict.counted["found in history"] += 1
            return
    if change["loss"] in {"dropped", "silent"} and not change["tracked"]:
        # Nothing in the org tells of it any more; the image is right, and that is judged elsewhere.
        verdict.counted["untracked and without a trace"] += 1
        return
    for window in windows:
        if not window.covers(record_id, commit_ms):
            continue
        if record_id in purged:
            # Salesforce's rows went with the record: there is nothing left to read them from.
            verdict.counted["gone with a purged record, and in a window"] += 1
            return
        if window.closed is None:
            verdict.counted["behind an open window"] += 1
            return
        if name.partition(".")[0] in {each.partition(".")[0] for each in window.closed["unrecoverable_fields"]}:
            verdict.counted["unrecoverable, and named"] += 1
            return
    verdict.history.append(
        f"{record_id} {name} {change['old']!r} to {change['new']!r} at {change['commit_ms']} "
        f"(tracked={change['tracked']}, loss={change['loss'] or 'none'}) stands nowhere"
    )


def _same(found: Any, true: Any, values: str) -> bool:
    if values == "not_stored":
        return True
    if values == "truncated_255":
        return isinstance(true, str) and isinstance(found, str) and true[:255] == found[:255]
    return bool(found == true)


def _coverage(truth: Truth, windows: Sequence[Window], verdict: Verdict) -> None:
    verdict.counted["loss windows"] += len(windows)
    verdict.counted["losses"] += len(truth.losses)
    verdict.coverage += [
        f"{window.window_id} ({window.reason}, {len(window.record_ids)} records) is still open"
        for window in windows
        if window.closed is None
    ]
    tracked = {(change["record_id"], change["commit_ms"]) for change in truth.changes if change["tracked"]}
    for loss in truth.losses:
        if loss["kind"] == "moved" or not _hides(loss):
            continue
        ids: Sequence[str | None] = loss["record_ids"] or [None]
        for record_id in ids:
            if any(window.covers(record_id or "", loss["commit_ms"]) for window in windows):
                verdict.counted["losses in windows"] += 1
            elif _leaves_a_trace(loss, tracked):
                verdict.coverage.append(f"{loss['kind']} of {record_id} at {loss['commit_ms']} is in no window")
            else:
                verdict.counted["losses without a trace, repaired all the same"] += 1


def _ms(text: str | None) -> int | None:
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour as ``session-consumer coverage --json --by hour`` labels it."""

    from_ms: int
    to_ms: int
    label: str
    missing: Sequence[Mapping[str, Any]]


def hours_of(report: Mapping[str, Any]) -> list[Hour]:
    """Return the hours of the report's first stream of changes."""
    (stream,) = [each for each in report["streams"] if each["stream"].startswith("changes:")]
    return [
        Hour(_ms(each["from"]) or 0, _ms(each["to"]) or 0, each["label"], each["missing"]) for each in stream["slices"]
    ]


def judge_hours(
    truth: Truth, hours: Sequence[Hour], windows: Sequence[Window], begun_ms: int, verdict: Verdict
) -> None:
    """Hold the labels of hours against the losses that truly happened in them.

    Args:
        truth: what happened.
        hours: the labels.
        windows: every loss window there was.
        begun_ms: end of the first start's own window; earlier hours are not judged.
        verdict: takes what is found.
    """
    tracked = {(change["record_id"], change["commit_ms"]) for change in truth.changes if change["tracked"]}
    for hour in hours:
        if hour.from_ms < begun_ms:
            continue
        verdict.counted["hours"] += 1
        lost = [loss for loss in truth.losses if hour.from_ms <= loss["commit_ms"] < hour.to_ms and _hides(loss)]
        told = [loss for loss in lost if _leaves_a_trace(loss, tracked)]
        if hour.label == "incomplete":
            verdict.coverage.append(f"the hour of {hour.from_ms} is incomplete")
        elif hour.label == "complete" and told:
            verdict.coverage.append(f"the hour of {hour.from_ms} is called complete: {told[0]['kind']} of {len(told)}")
        elif hour.label != "complete" and not lost and not (_found_late(hour, truth) or _holds_an_edge(hour, windows)):
            verdict.coverage.append(f"the hour of {hour.from_ms} is called {hour.label}: {hour.missing[:1]}")
        verdict.counted[f"hours {hour.label}, {'with' if lost else 'without'} losses"] += 1


def _hides(loss: Mapping[str, Any]) -> bool:
    return loss["kind"] != "poison" and not (loss["kind"] == "expired" and loss.get("sent"))


def _leaves_a_trace(loss: Mapping[str, Any], tracked: Collection[tuple[str, int]]) -> bool:
    """Whether anything in the org tells of the loss later on: an event without data, or a history row.

    A change that no event told of, of a field whose history is not tracked, leaves a trace only until the next change
    of the same record.
    """
    if loss["kind"] in {"gap", "overflow", "wildcard", "expired", "moved"}:
        return True
    substance = bool(loss["ops"])  # an event that brought LastModifiedDate alone hides nothing
    return substance and any((record_id, loss["commit_ms"]) in tracked for record_id in loss["record_ids"])


def _holds_an_edge(hour: Hour, windows: Sequence[Window]) -> bool:
    """Whether a window begins or ends in the hour: it reaches from one known event to the next, lost ones between."""
    edges = {edge for window in windows for edge in (window.from_ms, window.to_ms) if edge is not None}
    return any(hour.from_ms <= edge < hour.to_ms for edge in edges)


def _found_late(hour: Hour, truth: Truth) -> bool:
    """Whether the hour is blamed for what was lost before: a row tells when it changed last, not when first."""
    reasons = {each["reason"] for each in hour.missing}
    quiet = any(loss["kind"] in {"dropped", "silent"} and loss["commit_ms"] < hour.to_ms for loss in truth.losses)
    return quiet and reasons <= {"reconciliation"}
