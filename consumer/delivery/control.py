"""Records of the ``control`` topic: commands to a running worker (``schemas/control.json``).

Keys are ``pause:<channel or *>``, ``resume:<channel or *>`` and ``retry:<id>``; the order of the log decides
between a pause and a resume, never the issuers' clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from consumer.delivery.internal import VERSION, InternalRecord, broken, key_text
from consumer.delivery.names import Topics
from consumer.events import OutboundRecord

ALL = "*"


@dataclass(frozen=True, slots=True)
class Pause:
    """Take no more credits, commit what is there, and wait.

    Attributes:
        channel: the channel, None for all.
        issued_ms: when it was given, epoch milliseconds.
        who: who gave it.
    """

    channel: str | None
    issued_ms: int
    who: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on after a pause or a halt.

    Attributes:
        channel: the channel, None for all.
        issued_ms: when it was given, epoch milliseconds.
        who: who gave it.
        accept_flood: whether what a flood halted for may go into quarantine.
    """

    channel: str | None
    issued_ms: int
    who: str
    accept_flood: bool = False


@dataclass(frozen=True, slots=True)
class RetryQuarantine:
    """Process quarantined events again.

    Attributes:
        retry_id: chosen by the issuer; a worker carries out each id once.
        window_ids: loss windows of the events, None for all that are open.
        issued_ms: when it was given, epoch milliseconds.
        who: who gave it.
    """

    retry_id: str
    window_ids: tuple[str, ...] | None
    issued_ms: int
    who: str


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Read all records of an object again, or those that a condition names, while the stream goes on.

    Attributes:
        snapshot_id: chosen by the issuer; a worker carries out each id once.
        entity: object API name, None for every object of the channels.
        where: a SOQL condition, empty for all records.
        issued_ms: when it was given, epoch milliseconds.
        who: who gave it.
    """

    snapshot_id: str
    entity: str | None
    where: str
    issued_ms: int
    who: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A tombstone: the command with this key is carried out or taken back.

    Attributes:
        key: the whole key, such as ``retry:…``.
    """

    key: str


Command: TypeAlias = Pause | Resume | RetryQuarantine | TakeSnapshot
ControlEntry: TypeAlias = Command | Withdrawn


def command_key(command: Command) -> str:
    """Return the key a command stands under."""
    match command:
        case Pause():
            return f"pause:{command.channel or ALL}"
        case Resume():
            return f"resume:{command.channel or ALL}"
        case RetryQuarantine():
            return f"retry:{command.retry_id}"
        case TakeSnapshot():
            return f"snapshot:{command.snapshot_id}"


def encode_command(topics: Topics, entry: ControlEntry, partition: int | None = None) -> OutboundRecord:
    """Return the record of a command.

    Args:
        topics: the deployment's topic names.
        entry: the command, or its tombstone.
        partition: partition of the topic; None lets the key decide. Pause and resume only have an order when
            they stand in one partition.
    """
    if isinstance(entry, Withdrawn):
        return OutboundRecord(topics.control, entry.key.encode(), None, (), partition)
    fields: dict[str, object] = {"v": VERSION, "issued_ms": entry.issued_ms, "who": entry.who}
    match entry:
        case Pause() | Resume():
            fields |= {"command": "pause" if isinstance(entry, Pause) else "resume", "channel": entry.channel}
            if isinstance(entry, Resume) and entry.accept_flood:
                fields["accept_flood"] = True
        case RetryQuarantine():
            fields |= {"command": "retry", "retry_id": entry.retry_id, "window_ids": entry.window_ids}
        case TakeSnapshot():
            fields |= {"command": "snapshot", "snapshot_id": entry.snapshot_id, "entity": entry.entity}
            fields["where"] = entry.where
    return OutboundRecord(topics.control, command_key(entry).encode(), orjson.dumps(fields), (), partition)


def decode_command(key: bytes, value: bytes | None) -> ControlEntry:
    """Return the command of a record.

    Raises:
        ForeignStateError: a newer version wrote it, or not this service at all.
    """
    name = key_text(key)
    if value is None:
        return Withdrawn(name)
    record = InternalRecord(name, value)
    issued_ms, who, kind = record.number("issued_ms"), record.text("who"), record.text("command")
    command: Command
    if kind == "pause":
        command = Pause(record.optional_text("channel"), issued_ms, who)
    elif kind == "resume":
        command = Resume(record.optional_text("channel"), issued_ms, who, record.flag("accept_flood"))
    elif kind == "retry":
        command = RetryQuarantine(record.text("retry_id"), record.optional_texts("window_ids"), issued_ms, who)
    elif kind == "snapshot":
        entity = record.optional_text("entity")
        command = TakeSnapshot(record.text("snapshot_id"), entity, record.text("where"), issued_ms, who)
    else:
        raise broken(name, "its command is none this version knows")
    if command_key(command) != name:
        record.refuse("key and command differ")
    return command


def is_paused(entries: Iterable[ControlEntry], channel: str) -> bool:
    """Return whether the commands so far, in the order of the log, leave a channel paused."""
    paused = False
    for entry in entries:
        if isinstance(entry, Pause | Resume) and entry.channel in {None, channel}:
            paused = isinstance(entry, Pause)
    return paused
