"""``session-consumer emulate``: only the emulated org, for trying clients on it."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from pathlib import Path

from consumer.cli.common import PROGRAM, Subparsers, write_json
from consumer.emulator.scenario import Scenario, TrafficSettings, load
from consumer.emulator.server import HOST, emulated_org
from consumer.errors import UsageError

NAME = "emulate"
INTERRUPT_EXIT_CODE = 0

_DESCRIPTION = """\
Run an emulated Salesforce org: the Pub/Sub API over gRPC (plaintext), logins,
limits, generated contact centre traffic, and a control API for faults.
It listens on loopback; --host opens it to others, and its credentials are public.
Prints one JSON line with the addresses when it is ready; ends 0 on Ctrl-C.

It accepts: client id, client secret, user name, password and refresh token
"emulated"; JWT assertions for issuer and subject "emulated". SOAP login too."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")

_EPILOG = f"""\
examples:
  {PROGRAM} emulate --rate 50
  {PROGRAM} emulate --scenario deploy/scenarios/contact-centre.toml --port-pubsub 7443 --port-rest 8000
  curl -s $CONTROL/faults
  curl -s $CONTROL/fault -d '{{"kind": "end_streams", "how": "unavailable"}}'"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(NAME, help="run only the emulated org", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--scenario", metavar="FILE", type=Path, help="scenario (TOML); see deploy/scenarios")
    parser.add_argument(
        "--host", metavar="HOST", default=HOST, help=f"name or IPv4 address that clients reach (default: {HOST})"
    )
    parser.add_argument("--port-pubsub", metavar="PORT", type=int, default=0, help="gRPC port (default: a free one)")
    parser.add_argument("--port-rest", metavar="PORT", type=int, default=0, help="HTTP port (default: a free one)")
    parser.add_argument("--rate", metavar="N", type=float, help="events per second (default: the scenario's, or 20)")
    parser.add_argument("--seed", metavar="N", type=int, help="seed of traffic and numbering")
    parser.add_argument("--total", metavar="N", type=int, help="events after which the traffic stops")


async def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM.

    Raises:
        ConfigError: the scenario has faults.
        EmulatorError: the host or a port can't be listened on.
        UsageError: a value is out of range.
    """
    for name in ("port_pubsub", "port_rest"):
        if not 0 <= getattr(args, name) <= 65535:
            raise UsageError(f"--{name.replace('_', '-')} must be 0 to 65535", "0 takes a free port")
    if not _HOST.fullmatch(args.host):
        raise UsageError("--host must be a name or an IPv4 address", f"Leave it out for {HOST}")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    ports = {"port_pubsub": args.port_pubsub, "port_rest": args.port_rest}
    async with emulated_org(_scenario(args), host=args.host, **ports) as org:
        write_json(org.addresses(), indent=False)
        await stop.wait()
    return 0


def _scenario(args: argparse.Namespace) -> Scenario:
    """Return the scenario with what the command line overrides."""
    scenario = load(args.scenario) if args.scenario else Scenario(traffic=TrafficSettings(rate=20.0))
    if (args.rate is not None and not 0 <= args.rate <= 100_000) or (args.total or 0) < 0:
        raise UsageError("--rate must be 0 to 100000, --total 0 or more", "0 means no traffic, or no end")
    given = {name: getattr(args, name) for name in ("rate", "total") if getattr(args, name) is not None}
    changes: dict[str, object] = {"traffic": scenario.traffic.model_copy(update=given)}
    if args.seed is not None:
        changes["seed"] = args.seed
    return scenario.model_copy(update=changes)
