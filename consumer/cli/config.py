"""``config``: the smallest working configuration, and the effective one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from consumer.cli.common import PROGRAM, Subparsers, add_json_option, load_settings, write_json, write_table
from consumer.settings_load import Loaded, leaves

NAME = "config"

_EXAMPLES = f"""\
examples:
  {PROGRAM} config example > session-consumer.toml
  {PROGRAM} config show                    what counts, and why: default, file or env
  {PROGRAM} config show --json | jq .kafka"""

_EXAMPLE = """\
# The smallest working configuration; '{program} config show' lists every other value.
# Any value can also be given in the environment as SESSION_CONSUMER__SECTION__KEY:
#   SESSION_CONSUMER__KAFKA__PARTITIONS=12
#   SESSION_CONSUMER__KAFKA__RETENTION__CHANGES=14d
#   SESSION_CONSUMER__PUBSUB__TOPICS='["/data/MessagingSessionChangeEvent"]'

[salesforce]
# The org's own host: Setup > My Domain > Current My Domain URL.
login_url = "https://mydomain.my.salesforce.com"
# Consumer key of an External Client App or Connected App with the client credentials flow and a run-as user.
# Other flows: auth = "jwt", "refresh_token", "password" or "session".
client_id = "consumer-key-of-the-app"
# Secrets never stand in this file. Set the environment variable
#   SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET=consumer-secret-of-the-app
# or name a file that holds nothing but the secret:
# client_secret_file = "/run/secrets/salesforce-client-secret"

[pubsub]
# Setup > Change Data Capture must have these objects selected.
topics = ["/data/MessagingSessionChangeEvent"]

[kafka]
bootstrap_servers = "localhost:9092"
# For a cluster with authentication:
# security_protocol = "SASL_SSL"
# sasl_mechanism = "SCRAM-SHA-512"
# sasl_username = "session-consumer"
# and SESSION_CONSUMER__KAFKA__SASL_PASSWORD, or sasl_password_file = "/run/secrets/kafka-password"

[state]
# Directory of the local copy of what is tracked; losing it costs time, not data.
# Without this it is $STATE_DIRECTORY (systemd), else ~/.local/state/session-consumer.
# path = "/var/lib/session-consumer"
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the parser of ``config`` and its two sub-commands."""
    parser = subparsers.add_parser(
        NAME,
        help="print an example configuration, or the effective one",
        description="Print the smallest working configuration, or every effective value with its origin.",
        epilog=_EXAMPLES,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    actions.add_parser(
        "example",
        help="print the smallest working file, with comments",
        description="Print the smallest working configuration file, with comments, to stdout.",
    )
    show = actions.add_parser(
        "show",
        help="print every effective value with its origin",
        description="Print every effective value and where it came from: default, file, env or secret file. "
        "Secrets are shown as ***.\nDurations are in milliseconds, sizes in bytes.",
    )
    add_json_option(show)


def run(args: argparse.Namespace) -> int:
    """Print what was asked for.

    Raises:
        ConfigError: ``show`` found faults in the configuration.
    """
    if args.action == "example":
        sys.stdout.write(_EXAMPLE.format(program=PROGRAM))
        return 0
    loaded = load_settings(args)
    if args.json:
        write_json(_document(loaded))
    else:
        write_table([(key, _text(_value(loaded, key)), loaded.origins[key]) for key, _ in leaves()])
    return 0


def _document(loaded: Loaded) -> dict[str, Any]:
    """Nest ``{value, origin}`` objects by section."""
    document: dict[str, Any] = {}
    for key, _ in leaves():
        *path, last = key.split(".")
        table = document
        for part in path:
            table = table.setdefault(part, {})
        table[last] = {"value": _value(loaded, key), "origin": loaded.origins[key]}
    return document


def _value(loaded: Loaded, key: str) -> Any:
    value: Any = loaded.settings
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, SecretStr):
        return "***"
    return str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{each}"' for each in value) + "]"
    return str(value)
