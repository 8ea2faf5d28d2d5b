"""Fixtures that every test may use: a real broker, and names of its own for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.broker import Broker, BrokerUnavailableError, running_broker

_NOT_RUN = pytest.StashKey[list[str]]()
"""Why tests that need a real broker did not run."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_NOT_RUN] = []


def _started(config: pytest.Config, *, secure: bool) -> Iterator[Broker]:
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker(secure=secure))
        except BrokerUnavailableError as error:
            if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
                pytest.fail(f"CI must have a real Kafka: {error}", pytrace=False)
            config.stash[_NOT_RUN].append(str(error))
            pytest.skip(f"no real Kafka: {error}")
        yield broker


@pytest.fixture(scope="session")
def kafka_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A real Apache Kafka for the whole session; tests that use it are marked ``kafka``."""
    yield from _started(pytestconfig, secure=False)


@pytest.fixture(scope="session")
def secure_kafka_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A second one with SASL, SSL and SASL_SSL listeners, started when the first test asks for it."""
    yield from _started(pytestconfig, secure=True)


@pytest.fixture
def topic_prefix() -> str:
    """Topic prefix that no other test has, so that tests share the broker and nothing else."""
    return f"t{uuid.uuid4().hex[:12]}."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = config.stash[_NOT_RUN]
    if reasons:
        skipped = len(
            [each for each in terminalreporter.stats.get("skipped", []) if "no real Kafka" in str(each.longrepr)]
        )
        terminalreporter.write_line(
            f"NOT RUN: {skipped} tests need a real Apache Kafka, and there is none here ({reasons[0]}). "
            "Install Java 17 and Maven, or set KAFKA_BOOTSTRAP.",
            red=True,
            bold=True,
        )
