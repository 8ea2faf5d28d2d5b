"""Fixtures that every test may use: a real broker, and names of its own for each test."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import hypothesis
import pytest
import structlog

from tests.broker import Broker, BrokerUnavailableError, running_broker

_NO_KAFKA = "no real Kafka: "
_IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

# A change is judged by the same examples each time; new ones are looked for wherever somebody works.
hypothesis.settings.register_profile("ci", derandomize=True)
if _IN_CI:
    hypothesis.settings.load_profile("ci")


def _started(*, secure: bool) -> Iterator[Broker]:
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker(secure=secure))
        except BrokerUnavailableError as error:
            if _IN_CI:
                pytest.fail(f"CI must have a real Kafka: {error}", pytrace=False)
            pytest.skip(f"{_NO_KAFKA}{error}")
        yield broker


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Broker]:
    """A real Apache Kafka for the whole session; tests that use it are marked ``kafka``."""
    yield from _started(secure=False)


@pytest.fixture(scope="session")
def secure_kafka_broker() -> Iterator[Broker]:
    """A second one with SASL, SSL and SASL_SSL listeners, started when the first test asks for it."""
    yield from _started(secure=True)


@pytest.fixture(scope="session")
def proxied_kafka_broker(request: pytest.FixtureRequest) -> Broker:
    """A broker with a listener for a proxy: ours, or the second one where ``KAFKA_BOOTSTRAP`` names another."""
    broker: Broker = request.getfixturevalue("kafka_broker")
    return broker if broker.proxied else request.getfixturevalue("secure_kafka_broker")


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep services that name no ``state.path`` out of the user's own, as systemd would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command run inside a test did to the process's logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def topic_prefix() -> str:
    """Topic prefix that no other test has, so that tests share the broker and nothing else."""
    return f"t{uuid.uuid4().hex[:12]}."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(each.longrepr) for each in terminalreporter.stats.get("skipped", [])]
    reasons = [text.partition(_NO_KAFKA)[2].rstrip("')") for text in skipped if _NO_KAFKA in text]
    if reasons:
        terminalreporter.write_line(
            f"NOT RUN: {len(reasons)} tests need a real Apache Kafka, and there is none here ({reasons[0]}). "
            "Install Java 17 and Maven, or set KAFKA_BOOTSTRAP.",
            red=True,
            bold=True,
        )
