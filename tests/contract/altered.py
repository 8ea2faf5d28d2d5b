"""Records with something changed, and the expectation that the checker refuses them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from consumer.events import OutboundRecord
from tests.contract.topic_schemas import RecordShapeError
from tests.delivery_values import checked


def with_value(record: OutboundRecord, **fields: Any) -> OutboundRecord:
    """Return the record with fields of its value replaced; ``source__x`` reaches into ``source``."""
    value = orjson.loads(record.value or b"")
    for name, new in fields.items():
        outer, _, inner = name.partition("__")
        if inner:
            value[outer][inner] = new
        else:
            value[outer] = new
    return replace(record, value=orjson.dumps(value))


def with_header(record: OutboundRecord, name: str, raw: bytes) -> OutboundRecord:
    """Return the record with one header replaced."""
    return replace(record, headers=tuple((n, raw if n == name else v) for n, v in record.headers))


def refused(record: OutboundRecord) -> None:
    """Expect the checker to refuse the record."""
    with pytest.raises(RecordShapeError):
        checked(record)
