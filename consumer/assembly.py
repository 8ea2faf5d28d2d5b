"""How the parts of one channel are put together, the same for the service, a replay and a retry."""

from __future__ import annotations

from dataclasses import dataclass

from consumer import __version__
from consumer.changes.fields import FieldPolicy
from consumer.delivery.coverage import Coverage
from consumer.delivery.envelope import Envelope
from consumer.delivery.names import Topics
from consumer.delivery.quarantine import Quarantine
from consumer.errors import ConfigError
from consumer.processor import Processor
from consumer.records import InternalRecords
from consumer.settings import FieldSettings


@dataclass(frozen=True, slots=True)
class Assembly:
    """What every channel of a deployment shares.

    Attributes:
        org_id: 18-character org id.
        service_name: ``service.name``.
        topics: the deployment's topic names.
        policy: the field policy.
        allow_raw: whether quarantine may hold raw payloads.
        worker: name of this worker, told in positions.
    """

    org_id: str
    service_name: str
    topics: Topics
    policy: FieldPolicy
    allow_raw: bool
    worker: str

    def internal_records(self, channel: str, partition: int) -> InternalRecords:
        """Return the maker of a channel's position and coverage records.

        Args:
            channel: the channel.
            partition: its partition of the ``positions`` topic.
        """
        return InternalRecords(channel, self.topics, Coverage(self.org_id, self.topics), self.worker, partition)

    def processor(self, records: InternalRecords) -> Processor:
        """Return a new processor for the channel of ``records``."""
        envelope = Envelope(self.org_id, self.service_name, __version__, self.topics)
        quarantine = Quarantine(self.org_id, self.topics, allow_raw=self.allow_raw)
        return Processor(self.policy, envelope, quarantine, records)


def field_policy(settings: FieldSettings) -> FieldPolicy:
    """Return the configured field policy.

    Raises:
        ConfigError: the hash key can't be read, or is too short.
    """
    key: bytes | None = None
    if settings.hash_key_file is not None:
        try:
            key = settings.hash_key_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(
                [f"fields.hash_key_file: {settings.hash_key_file} can't be read: {error.strerror}"],
                "Make one with `openssl rand -hex 32`.",
            ) from error
    return FieldPolicy(settings.drop, settings.hash, settings.mask, key)
