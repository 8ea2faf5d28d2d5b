"""Traffic that looks like a contact centre's: sessions that wait, are taken, handed on, fall silent, and end.

Each step of a session is one transaction on the :class:`OrgModel`. Deterministic: the seed and the times given are
all there is. The lifecycle follows the MessagingSession reference: bots first on some channels, consent on others,
Paused and Inactive on enhanced ones only.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, TypeAlias

from consumer.emulator import traffic_data as data
from consumer.emulator.org import Change, OrgEvent, OrgModel
from consumer.emulator.traffic_accounts import AccountTraffic
from consumer.emulator.traffic_aftermath import Aftermath
from consumer.emulator.traffic_past import Past
from consumer.emulator.traffic_session import Steps
from consumer.emulator.traffic_values import LiveSession, Save

_Step: TypeAlias = Callable[[LiveSession], Save]

_START: Final = 0.05
_EMPTY_START: Final = 0.35
_AFTERMATH: Final = 0.16
_FLOW: Final = 0.02
_ACCOUNT: Final = 0.02
_END_USERS: Final = 2_000


@dataclass(slots=True)
class _Menu:
    """The steps a session in one phase can take, with cumulative weights."""

    steps: Sequence[_Step]
    weights: Sequence[int] = field(default_factory=list)


class Traffic:
    """Makes an org live.

    Args:
        org: the org whose records change.
        seed: the same seed, org and times give the same events.
        live: upper bound of sessions that have not ended.
        companions: whether AgentWork, MessagingEndUser, PendingServiceRouting and Account change too.
        keep: how many ended sessions stay in the org's memory; older ones are forgotten without an event. None
            keeps all of them, as an oracle over the whole run needs.
    """

    def __init__(
        self,
        org: OrgModel,
        seed: int,
        *,
        live: int = 200,
        companions: bool = True,
        keep: int | None = 20_000,
    ) -> None:
        self.org = org
        self._seed = seed
        self._rng = random.Random(f"traffic:{seed}")  # noqa: S311  reproducible traffic, no secret
        self._moment_ms = 0
        self._max_live = live
        self._keep = keep
        self._live: list[LiveSession] = []
        self._end_users: deque[tuple[str, data.Channel]] = deque(maxlen=_END_USERS)
        self._steps = Steps(org, self._rng, companions=companions)
        self._after = Aftermath(org, self._rng, keep)
        self._accounts = AccountTraffic(org, self._rng) if companions else None
        self._menus = self._build_menus(self._steps)

    @property
    def live(self) -> int:
        """Number of sessions that have not ended."""
        return len(self._live)

    def populate(self, sessions: int, now_ms: int) -> None:
        """Put sessions into the org that no event tells of; the newest go on, half of the live ones at most.

        Args:
            sessions: how many.
            now_ms: when they are all there, epoch milliseconds.
        """
        for session in Past(self.org, self._seed).sessions(sessions, self._max_live // 2, now_ms):
            if session.phase != "ended":
                self._live.append(session)

    @staticmethod
    def _build_menus(steps: Steps) -> Mapping[str, _Menu]:
        plan: Mapping[str, Sequence[tuple[_Step, int]]] = {
            "new": ((steps.route, 90), (steps.abandon, 10)),
            "consent": ((steps.agree, 75), (steps.refuse, 25)),
            "bot": ((steps.bot_notes, 25), (steps.hand_over, 45), (steps.contain, 28), (steps.fail, 2)),
            "waiting": ((steps.accept, 85), (steps.raise_priority, 7), (steps.abandon, 8)),
            "active": (
                (steps.work, 46),
                (steps.to_queue, 8),
                (steps.to_rep, 5),
                (steps.fall_silent, 10),
                (steps.pause, 4),
                (steps.end, 26),
                (steps.fail, 1),
            ),
            "inactive": ((steps.revive_to_queue, 25), (steps.revive_to_rep, 35), (steps.time_out, 40)),
            "paused": ((steps.resume, 85), (steps.end, 15)),
            "error": ((steps.time_out, 100),),
        }
        return {
            phase: _Menu([step for step, _ in row], list(accumulate(weight for _, weight in row)))
            for phase, row in plan.items()
        }

    def step(self, now_ms: int, events: int) -> list[OrgEvent]:
        """Return at least ``events`` events committed at ``now_ms``; the last transaction is never cut.

        Args:
            now_ms: commit time, epoch milliseconds.
            events: how many to make.
        """
        made: list[OrgEvent] = []
        while len(made) < events:
            made += self._transaction(now_ms)
        return made

    def bulk(self, events: int, start_ms: int, per_second: int = 1_000) -> list[OrgEvent]:
        """Return at least ``events`` events made ahead, ``per_second`` of them in each second of commit time."""
        made: list[OrgEvent] = []
        while len(made) < events:
            made += self.step(start_ms, min(per_second, events - len(made)))
            start_ms += 1_000
        return made

    def _transaction(self, now_ms: int) -> list[OrgEvent]:
        self._moment_ms = now_ms
        at_ms = self._steps.now_ms = now_ms // 1000 * 1000
        room = 1 - len(self._live) / self._max_live
        if room > 0 and (self._rng.random() < _START + _EMPTY_START * room or not self._live):
            return self._start(at_ms)
        dice = self._rng.random()
        if dice < _AFTERMATH:
            save = self._after.step()
        elif dice < _AFTERMATH + _FLOW:
            save = self._several()
        elif dice < _AFTERMATH + _FLOW + _ACCOUNT and self._accounts is not None:
            save = self._accounts.step()
        else:
            return self._advance(at_ms)
        return self._commit(save, at_ms) if save is not None else []

    def _commit(self, save: Save, now_ms: int) -> list[OrgEvent]:
        fitting = [self.org.fitting(change) for change in save.changes]
        changes = [change for change in fitting if change is not None]
        if not changes:
            return []
        return self.org.commit(changes, now_ms, user=save.user, origin=save.origin, moment_ms=self._moment_ms)

    def _start(self, now_ms: int) -> list[OrgEvent]:
        known = None
        if len(self._end_users) > 20 and self._rng.random() < 0.6:
            known = self._end_users[int(self._rng.random() * len(self._end_users))]
        session, save = self._steps.start(known)
        if known is None:
            if len(self._end_users) == _END_USERS and self._keep is not None:
                self.org.forget("MessagingEndUser", self._end_users[0][0])
            self._end_users.append((session.end_user_id, session.channel))
        if session.phase == "ended":
            self._after.add(session)
        else:
            self._live.append(session)
        return self._commit(save, now_ms)

    def _advance(self, now_ms: int) -> list[OrgEvent]:
        if not self._live:
            return []
        place = int(self._rng.random() * len(self._live))
        session = self._live[place]
        menu = self._menus[session.phase]
        step = self._rng.choices(menu.steps, cum_weights=menu.weights)[0]
        save = step(session)
        if session.phase == "ended":
            self._retire(place)
        return self._commit(save, now_ms)

    def _retire(self, place: int) -> None:
        self._after.add(self._live[place])
        self._live[place] = self._live[-1]
        self._live.pop()

    def _several(self) -> Save | None:
        """One transaction over several sessions: a flow ends silent ones, or a supervisor hands out work."""
        wanted = {"inactive", "waiting"} if self._rng.random() < 0.6 else {"active"}
        size = 2 + int(self._rng.random() * 7)
        places = [place for place, session in enumerate(self._live) if session.phase in wanted][:size]
        if len(places) < 2:
            return None
        sessions = [self._live[place] for place in places]
        if "active" in wanted:
            return self._steps.reassign(sessions)
        changes: list[Change] = []
        for session in sessions:
            changes += self._steps.finish(session, "System")
        for place in reversed(places):
            self._retire(place)
        changes.sort(key=lambda change: change.entity != "MessagingSession")
        return Save(changes, data.AUTOMATED_USER, data.APEX_ORIGIN)
