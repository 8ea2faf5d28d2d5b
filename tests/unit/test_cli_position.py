"""`position`: what set and reset mean, when they refuse, and that they change nothing unasked."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import pytest

from consumer.cli import position
from consumer.cli.main import _parser
from consumer.delivery.positions import CommittedPosition, Meta
from consumer.errors import UsageError
from consumer.kafka.connection import Cluster
from consumer.kafka.deployment import Deployment
from consumer.kafka.membership import Member
from consumer.position import Position, Preset
from consumer.settings import Settings
from tests.fakes import TOPICS

CHANNEL, OTHER = "/data/MessagingSessionChangeEvent", "/data/AgentWorkChangeEvent"
NOW_MS = 1_790_000_000_000
META = Meta("cluster", "00D000000000001AAA")


def settings(start: str = "snapshot", topics: Iterable[str] = (CHANNEL,)) -> Settings:
    return Settings.model_validate(
        {
            "salesforce": {"login_url": "https://example.my.salesforce.com"},
            "pubsub": {"start": start, "topics": tuple(topics)},
            # Nothing listens there: a test that gets as far as Kafka fails.
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        }
    )


def deployment(*members: Member, meta: Meta | None = META, positions: bool = True) -> Deployment:
    entry = CommittedPosition(CHANNEL, Position(b"r1"), NOW_MS, NOW_MS, "host:1")
    return Deployment(meta, {CHANNEL: entry} if positions else {}, {}, members)


async def force(*arguments: str, made: Settings | None = None, found: Deployment | None = None) -> int:
    args = _parser("position", position).parse_args(["position", *arguments])
    chosen = made or settings()
    return await position._force(args, chosen, TOPICS, Cluster(chosen.kafka), found or deployment())


@pytest.mark.parametrize(
    ("arguments", "start", "wanted"),
    [
        (("set", "--earliest"), "latest", Position(preset=Preset.EARLIEST, redelivery_ms=NOW_MS)),
        (("set", "--latest"), "earliest", Position(preset=Preset.LATEST, redelivery_ms=NOW_MS)),
        (("set", "--replay-id", "cjE="), "latest", Position(b"r1", redelivery_ms=NOW_MS)),
        (("reset",), "latest", Position(preset=Preset.LATEST, redelivery_ms=NOW_MS)),
        (("reset",), "earliest", Position(preset=Preset.EARLIEST, redelivery_ms=NOW_MS)),
        (("reset",), "snapshot", Position(preset=Preset.EARLIEST, redelivery_ms=NOW_MS)),
    ],
)
def test_a_forced_position_knows_that_events_can_come_again(
    arguments: tuple[str, ...], start: str, wanted: Position
) -> None:
    args = _parser("position", position).parse_args(["position", *arguments])
    assert position._target(args, settings(start), NOW_MS) == wanted


@pytest.mark.parametrize("text", ["", "not base64!", "AAA"])
async def test_a_replay_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--replay-id"):
        await force("set", "--replay-id", text, "--yes")


@pytest.mark.parametrize("partitions", [frozenset({0}), frozenset()])
async def test_it_refuses_while_any_worker_lives(partitions: frozenset[int]) -> None:
    """During a rebalance nobody is assigned anything, and the worker goes on the moment after."""
    with pytest.raises(UsageError, match=r"A worker is active \(host:1\)"):
        await force("reset", "--yes", found=deployment(Member("m1", "host:1", "/127.0.0.1", partitions)))


async def test_without_yes_it_only_says_what_would_happen(capsys: pytest.CaptureFixture[str]) -> None:
    assert await force("set", "--replay-id", base64.b64encode(b"r9").decode()) == 0
    told = capsys.readouterr().out
    assert f"{CHANNEL}: from cjE= to cjk=" in told
    assert "loss window" in told
    assert "Nothing was changed" in told


async def test_with_several_channels_one_has_to_be_named() -> None:
    several = settings(topics=(CHANNEL, OTHER))
    with pytest.raises(UsageError, match="Several channels"):
        await force("reset", made=several)
    assert await force("reset", "--topic", CHANNEL, made=several) == 0
    with pytest.raises(UsageError, match="not a configured channel"):
        await force("reset", "--topic", "/data/Nothing__chn", made=several)


@pytest.mark.parametrize("found", [deployment(positions=False), deployment(meta=None)])
async def test_there_is_nothing_to_force_before_the_first_commit(found: Deployment) -> None:
    with pytest.raises(UsageError, match="Nothing is committed"):
        await force("reset", "--yes", found=found)


@pytest.mark.parametrize("arguments", [("set",), ("set", "--earliest", "--latest"), ("frobnicate",)])
def test_the_command_line_wants_exactly_one_place(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        _parser("position", position).parse_args(["position", *arguments])
