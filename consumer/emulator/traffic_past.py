"""Sessions that were there before the org's first event, made straight in its tables.

No event and no history row tells of them: who wants to know them has to read them. A few hundred are made by the
traffic's own steps; the others are copies of those at other times, so that a million takes seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from consumer.emulator import traffic_data as data
from consumer.emulator.org import OrgModel
from consumer.emulator.org_records import AUTO_NUMBERS, OrgRecord, Transaction
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_session import Steps
from consumer.emulator.traffic_values import SESSION, LiveSession

_PATTERNS: Final = 400
_LIVED_MS: Final = 300_000
_APART_MS: Final = 7_000
_TIMES: Final = frozenset({"StartTime", "AcceptTime", "EndTime", "CreatedDate", "LastModifiedDate"})


class Past:
    """Makes an org's past.

    Args:
        org: whose tables are filled.
        seed: the same seed and org give the same sessions.
    """

    def __init__(self, org: OrgModel, seed: int) -> None:
        self._org = org
        self._rng = random.Random(f"past:{seed}")  # noqa: S311  reproducible traffic, no secret
        self._steps = Steps(org, self._rng, companions=False)

    def sessions(self, count: int, live: int, now_ms: int) -> Iterator[LiveSession]:
        """Put sessions into the org and yield each; the newest ``live`` ones have not ended, as far as they can.

        Args:
            count: how many sessions.
            live: how many of them go on.
            now_ms: time the past ends at, epoch milliseconds; the first session began ``count`` times 7 s before.
        """
        if not count:
            return  # ids and names of an org without a past begin at the first one
        now_ms = now_ms // 1000 * 1000
        patterns = [self._pattern(now_ms, ended=ended) for ended in (True, False) for _ in range(_PATTERNS // 2)]
        closed = [each for each in patterns if each[0].phase == "ended"]
        going = [each for each in patterns if each[0].phase != "ended"]
        for number in range(count):
            among = going if count - number <= live else closed
            yield self._copy(*among[number % len(among)], (count - number) * _APART_MS)

    def _pattern(self, now_ms: int, *, ended: bool) -> tuple[LiveSession, OrgRecord]:
        """Return one session as the traffic would have left it, out of the tables again."""
        org, steps = self._org, self._steps
        steps.now_ms = now_ms - _LIVED_MS
        session, save = steps.start(None)
        transaction = Transaction(org.store, save.user, steps.now_ms)
        for change in save.changes:
            transaction.apply(change)
        if ended and session.phase != "ended":
            steps.now_ms = now_ms
            last = Transaction(org.store, data.AUTOMATED_USER, now_ms)
            for change in steps.finish(session, "EndUser"):
                last.apply(change)
        return session, org.store.table(SESSION).pop(session.record_id)

    def _copy(self, session: LiveSession, row: OrgRecord, ago_ms: int) -> LiveSession:
        org = self._org
        record_id = org.new_id(SESSION)
        values = row.values.copy()
        for name in _TIMES & values.keys():
            values[name] -= ago_ms
        number = org.store.numbers[SESSION] = org.store.numbers.get(SESSION, 0) + 1
        bits = f"{self._rng.getrandbits(128):032x}"
        values["Name"] = AUTO_NUMBERS[SESSION].format(number)
        values["SessionKey"] = f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"
        values["ConversationId"] = numbered_id(PREFIXES["Conversation"], int(bits[:5], 16))
        org.store.table(SESSION)[record_id] = OrgRecord(values, system_modstamp_ms=row.system_modstamp_ms - ago_ms)
        return replace(session, record_id=record_id, started_ms=session.started_ms - ago_ms)
