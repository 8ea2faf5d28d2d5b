"""What the commands that steer a running worker share: they all go through the ``control`` topic."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections.abc import Callable

from consumer import clock
from consumer.cli.common import load_settings, write_line
from consumer.delivery.control import Command, Pause, Resume, encode_command
from consumer.delivery.names import Topics
from consumer.errors import KafkaRefusedError, UsageError
from consumer.kafka.connection import Cluster
from consumer.kafka.control import send_command
from consumer.kafka.topics import describe_topics
from consumer.settings import Settings

CommandFor = Callable[[str | None, int, str], Pause | Resume]

CONTROL_PARTITION = 0
"""Pause and resume have an order only within one partition."""


def who() -> str:
    """Return who gives a command: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id that has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def add_topic_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--topic``: one channel instead of all."""
    parser.add_argument("--topic", metavar="TOPIC", help="only this channel (default: all configured ones)")


def chosen_topic(settings: Settings, topic: str | None) -> str | None:
    """Return the channel that was asked for, None for all.

    Raises:
        UsageError: it is not a configured one.
    """
    if topic is not None and topic not in settings.pubsub.topics:
        known = ", ".join(settings.pubsub.topics)
        raise UsageError(f"{topic} is not a configured channel", f"Configured are: {known}.")
    return topic


async def send(settings: Settings, command: Command) -> None:
    """Send a command to the workers of a deployment.

    Raises:
        KafkaUnavailableError: no broker answered in time.
        KafkaRefusedError: the topic does not exist or may not be written.
    """
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    cluster = Cluster(settings.kafka)
    # A producer would wait long for a topic that nobody makes.
    if topics.control not in await describe_topics(cluster, [topics.control]):
        raise KafkaRefusedError(
            f"The topic {topics.control} does not exist",
            "Start `session-consumer run` once, or create it as `session-consumer check` says.",
        )
    await send_command(cluster, encode_command(topics, command, CONTROL_PARTITION))


async def run_pause_or_resume(args: argparse.Namespace, command_for: CommandFor) -> int:
    """Send a pause or a resume as the command line says.

    Args:
        args: the parsed command line.
        command_for: makes the command from channel, time in epoch milliseconds, and who gives it.
    """
    settings = load_settings(args, needs_login=False).settings
    channel = chosen_topic(settings, args.topic)
    command = command_for(channel, clock.now_ms(), who())
    await send(settings, command)
    word = "pause" if isinstance(command, Pause) else "resume"
    write_line(f"{word} sent for {channel or 'all channels'}; `session-consumer status` shows when it took effect")
    return 0
