"""Named points at which a worker kills itself: adapter methods, wrapped from outside.

Only :mod:`tests.launch` uses this, in the process that is to die.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """One place to die.

    Attributes:
        module: where the method's owner is.
        path: the attribute below the module, such as ``KafkaSink.commit``.
        when: ``before`` the call or ``after`` it returned.
        within: name of a function that must be on the stack, for what serves several purposes; empty for none.
    """

    module: str
    path: str
    when: Literal["before", "after"] = "before"
    within: str = ""


_SINK, _PRODUCER = "consumer.kafka.sink", "aiokafka.producer.producer"
_STORE, _OVERLAY = "consumer.store.sqlite", "consumer.store.overlay"

POINTS = {
    # The first start, and every later one.
    "topics-made": CrashPoint("consumer.service", "ensure_topics", "after"),
    "group-joined": CrashPoint("consumer.kafka.membership", "Membership._assigned"),
    "before-takeover": CrashPoint(_SINK, "KafkaSink.open"),
    "after-takeover": CrashPoint(_SINK, "KafkaSink._restore"),
    "read-back": CrashPoint(_SINK, "recent_event_ids"),
    "restored": CrashPoint(_SINK, "KafkaSink._restore", "after"),
    # Catching up the local store, piece by piece.
    "store-attached": CrashPoint(_STORE, "SqliteStore.attach", "after"),
    "catching-up": CrashPoint(_STORE, "SqliteStore.load"),
    "piece-partly-stored": CrashPoint(_STORE, "SqliteStore._store_states", "after", within="load"),
    "caught-up": CrashPoint(_SINK, "catch_up", "after"),
    # One transaction.
    "before-transaction": CrashPoint(_SINK, "KafkaSink._transact"),
    "partly-sent": CrashPoint(_PRODUCER, "AIOKafkaProducer.send_batch", "after"),
    "sent-not-committed": CrashPoint(_PRODUCER, "AIOKafkaProducer.commit_transaction"),
    "end-sent": CrashPoint("aiokafka.producer.sender", "EndTxnHandler.create_request", "after"),
    "end-answered": CrashPoint("aiokafka.producer.sender", "EndTxnHandler.handle_response"),
    "committed-unknown-to-pipeline": CrashPoint(_SINK, "KafkaSink._transact", "after"),
    "committed-not-merged": CrashPoint(_OVERLAY, "OverlayStore.merge"),
    "partly-merged": CrashPoint(_STORE, "SqliteStore._store_states", "after", within="merge"),
    "merge-not-committed": CrashPoint(_STORE, "SqliteStore._store_ledger", "after", within="merge"),
    "merged": CrashPoint(_OVERLAY, "OverlayStore.merge", "after"),
    # Salesforce's side.
    "token": CrashPoint("consumer.salesforce.tokens", "TokenSource._new_session"),
    "token-refreshed": CrashPoint("consumer.salesforce.tokens", "TokenSource._new_session", "after"),
    "subscribe": CrashPoint("consumer.salesforce.stream", "PubSubStream._one_call"),
    "events-received": CrashPoint("consumer.salesforce.stream", "PubSubStream._accept"),
    "schema-fetch": CrashPoint("consumer.salesforce.schemas", "SchemaCache._ask"),
}


def arm(name: str, hit: int) -> None:
    """Let this process die by SIGKILL at the n-th hit of a point.

    Args:
        name: one of :data:`POINTS`.
        hit: which one, from 1.
    """
    point = POINTS[name]
    *parents, attribute = point.path.split(".")
    owner: Any = importlib.import_module(point.module)
    for each in parents:
        owner = getattr(owner, each)
    setattr(owner, attribute, _deadly(getattr(owner, attribute), point.when, _Countdown(hit, point.within)))


class _Countdown:
    def __init__(self, hit: int, within: str) -> None:
        self._left = hit
        self._within = within

    def __call__(self) -> None:
        if self._within and all(each.function != self._within for each in inspect.stack(0)):
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _deadly(function: Callable[..., Any], when: str, count: _Countdown) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            if when == "before":
                count()
            result = await function(*args, **kwargs)
            if when == "after":
                count()
            return result

        return waiting

    @wraps(function)
    def direct(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            count()
        result = function(*args, **kwargs)
        if when == "after":
            count()
        return result

    return direct
