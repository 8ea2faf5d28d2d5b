"""The emulated org's truth about sharing against what a read-committed reader of ``sharing`` and ``access`` sees.

Shares no code with the service. A share is identified by record, grantee and row cause; the truth of one is a list of
spans, each with its level. Every transition between them must be told once, and nothing else may be told.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from tests.contract.topic_schemas import RecordShapeError, kind_of, validate_record
from tests.kafka_reader import ReadRecord

Identity: TypeAlias = tuple[str, str, str]
"""Record, grantee, row cause."""

Gaps: TypeAlias = Mapping[Identity, Sequence[tuple[int, int]]]
"""From when to when a row was away, epoch milliseconds of the org's time."""

_SHOWN = 8
_ANSWER_MS = 10_000
_LOOKED_AT = 20
"""One ledger record in so many is held against its schema: there is one for each change."""
_CHECKED = frozenset({"sharing", "access", "sharing-rules", "feed", "ledger"})


class Span(NamedTuple):
    """A share had a level: from <= time < to; ``to_ms`` None goes on."""

    level: str
    from_ms: int
    to_ms: int | None


class Step(NamedTuple):
    """A transition of one share in the truth: the level it has since then, None where it is gone."""

    level: str | None
    at_ms: int


class Fact(NamedTuple):
    """One record of the ``sharing`` topic."""

    fact_id: str
    kind: str
    level: str | None
    from_ms: int | None
    to_ms: int
    cause: str


@dataclass(frozen=True, slots=True)
class Patience:
    """What no reading can see: a share that came and went, or went and came back, between two of them.

    Attributes:
        come_and_gone_ms: longest life of a share that nobody need have seen: polls would have.
        away_ms: longest absence that nobody need have seen: sweeps would have.
    """

    come_and_gone_ms: int
    away_ms: int


@dataclass(slots=True)
class SharingVerdict:
    """What the comparison found; every list says precisely what is wrong."""

    facts: list[str] = field(default_factory=list)
    final: list[str] = field(default_factory=list)
    moments: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> dict[str, list[str]]:
        """Everything that must be empty."""
        names = ("facts", "final", "moments", "malformed")
        return {name: found for name in names if (found := getattr(self, name))}

    def __str__(self) -> str:
        lines = [", ".join(f"{count} {name}" for name, count in sorted(self.counted.items()))]
        for name, found in self.faults.items():
            lines.append(f"{len(found)} {name}")
            lines += [f"    {each}" for each in found[:_SHOWN]]
        return "\n  ".join(lines)

    def require_clean(self) -> None:
        """Raise AssertionError, with what was found, unless every promise was kept."""
        assert not self.faults, str(self)


@dataclass(frozen=True, slots=True)
class Told:
    """What the topics say.

    Attributes:
        facts: by identity, in the order of their partition.
        unseen: by record, spans that are said to be unseen.
        access: newest value of the ``access`` topic by record.
    """

    facts: dict[Identity, list[Fact]]
    unseen: dict[str, list[tuple[int, int]]]
    access: dict[str, Mapping[str, Any]]


def lives_of(lines: Iterable[Mapping[str, Any]]) -> dict[Identity, list[Span]]:
    """Return the truth by identity, from the lines of ``GET /control/oracle/shares``."""
    lives: dict[Identity, list[Span]] = defaultdict(list)
    for line in lines:
        identity = (line["parent_id"], line["user_or_group_id"], line["row_cause"])
        lives[identity].append(Span(line["access_level"], line["from_ms"], line["to_ms"]))
    for spans in lives.values():
        spans.sort(key=lambda span: span.from_ms)
    return lives


def gaps_of(lines: Iterable[Mapping[str, Any]]) -> Gaps:
    """Return when recalculations had rows away, from the lines of ``GET /control/oracle/share_gaps``."""
    gaps: dict[Identity, list[tuple[int, int]]] = defaultdict(list)
    for line in lines:
        gaps[line["parent_id"], line["user_or_group_id"], line["row_cause"]].append((line["from_ms"], line["to_ms"]))
    return gaps


def steps_of(spans: Sequence[Span]) -> list[Step]:
    """Return the transitions of one share."""
    steps: list[Step] = []
    for number, span in enumerate(spans):
        before = spans[number - 1] if number else None
        if before is not None and before.to_ms == span.from_ms:
            steps[-1] = Step(span.level, span.from_ms)
        else:
            steps.append(Step(span.level, span.from_ms))
        if span.to_ms is not None:
            steps.append(Step(None, span.to_ms))
    return steps


def level_at(spans: Sequence[Span], at_ms: int) -> str | None:
    """Return the level of a share at a moment, None if it was not there."""
    return next(
        (span.level for span in spans if span.from_ms <= at_ms and (span.to_ms is None or at_ms < span.to_ms)), None
    )


def read_topics(records: Iterable[ReadRecord], verdict: SharingVerdict) -> Told:
    """Return what the topics say; records of another shape than promised, and repeats, are faults."""
    told = Told(defaultdict(list), defaultdict(list), {})
    ids: set[str] = set()
    for record in records:
        kind = kind_of(record.topic)
        if kind not in _CHECKED or (kind == "ledger" and record.offset % _LOOKED_AT):
            continue
        try:
            validate_record(kind, record.key, record.value, tuple(record.headers.items()))
        except RecordShapeError as error:
            verdict.malformed.append(str(error))
            continue
        verdict.counted[f"{kind} records"] += 1
        value = None if record.value is None else json.loads(record.value)
        if kind in {"sharing", "sharing-rules", "feed"}:
            if value["id"] in ids:
                verdict.facts.append(f"told twice: {value['id']}")
            ids.add(value["id"])
        _take(told, kind, (record.key or b"").decode(), value, verdict)
    return told


def _take(told: Told, kind: str, key: str, value: Any, verdict: SharingVerdict) -> None:
    if kind == "access":
        told.access.pop(key, None)
        if value is not None:
            told.access[key] = value
    if kind != "sharing":
        return
    when = (time_ms(value["not_before"]), time_ms(value["not_after"]) or 0)
    if value["kind"] == "unseen":
        told.unseen[value["record_id"]].append((when[0] or 0, when[1]))
        return
    identity = (value["record_id"], value["user_or_group_id"], value["row_cause"] or "")
    told.facts[identity].append(Fact(value["id"], value["kind"], value["access_level"], *when, value["cause"]))
    verdict.counted[f"{value['kind']} ({value['cause']})"] += 1


def judge_facts(
    lives: Mapping[Identity, Sequence[Span]],
    told: Told,
    verdict: SharingVerdict,
    *,
    patience: Patience,
    begun_ms: int,
    gaps: Gaps,
) -> None:
    """Match every fact with a transition of the truth, and every transition with a fact.

    Args:
        lives: the truth.
        told: what the topics say.
        verdict: takes what was found.
        patience: what no reading can see.
        begun_ms: when the service first looked, epoch milliseconds of the org's time: what ended before is not told.
        gaps: when recalculations had rows away: one that was away at the first look came when it was back.
    """
    first_looks = _first_looks(lives, told, begun_ms)
    for identity in lives.keys() | told.facts.keys():
        first_look = first_looks.get(identity[0], begun_ms)
        facts = told.facts.get(identity, ())
        known_at_first = bool(facts) and facts[0].from_ms is None
        # An answer is some seconds younger than what it shows: what ended in between may be in it.
        seen_from = first_look - _ANSWER_MS if known_at_first else first_look
        spans = [span for span in lives.get(identity, ()) if span.to_ms is None or span.to_ms > seen_from]
        steps = steps_of(spans)
        verdict.counted["true steps"] += len(steps)
        came_ms = max(
            (end for start, end in gaps.get(identity, ()) if start <= first_look and end >= first_look - _ANSWER_MS),
            default=0,
        )
        _Matching(identity, steps, told.unseen.get(identity[0], ()), verdict, patience, came_ms).match(facts)


def _first_looks(lives: Mapping[Identity, Sequence[Span]], told: Told, begun_ms: int) -> dict[str, int]:
    """Return by record when it was first read, if that was not when the service began.

    A record that was there before, and that the first sweep did not have (its newest rows were not visible yet), was
    first read when the first fact about it ends; likewise one of which something is told that may always have been so.
    One of which nothing was told at all may have gone before the first sweep came to it, so no later than the last
    baseline.
    """
    first_looks: dict[str, int] = {}
    always: set[str] = set()
    through_ms = begun_ms
    for (record_id, *_), facts in told.facts.items():
        for fact in facts:
            first_looks[record_id] = min(fact.to_ms, first_looks.get(record_id, fact.to_ms))
            if fact.from_ms is None:
                always.add(record_id)
            if fact.cause == "baseline":
                through_ms = max(through_ms, fact.to_ms)
    there_before = {identity[0] for identity, spans in lives.items() if spans[0].from_ms < begun_ms}
    return {record_id: first_looks.get(record_id, through_ms) for record_id in there_before | always}


class _Matching:
    """Matches the facts of one share with its transitions, in their order."""

    def __init__(
        self,
        identity: Identity,
        steps: Sequence[Step],
        unseen: Sequence[tuple[int, int]],
        verdict: SharingVerdict,
        patience: Patience,
        came_ms: int,
    ) -> None:
        self._came_ms = came_ms
        self._identity = identity
        self._steps = steps
        self._unseen = unseen
        self._verdict = verdict
        self._patience = patience

    def match(self, facts: Iterable[Fact]) -> None:
        """Find for each fact the transition it tells, and look at those that none tells."""
        place, level = 0, None
        for fact in facts:
            after = None if fact.kind == "revoked" else fact.level
            kind = "granted" if level is None else "revoked" if after is None else "level_changed"
            if fact.kind != kind or after == level:
                self._fault(f"{fact} does not follow {level}")
                return
            number = self._found(fact, after, place)
            if number is None:
                self._fault(f"{fact} tells what never happened; left: {self._steps[place : place + 6]}")
                return
            if fact.from_ms is not None:
                self._passed_over(place, number, level, fact.from_ms)
            self._verdict.counted["facts that are true"] += 1
            place, level = number + 1, after
        self._passed_over(place, len(self._steps), level, None)

    def _found(self, fact: Fact, after: str | None, place: int) -> int | None:
        from_ms = float("-inf") if fact.from_ms is None else fact.from_ms
        fitting = [
            number
            for number in range(place, len(self._steps))
            if self._steps[number].level == after and from_ms <= self._steps[number].at_ms <= fact.to_ms
        ]
        if not fitting:
            return None
        return fitting[-1] if fact.from_ms is None else fitting[0]

    def _passed_over(self, start: int, end: int, level: str | None, from_ms: int | None) -> None:
        """Look at transitions that no fact tells: merged into the next one's interval, or too short to be seen."""
        skipped = list(self._steps[start:end])
        if from_ms is not None and all(step.at_ms >= from_ms for step in skipped):
            self._verdict.counted["steps merged into an interval"] += len(skipped)
            return
        away = level
        following = self._steps[end] if end < len(self._steps) else None
        while skipped:
            first = skipped.pop(0)
            back = next((number for number, step in enumerate(skipped) if step.level == away), None)
            if back is None:
                if away is not None and not skipped and following is not None and first.level is None:
                    # Away for a moment as a flicker is, and back with another level, which is told.
                    self._excuse(first, following, gone=True)
                    return
                if from_ms is None or any(step.at_ms < from_ms for step in (first, *skipped)):
                    self._fault(f"never told: {[first, *skipped][:6]} after {level}")
                return
            self._excuse(first, skipped[back], gone=away is not None)
            del skipped[: back + 1]

    def _excuse(self, first: Step, second: Step, *, gone: bool) -> None:
        limit_ms = self._patience.away_ms if gone else self._patience.come_and_gone_ms
        since_ms = first.at_ms if gone else max(first.at_ms, self._came_ms)
        if any(start <= first.at_ms and second.at_ms <= end for start, end in self._unseen):
            self._verdict.counted["flickers inside unseen spans"] += 1
        elif second.at_ms - since_ms <= limit_ms:
            self._verdict.counted["flickers between two readings"] += 1
        else:
            self._fault(f"never told: {first} and {second}")

    def _fault(self, what: str) -> None:
        self._verdict.facts.append(f"{self._identity}: {what}")


def judge_final(lives: Mapping[Identity, Sequence[Span]], told: Told, verdict: SharingVerdict) -> None:
    """Compare what ``sharing`` replayed and ``access`` say of now with the rows there are."""
    true = {identity: spans[-1].level for identity, spans in lives.items() if spans and spans[-1].to_ms is None}
    replayed: dict[Identity, str | None] = {}
    for identity, facts in told.facts.items():
        if facts[-1].kind != "revoked":
            replayed[identity] = facts[-1].level
    verdict.counted["rows now"] += len(true)
    for identity in true.keys() | replayed.keys():
        if true.get(identity) != replayed.get(identity):
            verdict.final.append(f"{identity}: rows say {true.get(identity)}, sharing {replayed.get(identity)}")
    now = {
        (record_id, share["user_or_group_id"], share["row_cause"] or ""): share["access_level"]
        for record_id, value in told.access.items()
        for share in value["shares"]
    }
    for identity in true.keys() | now.keys():
        if true.get(identity) != now.get(identity):
            verdict.final.append(f"{identity}: rows say {true.get(identity)}, access {now.get(identity)}")


def time_ms(text: str | None) -> int | None:
    """Return an ISO time as epoch milliseconds, None for none."""
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)
