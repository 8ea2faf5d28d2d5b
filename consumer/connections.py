"""One connected Salesforce org, as `run`, `record`, `check` and `verify` need it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from consumer import clock
from consumer.changes.fields import FieldPolicy
from consumer.org_clock import OrgClock
from consumer.ports import RecordSource
from consumer.salesforce.bulk import BulkJobs
from consumer.salesforce.channel import Channel, pubsub_channel
from consumer.salesforce.governor import Governor
from consumer.salesforce.http import open_http
from consumer.salesforce.login import build_login
from consumer.salesforce.records import SalesforceRecords
from consumer.salesforce.rest import RestClient
from consumer.salesforce.tokens import TokenSource
from consumer.settings import Settings
from consumer.tasks import task_group


@dataclass(frozen=True, slots=True)
class Salesforce:
    """Open connections to one org.

    Attributes:
        http: session for login and REST.
        tokens: where the access token comes from.
        channel: channel to the Pub/Sub API.
        rest: REST API; its ``clock`` tells the org's time, its ``governor`` how much polls should slow down.
    """

    http: aiohttp.ClientSession
    tokens: TokenSource
    channel: Channel
    rest: RestClient

    @property
    def clock(self) -> OrgClock:
        """The org's time, as its answers tell it."""
        return self.rest.clock

    @property
    def governor(self) -> Governor:
        """Admits REST calls; ``pace_factor`` is for pollers."""
        return self.rest.governor

    def records(self, policy: FieldPolicy) -> RecordSource:
        """Return the org's records, read by REST and Bulk.

        Args:
            policy: applied to every row.
        """
        return SalesforceRecords(self.rest, policy, BulkJobs(self.rest, random.random, time.monotonic))


@asynccontextmanager
async def open_salesforce(
    settings: Settings, on_login: Callable[[bool], None] | None = None
) -> AsyncIterator[Salesforce]:
    """Hold the connections open; nothing is asked of the org yet.

    Args:
        settings: the configuration.
        on_login: is told of each login whether it succeeded.

    Raises:
        ConfigError: certificates can't be read.
    """
    org, pubsub = settings.salesforce, settings.pubsub
    org_clock = OrgClock(clock.now_ms)
    async with (
        open_http(org.ca_file, on_date=org_clock.observe) as http,
        task_group() as tasks,
        pubsub_channel(pubsub.endpoint, tls=pubsub.tls, ca_file=org.ca_file) as channel,
    ):
        login = build_login(org, http, lambda: clock.now_ms() / 1000)
        tokens = TokenSource(login, tasks, monotonic_s=time.monotonic, random=random.random, on_login=on_login)
        rest = RestClient(
            http,
            tokens,
            org.api_version,
            governor=Governor(settings.tracking.api_reserve, time.monotonic),
            clock=org_clock,
            random=random.random,
            monotonic_s=time.monotonic,
        )
        yield Salesforce(http, tokens, channel, rest)
