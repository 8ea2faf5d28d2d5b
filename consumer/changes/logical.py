"""Avro's logical types, read as the ``avro`` library reads them; change events use none, others may."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from typing import Any

from consumer.changes.shapes import PrimitiveShape

_EPOCH_DAY = dt.date(1970, 1, 1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MAX_DECIMAL_BYTES = 4096


def _date(days: int) -> dt.date:
    return _EPOCH_DAY + dt.timedelta(days)


def _time_micros(value: int) -> dt.time:
    seconds, micros = divmod(value, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return dt.time(hour, minute, second, micros)


def _time_millis(value: int) -> dt.time:
    return _time_micros(value * 1000)


def _timestamp_millis(value: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=value * 1000)


def _timestamp_micros(value: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=value)


def _decimal(precision: int, scale: int) -> Callable[[bytes], decimal.Decimal]:
    context = decimal.Context(prec=precision)

    def convert(data: bytes) -> decimal.Decimal:
        if not 0 < len(data) <= _MAX_DECIMAL_BYTES:
            # Beyond that length the conversion to decimal digits would take longer than reading the payload.
            message = "a decimal has no bytes, or absurdly many"
            raise ValueError(message)
        return decimal.Decimal(int.from_bytes(data, "big", signed=True)).scaleb(-scale, context)

    return convert


_CONVERTERS: dict[str, Callable[[int], Any]] = {
    "date": _date,
    "time-millis": _time_millis,
    "time-micros": _time_micros,
    "timestamp-millis": _timestamp_millis,
    "timestamp-micros": _timestamp_micros,
}


def logical_converter(shape: PrimitiveShape) -> Callable[[Any], Any]:
    """Return the function that turns a raw value of a logical type into what the ``avro`` library gives.

    The function raises ValueError or ArithmeticError for a value out of the type's range.

    Args:
        shape: a primitive or fixed with a logical type.
    """
    if shape.logical == "decimal":
        return _decimal(shape.precision, shape.scale)
    return _CONVERTERS.get(shape.logical, str)
