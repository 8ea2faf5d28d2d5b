"""Two workers of one deployment: one takes over from the other, and a zombie commits nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.deployment import Deployment, deployment
from tests.kill_loop import scenario
from tests.processes import Worker

pytestmark = pytest.mark.kafka

RATE = 150.0


def takeovers(*workers: Worker) -> int:
    """Return how often the workers took the subscription over, all together."""
    return sum(worker.count(event="kafka.restored") for worker in workers)


async def leader_and_standby(place: Deployment) -> tuple[Worker, Worker]:
    leader = await place.worker()
    await leader.has_role("active")
    standby = await place.worker()
    await standby.has_role("standby")
    return leader, standby


async def commits_more(place: Deployment, records: int = 60) -> None:
    before = sum(each.topic.endswith(".changes") for each in await place.reader.read())
    await place.has_committed(before + records)


async def test_a_standby_waits_and_takes_over(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """After SIGKILL of the leader within the session time-out, after SIGTERM at once."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 11)) as place:
        leader, standby = await leader_and_standby(place)
        await commits_more(place)
        assert takeovers(standby) == 0
        await leader.kill()
        await standby.has_role("active")
        await commits_more(place)
        third = await place.worker()
        await third.has_role("standby")
        assert takeovers(standby) == 1, "a worker that merely starts must not disturb the leader"
        assert await standby.stop() == 0, standby.tail()
        await third.has_role("active")
        await commits_more(place)
        (await place.check()).require_clean()


async def test_a_zombie_is_fenced(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A leader frozen while the standby took over commits nothing more, steps down, and disturbs nobody again."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 12)) as place:
        zombie, successor = await leader_and_standby(place)
        await commits_more(place)
        zombie.send(signal.SIGSTOP)
        await successor.has_role("active")
        await commits_more(place)
        zombie.forget()
        successor.forget()
        zombie.send(signal.SIGCONT)
        await zombie.said(event="standby")
        await commits_more(place, 150)
        await successor.has_role("active")
        await zombie.has_role("standby")
        assert takeovers(zombie, successor) == 0, "the successor was disturbed"
        assert successor.count(event="standby") == 0, "the successor was disturbed"
        (await place.check()).require_clean()
        for worker in (zombie, successor):
            assert await worker.stop() == 0, worker.tail()
        (await place.check()).require_clean()
