"""What a scan must remember to go on after a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any, Final, Literal, Self

from consumer.tracking.arrivals import Progress, Purpose

SCAN: Final = "scan:"
"""Name of a scan's progress, before its job id."""

SNAPSHOT: Final = "snapshot:"
"""Name of an operator's request for a snapshot, before its id; state: ``entity`` and ``where``, both may be null."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan of one or more objects, as far as it got.

    Attributes:
        job: its id, part of the ids of the records it emits.
        kind: ``all`` rows; those ``modified`` since a time; the ``request`` of an operator.
        purpose: for :class:`~consumer.tracking.arrivals.RowsRead`.
        windows: ids of the loss windows it serves that are still open.
        entities: objects in its scope.
        channel_wide: whether objects that appear while it runs are in its scope too.
        left: those not done, the current one first.
        phase: ``rows`` are read; ``deletes`` are looked for; ``waiting`` for the history poll to pass the windows.
        begun_ms: when it began, or began again; epoch milliseconds of the org's time.
        from_ms: of ``modified``.
        where: of a request, a SOQL condition.
        generation: the store's, whose memory of seen records it counts on.
        opened: whether the current object's rows are counted and the way to read them is chosen.
        total: rows of the current object when it was begun, None if not known.
        cursor: where its next page begins.
        skip: rows of that page that are handed over.
        after: the id after which unseen records are looked for.
        rows, chunk: rows and chunks of the current object handed over.
        bulk: id of its Bulk API job, None for REST.
        bulk_ms: time before the job was made.
        bulk_failures: jobs that failed; after two of them REST is used.
    """

    job: str
    kind: Literal["all", "modified", "request"]
    purpose: Purpose
    windows: tuple[str, ...]
    entities: tuple[str, ...]
    left: tuple[str, ...]
    begun_ms: int
    generation: str
    channel_wide: bool = False
    phase: Literal["rows", "deletes", "waiting"] = "rows"
    from_ms: int = 0
    where: str = ""
    opened: bool = False
    total: int | None = None
    cursor: str | None = None
    skip: int = 0
    after: str = ""
    rows: int = 0
    chunk: int = 0
    bulk: str | None = None
    bulk_ms: int = 0
    bulk_failures: int = 0

    @property
    def name(self) -> str:
        """Name of its progress."""
        return SCAN + self.job

    @property
    def entity(self) -> str:
        """The current object."""
        return self.left[0]

    @property
    def seen_as(self) -> str:
        """What the store remembers seen records by; another one after a new beginning."""
        return f"{self.job}@{self.begun_ms}"

    @property
    def finds_deletes(self) -> bool:
        """Whether records it does not see can be gone."""
        return not self.where

    @property
    def fresh(self) -> bool:
        """Whether nothing of the current object is read yet."""
        return self.phase == "rows" and self.cursor is None and self.skip == 0

    def progress(self) -> Progress:
        """Return its durable form."""
        state = asdict(self)
        return Progress(self.name, {**state, "purpose": self.purpose.value})

    def done(self) -> Progress:
        """Return the removal of its durable form."""
        return Progress(self.name, done=True)

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Self:
        """Return the scan of a durable form; what the pipeline added to it is left out."""
        known = {each.name: state[each.name] for each in fields(cls) if each.name in state}
        lists = {name: tuple(known[name]) for name in ("windows", "entities", "left")}
        return cls(**{**known, **lists, "purpose": Purpose(known["purpose"])})

    def again(self, now_ms: int, generation: str) -> Self:
        """Return it as it begins again: what was seen is forgotten."""
        clean = self._at_object(self.entities)
        return replace(clean, begun_ms=now_ms, generation=generation, phase="rows")

    def object_again(self) -> Self:
        """Return it with the current object to be read from its first page."""
        return self._at_object(self.left)

    def rotated(self) -> Self:
        """Return it with the current object put last."""
        return self._at_object((*self.left[1:], self.entity))

    def after_object(self, entities: Sequence[str]) -> Self:
        """Return it with the current object done.

        Args:
            entities: the channel's objects now.
        """
        new = tuple(each for each in entities if self.channel_wide and each not in self.entities)
        left = (*self.left[1:], *new)
        moved = replace(self._at_object(left), entities=(*self.entities, *new))
        return moved if left else replace(moved, phase="waiting")

    def _at_object(self, left: tuple[str, ...]) -> Self:
        return replace(
            self,
            left=left,
            phase="rows",
            opened=False,
            total=None,
            cursor=None,
            skip=0,
            after="",
            rows=0,
            chunk=0,
            bulk=None,
            bulk_ms=0,
        )


def job_id(windows: Sequence[str]) -> str:
    """Return the id of the scan that serves these windows; the same windows give the same."""
    return sha256("\n".join(sorted(windows)).encode()).hexdigest()[:16]
