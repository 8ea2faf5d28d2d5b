"""One question, one answer: unary calls with a deadline, and one fresh token when the old one is refused."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from consumer.errors import TokenRefusedError
from consumer.salesforce.channel import S, Tokens, call_metadata
from consumer.salesforce.status import Call, failure, translate

DEADLINE_S = 30.0
"""GetSchema and GetTopic answer within about a second."""


async def ask(method: Any, request: Any, tokens: Tokens[S], call: Call, deadline_s: float = DEADLINE_S) -> Any:
    """Ask once, and once more with a fresh token if the first one was refused.

    A token can be revoked while a stream opened with it goes on undisturbed, so a refusal here says nothing
    about the stream.

    Args:
        method: unary method of the generated stub.
        request: its request message.
        tokens: where the session comes from.
        call: which call it is.
        deadline_s: longest wait for each answer, seconds.

    Raises:
        PubSubError: the class that ``call`` and the answer make of it.
        LoginError: no session was to be had.
    """
    try:
        return await _once(method, request, tokens, call, deadline_s)
    except TokenRefusedError:
        return await _once(method, request, tokens, call, deadline_s)


async def _once(method: Any, request: Any, tokens: Tokens[S], call: Call, deadline_s: float) -> Any:
    session = await tokens.get()
    try:
        answer = await method(request, metadata=call_metadata(session), timeout=deadline_s)
    except TokenRefusedError:
        tokens.invalidate(session)
        raise
    except (grpc.aio.AioRpcError, grpc.aio.BaseError, ValueError, TypeError) as error:
        translated = translate(error, call)
        if isinstance(translated, TokenRefusedError):
            tokens.invalidate(session)
        raise translated from error
    if answer is None:  # gRPC's way to say that the bytes were not the message
        raise failure(call, grpc.StatusCode.INTERNAL, {}, "the answer could not be read")
    return answer
