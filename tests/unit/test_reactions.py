"""Every error class has a reaction and an advice."""

from collections.abc import Iterator

import pytest

from consumer.errors import ConfigError, ServiceError
from consumer.reactions import advice_for, covered_classes, policy_for


def _classes(root: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


def _ours(root: type[ServiceError]) -> list[type[ServiceError]]:
    # The emulated org's own refusals never reach the service; they are answers of its server.
    modules = ("consumer.emulator.", "tests.")
    return [cls for cls in _classes(root) if not cls.__module__.startswith(modules)]


def test_every_subclass_of_the_root_has_a_policy_of_its_own() -> None:
    assert set(_ours(ServiceError)) <= covered_classes()


@pytest.mark.parametrize("cls", _ours(ServiceError), ids=lambda cls: cls.__name__)
def test_every_policy_brings_one_sentence_of_advice(cls: type[ServiceError]) -> None:
    error = ConfigError(["x"]) if cls is ConfigError else cls("something happened")
    advice = advice_for(error)
    assert advice.endswith(".")
    assert policy_for(error).at_least_s >= 0


def test_an_errors_own_advice_wins() -> None:
    assert advice_for(ServiceError("it broke", "Turn it off and on.")) == "Turn it off and on."
