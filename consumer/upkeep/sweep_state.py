"""What a sweep of share rows must remember to go on after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self

from consumer.tracking.access import ShareCause
from consumer.tracking.arrivals import Progress
from consumer.tracking.sharing import SWEPT

SWEEP: Final = "sweep:"
"""Name of a running sweep's progress, before the object."""

ORG_DEFAULT: Final = "org-default:"
"""Name of the org-wide default access, before the object; state: ``internal``, ``external``, ``as_of_ms``."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A reading of all share rows of an object, as far as it got.

    Attributes:
        entity: the shared object.
        cause: what its facts are said to come from.
        begun_ms: when it began, epoch milliseconds of the org's time.
        generation: the store's, whose memory of seen records it counts on.
        phase: ``rows`` are read in the order of their records; then records that were ``unseen`` are read by id.
        cursor: where the next page begins.
        skip: the record before the cursor, read as a whole already: what the next pages still bring of it are
            rows that one page had no room for, or that were made anew since.
        through: the last record there was when it began: what came since is read for being new. Empty if unknown.
        after: the id after which unseen records are looked for.
        rows: rows read so far.
        total: rows there were when it began, None if that could not be read.
    """

    entity: str
    cause: ShareCause
    begun_ms: int
    generation: str
    phase: Literal["rows", "unseen"] = "rows"
    cursor: str | None = None
    skip: str = ""
    through: str = ""
    after: str = ""
    rows: int = 0
    total: int | None = None

    @property
    def seen_as(self) -> str:
        """What the store remembers seen records by."""
        return f"shares@{self.begun_ms}"

    def progress(self) -> Progress:
        """Return its durable form."""
        return Progress(SWEEP + self.entity, {**asdict(self), "cause": self.cause.value})

    def done(self, ended_ms: int) -> tuple[Progress, ...]:
        """Return the removal of its durable form, and what is kept of it.

        Args:
            ended_ms: when it was through, epoch milliseconds of the org's time.
        """
        kept = {"begun_ms": self.begun_ms, "ended_ms": ended_ms, "rows": self.rows, "cause": self.cause.value}
        return Progress(SWEEP + self.entity, done=True), Progress(SWEPT + self.entity, kept)

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Self:
        """Return the sweep of a durable form."""
        known = {each.name: state[each.name] for each in fields(cls) if each.name in state}
        return cls(**{**known, "cause": ShareCause(known["cause"])})

    def again(self, now_ms: int, generation: str) -> Self:
        """Return it as it begins again, because the store was lost that knew what it had seen."""
        return replace(
            self,
            begun_ms=now_ms,
            generation=generation,
            phase="rows",
            cursor=None,
            skip="",
            after="",
            rows=0,
            total=None,
        )
