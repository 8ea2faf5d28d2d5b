"""``replay``: a recording through the same code, to stdout or to Kafka."""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from consumer.assembly import Assembly, field_policy
from consumer.cli.common import Subparsers, load_settings, write_line
from consumer.delivery.names import Topics
from consumer.errors import UsageError
from consumer.events import OutboundRecord, TapItem
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.ports import Batch
from consumer.position import Position
from consumer.recording.reader import Recording
from consumer.records import InternalRecords
from consumer.replaying import Replay
from consumer.settings import FieldSettings, Settings

NAME = "replay"

_UNKNOWN_ORG = "000000000000000AAA"
_DEFAULT_PREFIX = "salesforce."


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="put a recording through the same code, to stdout or to Kafka",
        description=(
            "Put a recording through the same code as the live stream. Every time comes from the recording, so the\n"
            "output of the same recording is the same, byte for byte. Live positions are never touched."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer replay day.avro --to stdout | jq .value.op\n"
            "  session-consumer replay day.avro --to kafka --topic-prefix replay.\n\n"
            "To stdout no configuration is needed; one given with --config applies its field policy."
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a recording")
    parser.add_argument("--to", choices=("stdout", "kafka"), default="stdout", help="where to (default: stdout)")
    parser.add_argument(
        "--topic-prefix", metavar="P", help="prefix of the topics; needed for kafka, never the configured one"
    )


async def run(args: argparse.Namespace) -> int:
    """Replay."""
    configured = args.to == "kafka" or getattr(args, "config", None) is not None
    settings = load_settings(args).settings if configured else None
    recording = Recording(args.file)
    items = iter(recording)
    first = next(items, None)
    if first is None:
        sys.stderr.write("session-consumer: the recording is empty\n")
        return 0
    everything = itertools.chain([first], items)
    org_id = recording.org_id or _UNKNOWN_ORG
    if args.to == "stdout":
        assembly = _assembly(settings, args.topic_prefix or _DEFAULT_PREFIX, first.topic, org_id)
        _to_stdout(assembly, everything)
        return 0
    if settings is None or not args.topic_prefix:
        raise UsageError("--to kafka needs --topic-prefix", "Choose one that no live deployment uses, such as replay.")
    if args.topic_prefix == settings.kafka.topic_prefix:
        raise UsageError(
            f"{args.topic_prefix!r} is the configured prefix, whose topics are live", "Choose another --topic-prefix."
        )
    return await _to_kafka(settings, _assembly(settings, args.topic_prefix, first.topic, org_id), everything)


def _assembly(settings: Settings | None, prefix: str, channel: str, org_id: str) -> Assembly:
    fields = FieldSettings() if settings is None else settings.fields
    name = "session-consumer" if settings is None else settings.service.name
    return Assembly(org_id, name, Topics(prefix, [channel]), field_policy(fields), fields.allow_raw, "replay")


def _replayed(assembly: Assembly, items: Iterator[TapItem]) -> Iterator[OutboundRecord]:
    def records(channel: str) -> InternalRecords:
        return assembly.internal_records(channel, 0)

    replay = Replay(lambda channel: assembly.processor(records(channel)), records)
    for group in replay.records(items):
        yield from (record for record in group if record.topic != assembly.topics.positions)


def _to_stdout(assembly: Assembly, items: Iterator[TapItem]) -> None:
    for record in _replayed(assembly, items):
        write_line(line(record))


def line(record: OutboundRecord) -> str:
    """Return a record as one line of JSON; bytes that are no JSON stand as base64 under ``value_base64``."""
    shown: dict[str, object] = {
        "topic": record.topic,
        "key": record.key.decode("utf-8", "replace"),
        "headers": {name: value.decode("utf-8", "replace") for name, value in record.headers},
    }
    try:
        shown["value"] = None if record.value is None else json.loads(record.value)
    except ValueError:
        shown["value_base64"] = base64.b64encode(record.value or b"").decode()
    return orjson.dumps(shown).decode()


async def _to_kafka(settings: Settings, assembly: Assembly, items: Iterator[TapItem]) -> int:
    prefix = assembly.topics.prefix
    cluster = Cluster(settings.kafka.model_copy(update={"topic_prefix": prefix}))
    await ensure_topics(cluster, planned_specs(assembly.topics, cluster.settings))
    channel = assembly.topics.channels[0]
    name = f"{settings.service.name}-replay"
    sink = KafkaSink(cluster, Subscription(name, assembly.org_id, channel, assembly.topics))
    sent = 0
    await sink.open()
    try:
        records = _replayed(assembly, items)
        while batch := list(itertools.islice(records, settings.batch.max_records)):
            await sink.commit(Batch(batch, 0, Position()))
            sent += len(batch)
            sys.stderr.write(f"\r{sent} records committed")
    finally:
        await sink.close()
    sys.stderr.write(f"\r{sent} records committed under {prefix}*\n")
    return 0
