"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from consumer.errors import ServiceError
from consumer.reactions import advice_for


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `check`.

    Attributes:
        name: what was checked.
        level: how it went.
        seen: what was seen.
        advice: what to click or type; empty when nothing is to be done.
    """

    name: str
    level: Level
    seen: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """Return the finding as JSON values."""
        return {"name": self.name, "level": self.level.value, "seen": self.seen, "advice": self.advice}


def ok(name: str, seen: str) -> Finding:
    """Return a good finding."""
    return Finding(name, Level.OK, seen)


def warn(name: str, seen: str, advice: str) -> Finding:
    """Return a finding that does not stop a start."""
    return Finding(name, Level.WARN, seen, advice)


def skipped(name: str, why: str) -> Finding:
    """Return the finding of a check that could not be made because of another one."""
    return Finding(name, Level.SKIPPED, why)


def failed(name: str, error: ServiceError) -> Finding:
    """Return the finding of an error."""
    return Finding(name, Level.FAIL, error.message, advice_for(error))
