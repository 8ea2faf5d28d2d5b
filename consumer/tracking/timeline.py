"""One record's life, from what Kafka keeps of it: ``changes``, ``history``, ``state`` and the loss windows.

Where sharing becomes known, its grants and revocations are one more argument of :func:`build`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from consumer.changes.record_ids import to_18
from consumer.tracking.coverage_report import Label, Window
from consumer.tracking.timeline_stays import doubted, stays_of
from consumer.tracking.timeline_values import LIFE, Change, FieldFact, LifeEvent, State, Stay, time_of, value_at

_CHECK_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_NO_FACTS = frozenset({"LastModifiedDate", "LastModifiedById", "SystemModstamp"})
_CREATED = "created"

RECYCLE_BIN_MS = 15 * 86_400_000
"""How long a deleted record can be undeleted (Salesforce Help "Recycle Bin"); that can be lost like any change."""

STAYS = ("Status", "OwnerId")
"""Fields whose values are shown as stretches of time."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is known of one record.

    Attributes:
        created_ms: when it was created, None if not known.
        deleted_ms: when it was deleted or found gone, None if it is there or that is not known.
        life: creation, deletions and undeletions that are kept.
        stays: for each of :data:`STAYS` that the record has, its values in order.
        facts: every field change that is kept, in order.
        windows: loss windows that lack something and touch the record in its life, or while it could be undeleted.
    """

    record_id: str
    entity: str
    created_ms: int | None
    created_by: str | None
    deleted_ms: int | None
    life: tuple[LifeEvent, ...]
    stays: Mapping[str, tuple[Stay, ...]]
    facts: tuple[FieldFact, ...]
    windows: tuple[Window, ...]
    changes: tuple[Change, ...]
    state: State | None


def candidate_ids(text: str) -> tuple[str, ...]:
    """Return the 18-character ids that an id as typed may mean, the likeliest first.

    The check characters of 18 tell which letters are upper-case (Salesforce Object Reference "Field Types"), so both
    a wrong check and letters whose case was lost can be put right.

    Raises:
        ValueError: it is no record id; the message does not repeat it.
    """
    given = to_18(text)
    corrected = [given, to_18(given[:15])]
    if len(text) == 18:
        corrected += _recased(given)
    return tuple(dict.fromkeys(corrected))


def _recased(record_id: str) -> list[str]:
    bits = [_CHECK_CHARACTERS.find(check) for check in record_id[15:].upper()]
    if -1 in bits:
        return []
    chars = [char.upper() if bits[at // 5] >> at % 5 & 1 else char.lower() for at, char in enumerate(record_id[:15])]
    rebuilt = to_18("".join(chars))
    return [rebuilt] if rebuilt[15:] == record_id[15:].upper() else []


def build(
    record_id: str,
    entity: str,
    changes: Iterable[Change],
    facts: Iterable[FieldFact],
    state: State | None,
    windows: Iterable[Window],
    *,
    history_from_ms: int | None = None,
) -> Timeline:
    """Return what is known of a record.

    Args:
        record_id: 18-character id.
        entity: object API name.
        changes: its ``changes`` records, in the order of their partition.
        facts: its ``history`` records, likewise, all revisions.
        state: its newest ``state``, None if there is none.
        windows: the loss windows of the channels that carry the object.
        history_from_ms: older ``history`` records were dropped, and those since then are kept; None if none was.
    """
    ordered = _in_order(changes)
    newest = _newest(facts) or _from_changes(ordered)
    life = _life(ordered, newest)
    created_ms, created_by = _creation(ordered, newest, state)
    last = life[-1] if life else None
    deleted_ms = last.at_ms if last is not None and last.what in {"deleted", "vanished"} else None
    touching = tuple(
        each
        for each in windows
        if each.label is not Label.COMPLETE
        and each.touches(record_id, entity)
        and (created_ms is None or each.interval[1] > created_ms)
        and (deleted_ms is None or each.interval[0] <= deleted_ms + RECYCLE_BIN_MS)
    )
    fields = tuple(each for each in newest if each.field != _CREATED)
    whole_since = created_ms if history_from_ms is None or (created_ms or 0) >= history_from_ms else None
    stays = {
        name: stays_of(name, whole_since, created_by, ordered, [each for each in fields if each.field == name], state)
        for name in STAYS
    }
    certain = {name: tuple(doubted(name, stay, touching) for stay in of) for name, of in stays.items() if of}
    return Timeline(
        record_id=record_id,
        entity=entity,
        created_ms=created_ms,
        created_by=created_by,
        deleted_ms=deleted_ms,
        life=tuple(life),
        stays=certain,
        facts=fields,
        windows=touching,
        changes=tuple(ordered),
        state=state,
    )


def _in_order(changes: Iterable[Change]) -> list[Change]:
    """Drop repeats and sort by version: the order within a record is this number and nothing else."""
    first: dict[str, Change] = {}
    for change in changes:
        first.setdefault(change.change_id, change)
    ordered = list(first.values())
    if all(change.version is not None for change in ordered):
        ordered.sort(key=lambda change: change.version or 0)
    return ordered


def _newest(facts: Iterable[FieldFact]) -> list[FieldFact]:
    """Keep the highest revision of each fact; those of equal time stay in the order they were first told."""
    newest: dict[str, FieldFact] = {}
    for fact in facts:
        known = newest.get(fact.change_id)
        if known is None or fact.revision > known.revision:
            newest[fact.change_id] = fact
    return sorted(newest.values(), key=lambda fact: fact.at_ms)


def _from_changes(changes: Iterable[Change]) -> list[FieldFact]:
    """Tell the field changes by the images, where ``history`` has nothing of the record."""
    facts = []
    for change in changes:
        if change.op not in {"u", "r"} or change.before is None or change.late:
            continue
        for path in change.changed_fields:
            if path in _NO_FACTS:
                continue
            old_known, old = value_at(change.before, path)
            new_known, new = value_at(change.after or {}, path)
            values = "not_stored" if not new_known else "known" if old_known else "old_unknown"
            told = FieldFact(
                change_id=f"{change.change_id}:{path}",
                revision=1,
                at_ms=change.stamp_ms,
                precision="s",
                field=path,
                old=old,
                new=new,
                values=values,
                old_label=None,
                new_label=None,
                by=change.by,
                match=None,
                final=False,
                origin="resync" if change.row else "change_event",
                event_id=change.event_id,
                window_id=change.window_id,
            )
            facts.append(told)
    return sorted(facts, key=lambda fact: fact.at_ms)


def _life(changes: Sequence[Change], facts: Iterable[FieldFact]) -> list[LifeEvent]:
    life = [
        LifeEvent(change.stamp_ms, what, change.by, change.change_id)
        for change in changes
        if (what := LIFE.get(change.change_type or "")) is not None
    ]
    if not any(each.what == "created" for each in life):
        created = (fact for fact in facts if fact.field == _CREATED)
        life[:0] = [LifeEvent(fact.at_ms, "created", fact.by, fact.change_id) for fact in created][:1]
    return life


def _creation(
    changes: Sequence[Change], facts: Sequence[FieldFact], state: State | None
) -> tuple[int | None, str | None]:
    images = [image for change in changes for image in (change.after, change.before) if image]
    if state is not None:
        images.append(state.image)
    by = next((image["CreatedById"] for image in images if image.get("CreatedById")), None)
    for image in images:
        at_ms = time_of(image.get("CreatedDate"))
        if at_ms is not None:
            return at_ms, by
    for fact in facts:
        if fact.field == _CREATED:
            return fact.at_ms, by or fact.by
    # The stamp of a repaired creation is that of the row, which may have changed since.
    made = next((each for each in changes if each.change_type == "CREATE" and not each.row), None)
    return (made.stamp_ms, by or made.by) if made is not None else (None, by)
