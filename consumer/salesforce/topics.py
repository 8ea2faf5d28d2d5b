"""What the Pub/Sub API says about a topic; asking uses up no events."""

from __future__ import annotations

from dataclasses import dataclass

import grpc.aio

from consumer._proto import pubsub_api_pb2 as pb
from consumer.salesforce.channel import S, Tokens, pubsub_stub
from consumer.salesforce.status import Call
from consumer.salesforce.unary import DEADLINE_S, ask


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as this user sees it.

    Attributes:
        name: the topic, such as ``/data/MessagingSessionChangeEvent``.
        tenant_guid: the org's internal GUID; not its 00D id.
        can_publish: false for every change event topic.
        can_subscribe: whether this user may read it.
        schema_id: current schema; empty for channels that carry several objects.
        rpc_id: the server's trace id.
    """

    name: str
    tenant_guid: str
    can_publish: bool
    can_subscribe: bool
    schema_id: str
    rpc_id: str


async def get_topic(
    channel: grpc.aio.Channel, topic: str, tokens: Tokens[S], *, deadline_s: float = DEADLINE_S
) -> TopicInfo:
    """Ask for a topic, with a fresh token if the first one is refused.

    Args:
        channel: open channel to the Pub/Sub API.
        topic: name of the topic; case counts.
        tokens: where the session comes from.
        deadline_s: longest wait for one answer, seconds.

    Raises:
        TopicRefusedError: there is no such topic, or this user may not see it.
        TokenRefusedError: a fresh token was refused too.
        PubSubError: the call failed in another way.
        LoginError: no session was to be had.
    """
    request = pb.TopicRequest(topic_name=topic)
    answer: pb.TopicInfo = await ask(pubsub_stub(channel).GetTopic, request, tokens, Call.GET_TOPIC, deadline_s)
    return TopicInfo(
        name=answer.topic_name,
        tenant_guid=answer.tenant_guid,
        can_publish=answer.can_publish,
        can_subscribe=answer.can_subscribe,
        schema_id=answer.schema_id,
        rpc_id=answer.rpc_id,
    )
