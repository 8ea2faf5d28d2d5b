"""How the parts of one channel are put together, the same for the service, a replay and a retry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from consumer import __version__
from consumer.changes.fields import FieldPolicy
from consumer.companions import CompanionEncoders, CompanionTimes
from consumer.delivery.coverage import Coverage
from consumer.delivery.envelope import Envelope
from consumer.delivery.feed import Feed
from consumer.delivery.history import History
from consumer.delivery.names import Topics
from consumer.delivery.quarantine import Quarantine
from consumer.delivery.sharing import Sharing
from consumer.delivery.sharing_rules import SharingRules
from consumer.errors import ConfigError
from consumer.intake import Encoders, Intake, Known, Wanted
from consumer.ports import Restored
from consumer.processor import Processor
from consumer.records import InternalRecords
from consumer.settings import FieldSettings, HistorySettings, TrackingSettings
from consumer.store.codec import Codec
from consumer.store.wire import codec_of
from consumer.tracking.history import HistoryTracker
from consumer.tracking.states import States
from consumer.tracking.tracker import Tracker


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

    def processor(
        self, channel: str, records: InternalRecords, states: States, restored: Restored, times: TrackingTimes
    ) -> Processor:
        """Return a new processor.

        Args:
            channel: whose events it processes.
            records: the channel's internal records.
            states: what is known of records.
            restored: what Kafka knows of the subscription.
            times: how long facts and reads wait.
        """
        epoch = 0 if restored.position is None else restored.position.epoch
        encoders = Encoders(
            Envelope(self.org_id, self.service_name, __version__, self.topics),
            History(self.org_id, self.topics),
            Coverage(self.org_id, self.topics),
            records,
            CompanionEncoders(
                Sharing(self.org_id, self.topics),
                SharingRules(self.org_id, self.topics),
                Feed(self.org_id, self.topics),
            ),
        )

        def history(window_of: Callable[[str, str, int], str | None]) -> HistoryTracker:
            return HistoryTracker(
                states, confirm_within_ms=times.confirm_within, overlap_ms=times.overlap, window_of=window_of
            )

        intake = Intake(
            channel,
            states,
            Tracker(states, epoch=epoch),
            history,
            encoders,
            known=Known(restored.windows, restored.progress),
            wanted=Wanted(times.refresh_after, times.snapshots, times.companions),
        )
        quarantine = Quarantine(self.org_id, self.topics, allow_raw=self.allow_raw)
        return Processor(self.policy, quarantine, records, intake)

    def codec(self) -> Codec:
        """Return how states and ledger entries become records, and come back."""
        return codec_of(self.topics, self.org_id)


@dataclass(frozen=True, slots=True)
class TrackingTimes:
    """How long facts and reads wait, milliseconds; the defaults are those of the settings.

    Attributes:
        confirm_within: how long a change waits for its history row.
        overlap: how far each history poll reaches back.
        refresh_after: how long after its end a session is read again.
        snapshots: whether objects are read as a whole when they first appear.
        companions: what of sharing and feeds is wanted.
    """

    confirm_within: int = HistorySettings().confirm_within
    overlap: int = HistorySettings().overlap
    refresh_after: int = TrackingSettings().refresh_after
    snapshots: bool = False
    companions: CompanionTimes = field(default_factory=CompanionTimes)


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
