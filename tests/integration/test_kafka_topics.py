"""Topics are made with their settings or verified against them; every fault is told at once."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumer.delivery.names import Topics
from consumer.errors import KafkaRefusedError
from consumer.kafka.connection import Cluster
from consumer.kafka.topics import cluster_id, describe_topics, ensure_topics, planned_specs, spec_of
from consumer.settings import KafkaSettings
from tests.broker import Broker
from tests.processes import until

pytestmark = pytest.mark.kafka

CHANNEL = "/data/MessagingSessionChangeEvent"


def cluster_of(broker: Broker, prefix: str, **values: object) -> Cluster:
    settings = {"bootstrap_servers": broker.bootstrap, "topic_prefix": prefix, "partitions": 2} | values
    return Cluster(KafkaSettings.model_validate(settings))


async def configs(broker: Broker, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    return {entry[0]: entry[1] for *_, entries in response.resources for entry in entries}


async def create(broker: Broker, *topics: NewTopic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics(list(topics))
    names = [each.name for each in topics]

    async def visible() -> bool:
        return not any(each["error_code"] for each in await admin.describe_topics(names))

    try:
        await until(visible, "the broker knows the topics it has made")
    finally:
        await admin.close()


async def test_missing_topics_are_made_with_their_settings(kafka_broker: Broker, topic_prefix: str) -> None:
    cluster = cluster_of(kafka_broker, topic_prefix, retention={"changes": "3d"})
    topics = Topics(topic_prefix, (CHANNEL,))
    specs = planned_specs(topics, cluster.settings)
    found = await ensure_topics(cluster, specs)
    assert found == await ensure_topics(cluster, specs), "a second time there is nothing to do"
    assert {info.partitions for info in found.values()} == {2}
    changes = await configs(kafka_broker, topics.changes("MessagingSession"))
    assert (changes["cleanup.policy"], changes["retention.ms"]) == ("delete", str(3 * 86_400_000))
    positions = await configs(kafka_broker, topics.positions)
    assert (positions["cleanup.policy"], positions["min.cleanable.dirty.ratio"]) == ("compact", "0.1")
    info = (await describe_topics(cluster, [topics.quarantine, "nowhere"]))[topics.quarantine]
    assert (info.cleanup, info.retention_ms) == ("delete", 14 * 86_400_000)


async def test_every_fault_of_existing_topics_is_told_at_once(kafka_broker: Broker, topic_prefix: str) -> None:
    cluster = cluster_of(kafka_broker, topic_prefix)
    topics = Topics(topic_prefix, (CHANNEL,))
    await create(
        kafka_broker,
        NewTopic(topics.positions, 2, 1, topic_configs={"cleanup.policy": "delete"}),
        NewTopic(topics.control, 2, 1, topic_configs={"cleanup.policy": "compact"}),
        NewTopic(topics.quarantine, 3, 1),
        NewTopic(topics.coverage, 2, 1, topic_configs={"max.message.bytes": "1000"}),
    )
    with pytest.raises(KafkaRefusedError) as caught:
        await ensure_topics(cluster, planned_specs(topics, cluster.settings))
    for fault in ("numbers of partitions", f"{topics.positions} has cleanup.policy=delete", "max.message.bytes=1000"):
        assert fault in str(caught.value)
    assert topics.changes("MessagingSession") not in await describe_topics(
        cluster, [topics.changes("MessagingSession")]
    ), "nothing is made beside topics that are wrong"


async def test_new_topics_must_match_the_partitions_of_those_that_exist(
    kafka_broker: Broker, topic_prefix: str
) -> None:
    topics = Topics(topic_prefix, (CHANNEL,))
    await create(kafka_broker, NewTopic(topics.quarantine, 5, 1))
    cluster = cluster_of(kafka_broker, topic_prefix)
    with pytest.raises(KafkaRefusedError, match=r"kafka\.partitions is 2, and the existing topics have 5"):
        await ensure_topics(cluster, planned_specs(topics, cluster.settings))


async def test_without_create_topics_the_exact_command_is_told(kafka_broker: Broker, topic_prefix: str) -> None:
    cluster = cluster_of(kafka_broker, topic_prefix, create_topics=False, replication_factor=1)
    name = f"{topic_prefix}messaging-session.quarantine"
    with pytest.raises(KafkaRefusedError) as caught:
        await ensure_topics(cluster, [spec_of(name, cluster.settings)])
    assert (
        f"kafka-topics.sh --bootstrap-server {kafka_broker.bootstrap} --create --topic {name} --partitions 2 "
        "--replication-factor 1 --config cleanup.policy=delete --config retention.ms=1209600000"
    ) in str(caught.value)
    assert not await describe_topics(cluster, [name])


async def test_an_impossible_replication_factor_is_refused_with_advice(kafka_broker: Broker, topic_prefix: str) -> None:
    cluster = cluster_of(kafka_broker, topic_prefix, replication_factor=3)
    with pytest.raises(KafkaRefusedError, match=r"kafka\.replication_factor"):
        await ensure_topics(cluster, [spec_of(f"{topic_prefix}a.changes", cluster.settings)])


async def test_the_cluster_has_an_id(kafka_broker: Broker, topic_prefix: str) -> None:
    assert len(await cluster_id(cluster_of(kafka_broker, topic_prefix))) == 22
