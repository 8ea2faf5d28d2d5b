"""Topic names: from channels and object API names to Kafka topics."""

from __future__ import annotations

import re
from collections.abc import Sequence

from consumer.errors import ConfigError

MAX_TOPIC_CHARS = 249
"""Kafka's limit; longer names do not fit a log directory's name (Kafka ``Topic`` class)."""

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_EVENT_SUFFIX = "ChangeEvent"
_CUSTOM_SUFFIX = "__ChangeEvent"


def kebab(entity: str) -> str:
    """Return an object API name as topic names spell it: ``MessagingSession`` is ``messaging-session``.

    Names with ``__`` (custom objects, channels, namespaces) are only lower-cased. Two objects never meet in
    one name, because API names are unique regardless of case.
    """
    if "__" in entity:
        return entity.lower()
    return _HUMPS.sub("-", entity).lower()


def entity_of_channel(channel: str) -> str | None:
    """Return the one object a channel carries, None for channels of several objects.

    ``/data/MessagingSessionChangeEvent`` carries MessagingSession, ``/data/Widget__ChangeEvent`` Widget__c;
    ``/data/ChangeEvents`` and ``/data/Name__chn`` carry whatever was selected for them (Pub/Sub API guide).
    """
    name = _channel_name(channel)
    if name.endswith(_CUSTOM_SUFFIX):
        stem = name.removesuffix(_CUSTOM_SUFFIX)
        return f"{stem}__c" if stem else None
    if name.endswith(_EVENT_SUFFIX):
        return name.removesuffix(_EVENT_SUFFIX) or None
    return None


class Topics:
    """Every topic name of one deployment.

    ``coverage``, ``quarantine``, ``positions``, ``ledger`` and ``control`` exist once, under the first
    configured channel; the others exist per object.

    Args:
        prefix: put before every name as it is, such as ``salesforce.``.
        channels: the configured channels, at least one.

    Attributes:
        prefix: as given.
        channels: as given.
        service_entity: object API name that the once-only topics stand under; the channel's own name when it
            carries several objects.

    Raises:
        ConfigError: there is no channel, or a name is not one that Kafka allows.
    """

    def __init__(self, prefix: str, channels: Sequence[str]) -> None:
        if not channels:
            raise ConfigError(["pubsub.topics is empty"], "Name at least one change event channel.")
        self.prefix = prefix
        self.channels = tuple(channels)
        self.service_entity = entity_of_channel(channels[0]) or _channel_name(channels[0])
        self._changes: dict[str, str] = {}
        self.coverage = self.of(self.service_entity, "coverage")
        self.quarantine = self.of(self.service_entity, "quarantine")
        self.positions = self.of(self.service_entity, "positions")
        self.ledger = self.of(self.service_entity, "ledger")
        self.control = self.of(self.service_entity, "control")
        for channel in channels:
            entity = entity_of_channel(channel)
            if entity is not None:
                self.changes(entity)

    def changes(self, entity: str) -> str:
        """Return the ``changes`` topic of an object, by its API name.

        Raises:
            ConfigError: the name is not one that Kafka allows.
        """
        name = self._changes.get(entity)
        if name is None:
            name = self._changes[entity] = self.of(entity, "changes")
        return name

    def of(self, entity: str, kind: str) -> str:
        """Return ``<prefix><entity in kebab case>.<kind>``.

        Raises:
            ConfigError: the name is not one that Kafka allows.
        """
        name = f"{self.prefix}{kebab(entity)}.{kind}"
        if not entity or len(name) > MAX_TOPIC_CHARS or not _LEGAL.fullmatch(name):
            raise ConfigError(
                [f"{name[: MAX_TOPIC_CHARS + 1]!r} can't be a Kafka topic name"],
                f"Use a prefix and channels of letters, digits, '.', '_' and '-', at most {MAX_TOPIC_CHARS} "
                "characters in all.",
            )
        return name

    @staticmethod
    def entity_of_channel(channel: str) -> str | None:
        """Return the one object a channel carries, None for channels of several objects."""
        return entity_of_channel(channel)

    @staticmethod
    def kebab(entity: str) -> str:
        """Return an object API name as it stands in topic names."""
        return kebab(entity)


def _channel_name(channel: str) -> str:
    return channel.rpartition("/")[2]
