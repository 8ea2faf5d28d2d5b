"""Topic names and partitions."""

from __future__ import annotations

import pytest

from consumer.delivery.names import Topics, entity_of_channel, kebab
from consumer.delivery.partition import murmur2, partition_for
from consumer.errors import ConfigError


@pytest.mark.parametrize(
    ("entity", "name"),
    [
        ("MessagingSession", "messaging-session"),
        ("Widget__c", "widget__c"),
        ("ns__BigWidget__c", "ns__bigwidget__c"),
        ("AIMetric", "ai-metric"),
        ("Case", "case"),
        ("ChangeEvents", "change-events"),
    ],
)
def test_objects_are_in_kebab_case_and_custom_names_verbatim_in_lower_case(entity: str, name: str) -> None:
    assert kebab(entity) == name


@pytest.mark.parametrize(
    ("channel", "entity"),
    [
        ("/data/MessagingSessionChangeEvent", "MessagingSession"),
        ("/data/Widget__ChangeEvent", "Widget__c"),
        ("/data/ns__Widget__ChangeEvent", "ns__Widget__c"),
        ("/data/ChangeEvents", None),
        ("/data/Contact_Centre__chn", None),
        ("/data/ChangeEvent", None),
        ("/data/__ChangeEvent", None),
    ],
)
def test_a_channel_of_one_object_names_it(channel: str, entity: str | None) -> None:
    assert entity_of_channel(channel) == entity
    assert Topics.entity_of_channel(channel) == entity


def test_once_only_topics_stand_under_the_first_channel() -> None:
    topics = Topics("salesforce.", ["/data/MessagingSessionChangeEvent", "/data/Widget__ChangeEvent"])
    assert topics.coverage == "salesforce.messaging-session.coverage"
    assert topics.quarantine == "salesforce.messaging-session.quarantine"
    assert topics.positions == "salesforce.messaging-session.positions"
    assert topics.ledger == "salesforce.messaging-session.ledger"
    assert topics.control == "salesforce.messaging-session.control"
    assert topics.changes("Widget__c") == "salesforce.widget__c.changes"


@pytest.mark.parametrize(
    ("channel", "name"),
    [("/data/ChangeEvents", "sf-change-events.positions"), ("/data/X__chn", "sf-x__chn.positions")],
)
def test_a_channel_of_several_objects_lends_its_own_name(channel: str, name: str) -> None:
    assert Topics("sf-", [channel]).positions == name


@pytest.mark.parametrize("prefix", ["salesforce prod.", "é.", "a/b", "x" * 230])
def test_a_name_kafka_does_not_allow_is_a_configuration_fault(prefix: str) -> None:
    with pytest.raises(ConfigError):
        Topics(prefix, ["/data/MessagingSessionChangeEvent"])


def test_249_characters_are_allowed_and_250_are_not() -> None:
    tail = "case.quarantine"
    assert len(Topics("x" * (249 - len(tail)), ["/data/CaseChangeEvent"]).quarantine) == 249
    with pytest.raises(ConfigError):
        Topics("x" * (250 - len(tail)), ["/data/CaseChangeEvent"])


def test_no_channel_and_no_object_are_configuration_faults() -> None:
    with pytest.raises(ConfigError):
        Topics("salesforce.", [])
    with pytest.raises(ConfigError):
        Topics("salesforce.", ["/data/CaseChangeEvent"]).changes("")


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_the_java_client(text: bytes, signed: int) -> None:
    """The vectors of Kafka's own ``UtilsTest.testMurmur2``."""
    assert murmur2(text) == signed & 0xFFFFFFFF


def test_partitions_start_at_zero_and_ignore_the_sign() -> None:
    assert partition_for(b"21", 6) == ((-973932308) & 0x7FFFFFFF) % 6
    assert partition_for(b"anything", 1) == 0
