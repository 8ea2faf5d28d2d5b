"""Records of the ``access`` topics: the share rows of one record now (``schemas/access.json``).

They are read by the outside and by this service itself, which restores from them. What has its usual value, or
follows from the rest, is left out of the fields that only the restore needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

from consumer.delivery.envelope import MAX_RECORD_BYTES
from consumer.delivery.facts import time_text
from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.internal import VERSION, InternalFields, InternalRecord, key_text
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.access import AccessState, Grantee, KnownShare


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    headers: HeaderTemplate


@lru_cache(maxsize=1024)
def _route(topics: Topics, org_id: str, entity: str) -> _Route:
    return _Route(topics.of(entity, "access"), HeaderTemplate(org_id, entity, "access"))


def encode_access(
    topics: Topics, org_id: str, access: AccessState, *, max_record_bytes: int = MAX_RECORD_BYTES
) -> OutboundRecord:
    """Return the record of a record's known shares.

    One that would be too large is ``truncated``: it loses the names of grantees; then LastModifiedDate of the rows,
    which the next reading brings again; then as many shares as need be: it is no longer ``complete``, and once it was
    read back, the next reading of the rows tells of those again. It never loses when a share that is kept was seen and
    missed: that decides when it is said to be revoked.

    Args:
        topics: the deployment's topic names.
        org_id: 18-character org id.
        access: what is known.
        max_record_bytes: limit of the value, bytes.

    Raises:
        ConfigError: the object's name is not one that a topic can have.
    """
    route = _route(topics, org_id, access.entity)
    value = json_bytes(_fields(access))
    if len(value) > max_record_bytes:
        value = _cut(access, max_record_bytes)
    key = access.record_id.encode()
    access_id = f"access:{access.record_id}:{access.as_of_ms}:{crc32(value):08x}"
    return OutboundRecord(
        route.topic, key, value, route.headers.build(access_id, key, access.as_of_ms, access.as_of_ms)
    )


def access_tombstone(topics: Topics, entity: str, record_id: str) -> OutboundRecord:
    """Return the record that forgets a record's shares; it has no headers.

    Raises:
        ConfigError: the object's name is not one that a topic can have.
    """
    return OutboundRecord(topics.of(entity, "access"), record_id.encode(), None)


def decode_access(key: bytes, value: bytes) -> AccessState:
    """Return what a record as read says is known.

    Raises:
        ForeignStateError: it is of a newer version, or not one of this service.
    """
    record_id = key_text(key)
    record = InternalRecord(record_id, value)
    shares = tuple(_share(InternalFields(record, each)) for each in record.objects("shares"))
    return AccessState(record.text("entity"), record_id, shares, record.flag("complete"), record.number("as_of_ms"))


def _fields(access: AccessState, *, names: bool = True, modified: bool = True) -> dict[str, Json]:
    return {
        "v": VERSION,
        "entity": access.entity,
        "record_id": access.record_id,
        "shares": [_share_fields(each, access, names=names, modified=modified) for each in access.shares],
        "complete": access.complete,
        "as_of": iso_utc(access.as_of_ms),
        "as_of_ms": access.as_of_ms,
    }


def _share_fields(share: KnownShare, access: AccessState, *, names: bool, modified: bool) -> dict[str, Json]:
    grantee = share.grantee
    start_ms, end_ms = share.since
    not_before, not_after = time_text(start_ms), iso_utc(end_ms)
    told = not_after is not None and (not_before is None) == (start_ms is None)
    fields: dict[str, Json] = {
        "user_or_group_id": share.user_or_group_id,
        "grantee_type": None if grantee is None else grantee.kind,
        "grantee_name": None if grantee is None or not names else grantee.name,
        "row_cause": share.row_cause or None,
        "access_level": share.access_level,
        "since": not_after,
        "since_not_before": not_before,
        "share_id": share.share_id,
    }
    usual = (
        ("modified_ms", share.modified_ms if modified else None, None),
        ("seen_ms", share.seen_ms, access.as_of_ms),
        ("missing_ms", share.missing_ms, None),
        ("missed_again_ms", share.missed_again_ms, None),
        # Only for times that no text can tell.
        ("since_ms", None if told else list(share.since), None),
    )
    fields |= {name: value for name, value, left_out in usual if value != left_out}
    return fields


def _share(fields: InternalFields) -> KnownShare:
    kind = fields.optional_text("grantee_type")
    return KnownShare(
        fields.text("user_or_group_id"),
        fields.optional_text("row_cause") or "",
        fields.text("access_level"),
        fields.text("share_id"),
        None if kind is None else Grantee(kind, fields.optional_text("grantee_name")),
        _since(fields),
        fields.optional_number("modified_ms"),
        fields.number("seen_ms", fields.whole.number("as_of_ms")),
        fields.optional_number("missing_ms"),
        fields.optional_number("missed_again_ms"),
    )


def _since(fields: InternalFields) -> tuple[int | None, int]:
    if fields.has("since_ms"):
        return fields.interval("since_ms")
    return fields.moment("since_not_before") if fields.has("since_not_before") else None, fields.moment("since")


def _cut(access: AccessState, limit: int) -> bytes:
    """Encode again without names, then without what the next reading brings, then with only as many shares as fit."""
    for modified in (True, False):
        small: Mapping[str, Json] = _fields(access, names=False, modified=modified)
        value = json_bytes({**small, "truncated": True})
        if len(value) <= limit:
            return value
    kept = small["shares"]
    while kept:
        kept = kept[: min(len(kept) - 1, len(kept) * limit // len(value))]
        value = json_bytes({**small, "shares": kept, "complete": False, "truncated": True})
        if len(value) <= limit:
            break
    return value
