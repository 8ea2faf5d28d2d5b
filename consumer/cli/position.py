"""``position``: show, set or reset the committed position."""

from __future__ import annotations

import argparse
import base64
import binascii

from consumer import clock
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line
from consumer.cli.steering import chosen_topic, who
from consumer.delivery.coverage import Coverage
from consumer.delivery.names import Topics
from consumer.delivery.partition import partition_for
from consumer.delivery.windows import window_for_forced_position
from consumer.errors import UsageError
from consumer.kafka.connection import Cluster
from consumer.kafka.deployment import Deployment, describe_position, read_deployment
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import describe_topics
from consumer.ports import Batch
from consumer.position import Position, Preset
from consumer.records import InternalRecords
from consumer.settings import Settings

NAME = "position"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="show, set or reset the committed position",
        description=(
            "The position is the replay id up to which everything is committed. Salesforce accepts it for 72 hours.\n"
            "`set` and `reset` refuse while a worker is active, open a loss window, and want --yes."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer position show\n"
            "  session-consumer position set --replay-id AAAAAAAXkCkAAA== --yes\n"
            "  session-consumer position set --earliest --yes\n"
            "  session-consumer position reset --yes"
        ),
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    show = actions.add_parser("show", help="print it")
    add_json_option(show)
    change = actions.add_parser("set", help="go on elsewhere")
    place = change.add_mutually_exclusive_group(required=True)
    place.add_argument("--replay-id", metavar="BASE64", help="go on after this replay id")
    place.add_argument("--earliest", action="store_true", help="go on with the oldest retained event")
    place.add_argument("--latest", action="store_true", help="go on with new events only")
    reset = actions.add_parser("reset", help="begin as pubsub.start says")
    for each in (change, reset):
        each.add_argument("--topic", metavar="TOPIC", help="the channel; needed when several are configured")
        each.add_argument("--yes", action="store_true", help="do it; without it only what would happen is printed")


async def run(args: argparse.Namespace) -> int:
    """Show or change the position."""
    settings = load_settings(args, needs_login=False).settings
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    cluster = Cluster(settings.kafka)
    deployment = await read_deployment(cluster, topics, settings.service.name)
    if args.action == "show":
        return _show(settings, deployment, as_json=args.json)
    return await _force(args, settings, topics, cluster, deployment)


def _show(settings: Settings, deployment: Deployment, *, as_json: bool) -> int:
    now_ms = clock.now_ms()
    found = [describe_position(each, now_ms) for each in deployment.positions.values()]
    if as_json:
        write_json(found)
        return 0
    for channel in settings.pubsub.topics:
        committed = deployment.positions.get(channel)
        if committed is None:
            write_line(f"{channel}: nothing is committed yet; the first start begins with pubsub.start")
            continue
        write_line(channel)
        for name, value in describe_position(committed, now_ms).items():
            if name != "channel" and value is not None:
                write_line(f"  {name.replace('_', ' '):18} {value}")
    return 0


async def _force(
    args: argparse.Namespace, settings: Settings, topics: Topics, cluster: Cluster, deployment: Deployment
) -> int:
    channel = chosen_topic(settings, args.topic)
    if channel is None:
        if len(settings.pubsub.topics) > 1:
            raise UsageError("Several channels are configured", "Name one with --topic.")
        channel = settings.pubsub.topics[0]
    old = deployment.positions.get(channel)
    if old is None or deployment.meta is None:
        raise UsageError(f"Nothing is committed for {channel} yet", "Choose the beginning with pubsub.start.")
    if deployment.members:
        # While the group rebalances nobody is assigned anything, although all are alive.
        names = ", ".join(member.client_id for member in deployment.members)
        raise UsageError(f"A worker is active ({names})", "Stop all workers of this deployment first.")
    now_ms = clock.now_ms()
    new = _target(args, settings, now_ms)
    window = window_for_forced_position(channel, old.position, new, old.last_event_ms, now_ms, who())
    write_line(f"{channel}: from {_place(old.position)} to {_place(new)}")
    write_line("Events before the new place that were not committed yet are skipped: a loss window says so.")
    write_line("Events after it that were committed in the last 96 hours are recognised and not sent again; older")
    write_line("ones are sent once more, with the same ids.")
    if not args.yes:
        write_line("Nothing was changed; add --yes to do it.")
        return 0
    owner = Subscription(settings.service.name, deployment.meta.org_id, channel, topics)
    described = await describe_topics(cluster, [topics.positions])
    partition = partition_for(owner.position_key, described[topics.positions].partitions)
    records = InternalRecords(channel, topics, Coverage(deployment.meta.org_id, topics), who(), partition)
    sink = KafkaSink(cluster, owner)
    await sink.open()
    try:
        opened = records.window_opened(window, now_ms)
        moved = records.position(new, old.last_event_ms, now_ms)
        await sink.commit(Batch([*opened, moved], 0, new))
    finally:
        await sink.close()
    write_line(f"done; loss window {window.window_id} is open")
    return 0


def _target(args: argparse.Namespace, settings: Settings, now_ms: int) -> Position:
    if args.action == "reset":
        latest = settings.pubsub.start == "latest"
    elif args.replay_id is not None:
        try:
            replay_id = base64.b64decode(args.replay_id, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError("--replay-id is not base64", "Copy it from a record's source.replay_id.") from error
        if not replay_id:
            raise UsageError("--replay-id is empty", "Copy it from a record's source.replay_id.")
        return Position(replay_id=replay_id, redelivery_ms=now_ms)
    else:
        latest = args.latest
    return Position(preset=Preset.LATEST if latest else Preset.EARLIEST, redelivery_ms=now_ms)


def _place(position: Position) -> str:
    if position.replay_id is None:
        return f"the {position.preset.value} event"
    return base64.b64encode(position.replay_id).decode()
