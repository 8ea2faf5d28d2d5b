"""What ``replay`` prints for one record."""

from __future__ import annotations

import json

import pytest

from consumer.cli.replay import line
from consumer.events import OutboundRecord


def shown(value: bytes | None, *, raw: bool = False) -> dict[str, object]:
    record = OutboundRecord("p.widget.changes", b"key", value, (("ce_id", b"1"),))
    parsed: dict[str, object] = json.loads(line(record, raw=raw))
    assert {name: parsed.pop(name) for name in ("topic", "key", "headers")} == {
        "topic": "p.widget.changes",
        "key": "key",
        "headers": {"ce_id": "1"},
    }
    return parsed


def test_json_stands_as_it_is() -> None:
    assert shown(b'{"a":[1,2.5,null,"\\u00e4"]}') == {"value": {"a": [1, 2.5, None, "ä"]}}


def test_a_tombstone_is_null() -> None:
    assert shown(None) == {"value": None}


@pytest.mark.parametrize("value", [b"\xff\x00", b"NaN", b"{", b""])
def test_what_is_no_json_is_base64(value: bytes) -> None:
    assert set(shown(value)) == {"value_base64"}


def test_raw_bytes_are_base64_even_if_they_look_like_json() -> None:
    assert shown(b"17", raw=True) == {"value_base64": "MTc="}


def test_one_record_is_one_line() -> None:
    assert "\n" not in line(OutboundRecord("t", b"a\nb", b'"x\\ny"'), raw=False)
