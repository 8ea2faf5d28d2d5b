"""Checks of the Salesforce side: login, clock, API version, topics, schemas, allowance, objects, API calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime

import orjson

from consumer.assembly import field_policy
from consumer.changes.schema import EventSchema, compile_schema
from consumer.checks.findings import Finding, Level, failed, ok, skipped, warn
from consumer.checks.objects import calls_finding, check_object, counts, object_names
from consumer.checks.sharing import check_sharing, sharing_names
from consumer.connections import Salesforce, open_salesforce
from consumer.delivery.names import entity_of_channel
from consumer.errors import PubSubError, ServiceError
from consumer.ports import RecordSource
from consumer.salesforce.http import HttpAnswer, request
from consumer.salesforce.rest import Call
from consumer.salesforce.schemas import SchemaCache
from consumer.salesforce.session import Session
from consumer.salesforce.topics import get_topic
from consumer.settings import Settings

_MOST_SKEW_S = 30
"""A JWT's lifetime and the watchdogs bear this much."""

_UNREACHABLE = "Check pubsub.endpoint and pubsub.tls, and that the firewall lets this machine reach that port."
_LOW_ALLOWANCE = 0.2
_WITHOUT_TOKEN = "no access token"  # noqa: S105 - a reason, not a secret


async def check_salesforce(settings: Settings, now_ms: Callable[[], int]) -> tuple[str | None, list[Finding]]:
    """Return the org id, None if there was no login, and the findings."""
    findings: list[Finding] = []
    async with open_salesforce(settings) as org:
        try:
            session = await org.tokens.get()
        except ServiceError as error:
            findings.append(failed("login", error))
            names = ["clock", "API version", "delivery allowance", *settings.pubsub.topics, "API calls"]
            return None, findings + [skipped(name, _WITHOUT_TOKEN) for name in names]
        flow = settings.salesforce.auth
        findings.append(ok("login", f"org {session.org_id} at {session.instance_url} by {flow}"))
        findings += [finding async for finding in _rest(settings, org, session, now_ms)]
        schemas: dict[str, EventSchema] = {}
        for topic in settings.pubsub.topics:
            findings += [finding async for finding in _topic(org, topic, schemas)]
        findings += [finding async for finding in _objects(settings, org, schemas)]
        return session.org_id, findings


async def _rest(
    settings: Settings, org: Salesforce, session: Session, now_ms: Callable[[], int]
) -> AsyncIterator[Finding]:
    headers = {"Authorization": f"Bearer {session.access_token}"}
    base = f"{session.instance_url}/services/data"
    try:
        versions = await request(org.http, "GET", f"{base}/")
        limits = await request(org.http, "GET", f"{base}/v{settings.salesforce.api_version}/limits/", headers=headers)
    except ServiceError as error:
        for name in ("clock", "API version", "delivery allowance"):
            yield failed(name, error)
        return
    yield _clock(versions, now_ms())
    yield _version(settings.salesforce.api_version, versions)
    yield _allowance(limits)


def _clock(answer: HttpAnswer, now_ms: int) -> Finding:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return skipped("clock", "the answer has no Date header")
    skew_s = round(now_ms / 1000 - theirs.timestamp())
    if abs(skew_s) > _MOST_SKEW_S:
        return warn("clock", f"this machine's clock is off by {skew_s} s", "Set it by NTP; JWT logins fail otherwise.")
    return ok("clock", f"within {max(abs(skew_s), 1)} s of Salesforce's")


def _version(wanted: str, answer: HttpAnswer) -> Finding:
    try:
        known = [str(each["version"]) for each in orjson.loads(answer.body)]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return warn("API version", f"HTTP {answer.status}, no list of versions", "Look at salesforce.login_url.")
    if wanted not in known:
        latest = known[-1] if known else "none"
        return Finding(
            "API version", Level.FAIL, f"{wanted} is not offered; newest is {latest}", "Set salesforce.api_version."
        )
    return ok("API version", wanted)


def _allowance(answer: HttpAnswer) -> Finding:
    name = "delivery allowance"
    limits = answer.json_object() or {}
    daily = limits.get("DailyDeliveredPlatformEvents")
    if not isinstance(daily, dict) or not isinstance(daily.get("Max"), int) or not daily["Max"]:
        return skipped(name, f"not readable (HTTP {answer.status}); the user may lack View Setup and Configuration")
    left, most = int(daily.get("Remaining", 0)), int(daily["Max"])
    seen = f"{left:,} of {most:,} events left in the rolling 24 h"
    if left < most * _LOW_ALLOWANCE:
        return warn(name, seen, "Expect the stream to be refused; buy the add-on or unselect objects.")
    return ok(name, seen)


async def _objects(settings: Settings, org: Salesforce, schemas: Mapping[str, EventSchema]) -> AsyncIterator[Finding]:
    """Yield what is read beside the stream: by REST, of the objects of the channels, and what that costs."""
    source = org.records(field_policy(settings.fields))
    found: dict[str, dict[str, int]] = {}
    for topic in settings.pubsub.topics:
        entity, schema = entity_of_channel(topic), schemas.get(topic)
        if entity is None:
            yield skipped(f"{topic} rows", "the channel can carry several objects; each is read once it appears")
        elif schema is None:
            for name in (*object_names(entity), *sharing_names(settings, entity)):
                yield skipped(name, "the event schema can't be read")
        else:
            readable = True
            async for finding in check_object(source, entity, schema, org.clock.now_ms(), found):
                readable &= finding.level is not Level.FAIL
                yield finding
            if readable:
                async for finding in _companions(settings, org, source, entity, found):
                    yield finding
            else:
                for name in sharing_names(settings, entity):
                    yield skipped(name, "the object can't be read")
    async for finding in _uncarried(settings, org, source, found):
        yield finding
    yield calls_finding(settings, org.governor.usage, found)


async def _companions(
    settings: Settings, org: Salesforce, source: RecordSource, entity: str, found: dict[str, dict[str, int]]
) -> AsyncIterator[Finding]:
    enabled = await _feed_enabled(org, entity) if entity in settings.feed.wanted else None
    async for finding in check_sharing(source, settings, entity, found, feed_enabled=enabled):
        yield finding


async def _uncarried(
    settings: Settings, org: Salesforce, source: RecordSource, found: dict[str, dict[str, int]]
) -> AsyncIterator[Finding]:
    """Yield the findings of objects whose sharing or feed is wanted, and that no channel of one object is of."""
    channels = [entity_of_channel(topic) for topic in settings.pubsub.topics]
    groups = (("sharing", settings.sharing), ("feed", settings.feed))
    wanted = dict.fromkeys(entity for _, group in groups for entity in group.wanted if entity not in channels)
    for entity in wanted:
        if None in channels:
            found[entity] = await counts(source, entity, org.clock.now_ms())
            async for finding in _companions(settings, org, source, entity, found):
                yield finding
            continue
        for name, group in groups:
            # The default is there for the channel of the default.
            if entity in group.wanted and "objects" in group.model_fields_set:
                yield warn(
                    f"{entity} {name}",
                    "not read, because no channel of pubsub.topics carries the object",
                    f"Add its channel to pubsub.topics, or take it out of {name}.objects.",
                )


async def _feed_enabled(org: Salesforce, entity: str) -> bool | None:
    """Return whether feed tracking is on (SOAP API guide, DescribeSObjectResult), None if nobody says."""
    try:
        answer = await org.rest.json(Call("GET", f"/sobjects/{entity}/describe"))
    except ServiceError:
        return None  # the feed itself is asked next, and its finding tells the fault
    told = answer.body.get("feedEnabled") if isinstance(answer.body, dict) else None
    return told if isinstance(told, bool) else None


async def _topic(org: Salesforce, topic: str, schemas: dict[str, EventSchema]) -> AsyncIterator[Finding]:
    try:
        info = await get_topic(org.channel, topic, org.tokens)
    except ServiceError as error:
        # While the service runs this mends itself; at a first start it seldom does.
        unreachable = isinstance(error, PubSubError) and error.status == "UNAVAILABLE"
        yield Finding(topic, Level.FAIL, error.message, _UNREACHABLE) if unreachable else failed(topic, error)
        yield skipped("schema", "the topic can't be read")
        return
    if not info.can_subscribe:
        yield Finding(
            topic,
            Level.FAIL,
            "this user may not subscribe",
            "Give the user View All on the object (Setup > Permission Sets > Object Settings).",
        )
    else:
        yield ok(topic, "can be subscribed to")
    if not info.schema_id:
        yield ok("schema", "comes with each event, because the channel can carry several objects")
        return
    try:
        schema = compile_schema(info.schema_id, await SchemaCache(org.channel, topic, org.tokens).fetch(info.schema_id))
    except ServiceError as error:
        yield failed("schema", error)
    else:
        schemas[topic] = schema
        yield ok("schema", f"{schema.name} with {len(schema.fields)} fields ({info.schema_id})")
