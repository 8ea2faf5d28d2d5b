"""Kept JSON takes about as much memory as it has bytes."""

from __future__ import annotations

import tracemalloc
from functools import partial

import orjson

from consumer.events import json_bytes
from consumer.tracking.images import encode_image

_VALUE = {f"Field{each}__c": f"value {each}" for each in range(40)}
_COUNT = 500


def test_kept_json_holds_no_more_than_its_bytes() -> None:
    """A thousand images of 1 KB once held 16 MB: orjson gives its whole write buffer away."""
    assert json_bytes(_VALUE) == orjson.dumps(_VALUE)
    tracemalloc.start()
    try:
        for make in (partial(json_bytes, _VALUE), partial(encode_image, "0Mw000000000001AAA", _VALUE)):
            before, _ = tracemalloc.get_traced_memory()
            kept = [make() for _ in range(_COUNT)]
            after, _ = tracemalloc.get_traced_memory()
            assert after - before < 2 * sum(map(len, kept))
    finally:
        tracemalloc.stop()
