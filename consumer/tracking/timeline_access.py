"""Who had explicit access to one record at a time that has passed: yes, no, or unknown between two times.

A fact of ``sharing`` happened at some moment of its interval; inside of it nobody knows. Outside, the facts before it
hold, as far as somebody looked: until the record's rows were last read, or the last complete sweep began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from consumer.events import Json
from consumer.tracking.timeline_values import time_of

Identity: TypeAlias = tuple[str, str | None]
"""Grantee and row cause; with the record, what a share is identified by."""

NOT_INCLUDED: Final = (
    "org-wide default",
    "role hierarchy",
    "View All and Modify All permissions",
)
"""What gives access without a share row (Salesforce sharing guide)."""


_ANSWER_MS: Final = 10_000
"""Rows are of some moment between question and answer, and ``as_of`` tells the question alone."""


@dataclass(frozen=True, slots=True)
class AccessFact:
    """One record of ``sharing``; names as in ``schemas/sharing.json``, times in epoch milliseconds."""

    fact_id: str
    kind: str
    user_or_group_id: str | None
    grantee_type: str | None
    grantee_name: str | None
    row_cause: str | None
    level: str | None
    previous: str | None
    from_ms: int | None
    to_ms: int
    by: str | None
    cause: str

    @property
    def identity(self) -> Identity:
        """Whose share it is about."""
        return self.user_or_group_id or "", self.row_cause


@dataclass(frozen=True, slots=True)
class ShareNow:
    """One share of the ``access`` record.

    Attributes:
        since: in which interval it came to have this level; a None start: nobody knows since when.
        seen_ms: it was there for certain then.
        missing: whether a reading missed it, and no later one has decided yet.
    """

    user_or_group_id: str
    grantee_type: str | None
    grantee_name: str | None
    row_cause: str | None
    level: str
    since: tuple[int | None, int]
    seen_ms: int
    missing: bool

    @property
    def identity(self) -> Identity:
        """Whose share it is."""
        return self.user_or_group_id, self.row_cause


@dataclass(frozen=True, slots=True)
class AccessNow:
    """The ``access`` record: the shares as they were read last."""

    shares: tuple[ShareNow, ...]
    complete: bool
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Access:
    """What Kafka tells of the access to one record.

    Attributes:
        facts: in the order of their partition, each once; ``unseen`` ones are not among them.
        unseen: spans in which owner changes followed each other unseen.
        now: the newest ``access`` record, None if there is none.
        looked_ms: from when on all its shares are known, None if they never were.
        checked_ms: up to when what the facts say was looked at, None if never; the end of time for a record that is
            gone with all its shares.
        kept_from_ms: older facts were dropped by retention, and those since then are kept; None if none was.
        created_ms: when the record was created: nobody had access before. None if that is not known.
    """

    facts: tuple[AccessFact, ...]
    unseen: tuple[tuple[int, int], ...]
    now: AccessNow | None
    looked_ms: int | None
    checked_ms: float | None
    kept_from_ms: int | None
    created_ms: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether somebody had access by a share at a time.

    Attributes:
        level: if so, which.
        from_ms, to_ms: of ``unknown``: between which times nobody knows; None is open.
    """

    user_or_group_id: str
    grantee_type: str | None
    grantee_name: str | None
    row_cause: str | None
    answer: Literal["yes", "no", "unknown"]
    level: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


def read_share_fact(value: Mapping[str, Json]) -> AccessFact:
    """Return a record of ``sharing``."""
    return AccessFact(
        fact_id=value["id"],
        kind=value["kind"],
        user_or_group_id=value["user_or_group_id"],
        grantee_type=value["grantee_type"],
        grantee_name=value["grantee_name"],
        row_cause=value["row_cause"],
        level=value["access_level"],
        previous=value["previous_access_level"],
        from_ms=time_of(value["not_before"]),
        to_ms=time_of(value["not_after"]) or 0,
        by=value["changed_by"],
        cause=value["cause"],
    )


def read_access(value: Mapping[str, Json]) -> AccessNow:
    """Return a record of ``access``."""
    as_of_ms = int(value["as_of_ms"])
    shares = tuple(
        ShareNow(
            user_or_group_id=each["user_or_group_id"],
            grantee_type=each["grantee_type"],
            grantee_name=each["grantee_name"],
            row_cause=each["row_cause"],
            level=each["access_level"],
            since=(time_of(each["since_not_before"]), time_of(each["since"]) or 0),
            seen_ms=int(each.get("seen_ms", as_of_ms)),
            missing=each.get("missing_ms") is not None,
        )
        for each in value["shares"]
    )
    return AccessNow(shares, bool(value["complete"]), as_of_ms)


def access_of(
    facts: Iterable[AccessFact],
    now: AccessNow | None,
    swept_ms: int | None,
    kept_from_ms: int | None,
    *,
    created_ms: int | None = None,
    deleted: bool = False,
) -> Access:
    """Return what is known of the access to a record.

    Args:
        facts: its ``sharing`` records, in the order of their partition.
        now: its ``access`` record, None if there is none.
        swept_ms: when the last complete sweep of the object began, None before the first. It must have been read
            before the facts and ``now``: a sweep that ended in between vouches for facts that are not among these.
        kept_from_ms: older ``sharing`` records were dropped, and those since then are kept; None if none was.
        created_ms: when the record was created, None if that is not known.
        deleted: whether it is deleted.
    """
    first: dict[str, AccessFact] = {}
    for fact in facts:
        first.setdefault(fact.fact_id, fact)
    told = tuple(fact for fact in first.values() if fact.kind != "unseen")
    unseen = tuple((fact.from_ms or 0, fact.to_ms) for fact in first.values() if fact.kind == "unseen")
    return Access(
        told,
        unseen,
        now,
        _first_look(told, now),
        _last_look(told, now, swept_ms, deleted=deleted),
        kept_from_ms,
        created_ms,
    )


def _first_look(facts: Sequence[AccessFact], now: AccessNow | None) -> int | None:
    """Return from when on all shares are known.

    A fact without a start says that nobody knows since when it was so, and who else had a share before that nobody
    knows either. Where there is none, the rows were read with the first fact at the latest.
    """
    first = [fact.to_ms for fact in facts if fact.from_ms is None]
    if first:
        return max(first)
    if facts:
        return min(fact.to_ms for fact in facts)
    return None if now is None or not now.complete else now.as_of_ms + _ANSWER_MS


def _last_look(
    told: Sequence[AccessFact], now: AccessNow | None, swept_ms: int | None, *, deleted: bool
) -> float | None:
    """Return up to when it is known who had a share."""
    swept = [] if swept_ms is None else [swept_ms]
    if now is not None:
        return max([now.as_of_ms, *swept]) if now.complete else None
    if not told:
        return None
    # Every share was seen to go, and of a record that is gone none can come any more.
    return float("inf") if deleted else max([*(fact.to_ms for fact in told), *swept])


def access_at(access: Access, at_ms: int) -> list[Answer]:
    """Return for everybody who is known to have had a share what it was at a time, epoch milliseconds."""
    return [_answer(access, identity, at_ms) for identity in identities(access)]


def grantee_at(access: Access, grantee: str, at_ms: int) -> list[Answer]:
    """Return what shares somebody had at a time, one answer for each row cause; if none is known, one answer.

    Args:
        access: what is known.
        grantee: 18-character user or group id.
        at_ms: epoch milliseconds.
    """
    found = [each for each in access_at(access, at_ms) if each.user_or_group_id == grantee]
    return found or [_answer(access, (grantee, None), at_ms)]


def identities(access: Access) -> list[Identity]:
    """Return the identities of all shares that are known to be or have been."""
    now = () if access.now is None else access.now.shares
    return list(dict.fromkeys([*(fact.identity for fact in access.facts), *(share.identity for share in now)]))


def _answer(access: Access, identity: Identity, at_ms: int) -> Answer:
    facts = [fact for fact in access.facts if fact.identity == identity]
    share = None
    if access.now is not None:
        share = next((each for each in access.now.shares if each.identity == identity), None)
    named = share or (facts[-1] if facts else None)
    kind, name = (None, None) if named is None else (named.grantee_type, named.grantee_name)
    told = _told(access, facts, share, at_ms)
    if isinstance(told, _Unknown):
        return Answer(identity[0], kind, name, identity[1], "unknown", None, told.from_ms, told.to_ms)
    return Answer(identity[0], kind, name, identity[1], "no" if told is None else "yes", told)


@dataclass(frozen=True, slots=True)
class _Unknown:
    from_ms: int | None
    to_ms: int | None


def _told(access: Access, facts: Sequence[AccessFact], share: ShareNow | None, at_ms: int) -> str | _Unknown | None:
    """Return the level at a time, None for no access, or between which times nobody knows."""
    if access.created_ms is not None and at_ms < access.created_ms:
        return None
    unknown = _within(access, facts, at_ms) or _unchecked(access, facts, share, at_ms)
    if unknown is not None:
        return unknown
    before = [fact for fact in facts if fact.to_ms <= at_ms]
    if before:
        return None if before[-1].kind == "revoked" else before[-1].level
    return _before_first(access, facts, share, at_ms)


def _within(access: Access, facts: Sequence[AccessFact], at_ms: int) -> _Unknown | None:
    """Return the interval of a fact, or the unseen span, that a time lies in."""
    spans = [*((fact.from_ms, fact.to_ms) for fact in facts), *access.unseen]
    for from_ms, to_ms in spans:
        if (from_ms is None or from_ms <= at_ms) and at_ms < to_ms:
            return _Unknown(from_ms, to_ms)
    return None


def _unchecked(access: Access, facts: Sequence[AccessFact], share: ShareNow | None, at_ms: int) -> _Unknown | None:
    """Return since when nobody has looked, if a time is later.

    A single row that was read since then says nothing of the time in between: it may have gone and come back.
    """
    if share is not None and share.missing and at_ms >= share.seen_ms:
        return _Unknown(share.seen_ms, None)
    now = access.now
    if now is not None and now.complete and share is None and facts and facts[-1].kind != "revoked":
        # The rows say that it went, and the fact that says when was not among those that were read.
        return _Unknown(facts[-1].to_ms, None) if at_ms >= facts[-1].to_ms else None
    checked_ms = access.checked_ms
    if checked_ms is None or at_ms > checked_ms:
        return _Unknown(None if checked_ms is None else int(checked_ms), None)
    return None


def _before_first(
    access: Access, facts: Sequence[AccessFact], share: ShareNow | None, at_ms: int
) -> str | _Unknown | None:
    """Return what was before the first fact that is kept."""
    if not facts and share is not None:
        # Its fact was dropped, and this is what is left of it.
        start_ms, end_ms = share.since
        if at_ms >= end_ms:
            return share.level
        if start_ms is None or at_ms >= start_ms:
            return _Unknown(start_ms, end_ms)
    if access.kept_from_ms is not None and at_ms < access.kept_from_ms:
        return _Unknown(None, access.kept_from_ms)
    if facts and facts[0].kind != "granted":
        # That it was there a fact told that was dropped, and so long before.
        return facts[0].previous if facts[0].kind == "level_changed" else facts[0].level
    if access.looked_ms is None or at_ms < access.looked_ms:
        return _Unknown(None, access.looked_ms)
    return None
