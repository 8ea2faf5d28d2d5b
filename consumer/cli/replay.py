"""``replay``: a recording through the same code, to stdout or to Kafka."""

from __future__ import annotations

import argparse
import base64
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from consumer.assembly import Assembly, TrackingTimes, field_policy
from consumer.cli.common import Subparsers, load_settings, write_line
from consumer.delivery.names import Topics
from consumer.errors import UsageError
from consumer.events import OutboundRecord, TapItem
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.ports import Batch, Restored, Store
from consumer.position import Position
from consumer.processor import Processor
from consumer.recording.reader import Recording
from consumer.records import InternalRecords
from consumer.replaying import Replay
from consumer.settings import FieldSettings, Settings
from consumer.store.memory import MemoryStore

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
    settings = _settings(args)
    recording = Recording(args.file)
    items = iter(recording)
    first = next(items, None)
    if first is None:
        sys.stderr.write(f"{args.file} holds no items, so there is nothing to replay\n")
        return 0
    everything = itertools.chain([first], items)
    prefix = args.topic_prefix or _DEFAULT_PREFIX
    assembly = _assembly(settings, prefix, first.topic, recording.org_id or _UNKNOWN_ORG)
    if args.to == "stdout" or settings is None:
        for record in _replayed(assembly, everything):
            write_line(line(record, raw=record.topic == assembly.topics.quarantine))
        return 0
    return await _to_kafka(settings, assembly, everything)


def _settings(args: argparse.Namespace) -> Settings | None:
    """Return the configuration, None where none is needed.

    Raises:
        UsageError: the prefix is missing, or the live one.
        ConfigError: the configuration has faults.
    """
    if args.to == "stdout":
        return load_settings(args, needs_login=False).settings if getattr(args, "config", None) is not None else None
    if not args.topic_prefix:
        raise UsageError("--to kafka needs --topic-prefix", "Choose one that no live deployment uses, such as replay.")
    settings = load_settings(args, needs_login=False).settings
    if args.topic_prefix == settings.kafka.topic_prefix:
        raise UsageError(
            f"{args.topic_prefix!r} is the configured prefix, whose topics are live", "Choose another --topic-prefix."
        )
    return settings


def _assembly(settings: Settings | None, prefix: str, channel: str, org_id: str) -> Assembly:
    fields = FieldSettings() if settings is None else settings.fields
    name = "session-consumer" if settings is None else settings.service.name
    return Assembly(org_id, name, Topics(prefix, [channel]), field_policy(fields), fields.raw_allowed, "replay")


def _replayed(assembly: Assembly, items: Iterator[TapItem]) -> Iterator[OutboundRecord]:
    def records(channel: str) -> InternalRecords:
        return assembly.internal_records(channel, 0)

    def processor(channel: str, store: Store) -> Processor:
        return assembly.processor(channel, records(channel), store, Restored(None), TrackingTimes())

    replay = Replay(processor, lambda _: MemoryStore(assembly.codec()), records)
    internal = {assembly.topics.positions, assembly.topics.ledger}
    for group in replay.records(items):
        yield from (record for record in group if record.topic not in internal)


def line(record: OutboundRecord, *, raw: bool) -> str:
    """Return a record as one line of JSON.

    Args:
        record: the record.
        raw: whether its value is bytes as they were received, even if they look like JSON; such values, and
            others that are no JSON, stand as base64 under ``value_base64``.
    """
    shown: dict[str, object] = {
        "topic": record.topic,
        "key": record.key.decode("utf-8", "replace"),
        "headers": {name: value.decode("utf-8", "replace") for name, value in record.headers},
    }
    value = record.value
    try:
        shown["value"] = None if value is None else _json(value, raw=raw)
    except ValueError:
        shown["value_base64"] = base64.b64encode(value or b"").decode()
    return orjson.dumps(shown).decode()


def _json(value: bytes, *, raw: bool) -> object:
    if raw:
        message = "raw bytes"
        raise ValueError(message)
    return orjson.loads(value)


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
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{sent} records committed")
    finally:
        await sink.close()
        end = "\r" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{end}{sent} records committed under {prefix}*\n")
    return 0
