"""The parts of the Kafka adapters that need no broker."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import pytest
from aiokafka import errors as kafka
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.names import Topics
from consumer.errors import (
    KafkaRefusedError,
    KafkaUnavailableError,
    ProducerFencedError,
    UsageError,
)
from consumer.kafka.assignor import decode_owned, encode_owned, spread
from consumer.kafka.connection import Cluster, asking, close_admin, require_checks, translate
from consumer.kafka.readback import RETENTION_MS, redelivery_since_ms
from consumer.kafka.reading import stop_consumer
from consumer.kafka.sink import Subscription, _offsets
from consumer.kafka.topics import planned_specs, spec_of
from consumer.settings import KafkaSettings

SETTINGS = KafkaSettings(bootstrap_servers="broker:9092")
CLUSTER = Cluster(SETTINGS)

groups = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.frozensets(st.integers(0, 11)), min_size=1, max_size=5
)


@given(owned=groups, count=st.integers(0, 12))
def test_every_partition_has_one_worker_and_stays_with_a_living_owner(
    owned: dict[str, frozenset[int]], count: int
) -> None:
    result = spread(owned, range(count))
    assert sorted(each for several in result.values() for each in several) == list(range(count))
    for partition in range(count):
        owners = {member for member, several in owned.items() if partition in several}
        chosen = next(member for member, several in result.items() if partition in several)
        assert not owners or chosen in owners


@given(count=st.integers(0, 30), workers=st.integers(1, 6))
def test_new_workers_share_evenly(count: int, workers: int) -> None:
    result = spread({str(each): frozenset() for each in range(workers)}, range(count))
    sizes = [len(several) for several in result.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.frozensets(st.integers(0, 999)))
def test_what_a_worker_owns_survives_the_wire(owned: frozenset[int]) -> None:
    assert decode_owned(encode_owned(owned)) == owned


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"1,x,2"])
def test_unreadable_claims_are_no_claims(data: bytes) -> None:
    assert decode_owned(data) <= {1, 2}


def test_assertions_must_be_on() -> None:
    """Aiokafka's state machine is made of assert statements; without them it loses records."""
    require_checks()
    code = "from consumer.kafka.connection import require_checks; require_checks()"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert UsageError.__name__ in done.stderr
    assert "PYTHONOPTIMIZE" in done.stderr


def _caused(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kafka.ProducerFenced(), ProducerFencedError),
        (_caused(kafka.KafkaError("Unexpected error"), kafka.InvalidProducerEpoch()), ProducerFencedError),
        (kafka.TopicAuthorizationFailedError("t"), KafkaRefusedError),
        (kafka.MessageSizeTooLargeError(), KafkaRefusedError),
        (TimeoutError(), KafkaUnavailableError),
        (ConnectionResetError(104, "Connection reset by peer"), KafkaUnavailableError),
        (kafka.RequestTimedOutError(), KafkaUnavailableError),
    ],
)
def test_errors_are_translated_by_what_the_operator_can_do(error: Exception, expected: type[Exception]) -> None:
    told = translate(error, "testing", CLUSTER)
    assert type(told) is expected
    assert told.message.endswith("testing") or "while testing" in told.message
    assert told.advice.endswith(".")


def test_unknown_errors_are_named_and_not_quoted() -> None:
    """The text of a foreign error may hold what was sent."""
    told = translate(kafka.KafkaError("secret payload"), "testing", CLUSTER)
    assert "secret" not in str(told)
    assert "KafkaError" in told.message


def test_ids_of_the_retention_time_are_needed_only_while_redelivery_is_possible() -> None:
    now = 10 * RETENTION_MS
    assert redelivery_since_ms(None, now) is None
    assert redelivery_since_ms(now - RETENTION_MS - 1, now) is None
    assert redelivery_since_ms(now - 5, now) == now - 5 - RETENTION_MS
    assert redelivery_since_ms(now + 5, now) == now - RETENTION_MS, "a clock that was set back"


def test_each_kind_of_topic_has_its_cleanup_and_retention() -> None:
    assert spec_of("p.x.changes", SETTINGS).configs()["retention.ms"] == str(SETTINGS.retention.changes)
    assert spec_of("p.x.coverage", SETTINGS).retention_ms == SETTINGS.retention.coverage
    assert spec_of("p.x.sharing-rules", SETTINGS).retention_ms == SETTINGS.retention.sharing
    assert spec_of("p.x.state", SETTINGS).configs()["cleanup.policy"] == "compact"
    names = [spec.name for spec in planned_specs(Topics("p.", ("/data/ChangeEvents",)), SETTINGS)]
    assert names == [f"p.change-events.{kind}" for kind in ("positions", "ledger", "control", "coverage", "quarantine")]
    names = {spec.name for spec in planned_specs(Topics("p.", ("/data/CaseChangeEvent",)), SETTINGS)}
    assert {f"p.case.{kind}" for kind in ("changes", "history", "state", "ledger")} < names


def planned(*channels: str, shared: tuple[str, ...] = (), fed: tuple[str, ...] = ()) -> list[str]:
    """Return the names of planned topics of sharing and feeds, without the prefix."""
    specs = planned_specs(Topics("p.", channels), SETTINGS, shared=shared, fed=fed)
    names = [spec.name.removeprefix("p.") for spec in specs]
    assert len(set(names)) == len(names), "each once"
    return [name for name in names if name.endswith((".sharing", ".access", ".sharing-rules", ".feed"))]


def test_topics_of_sharing_and_feeds_are_planned_for_the_objects_that_a_channel_carries() -> None:
    sessions, cases = "/data/MessagingSessionChangeEvent", "/data/CaseChangeEvent"
    of_session = ["messaging-session.sharing", "messaging-session.access", "messaging-session.sharing-rules"]
    assert planned(sessions, cases) == [], "they are switched off"
    assert planned(sessions, cases, shared=("MessagingSession",)) == of_session
    assert planned(sessions, cases, shared=("MessagingSession",), fed=("Case",)) == [*of_session, "case.feed"]
    assert planned(cases, shared=("MessagingSession",), fed=("MessagingSession",)) == [], "no channel carries it"
    for several in ("/data/ChangeEvents", "/data/Mine__chn"):
        assert planned(several, shared=("MessagingSession",), fed=("Case",)) == [*of_session, "case.feed"]
        assert planned(sessions, several, shared=("MessagingSession",)) == of_session


def test_topics_of_sharing_and_feeds_have_their_cleanup_and_retention() -> None:
    assert spec_of("p.x.access", SETTINGS).configs()["cleanup.policy"] == "compact"
    for kind, retention_ms in (("sharing", SETTINGS.retention.sharing), ("feed", SETTINGS.retention.feed)):
        assert (spec_of(f"p.x.{kind}", SETTINGS).cleanup, spec_of(f"p.x.{kind}", SETTINGS).retention_ms) == (
            "delete",
            retention_ms,
        )


def test_the_transactional_id_is_stable_and_of_safe_characters() -> None:
    topics = Topics("p.", ("/data/ChangeEvents",))
    subscription = Subscription("svc", "00D000000000001AAA", "/data/ChangeEvents", topics)
    assert subscription.transactional_id == "svc.00D000000000001AAA.ChangeEvents"


class _Reset:
    """A client whose connection was reset a moment ago: uvloop raises where it is written to."""

    def __init__(self) -> None:
        self._client = self
        self.asked: list[str] = []

    async def stop(self) -> None:
        self.asked.append("stop")
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    async def close(self) -> None:
        self.asked.append("close")
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


async def test_writing_to_a_reset_connection_is_kafka_not_answering() -> None:
    with pytest.raises(KafkaUnavailableError, match="while leaving"):
        async with asking(CLUSTER, "leaving"):
            await _Reset().stop()


async def test_a_client_whose_connection_was_reset_can_still_be_let_go() -> None:
    consumer = _Reset()
    await stop_consumer(consumer)
    assert consumer.asked == ["stop", "close"]
    await close_admin(_Reset())


class Answer(NamedTuple):
    """What a broker says of one record batch."""

    topic: str
    partition: int
    offset: int


def test_the_stored_offset_is_behind_the_last_of_several_record_batches() -> None:
    """Whichever answer comes last: with a smaller offset a restart would read again what is stored."""
    sent = [Answer("t", 0, 40), Answer("t", 0, 10), Answer("t", 1, 5), Answer("t", 2, -1)]
    assert _offsets(sent, [3, 30, 1, 7]) == {("t", 0): 43, ("t", 1): 6}
