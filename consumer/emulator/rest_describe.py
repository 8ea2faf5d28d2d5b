"""Describes, and what was updated or deleted in a span, as the emulated org answers them.

Sources: REST API guide ("sObject Describe", "sObject Get Updated", "sObject Get Deleted"), SOAP API guide (their
limits: seconds are ignored, 30 and 15 days, 600,000 ids).
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from consumer.emulator.rest_errors import RestError, not_found
from consumer.emulator.rest_tables import Table
from consumer.emulator.rest_values import rest_datetime

MAX_IDS: Final = 600_000
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_UPDATED_DAYS: Final = 30
_DELETED_DAYS: Final = 15


def describe(table: Table, version: str) -> dict[str, Any]:
    """Return an object's describe: the fields its user may see."""
    return {
        "name": table.name,
        "label": table.name,
        "keyPrefix": table.prefix or None,
        "custom": "__" in table.name,
        "queryable": True,
        "replicateable": table.replicates,
        "retrieveable": True,
        "fields": [column.describe() for column in table.columns().values()],
        "childRelationships": [],
        "urls": {"describe": f"/services/data/{version}/sobjects/{table.name}/describe"},
    }


class Replication:
    """Answers getUpdated and getDeleted.

    Args:
        log_days: how far back the delete log reaches.
    """

    def __init__(self, log_days: float) -> None:
        self._log_ms = round(log_days * _DAY_MS)

    def updated(self, table: Table, start: str, end: str, now_ms: int) -> dict[str, Any]:
        """Return ids of live records saved in a span, by SystemModstamp.

        Raises:
            RestError: INVALID_REPLICATION_DATE, EXCEEDED_ID_LIMIT, INVALID_TYPE.
        """
        from_ms, to_ms = _span(table, start, end, now_ms, _UPDATED_DAYS)
        ids = table.updated(from_ms, to_ms)
        _check_count(len(ids))
        return {"ids": list(ids), "latestDateCovered": rest_datetime(to_ms)}

    def deleted(self, table: Table, start: str, end: str, now_ms: int) -> dict[str, Any]:
        """Return what was deleted in a span, for good or not, and is still deleted.

        Raises:
            RestError: as for :meth:`updated`.
        """
        from_ms, to_ms = _span(table, start, end, now_ms, _DELETED_DAYS)
        earliest_ms = (now_ms - self._log_ms) // _MINUTE_MS * _MINUTE_MS
        log = table.delete_log()
        found = {each: ms for each, ms in log.items() if max(from_ms, earliest_ms) <= ms < to_ms}
        _check_count(len(found))
        return {
            "deletedRecords": [{"id": each, "deletedDate": rest_datetime(ms)} for each, ms in found.items()],
            "earliestDateAvailable": rest_datetime(earliest_ms),
            "latestDateCovered": rest_datetime(to_ms),
        }


def _span(table: Table, start: str, end: str, now_ms: int, days: int) -> tuple[int, int]:
    if not table.replicates:
        raise not_found()
    from_ms, to_ms = _minute(start, "start"), _minute(end, "end")
    if to_ms <= from_ms:
        raise _bad_date("endDate must be at least one minute greater than startDate")
    if from_ms < now_ms - days * _DAY_MS - _MINUTE_MS:
        raise _bad_date(f"startDate cannot be more than {days} days ago")
    # The newest minute is not over yet, so that it is not covered.
    return from_ms, max(from_ms, min(to_ms, now_ms // _MINUTE_MS * _MINUTE_MS))


def _minute(text: str, name: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise _bad_date(f"{name}: '{text}' is not a valid dateTime") from None
    if moment.tzinfo is None:
        raise _bad_date(f"{name}: '{text}' has no time zone")
    return int(moment.timestamp()) // 60 * _MINUTE_MS


def _bad_date(message: str) -> RestError:
    return RestError(400, "INVALID_REPLICATION_DATE", message)


def _check_count(count: int) -> None:
    if count > MAX_IDS:
        raise id_limit()


def id_limit() -> RestError:
    """Return the refusal of a span with too many ids."""
    return RestError(400, "EXCEEDED_ID_LIMIT", f"More than {MAX_IDS:,} ids in this span")
