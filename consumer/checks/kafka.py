"""Checks of the Kafka side: brokers, topics, a transaction, the committed position, who is active."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from consumer.checks.findings import Finding, Level, failed, ok, skipped, warn
from consumer.delivery.names import Topics
from consumer.errors import ServiceError
from consumer.kafka.connection import Cluster
from consumer.kafka.deployment import Deployment, describe_position, read_deployment
from consumer.kafka.producer import try_transaction
from consumer.kafka.topics import TopicInfo, cluster_id, create_command, describe_topics, planned_specs, topic_faults
from consumer.settings import Settings

_EXPIRY_WARNING_H = 24.0


async def check_kafka(settings: Settings, org_id: str | None, now_ms: Callable[[], int]) -> list[Finding]:
    """Return the findings."""
    cluster = Cluster(settings.kafka)
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    try:
        cluster_name = await cluster_id(cluster)
    except ServiceError as error:
        names = ("topics", "transaction", "position", "workers")
        return [failed("kafka", error), *(skipped(name, "no broker answered") for name in names)]
    findings = [ok("kafka", f"cluster {cluster_name} at {settings.kafka.bootstrap_servers}")]
    findings.append(await _topics(settings, cluster, topics))
    findings.append(await _transaction(settings, cluster, topics))
    return findings + [finding async for finding in _deployment(settings, cluster, topics, org_id, now_ms)]


async def _topics(settings: Settings, cluster: Cluster, topics: Topics) -> Finding:
    specs = planned_specs(topics, settings.kafka, shared=settings.sharing.wanted, fed=settings.feed.wanted)
    try:
        found = await describe_topics(cluster, [spec.name for spec in specs])
    except ServiceError as error:
        return failed("topics", error)
    faults = topic_faults(specs, found, settings.kafka)
    missing = [spec for spec in specs if spec.name not in found]
    if faults:
        return Finding("topics", Level.FAIL, "; ".join(faults), "Mend them, or choose another kafka.topic_prefix.")
    if missing and not settings.kafka.create_topics:
        commands = " ; ".join(create_command(spec, cluster) for spec in missing)
        return Finding("topics", Level.FAIL, f"{len(missing)} are missing", f"Create them: {commands}")
    if missing:
        return ok("topics", f"{len(found)} exist, {len(missing)} will be created by the first run")
    return ok("topics", "; ".join(_described(info) for info in found.values()))


def _described(info: TopicInfo) -> str:
    kept = "compacted" if info.cleanup == "compact" else _days(info.retention_ms)
    size = "" if info.size_bytes is None else f", {info.size_bytes / 1e6:.1f} MB"
    return f"{info.name} ({info.partitions} partitions, {kept}{size})"


def _days(retention_ms: int | None) -> str:
    if retention_ms is None:
        return "retention not readable"
    return "kept for ever" if retention_ms < 0 else f"kept {retention_ms / 86_400_000:.0f} days"


async def _transaction(settings: Settings, cluster: Cluster, topics: Topics) -> Finding:
    scratch = f"{settings.service.name}.check"
    try:
        exists = topics.control in await describe_topics(cluster, [topics.control])
        await try_transaction(cluster, scratch, topics.control if exists else None)
    except ServiceError as error:
        return failed("transaction", error)
    done = "committed" if exists else "producer id given; commits are tried once the topics exist"
    return ok("transaction", f"{scratch}: {done}")


async def _deployment(
    settings: Settings, cluster: Cluster, topics: Topics, org_id: str | None, now_ms: Callable[[], int]
) -> AsyncIterator[Finding]:
    try:
        if topics.positions not in await describe_topics(cluster, [topics.positions]):
            yield ok("position", "none yet; the first run begins with pubsub.start")
            yield skipped("workers", "nothing has run yet")
            return
        deployment = await read_deployment(cluster, topics, settings.service.name)
    except ServiceError as error:
        yield failed("position", error)
        yield skipped("workers", "positions can't be read")
        return
    if deployment.meta is not None and org_id is not None and deployment.meta.org_id != org_id:
        yield Finding(
            "position",
            Level.FAIL,
            f"the topics belong to org {deployment.meta.org_id}",
            "Give this org its own kafka.topic_prefix and service.name.",
        )
    for channel in settings.pubsub.topics:
        yield _position(channel, deployment, now_ms())
    active = ", ".join(member.client_id for member in deployment.active)
    standbys = len(deployment.members) - len(deployment.active)
    yield ok("workers", f"active: {active or 'none'}; standby: {standbys}")


def _position(channel: str, deployment: Deployment, now_ms: int) -> Finding:
    committed = deployment.positions.get(channel)
    if committed is None:
        return ok("position", f"{channel}: none yet; the first run begins with pubsub.start")
    hours = float(str(describe_position(committed, now_ms)["expires_in_hours"]))
    seen = f"{channel}: {72 - hours:.1f} hours old, expires in {hours:.1f} hours"
    if hours <= 0:
        return warn("position", seen, "It is probably lost: the next run acts as pubsub.on_lost_position says.")
    if hours < _EXPIRY_WARNING_H:
        return warn("position", seen, "Start a worker soon; after 72 hours Salesforce forgets it.")
    return ok("position", seen)
