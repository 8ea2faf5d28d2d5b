"""Random past moments: what ``timeline --at`` answers about access, against the emulated org's truth."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consumer.cli.timeline_access import answers_json, sharing_of
from tests.contract.topic_schemas import kind_of
from tests.kafka_reader import ReadRecord
from tests.sharing_oracle import Identity, Patience, SharingVerdict, Span, level_at, time_ms

_AT_ONCE = 2
_ENTITY = "MessagingSession"
_NO: Mapping[str, Any] = {"answer": "no", "access_level": None}


@dataclass(frozen=True, slots=True)
class Moment:
    """A question: who had access to a record then?"""

    record_id: str
    at_ms: int


def moments(lives: Mapping[Identity, Sequence[Span]], count: int, from_ms: int, to_ms: int, seed: int) -> list[Moment]:
    """Return random moments, half of them close to something that truly happened."""
    chance = random.Random(seed)
    edges = [
        (identity[0], at_ms)
        for identity, spans in lives.items()
        for span in spans
        for at_ms in (span.from_ms, span.to_ms)
        if at_ms is not None and from_ms <= at_ms <= to_ms
    ]
    records = sorted({identity[0] for identity in lives})
    found = []
    for number in range(count):
        if number % 2 and edges:
            record_id, at_ms = chance.choice(edges)
            found.append(Moment(record_id, min(max(at_ms + chance.randint(-20_000, 20_000), from_ms), to_ms)))
        else:
            found.append(Moment(chance.choice(records), chance.randint(from_ms, to_ms)))
    return found


class Answers:
    """Answers as the command makes them, from records that were read already.

    Args:
        records: of all topics.
    """

    def __init__(self, records: Iterable[ReadRecord]) -> None:
        self._facts: dict[str, list[Any]] = defaultdict(list)
        self._access: dict[str, Any] = {}
        self._progress: dict[str, Any] = {}
        self._created: dict[str, int] = {}
        self._gone: set[str] = set()
        for record in records:
            key = (record.key or b"").decode()
            kind = kind_of(record.topic)
            if kind == "sharing":
                self._facts[key].append(json.loads(record.value or b""))
            elif kind == "access":
                self._access[key] = None if record.value is None else json.loads(record.value)
            elif kind == "positions" and key.startswith("progress:") and record.value is not None:
                value = json.loads(record.value)
                self._progress[value["name"]] = value["state"]
            elif kind == "changes":
                self._change(key, json.loads(record.value or b""))

    def _change(self, record_id: str, change: Mapping[str, Any]) -> None:
        """Take note of when a record was created, and whether it is gone."""
        created = (change["after"] or change["before"] or {}).get("CreatedDate")
        if created is not None:
            self._created[record_id] = round(datetime.fromisoformat(created).timestamp() * 1000)
        if change["op"] == "d":
            self._gone.add(record_id)
        else:
            self._gone.discard(record_id)

    def at(self, moment: Moment, grantee: str | None = None) -> list[dict[str, Any]]:
        """Return who had access, or whether one grantee had."""
        record_id = moment.record_id
        sharing = sharing_of(
            self._facts[record_id],
            self._access.get(record_id),
            (),
            self._progress,
            _ENTITY,
            None,
            created_ms=self._created.get(record_id),
            deleted=record_id in self._gone,
        )
        return answers_json(sharing, moment.at_ms, grantee)


async def asked(config: Path, moment: Moment) -> list[dict[str, Any]]:
    """Return who had access, asked on the command line as a user would."""
    at = datetime.fromtimestamp(moment.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    command = ("timeline", "--config", str(config), "--json", "--at", at, moment.record_id)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    found: list[dict[str, Any]] = json.loads(output)["at"]["access"]
    return found


async def all_asked(config: Path, wanted: Sequence[Moment]) -> list[list[dict[str, Any]]]:
    """Return the command line's answers to several questions, two at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(moment: Moment) -> list[dict[str, Any]]:
        async with gate:
            return await asked(config, moment)

    return list(await asyncio.gather(*(one(each) for each in wanted)))


def judge_moment(
    moment: Moment,
    answers: Answers,
    lives: Mapping[Identity, Sequence[Span]],
    intervals: Sequence[tuple[int | None, int]],
    verdict: SharingVerdict,
    patience: Patience,
) -> None:
    """Hold the answers about one moment against the truth.

    Args:
        moment: the question.
        answers: gives them as the command does.
        lives: the truth of the record's shares.
        intervals: those that ``sharing`` published for the record.
        verdict: takes what was found.
        patience: what no reading can see.
    """
    told = {(each["user_or_group_id"], each["row_cause"] or ""): each for each in answers.at(moment)}
    for _, grantee, cause in lives:
        if (grantee, cause) not in told:  # one that no reading ever met can be asked about all the same
            named = {each["row_cause"]: each for each in answers.at(moment, grantee)}
            told[grantee, cause] = named.get(cause) or named.get(None) or _NO
    for (grantee, cause), answer in told.items():
        spans = lives.get((moment.record_id, grantee, cause), ())
        true = level_at(spans, moment.at_ms)
        verdict.counted[f"answers {answer['answer']}"] += 1
        what = f"{moment} {grantee} {cause}: {answer}, and the rows said {true}"
        if answer["answer"] == "unknown":
            inside = any((start is None or start <= moment.at_ms) and moment.at_ms < end for start, end in intervals)
            # Before the first reading nobody knows; its answer is the end of a published interval.
            inside |= answer["from"] is None and time_ms(answer["to"]) in {end for _, end in intervals}
            if not inside and answer["to"] is not None:
                verdict.moments.append(f"{what}; no published interval is about it")
        elif answer["access_level"] != true:
            if _too_short(spans, moment.at_ms, patience):
                verdict.counted["answers inside flickers"] += 1
            else:
                verdict.moments.append(what)


def _too_short(spans: Sequence[Span], at_ms: int, patience: Patience) -> bool:
    """Return whether what was true then was so for a time that no reading need have seen."""
    for number, span in enumerate(spans):
        if span.from_ms <= at_ms and (span.to_ms is None or at_ms < span.to_ms):
            return span.to_ms is not None and span.to_ms - span.from_ms <= patience.come_and_gone_ms
        following = spans[number + 1] if number + 1 < len(spans) else None
        if following is not None and span.to_ms is not None and span.to_ms <= at_ms < following.from_ms:
            return following.from_ms - span.to_ms <= patience.away_ms
    return False
