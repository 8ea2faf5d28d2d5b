"""The topics: what they must be like, made when they are missing, verified when they exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError as ClientError
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from consumer.delivery.names import Topics
from consumer.errors import KafkaRefusedError, KafkaUnavailableError
from consumer.kafka.connection import Cluster, asking, close_admin, translate
from consumer.settings import KafkaSettings

MIN_MESSAGE_BYTES = 1_000_000
"""Least ``max.message.bytes`` of a topic: one of our batches must fit."""

_RAW_KIND = ".quarantine"
_RAW_MESSAGE_BYTES = 2 << 20
"""A raw payload is up to 1 MB (Pub/Sub API guide "Allocations"); with key and headers it passes Kafka's default."""

_VISIBLE_LIMIT_S = 30.0
_DAY_MS = 86_400_000

TOMBSTONE_MS = 7 * _DAY_MS
"""How long tombstones stay; a local store that was away for half of it is rebuilt."""

_COMPACT_CONFIGS = {
    # Small topics with few keys: without these, compaction would wait for a full segment of 1 GiB.
    "segment.ms": str(_DAY_MS),
    "segment.bytes": str(16 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(TOMBSTONE_MS),
}
_SHARING_KINDS = ("sharing", "access", "sharing-rules")
_COMPACT_KINDS = frozenset({"access", "state", "positions", "ledger", "control"})


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic must be like.

    Attributes:
        name: full topic name.
        cleanup: ``cleanup.policy``.
        retention_ms: ``retention.ms`` when it is created, None for compacted topics; an existing topic's own
            value is respected.
    """

    name: str
    cleanup: Literal["delete", "compact"]
    retention_ms: int | None = None

    def configs(self) -> dict[str, str]:
        """Return the settings the topic is created with; ``min.insync.replicas`` is left to the cluster."""
        if self.cleanup == "compact":
            return {"cleanup.policy": "compact", **_COMPACT_CONFIGS}
        configs = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        if self.name.endswith(_RAW_KIND):
            configs["max.message.bytes"] = str(_RAW_MESSAGE_BYTES)
        return configs


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """What a topic is like.

    Attributes:
        name: full topic name.
        partitions: number of partitions.
        replication: number of replicas of the first partition.
        cleanup: ``cleanup.policy``; empty when it may not be read.
        retention_ms: ``retention.ms``, -1 for ever, None when it may not be read or does not apply.
        max_message_bytes: ``max.message.bytes``, None when it may not be read.
        size_bytes: bytes on the leaders' disks, None: the client has no request for it.
    """

    name: str
    partitions: int
    replication: int
    cleanup: str = ""
    retention_ms: int | None = None
    max_message_bytes: int | None = None
    size_bytes: int | None = None


def spec_of(name: str, settings: KafkaSettings) -> TopicSpec:
    """Return what a topic of this service must be like; its kind is the last part of its name."""
    kind = name.rpartition(".")[2]
    if kind in _COMPACT_KINDS:
        return TopicSpec(name, "compact")
    retention = settings.retention
    by_kind = {
        "history": retention.history,
        "sharing": retention.sharing,
        "sharing-rules": retention.sharing,
        "feed": retention.feed,
        "coverage": retention.coverage,
        "quarantine": retention.quarantine,
    }
    return TopicSpec(name, "delete", by_kind.get(kind, retention.changes))


def planned_specs(
    topics: Topics, settings: KafkaSettings, *, shared: Collection[str] = (), fed: Collection[str] = ()
) -> list[TopicSpec]:
    """Return the topics known from the configuration; those of a channel's further objects come as they appear.

    Args:
        topics: the deployment's topic names.
        settings: what topics are made with.
        shared: API names of objects whose sharing is read.
        fed: API names of objects whose feed is read.
    """
    names = [topics.positions, topics.ledger, topics.control, topics.coverage, topics.quarantine]
    for channel in topics.channels:
        entity = topics.entity_of_channel(channel)
        if entity is not None:
            names += [topics.changes(entity), topics.of(entity, "history"), topics.of(entity, "state")]
        names += [topics.of(each, kind) for each in shared if entity in {None, each} for kind in _SHARING_KINDS]
        names += [topics.of(each, "feed") for each in fed if entity in {None, each}]
    return [spec_of(name, settings) for name in dict.fromkeys(names)]


@asynccontextmanager
async def admin_client(cluster: Cluster) -> AsyncIterator[Any]:
    """Give a started admin client.

    Raises:
        KafkaUnavailableError: no broker answered in time.
        KafkaRefusedError: the credentials are not accepted.
    """
    admin = AIOKafkaAdminClient(**cluster.options())
    try:
        async with asking(cluster, "connecting"):
            await admin.start()
        yield admin
    finally:
        await close_admin(admin)


async def cluster_id(cluster: Cluster) -> str:
    """Return the cluster's id, which the positions are bound to."""
    async with admin_client(cluster) as admin, asking(cluster, "asking for the cluster's id"):
        return str((await admin.describe_cluster())["cluster_id"])


async def describe_topics(cluster: Cluster, names: Sequence[str]) -> dict[str, TopicInfo]:
    """Return what the existing ones of these topics are like."""
    async with admin_client(cluster) as admin:
        return await _describe(cluster, admin, names)


async def ensure_topics(cluster: Cluster, specs: Sequence[TopicSpec]) -> dict[str, TopicInfo]:
    """Create what is missing, verify what exists, and wait until every topic is visible.

    Args:
        cluster: the cluster; with ``kafka.create_topics = false`` topics are only verified.
        specs: the topics; all of them must have as many partitions as each other, so that a record's changes
            stand in the same partition of each.

    Raises:
        KafkaRefusedError: topics are missing and may not be created, or are not as they must be; every fault
            is in the message.
        KafkaUnavailableError: no broker answered in time.
    """
    if cluster.embedded is not None:
        for spec in specs:
            cluster.embedded.create_topic(spec.name, cluster.settings.partitions)
        return {spec.name: TopicInfo(spec.name, cluster.settings.partitions, 1) for spec in specs}
    names = [spec.name for spec in specs]
    async with admin_client(cluster) as admin:
        found = await _describe(cluster, admin, names)
        missing = [spec for spec in specs if spec.name not in found]
        faults = topic_faults(specs, found, cluster.settings)
        if missing and not cluster.settings.create_topics:
            faults += [f"{spec.name} does not exist: {create_command(spec, cluster)}" for spec in missing]
        _refuse(faults)
        if missing:
            await _create(cluster, admin, missing)
            found = await _visible(cluster, admin, names)
            # Somebody else may have made one of them meanwhile, in another way.
            _refuse(topic_faults(specs, found, cluster.settings))
    return found


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise KafkaRefusedError(
            "; ".join(faults),
            "Mend the topics or choose another kafka.topic_prefix; partitions of existing topics can't be "
            "changed without breaking the order of records.",
        )


def create_command(spec: TopicSpec, cluster: Cluster) -> str:
    """Return the exact command that creates a topic as this service wants it."""
    settings = cluster.settings
    parts = [
        f"kafka-topics.sh --bootstrap-server {settings.bootstrap_servers} --create --topic {spec.name}",
        f"--partitions {settings.partitions}",
    ]
    if settings.replication_factor > 0:
        parts.append(f"--replication-factor {settings.replication_factor}")
    parts += [f"--config {key}={value}" for key, value in spec.configs().items()]
    return " ".join(parts)


def topic_faults(specs: Iterable[TopicSpec], found: Mapping[str, TopicInfo], settings: KafkaSettings) -> list[str]:
    """Return what is wrong with the existing ones of these topics, one sentence each; missing ones are no fault."""
    faults: list[str] = []
    counts = {info.partitions for info in found.values()}
    creates = len(found) < len({spec.name for spec in specs}) and settings.create_topics
    if len(counts) > 1:
        listed = ", ".join(f"{info.name} {info.partitions}" for info in found.values())
        faults.append(f"the topics differ in their numbers of partitions ({listed})")
    elif creates and counts and counts != {settings.partitions}:
        faults.append(
            f"kafka.partitions is {settings.partitions}, and the existing topics have {counts.pop()} partitions"
        )
    for spec in specs:
        info = found.get(spec.name)
        if info is None:
            continue
        if info.cleanup and info.cleanup != spec.cleanup:
            faults.append(f"{spec.name} has cleanup.policy={info.cleanup}, and needs {spec.cleanup}")
        if info.max_message_bytes is not None and info.max_message_bytes < MIN_MESSAGE_BYTES:
            faults.append(f"{spec.name} has max.message.bytes={info.max_message_bytes}, and needs {MIN_MESSAGE_BYTES}")
    return faults


async def _describe(cluster: Cluster, admin: Any, names: Sequence[str]) -> dict[str, TopicInfo]:
    async with asking(cluster, "describing topics"):
        answers = await admin.describe_topics(list(names))
        found: dict[str, TopicInfo] = {}
        for answer in answers:
            error = for_code(answer["error_code"])
            if error is NoError:
                found[answer["topic"]] = await _info(cluster, admin, answer)
            elif error.__name__ not in {"UnknownTopicOrPartitionError", "LeaderNotAvailableError"}:
                raise error(answer["topic"])
    return found


async def _info(cluster: Cluster, admin: Any, answer: Mapping[str, Any]) -> TopicInfo:
    name, partitions = answer["topic"], answer["partitions"]
    replication = len(partitions[0]["replicas"])
    if cluster.embedded is not None:
        return TopicInfo(name, len(partitions), replication)
    values: dict[str, str] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]):
        # A principal without DescribeConfigs gets an error here and no entries: then only partitions are verified.
        for _code, _message, _kind, _name, entries in response.resources:
            values |= {entry[0]: entry[1] for entry in entries}
    return TopicInfo(
        name,
        len(partitions),
        replication,
        values.get("cleanup.policy", ""),
        _number(values.get("retention.ms")),
        _number(values.get("max.message.bytes")),
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


async def _create(cluster: Cluster, admin: Any, specs: Sequence[TopicSpec]) -> None:
    settings = cluster.settings
    # The client takes -1 ("the cluster's default", KIP-464) only beside an explicit, here empty, assignment.
    assignments: dict[int, list[int]] | None = {} if settings.replication_factor == -1 else None
    new = [
        NewTopic(spec.name, settings.partitions, settings.replication_factor, assignments, spec.configs())
        for spec in specs
    ]
    async with asking(cluster, "creating topics"):
        response = await admin.create_topics(new)
    for name, code, message in response.topic_errors:
        error = for_code(code)
        # Another worker of this deployment may have been faster.
        if error not in {NoError, TopicAlreadyExistsError}:
            told = translate(error(), f"creating {name}", cluster)
            raise KafkaRefusedError(f"{name} can't be created: {message or error.__name__}", told.advice)


async def _visible(cluster: Cluster, admin: Any, names: Sequence[str]) -> dict[str, TopicInfo]:
    """Wait until the topics that were just created have leaders in a broker's metadata."""
    try:
        async with asyncio.timeout(_VISIBLE_LIMIT_S):
            while True:
                try:
                    answers = await admin.describe_topics(list(names))
                except ClientError as error:
                    if not getattr(error, "retriable", False):
                        raise translate(error, "describing topics", cluster) from error
                else:
                    if all(_has_leaders(answer) for answer in answers):
                        return await _describe(cluster, admin, names)
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise KafkaUnavailableError(
            "Topics that were created did not become visible in time", "See the brokers' logs."
        ) from error


def _has_leaders(answer: Mapping[str, Any]) -> bool:
    partitions = answer["partitions"]
    return answer["error_code"] == 0 and bool(partitions) and all(each["leader"] >= 0 for each in partitions)
