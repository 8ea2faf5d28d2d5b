"""One connected Salesforce org, as `run`, `record`, `check` and `verify` need it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from consumer import clock
from consumer.salesforce.channel import Channel, pubsub_channel
from consumer.salesforce.http import open_http
from consumer.salesforce.login import build_login
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
    """

    http: aiohttp.ClientSession
    tokens: TokenSource
    channel: Channel


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
    async with (
        open_http(org.ca_file) as http,
        task_group() as tasks,
        pubsub_channel(pubsub.endpoint, tls=pubsub.tls, ca_file=org.ca_file) as channel,
    ):
        login = build_login(org, http, lambda: clock.now_ms() / 1000)
        tokens = TokenSource(login, tasks, monotonic_s=time.monotonic, random=random.random, on_login=on_login)
        yield Salesforce(http, tokens, channel)
