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
    is_crowded,
    owner_change_calls_per_day,
    polling_calls_per_day,
    worst_revocation_ms,
)

_SETS: Final = "Setup > Permission Sets > Object Settings"
_CYCLE_MS: Final = 10_000
"""How often records whose owner changed are read together (``consumer.upkeep.shares``)."""

_OWNERS_OF_A_SESSION: Final = 4
"""Owner changes of a usual session: created, taken from a queue by a bot or a person, transferred once."""

_CROWDED: Final = "Polls and owner changes alone need nearly all of them, or more"
_NOT_IN_ROWS: Final = "role hierarchy, View All and Modify All are in no share row"


def sharing_names(settings: Settings, entity: str) -> tuple[str, ...]:
    """Return the names of an object's findings, for when they can't be made."""
    shares = (f"{entity} shares", f"{entity} sharing rules", f"{entity} sharing calls")
    return (
        *(shares if entity in settings.sharing.wanted else ()),
        *((f"{entity} feed",) if entity in settings.feed.wanted else ()),
    )


async def check_sharing(
    source: RecordSource,
    settings: Settings,
    entity: str,
    found: dict[str, dict[str, int]],
    *,
    feed_enabled: bool | None = None,
) -> AsyncIterator[Finding]:
    """Yield the findings of one object, as far as the settings want its sharing or its feed.

    Args:
        source: the org's records.
        settings: the configuration.
        entity: object API name.
        found: numbers by object, of which ``new`` is read; is told how many calls a day this takes (``companions``).
        feed_enabled: whether feed tracking is on for the object, None if nobody says.
    """
    counted = found.setdefault(entity, {"rows": 0, "new": 0, "history": 0})
    if entity in settings.feed.wanted:
        counted["companions"] = polling_calls_per_day(None, settings.feed.poll)
    if entity in settings.sharing.wanted:
        async for finding in _sharing(source, settings, entity, found):
            yield finding
    if entity in settings.feed.wanted:
        yield await _feed(source, entity, enabled=feed_enabled)


async def _sharing(
    source: RecordSource, settings: Settings, entity: str, found: dict[str, dict[str, int]]
) -> AsyncIterator[Finding]:
    shares, rules, calls = f"{entity} shares", f"{entity} sharing rules", f"{entity} sharing calls"
    try:
        rows, finding = await _shares(source, entity)
    except ServiceError as error:
        if isinstance(error, QueryRefusedError):
            advice = f"Give the user Read on the object ({_SETS}), or set sharing.enabled = false."
            yield warn(shares, f"can't be read: {error.message}", advice)
        else:
            yield failed(shares, error)
        yield skipped(rules, "share rows can't be read")
        yield skipped(calls, "share rows can't be read")
        return
    yield finding
    yield await _rules(source, entity)
    taken = sum(counted.get("companions", 0) for name, counted in found.items() if name != entity)
    expected = expected_calls(settings, entity, rows, found[entity]["new"], taken)
    found[entity]["companions"] = expected.total
    yield calls_finding(settings, entity, rows, expected)


async def _shares(source: RecordSource, entity: str) -> tuple[int, Finding]:
    """Return how many share rows there are, and the finding.

    Raises:
        QueryRefusedError: they can't be read at all.
        ServiceError: no answer came.
    """
    name = f"{entity} shares"
    hidden = await source.hidden_columns(entity, "shares")
    rows = await source.count_shares(entity)
    seen = f"{rows:,} rows; {await _default(source, entity)}; {_NOT_IN_ROWS}"
    try:
        await source.shares_scan(entity, None, limit=1)
    except QueryRefusedError as error:
        return rows, warn(name, f"{seen}; {error.message}", error.advice)
    if not hidden:
        return rows, ok(name, seen)
    advice = f"Give the user Read on them ({_SETS})."
    if any(each.endswith(".LastModifiedDate") for each in hidden):
        advice += " Without LastModifiedDate new shares are found by owner changes and sweeps only."
    return rows, warn(name, f"{seen}; hidden: {', '.join(hidden)}", advice)


async def _default(source: RecordSource, entity: str) -> str:
    try:
        default = await source.org_default(entity)
    except QueryRefusedError as error:
        return f"org-wide default can't be read ({error.message})"
    return f"org-wide default {default.internal or 'unknown'}"


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


async def _feed(source: RecordSource, entity: str, *, enabled: bool | None) -> Finding:
    name = f"{entity} feed"
    try:
        page = await source.feed(entity, 0, 4_000_000_000_000, None, limit=1)
        # Only a read shows whether the tracked changes can be had.
        hidden = await source.hidden_columns(entity, "feed")
    except QueryRefusedError as error:
        return warn(
            name, f"can't be read: {error.message}", "Give the user View All Data, or set feed.enabled = false."
        )
    except ServiceError as error:
        return failed(name, error)
    seen = _tracking(enabled=enabled, has_items=bool(page.items))
    if hidden:
        return warn(name, f"{seen}; hidden: {', '.join(hidden)}", f"Give the user Read on them ({_SETS}).")
    if enabled is False:
        advice = "Turn it on in Setup > Feed Tracking, or set feed.enabled = false to save its polls."
        return warn(name, seen, advice)
    return ok(name, seen)


def _tracking(*, enabled: bool | None, has_items: bool) -> str:
    """Return what is seen of a feed that can be read."""
    if enabled is None:
        return "readable" if has_items else "readable, and empty: feed tracking is off, or nothing was posted yet"
    told = f"readable; feed tracking is {'on' if enabled else 'off'}"
    return told if has_items else f"{told}; empty"


@dataclass(frozen=True, slots=True)
class Expected:
    """API calls a day to expect for an object's sharing and feed.

    Attributes:
        polls: of polls that find nothing.
        owners: of reads that owner changes make due.
        sweeps: of sweeps.
        every_ms: how far apart sweeps can begin, milliseconds.
        crowded: whether all but sweeps leaves less of the calls than sweeps keep in any case.
    """

    polls: int
    owners: int
    sweeps: int
    every_ms: int
    crowded: bool

    @property
    def total(self) -> int:
        """All of them."""
        return self.polls + self.owners + self.sweeps


def expected_calls(settings: Settings, entity: str, rows: int, new_a_day: int, taken: int = 0) -> Expected:
    """Return the calls to expect.

    Args:
        settings: the configuration.
        entity: object API name.
        rows: its share rows.
        new_a_day: records that are new a day.
        taken: calls a day that other objects use of ``sharing.api_calls_per_day``.
    """
    sharing, page_rows = settings.sharing, settings.tracking.chunk_rows
    polls = polling_calls_per_day(sharing.poll, settings.feed.poll if entity in settings.feed.wanted else None)
    owners = owner_change_calls_per_day(new_a_day * _OWNERS_OF_A_SESSION, min(_CYCLE_MS, sharing.settle // 2))
    others = polls + owners + taken
    every_ms = affordable_sweep_ms(rows, sharing.sweep, sharing.api_calls_per_day, others, page_rows)
    sweeps = -(-calls_of_sweep(rows, page_rows) * DAY_MS // every_ms)
    return Expected(polls, owners, sweeps, every_ms, is_crowded(sharing.api_calls_per_day, others))


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
    advice = []
    if expected.every_ms > sharing.sweep:
        advice.append(f"Sweeps begin every {_hours(expected.every_ms)} in place of {_hours(sharing.sweep)}")
    if expected.crowded:
        advice.append("polls and owner changes alone need nearly all of them, or more" if advice else _CROWDED)
    if advice:
        return warn(name, seen, f"{'; '.join(advice)}; raise sharing.api_calls_per_day, or sharing.poll and feed.poll.")
    return ok(name, seen)


def _hours(ms: int) -> str:
    hours = ms / 3_600_000
    if hours < 1:
        return f"{ms / 60_000:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
