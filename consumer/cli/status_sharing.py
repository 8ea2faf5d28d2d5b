"""What `status` says of sharing and feeds: how far they are read, the last sweep, and one under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from consumer.events import Json
from consumer.tracking.feed import FEED_POLL
from consumer.tracking.sharing import SHARES_POLL, SWEEP_WANTED, SWEPT
from consumer.upkeep.sweep_state import SWEEP

_PHASES = {"rows": "rows are read", "unseen": "records that had none are read again"}


def describe_sharing(progress: Mapping[str, Mapping[str, Json]]) -> dict[str, Any]:
    """Return how far sharing and feeds of a channel's objects are read, as JSON values that people can read.

    Args:
        progress: what the channel's jobs and polls committed, by name (:class:`consumer.tracking.arrivals.Progress`).

    Returns:
        By object: ``shares_to``, up to when modified share rows are read; ``swept``, the last complete sweep;
        ``sweep_wanted``, since when one is wanted before its time; ``feed_to``, up to when feed items are read, and
        whether those of before the first start still are. ``sweeps``: those under way. Times are ISO 8601.
    """
    return {
        "shares_to": {entity: _iso(state["complete_to_ms"]) for entity, state in _of(progress, SHARES_POLL)},
        "swept": {entity: _swept(state) for entity, state in _of(progress, SWEPT)},
        "sweeps": [{"entity": entity, **_sweep(state)} for entity, state in _of(progress, SWEEP)],
        "sweep_wanted": {entity: _iso(state["since_ms"]) for entity, state in _of(progress, SWEEP_WANTED)},
        "feed_to": {entity: _feed(state) for entity, state in _of(progress, FEED_POLL)},
    }


def bring_sweeps_up_to_date(sweeps: list[dict[str, Any]], worker: Mapping[str, Any] | None) -> None:
    """Take the worker's own numbers where it has newer ones than Kafka.

    Args:
        sweeps: as :func:`describe_sharing` returns them.
        worker: the channel's part of the worker's status page, None if there is none.
    """
    told = (worker or {}).get("sweeps", {})
    for sweep in sweeps:
        newer = told.get(sweep["entity"])
        if newer is not None and newer["rows"] >= sweep["rows"]:
            sweep["rows"] = newer["rows"]


def sharing_facts(channel: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is said of sharing and feeds for people: a name and a value each.

    Args:
        channel: what :func:`describe_sharing` returned.
    """
    for entity, at in channel["shares_to"].items():
        yield "shares read to", f"{at}  {entity}"
    for entity, last in channel["swept"].items():
        lasted = f"{last['rows']:,} rows, {last['minutes']:g} min"
        yield "last sweep", f"{last['begun_at']}  {entity} ({lasted})"
    for sweep in channel["sweeps"]:
        yield "sweep under way", _sweep_line(sweep)
    for entity, since in channel["sweep_wanted"].items():
        # Also beside one under way: that one began before, and may have passed the rows already.
        yield "sweep wanted", f"since {since}  {entity}: rules or many rows changed"
    for entity, feed in channel["feed_to"].items():
        yield "feed read to", f"{feed['complete_to']}  {entity}{' (back-fill under way)' if feed['backfill'] else ''}"


def _of(progress: Mapping[str, Mapping[str, Json]], prefix: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
    for name, state in sorted(progress.items()):
        if name.startswith(prefix):
            yield name.removeprefix(prefix), state


def _swept(state: Mapping[str, Json]) -> dict[str, Any]:
    begun_ms, ended_ms = state["begun_ms"], state["ended_ms"]
    return {
        "begun_at": _iso(begun_ms),
        "ended_at": _iso(ended_ms),
        "rows": state["rows"],
        "minutes": round((ended_ms - begun_ms) / 60_000, 1),
    }


def _sweep(state: Mapping[str, Json]) -> dict[str, Any]:
    return {
        "begun_at": _iso(state["begun_ms"]),
        "cause": state["cause"],
        "phase": state["phase"],
        "rows": state["rows"],
        "total": state["total"],
    }


def _sweep_line(sweep: Mapping[str, Any]) -> str:
    rows, total = sweep["rows"], sweep["total"]
    done = f"{rows:,} rows" if total is None else f"{rows:,} of {total:,} rows"
    if total:
        done += f" ({min(100, rows * 100 // total)} %)"
    return f"{sweep['entity']}: {done}, {_PHASES.get(sweep['phase'], sweep['phase'])}"


def _feed(state: Mapping[str, Json]) -> dict[str, Any]:
    return {
        "complete_to": _iso(state["complete_to_ms"]),
        "backfill": state["complete_to_ms"] < state["began_ms"],
    }


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
