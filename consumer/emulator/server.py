"""The emulated org as one object: start it, look inside, steer it, stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from consumer.emulator import fault_kinds
from consumer.emulator.auth import Sessions
from consumer.emulator.bus import Entry, EventBus
from consumer.emulator.control import Control
from consumer.emulator.control_oracle import OracleControl
from consumer.emulator.control_sharing import SharingOracle
from consumer.emulator.drops import Dropper
from consumer.emulator.faults import Faults
from consumer.emulator.login_server import LoginServer
from consumer.emulator.managed import ManagedSubscriptions, Subscription
from consumer.emulator.oracle_truth import Truth
from consumer.emulator.org import OrgModel
from consumer.emulator.org_clock import EmulatedClock
from consumer.emulator.publishing import DEMO_EVENT, AllSchemas, Publisher
from consumer.emulator.pubsub_server import PubSubServer
from consumer.emulator.relay import Relay
from consumer.emulator.rest_quota import ApiUsage
from consumer.emulator.rest_server import RestServer
from consumer.emulator.scenario import Scenario
from consumer.emulator.sharing_start import keeps_shares, prepare_sharing
from consumer.emulator.sharing_traffic import SharingRates, SharingTraffic
from consumer.emulator.sharing_traffic import run as run_sharing
from consumer.emulator.state import Conditions, ServerState, Stats
from consumer.emulator.traffic import Traffic
from consumer.emulator.traffic_gate import TrafficGate
from consumer.errors import EmulatorError

_SETTLE_S = 0.2
_MAX_HEAD_BYTES = 131_072

HOST = "127.0.0.1"
"""Where it listens unless told otherwise: its credentials are public, so it should not be reached from outside."""


@dataclass(frozen=True)
class EmulatedOrg:
    """A running emulated org.

    Attributes:
        pubsub: ``host:port`` of the gRPC server.
        rest: URL of the HTTP server; login, REST and control live there.
        model: records and schemas.
        bus: the event log; ``bus.ledger`` holds every published event.
        traffic: the generator's gate.
        faults: carries out faults.
        state: counters, conditions, sessions and open calls.
    """

    scenario: Scenario
    pubsub: str
    rest: str
    model: OrgModel
    bus: EventBus
    traffic: TrafficGate
    faults: Faults
    state: ServerState
    managed: ManagedSubscriptions = field(default_factory=ManagedSubscriptions)

    @property
    def login_url(self) -> str:
        """URL of the login host."""
        return self.rest

    @property
    def control(self) -> str:
        """URL of the control API."""
        return f"{self.rest}/control"

    @property
    def org_id(self) -> str:
        """The 18-character org id."""
        return self.state.sessions.org_id

    @property
    def stats(self) -> Stats:
        """Counters since the start."""
        return self.state.stats

    @property
    def ledger(self) -> list[Entry]:
        """Every published event in bus order."""
        return self.bus.ledger

    def addresses(self) -> dict[str, str]:
        """Return what ``emulate`` prints."""
        return {
            "pubsub": self.pubsub,
            "rest": self.rest,
            "login_url": self.login_url,
            "control": self.control,
        }

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the three headers of a Pub/Sub call, with a new session."""
        return (
            ("accesstoken", self.state.sessions.issue()),
            ("instanceurl", self.rest),
            ("tenantid", self.org_id),
        )

    async def fault(self, kind: str, **parameters: object) -> list[Entry]:
        """Carry out a fault or act by its kind and return the events it published.

        Raises:
            EmulatorError: unknown kind, wrong parameters, or the org can't do it.
        """
        return await self.faults.apply(fault_kinds.parse_fault(kind, parameters))


@asynccontextmanager
async def emulated_org(
    scenario: Scenario | None = None, *, host: str = HOST, port_pubsub: int = 0, port_rest: int = 0
) -> AsyncIterator[EmulatedOrg]:
    """Run an emulated org for the length of the block.

    Args:
        scenario: what it is like; None takes the defaults, without traffic.
        host: name or IPv4 address to listen on; logins give the same one to clients.
        port_pubsub: port of the gRPC server, 0 for a free one.
        port_rest: port of the HTTP server, 0 for a free one.

    Raises:
        EmulatorError: the host or a port can't be listened on, or a TLS file can't be read.
    """
    scenario = scenario or Scenario()
    state, model = _state(scenario)
    traffic = _traffic(scenario, model)
    traffic.populate(scenario.traffic.sessions, state.now_ms())
    gate = _gate(scenario, traffic, state)
    if keeps_shares(scenario):
        model.sharing.begin(state.now_ms())
    await gate.preload(scenario.traffic.preload)
    managed = ManagedSubscriptions([Subscription(each) for each in scenario.managed])
    pubsub = PubSubServer(state, managed, Publisher(state), f"core/prod/{state.sessions.org_id}", _tls(scenario))
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        relay = Relay(host, group) if scenario.relay else None
        rates = SharingRates(scenario.sharing.acts_per_minute, scenario.feed.acts_per_minute)
        faults = Faults(state, model, gate, lambda: pubsub.restart(host), relay, rates)
        controls = Control(state, faults, gate), OracleControl(state, model), SharingOracle(state, model)
        runner = web.AppRunner(
            _application(state, controls, _rest(scenario, state, model)),
            access_log=None,
            shutdown_timeout=1.0,
            # The org refuses long requests itself, with its own status and at its own bound.
            max_line_size=_MAX_HEAD_BYTES,
            max_field_size=_MAX_HEAD_BYTES,
        )
        background: list[asyncio.Task[None]] = []
        try:
            inner = await pubsub.start(host, 0 if relay else port_pubsub)
            outer = await relay.start(port_pubsub, inner) if relay else inner
            rest = f"http://{host}:{await _listen(runner, host, port_rest)}"
            state.sessions.instance_url = rest
            acts = run_sharing(SharingTraffic(scenario.seed, model.sharing.rules), rates, faults.apply, state.now)
            lives = (gate.run(), _timeline(scenario, faults), _settling(state, model), acts)
            background = [group.create_task(each) for each in lives]
            yield EmulatedOrg(scenario, f"{host}:{outer}", rest, model, state.bus, gate, faults, state, managed)
        except Exception as error:  # noqa: BLE001 - raised again below, outside the group that would wrap it
            failure = error
        finally:
            for task in background:
                task.cancel()
            if relay is not None:
                relay.stop()
            await pubsub.stop()
            await runner.cleanup()
    if failure is not None:
        raise failure


def _state(scenario: Scenario) -> tuple[ServerState, OrgModel]:
    sessions = Sessions(scenario.auth)
    model = _model(scenario, sessions.org_id)
    clock = EmulatedClock(scenario.clock_speed)
    bus = EventBus(
        scenario.seed,
        [*model.entities(), DEMO_EVENT],
        scenario.channels,
        clock.now_ms,
        retention_ms=round(scenario.retention_h * 3_600_000),
        retain_events=scenario.retain_events,
    )
    state = ServerState(
        bus,
        AllSchemas(model),
        sessions,
        scenario.timing(),
        split=scenario.split,
        delivery_allowance=scenario.delivery_allowance,
        publish_burst=scenario.publish_burst,
        seed=scenario.seed,
        conditions=Conditions(latency_s=scenario.latency_ms / 1000),
        clock=clock,
        api=ApiUsage(scenario.api_limit),
    )
    bus.lossy = Dropper(state, model)
    return state, model


def _model(scenario: Scenario, org_id: str) -> OrgModel:
    model = OrgModel(scenario.seed, org_id, carry_derived=scenario.carry_derived, invisible=scenario.hidden_fields)
    model.ungroup_merged = scenario.ungroup_merged
    model.enrichment.update(scenario.enrichment)
    model.history.late = scenario.late_history_rows
    model.history.special = scenario.special_history_rows
    for entity, fields in scenario.history_tracking.items():
        model.history.track(entity, fields)
    if scenario.oracle:
        model.truth = Truth(model.store)
    prepare_sharing(model, scenario)
    return model


def _traffic(scenario: Scenario, model: OrgModel) -> Traffic:
    settings = scenario.traffic
    if scenario.keep_all:
        return Traffic(model, scenario.seed, live=settings.live, companions=settings.companions, keep=None)
    return Traffic(model, scenario.seed, live=settings.live, companions=settings.companions)


def _gate(scenario: Scenario, traffic: Traffic, state: ServerState) -> TrafficGate:
    wanted = scenario.traffic
    return TrafficGate(traffic, state.bus, wanted.rate, wanted.total, wanted.paused, now_ms=state.now_ms)


def _rest(scenario: Scenario, state: ServerState, model: OrgModel) -> RestServer:
    return RestServer(
        state,
        model,
        bulk_s=scenario.bulk_s / scenario.time_scale,
        delete_log_days=scenario.delete_log_days,
        latency_s=scenario.rest_latency_ms / 1000,
        short_pages=scenario.short_pages,
    )


def _application(
    state: ServerState, controls: Sequence[Control | OracleControl | SharingOracle], rest: RestServer
) -> web.Application:
    application = web.Application(middlewares=[rest.middleware])
    application.add_routes(LoginServer(state).routes())
    application.add_routes(rest.routes())
    for control in controls:
        application.add_routes(control.routes())
    return application


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise EmulatorError(f"{host}:{port} can't be listened on", "Give another --port-rest or --host") from error
    return int(runner.addresses[0][1])


def _tls(scenario: Scenario) -> tuple[bytes, bytes] | None:
    if scenario.tls is None:
        return None
    try:
        return scenario.tls.key_file.read_bytes(), scenario.tls.cert_file.read_bytes()
    except OSError as error:
        raise EmulatorError(
            f"a TLS file of the scenario can't be read: {error.strerror}", "Correct [tls] in the scenario"
        ) from error


async def _settling(state: ServerState, model: OrgModel) -> None:
    """Let the platform's late computations come also while nobody commits anything."""
    while True:
        await asyncio.sleep(_SETTLE_S)
        model.settle(state.now_ms())


async def _timeline(scenario: Scenario, faults: Faults) -> None:
    begun = asyncio.get_running_loop().time()
    for act in sorted(scenario.at, key=lambda each: each.s):
        await asyncio.sleep(max(0.0, begun + act.s - asyncio.get_running_loop().time()))
        await faults.apply(act.fault)
