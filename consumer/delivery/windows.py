"""Loss windows: the facts that leave a span unproven, each turned into one :class:`LossWindow`.

The window id is a function of the fact, so that stating a fact twice (after a failed transaction, or when an
event comes again) opens one window, not two.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable
from hashlib import sha256

from consumer.delivery.names import entity_of_channel
from consumer.errors import EventError, SchemaRefusedError, SchemaUnavailableError, ServiceError
from consumer.events import ChangeEvent, ChangeType, Json, LossWindow, ReceivedEvent
from consumer.position import Position, Preset

STREAM_PREFIX = "changes:"

COMMIT_PRECISION_MS = 999
"""Commit times were only ever seen in whole seconds (Pub/Sub API guide, real payloads)."""

MAX_SCOPE = 10_000
"""Ids a window names at most: its record must fit a Kafka message, and a scan is cheaper than so many reads by id."""

_GAPS = {
    ChangeType.GAP_CREATE: "gap_create",
    ChangeType.GAP_UPDATE: "gap_update",
    ChangeType.GAP_UNDELETE: "gap_undelete",
}
_TOLD = frozenset({ChangeType.CREATE, ChangeType.UPDATE, ChangeType.DELETE, ChangeType.UNDELETE, ChangeType.GAP_DELETE})
_RECORD_ID = re.compile(r"[A-Za-z0-9]{18}")
_PLACEHOLDER = re.compile(r"0{15}[A-Za-z0-9]{3}")


def stream_of(channel: str) -> str:
    """Return the coverage stream of a channel: ``changes:<channel>``."""
    return STREAM_PREFIX + channel


def channel_of(window: LossWindow) -> str:
    """Return the channel a window belongs to."""
    return window.stream.removeprefix(STREAM_PREFIX)


def is_record_id(text: str) -> bool:
    """Return whether this is the 18-character id of one record: no wildcard, no all-zero placeholder."""
    return _RECORD_ID.fullmatch(text) is not None and _PLACEHOLDER.fullmatch(text) is None


def window_for_change(change: ChangeEvent) -> LossWindow | None:
    """Return the window an event opens, None for one that tells all its changes.

    GAP_CREATE, GAP_UPDATE and GAP_UNDELETE leave their records in doubt; GAP_OVERFLOW, wildcards and events
    that name no record leave the whole object in doubt (CDC developer guide "Gap Events", "Overflow Events").
    A change type this version does not know is taken for a gap.
    """
    nameless = bool(change.wildcard_ids) or not change.record_ids
    if change.change_type in _TOLD:
        if not nameless:
            return None
        reason, whole = "wildcard", True
    elif change.change_type == ChangeType.GAP_OVERFLOW:
        reason, whole = "gap_overflow", True
    else:
        reason, whole = _gap_reason(change.change_type), nameless
    header = change.header
    return LossWindow(
        window_id=f"gap:{change.received.event_id}",
        stream=stream_of(change.received.topic),
        reason=reason,
        from_ms=header.commit_ms,
        to_ms=header.commit_ms + COMMIT_PRECISION_MS,
        record_ids=() if whole else change.record_ids,
        entity=header.entity,
        event_id=change.received.event_id,
        detail={
            "change_type": change.change_type,
            "transaction_key": header.transaction_key,
            "sequence_number": header.sequence_number,
            "wildcard_ids": list(change.wildcard_ids),
        },
    )


def quarantine_reason(error: ServiceError) -> str:
    """Return why an event went to quarantine, in the words of ``schemas/quarantine.json``."""
    if isinstance(error, EventError):
        return error.reason
    if isinstance(error, SchemaRefusedError):
        return "schema_refused"
    if isinstance(error, SchemaUnavailableError):
        return "schema_unavailable"
    return "event"


def window_for_quarantine(event: ReceivedEvent, error: ServiceError) -> LossWindow:
    """Return the window that a quarantined event opens, or keeps open when it was retried in vain.

    Its span is the moment of receipt, because the commit time could not be trusted or read. Ids the error
    could read become the scope, unless one of them names no single record.
    """
    ids = tuple(dict.fromkeys(error.record_ids if isinstance(error, EventError) else ()))
    whole = not all(map(is_record_id, ids))
    return LossWindow(
        window_id=event.window_id or f"quarantine:{event.event_id}",
        stream=stream_of(event.topic),
        reason=quarantine_reason(error),
        from_ms=event.received_ms,
        to_ms=event.received_ms,
        record_ids=() if whole else ids,
        entity=entity_of_channel(event.topic),
        event_id=event.event_id,
        detail={
            "message": error.message,
            "schema_id": event.schema_id,
            "replay_id": _base64(event.replay_id),
        },
    )


def window_for_lost_position(
    channel: str,
    old_position: Position,
    last_event_ms: int | None,
    now_ms: int,
    code: str,
    *,
    preset: Preset = Preset.EARLIEST,
) -> LossWindow:
    """Return the window for a position that the server no longer accepts.

    Args:
        channel: the channel.
        old_position: the position that was refused.
        last_event_ms: commit time of the last committed event, None if there was none.
        now_ms: when it was refused.
        code: the server's error code, without its common prefix.
        preset: where the stream goes on. After LATEST the window stays open-ended, because LATEST takes
            effect seconds later and nothing says when.
    """
    replay_id = old_position.replay_id or b""
    return LossWindow(
        window_id=f"position:{_digest(channel.encode(), replay_id)}",
        stream=stream_of(channel),
        reason="position_lost",
        from_ms=last_event_ms,
        to_ms=now_ms if preset is Preset.EARLIEST else None,
        entity=entity_of_channel(channel),
        detail={"code": code, "old_replay_id": _base64(replay_id), "continued_at": preset.value},
    )


def window_for_first_start(channel: str, now_ms: int, *, preset: Preset = Preset.EARLIEST) -> LossWindow:
    """Return the window for all before a first start: records are known only from their next change on.

    Args:
        channel: the channel.
        now_ms: when the start was decided.
        preset: where the stream begins; after LATEST the window stays open-ended.
    """
    return LossWindow(
        window_id=f"start:{_digest(channel.encode(), str(now_ms).encode())}",
        stream=stream_of(channel),
        reason="no_snapshot",
        from_ms=None,
        to_ms=now_ms if preset is Preset.EARLIEST else None,
        entity=entity_of_channel(channel),
        detail={"started_at": preset.value},
    )


def window_for_new_object(channel: str, entity: str, at_ms: int) -> LossWindow:
    """Return the window for all before an object's first event on a channel of several objects.

    Args:
        channel: the channel.
        entity: object API name.
        at_ms: commit time of its first event, epoch milliseconds.
    """
    return LossWindow(
        window_id=f"start:{_digest(channel.encode(), entity.encode(), str(at_ms).encode())}",
        stream=stream_of(channel),
        reason="no_snapshot",
        from_ms=None,
        to_ms=at_ms,
        entity=entity,
        detail={"started_at": "first event"},
    )


def window_for_forced_position(
    channel: str,
    old_position: Position | None,
    new_position: Position,
    last_event_ms: int | None,
    now_ms: int,
    who: str,
) -> LossWindow:
    """Return the window for a position set by hand; replay ids have no order, so a step back opens one too.

    Args:
        channel: the channel.
        old_position: what was committed before, None if nothing was.
        new_position: what was set.
        last_event_ms: commit time of the last committed event, None if there was none.
        now_ms: when it was set.
        who: who set it.
    """
    old = old_position.replay_id if old_position is not None else None
    new = new_position.replay_id
    facts = (channel.encode(), old or b"", new or new_position.preset.value.encode(), str(now_ms).encode())
    detail: dict[str, Json] = {
        "old_replay_id": None if old is None else _base64(old),
        "new_replay_id": None if new is None else _base64(new),
        "continued_at": new_position.preset.value if new is None else "replay_id",
        "who": who,
    }
    return LossWindow(
        window_id=f"forced:{_digest(*facts)}",
        stream=stream_of(channel),
        reason="position_forced",
        from_ms=last_event_ms,
        to_ms=now_ms if new_position.resumable else None,
        entity=entity_of_channel(channel),
        detail=detail,
    )


def window_for_reconciliation(
    channel: str,
    entity: str,
    record_ids: Iterable[str],
    from_ms: int,
    to_ms: int,
    *,
    digest: str = "",
) -> LossWindow:
    """Return the window for records whose state does not agree with Salesforce's rows.

    Args:
        channel: the channel.
        entity: object API name.
        record_ids: the records that differ; beyond ``MAX_SCOPE`` the window stands for the whole object.
        from_ms: start of the compared hour, epoch milliseconds.
        to_ms: its end.
        digest: Salesforce's side of the comparison, so that the same hour that differs anew is another window.
    """
    ids = tuple(sorted(set(record_ids)))
    facts = (channel, entity, str(from_ms), str(to_ms), digest, *ids)
    return LossWindow(
        window_id=f"reconcile:{_digest(*(fact.encode() for fact in facts))}",
        stream=stream_of(channel),
        reason="reconciliation",
        from_ms=from_ms,
        to_ms=to_ms,
        record_ids=ids if len(ids) <= MAX_SCOPE else (),
        entity=entity,
        detail={"differing": len(ids), "digest": digest},
    )


def window_for_untold_history(
    channel: str, entity: str, record_ids: Iterable[str], from_ms: int, to_ms: int
) -> LossWindow:
    """Return the window for changes that only Salesforce's history rows tell of: their events never came.

    Args:
        channel: the channel.
        entity: object API name.
        record_ids: the records that changed.
        from_ms: time of the first of the changes, epoch milliseconds.
        to_ms: time of the last.
    """
    ids = tuple(sorted(set(record_ids)))
    facts = (channel, entity, str(from_ms), str(to_ms), *ids)
    return LossWindow(
        window_id=f"history:{_digest(*(fact.encode() for fact in facts))}",
        stream=stream_of(channel),
        reason="history_without_event",
        from_ms=from_ms,
        to_ms=to_ms + COMMIT_PRECISION_MS,
        record_ids=ids,
        entity=entity,
    )


def _gap_reason(change_type: str) -> str:
    try:
        return _GAPS.get(ChangeType(change_type), "unknown_change_type")
    except ValueError:
        return "unknown_change_type"


def _digest(*facts: bytes) -> str:
    """Return 32 hex digits of the facts; the lengths keep ("ab", "c") and ("a", "bc") apart."""
    return sha256(b"".join(_with_length(facts))).hexdigest()[:32]


def _with_length(facts: Iterable[bytes]) -> Iterable[bytes]:
    for fact in facts:
        yield len(fact).to_bytes(4, "big")
        yield fact


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")
