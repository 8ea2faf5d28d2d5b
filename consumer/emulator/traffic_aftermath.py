"""What happens to sessions after their end: late facts, deletion, recovery, erasure."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from consumer.emulator import traffic_data as data
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_values import SESSION, LiveSession, Save

_RECENT: Final = 300


class Aftermath:
    """Keeps the recently ended sessions busy and lets the old ones go.

    Args:
        org: the org whose records change.
        rng: the traffic's only source of choice.
        keep: how many ended sessions stay in the org's memory; None keeps all.
    """

    def __init__(self, org: OrgModel, rng: random.Random, keep: int | None) -> None:
        self._org = org
        self._rng = rng
        self._keep = keep
        self._recent: list[LiveSession] = []
        self._old: deque[LiveSession] = deque()
        self._acts: tuple[Callable[[LiveSession], Save], ...] = (
            self._score,
            self._score,
            self._link_case,
            self._follow_up,
            self._delete,
        )

    def add(self, session: LiveSession) -> None:
        """Take over a session that has ended."""
        self._recent.append(session)
        if len(self._recent) <= _RECENT:
            return
        place = int(self._rng.random() * len(self._recent))
        gone = self._take(place)
        if self._keep is None:
            return
        self._old.append(gone)
        while len(self._old) > self._keep:
            oldest = self._old.popleft()
            self._org.forget(SESSION, oldest.record_id)
            for work_id in oldest.works:
                self._org.forget("AgentWork", work_id)

    def step(self) -> Save | None:
        """Return the next late change, None when there is nothing to do.

        A save without an event is possible: hard deletes make none.
        """
        if not self._recent:
            return None
        place = int(self._rng.random() * len(self._recent))
        session = self._recent[place]
        dice = self._rng.random()
        if session.deleted:
            return self._recover(session) if dice < 0.4 else self._erase(place)
        if dice < 0.01:
            return self._erase(place)
        if dice < 0.03:
            return self._delete_several()
        return self._acts[int(self._rng.random() * len(self._acts))](session)

    def _take(self, place: int) -> LiveSession:
        session = self._recent[place]
        self._recent[place] = self._recent[-1]
        self._recent.pop()
        return session

    def _score(self, session: LiveSession) -> Save:
        """The customer answers the survey."""
        score = 1.0 + int(self._rng.random() * 9) / 2
        return self._update(session, {"CSAT_Score__c": score}, data.INTEGRATION_USER, data.REST_ORIGIN)

    def _link_case(self, session: LiveSession) -> Save:
        case_id = numbered_id(PREFIXES["Case"], self._rng.getrandbits(24))
        return self._update(session, {"CaseId": case_id}, data.INTEGRATION_USER, data.REST_ORIGIN)

    def _follow_up(self, session: LiveSession) -> Save:
        """A rep adds to the notes: a long text grows by a line, so its event carries a diff."""
        row = self._org.row(SESSION, session.record_id)
        old = str(row.values.get("Notes__c", "")) if row is not None else ""
        sentence = data.SENTENCES[int(self._rng.random() * len(data.SENTENCES))]
        text = f"{old}\nAfter the end: {sentence}" if 0 < len(old) < 6_000 else sentence
        rep = data.REPS[int(self._rng.random() * len(data.REPS))]
        return self._update(session, {"Notes__c": text}, rep, data.UI_ORIGIN)

    def _delete(self, session: LiveSession) -> Save:
        if self._rng.random() < 0.7:
            return self._score(session)
        session.deleted = True
        change = Change("delete", SESSION, session.record_id)
        return Save([change], data.INTEGRATION_USER, data.REST_ORIGIN)

    def _delete_several(self) -> Save:
        """A retention job deletes a few in one call; the events merge."""
        chosen = [session for session in self._recent[:8] if not session.deleted]
        for session in chosen:
            session.deleted = True
        changes = [Change("delete", SESSION, session.record_id) for session in chosen]
        return Save(changes, data.INTEGRATION_USER, "com/salesforce/api/bulkapi/66.0")

    def _recover(self, session: LiveSession) -> Save:
        session.deleted = False
        change = Change("undelete", SESSION, session.record_id)
        return Save([change], data.REPS[0], data.UI_ORIGIN)

    def _erase(self, place: int) -> Save:
        """Remove a record for good: no event tells of it."""
        session = self._take(place)
        return Save([Change("purge", SESSION, session.record_id)], data.INTEGRATION_USER, data.REST_ORIGIN)

    def _update(self, session: LiveSession, fields: dict[str, Any], user: str, origin: str) -> Save:
        return Save([Change("update", SESSION, session.record_id, fields)], user, origin)
