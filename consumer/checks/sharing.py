"""Checks of what stands beside an object: share rows, sharing rules, feed, and what reading them costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from consumer.checks.findings import Finding, failed, ok, skipped, warn
from consumer.errors import QueryRefusedError, ServiceError
from consumer.ports import RecordSource
from consumer.settings import Settings
from consumer.tracking.sharing_budget import (
    DAY_MS,
    affordable_sweep_ms,
    calls_of_sweep,
    owner_change_calls_per_day,
    polling_calls_per_day,
    worst_revocation_ms,
)

_SETS: Final = "Setup > Permission Sets > Object Settings"
_CYCLE_MS: Final = 10_000
"""How often records whose owner changed are read together (``consumer.upkeep.shares``)."""

_OWNERS_OF_A_SESSION: Final = 4
"""Owner changes of a usual session: created, taken from a queue by a bot or a person, transferred once."""

_NOT_IN_ROWS: Final = "role hierarchy, View All and Modify All are in no share row"


def sharing_names(settings: Settings, entity: str) -> tuple[str, ...]:
    """Return the names of an object's findings, for when they can't be made."""
    shares = (f"{entity} shares", f"{entity} sharing rules", f"{entity} sharing calls")
    return (
        *(shares if entity in settings.sharing.wanted else ()),
        *((f"{entity} feed",) if entity in settings.feed.wanted else ()),
    )


async def check_sharing(
    source: RecordSource, settings: Settings, entity: str, found: dict[str, dict[str, int]]
) -> AsyncIterator[Finding]:
    """Yield the findings of one object, as far as the settings want its sharing or its feed.

    Args:
        source: the org's records.
        settings: the configuration.
        entity: object API name.
        found: numbers by object, of which ``new`` is read; is told how many calls a day this takes (``companions``).
    """
    counted = found.setdefault(entity, {})
    if entity in settings.sharing.wanted:
        shares = f"{entity} shares"
        try:
            rows, finding = await _shares(source, entity)
        except QueryRefusedError as error:
            advice = f"Give the user Read on the object ({_SETS}), or set sharing.enabled = false."
            yield warn(shares, f"can't be read: {error.message}", advice)
            yield skipped(f"{entity} sharing rules", "share rows can't be read")
            yield skipped(f"{entity} sharing calls", "share rows can't be read")
        except ServiceError as error:
            yield failed(shares, error)
        else:
            yield finding
            yield await _rules(source, entity)
            expected = expected_calls(settings, entity, rows, counted.get("new", 0))
            counted["companions"] = expected.total
            yield calls_finding(settings, entity, rows, expected)
    if entity in settings.feed.wanted:
        yield await _feed(source, entity)


async def _shares(source: RecordSource, entity: str) -> tuple[int, Finding]:
    name = f"{entity} shares"
    hidden = await source.hidden_columns(entity, "shares")
    rows = await source.count_shares(entity)
    try:
        default = await source.org_default(entity)
        told = f"org-wide default {default.internal or 'unknown'}"
    except QueryRefusedError:
        told = "org-wide default can't be read"
    seen = f"{rows:,} rows; {told}; {_NOT_IN_ROWS}"
    if hidden:
        return rows, warn(name, f"{seen}; hidden: {', '.join(hidden)}", f"Give the user Read on them ({_SETS}).")
    return rows, ok(name, seen)


async def _rules(source: RecordSource, entity: str) -> Finding:
    name = f"{entity} sharing rules"
    try:
        page = await source.sharing_rules(entity)
    except QueryRefusedError as error:
        advice = (
            "Salesforce opens this object on demand: ask its Support. Without it rule changes are not told, and "
            "what follows from them is found by sweeps."
        )
        return warn(name, f"closed to this user: {error.message}", advice)
    except ServiceError as error:
        return failed(name, error)
    return ok(name, f"{len(page.rules)} owner sharing rules; those by criteria are in no object of the API")


async def _feed(source: RecordSource, entity: str) -> Finding:
    name = f"{entity} feed"
    try:
        hidden = await source.hidden_columns(entity, "feed")
        page = await source.feed(entity, 0, 4_000_000_000_000, None, limit=1)
    except QueryRefusedError as error:
        return warn(
            name, f"can't be read: {error.message}", "Give the user View All Data, or set feed.enabled = false."
        )
    except ServiceError as error:
        return failed(name, error)
    seen = "readable" if page.items else "readable, and empty: feed tracking is off, or nothing was posted yet"
    if hidden:
        return warn(name, f"{seen}; hidden: {', '.join(hidden)}", f"Give the user Read on them ({_SETS}).")
    return ok(name, seen)


@dataclass(frozen=True, slots=True)
class Expected:
    """API calls a day to expect for an object's sharing and feed.

    Attributes:
        polls: of polls that find nothing.
        owners: of reads that owner changes make due.
        sweeps: of sweeps.
        every_ms: how far apart sweeps can begin, milliseconds.
    """

    polls: int
    owners: int
    sweeps: int
    every_ms: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.polls + self.owners + self.sweeps


def expected_calls(settings: Settings, entity: str, rows: int, new_a_day: int) -> Expected:
    """Return the calls to expect.

    Args:
        settings: the configuration.
        entity: object API name.
        rows: its share rows.
        new_a_day: records that are new a day.
    """
    sharing = settings.sharing
    polls = polling_calls_per_day(sharing.poll, settings.feed.poll if entity in settings.feed.wanted else None)
    owners = owner_change_calls_per_day(new_a_day * _OWNERS_OF_A_SESSION, min(_CYCLE_MS, sharing.settle // 2))
    every_ms = affordable_sweep_ms(rows, sharing.sweep, sharing.api_calls_per_day, polls + owners)
    return Expected(polls, owners, -(-calls_of_sweep(rows) * DAY_MS // every_ms), every_ms)


def calls_finding(settings: Settings, entity: str, rows: int, expected: Expected) -> Finding:
    """Return the finding about those calls, and how late a revocation can be told."""
    sharing = settings.sharing
    worst_ms = worst_revocation_ms(expected.every_ms, sharing.settle)
    seen = (
        f"some {expected.total:,} a day of sharing.api_calls_per_day = {sharing.api_calls_per_day:,}: "
        f"{expected.polls:,} polls, {expected.owners:,} for owner changes, {expected.sweeps:,} for sweeps of {rows:,} "
        f"rows; a revocation without an owner change is told after {_hours(worst_ms)} at the latest"
    )
    name = f"{entity} sharing calls"
    if expected.every_ms > sharing.sweep:
        advice = (
            f"Sweeps begin every {_hours(expected.every_ms)} in place of {_hours(sharing.sweep)}; raise "
            "sharing.api_calls_per_day, or sharing.poll and feed.poll."
        )
        return warn(name, seen, advice)
    return ok(name, seen)


def _hours(ms: int) -> str:
    hours = ms / 3_600_000
    if hours < 1:
        return f"{ms / 60_000:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
