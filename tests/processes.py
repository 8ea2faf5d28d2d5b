"""Workers and emulated orgs as processes of their own, started, watched, stopped and killed; never leaked.

Every child is the leader of its own process group, runs under :mod:`tests.launch` (it ends with its starter), and
what it writes is read as it comes, so that tests wait for what is said in place of sleeping.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from tests.ledger import Published, published_events

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 30.0
"""Longest wait for anything, seconds, on a busy machine; every wait ends as soon as its condition holds."""
_PAUSE_S = 0.03
_KEPT_LINES = 5_000
_LINE_LIMIT = 1 << 20


async def until(condition: Callable[[], Awaitable[Any]], what: str, limit_s: float = LIMIT_S) -> Any:
    """Ask again and again until the answer is true, and return it.

    Args:
        condition: asks another process, which can't tell by itself.
        what: names the condition in the error.
        limit_s: longest wait, seconds.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = asyncio.get_running_loop().time() + limit_s
    while not (answer := await condition()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(_PAUSE_S)
    return answer


AnyChild = TypeVar("AnyChild", bound="Child")


class Child:
    """One process of ours.

    Attributes:
        name: what errors call it.
        lines: what it wrote, the newest lines; JSON lines of the log are objects there.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, http: aiohttp.ClientSession) -> None:
        self.name = name
        self._http = http
        self.lines: deque[dict[str, Any]] = deque(maxlen=_KEPT_LINES)
        self._process = process
        self._news = asyncio.Event()
        self._ended = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal, None while it runs."""
        return self._process.returncode

    async def pump(self) -> None:
        """Read what it writes until it ends."""
        output = self._process.stdout
        assert output is not None
        while line := await output.readline():
            self.lines.append(_parsed(line))
            self._news.set()
        await self._process.wait()
        self._ended = True
        self._news.set()

    async def said(self, limit_s: float = LIMIT_S, **facts: Any) -> dict[str, Any]:
        """Wait for a line with these facts, such as ``event="halted"``, and return it.

        Raises:
            AssertionError: it ended before, or did not say so in time.
        """
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    self._news.clear()
                    for line in tuple(self.lines):
                        if all(line.get(name) == value for name, value in facts.items()):
                            return line
                    assert not self._ended, f"{self.name} ended ({self.returncode}) without {facts}: {self.tail()}"
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not say {facts} within {limit_s:g} s: {self.tail()}") from None

    def forget(self) -> None:
        """Drop the lines said so far, so that ``said`` waits for new ones; addresses stay."""
        kept = [line for line in self.lines if "url" in line]
        self.lines.clear()
        self.lines.extend(kept)

    def count(self, **facts: Any) -> int:
        """Return how many kept lines have these facts."""
        return sum(all(line.get(name) == value for name, value in facts.items()) for line in self.lines)

    def tail(self) -> str:
        """Return its last lines, for errors."""
        return "\n    ".join(["", *(json.dumps(line) for line in list(self.lines)[-12:])])

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its process group; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def ended(self, limit_s: float = LIMIT_S) -> int:
        """Wait for its end and return the exit code.

        Raises:
            AssertionError: it did not end in time.
        """
        try:
            async with asyncio.timeout(limit_s):
                while not self._ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not end within {limit_s:g} s: {self.tail()}") from None
        assert self.returncode is not None
        return self.returncode

    async def kill(self) -> None:
        """Kill it as the kernel's memory guard does, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def stop(self, limit_s: float = LIMIT_S) -> int:
        """Ask it to stop (SIGTERM) and return its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(limit_s)


def _parsed(line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8", "replace").rstrip()
    try:
        value = json.loads(text)
    except ValueError:
        return {"text": text}
    return value if isinstance(value, dict) else {"text": text}


class Worker(Child):
    """A running ``session-consumer run``."""

    url = ""

    async def served(self) -> str:
        """Wait until its health pages are served and return their URL."""
        if not self.url:
            self.url = str((await self.said(event="health pages are served"))["url"])
        return self.url

    async def status(self) -> dict[str, Any]:
        """Return ``/status``."""
        async with self._http.get(f"{await self.served()}/status") as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            return found

    async def metric(self, name: str) -> float:
        """Return a metric's sum over all its labels, 0 when it is not there."""
        async with self._http.get(f"{await self.served()}/metrics") as answer:
            text = await answer.text()
        lines = [line for line in text.splitlines() if line.startswith(f"session_consumer_{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def has_role(self, role: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Wait until all its subscriptions have a role, and return the first one's health."""
        await self.served()

        async def asked() -> dict[str, Any] | None:
            assert self.returncode is None, f"{self.name} ended ({self.returncode}): {self.tail()}"
            found = (await self.status())["subscriptions"]
            return found[0] if found and all(each["role"] == role for each in found) else None

        try:
            answer: dict[str, Any] = await until(asked, f"{self.name} is {role}", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said {self.tail()}") from None
        return answer


class Emulator(Child):
    """A running ``session-consumer emulate``, steered by its control API."""

    addresses: dict[str, str]

    async def stats(self) -> dict[str, Any]:
        """Return its counters."""
        async with self._http.get(f"{self.addresses['control']}/stats") as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            return found

    async def fault(self, kind: str, **parameters: Any) -> None:
        """Order a fault."""
        await self._order("fault", {"kind": kind, **parameters})

    async def publish(self, kind: str, **parameters: Any) -> list[Published]:
        """Publish events and return them."""
        return published_events(await self._order("publish", {"kind": kind, **parameters}))

    async def traffic(self, **parameters: Any) -> None:
        """Change rate, total or pause."""
        await self._order("traffic", parameters)

    async def _order(self, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        async with self._http.post(f"{self.addresses['control']}/{path}", json=body) as answer:
            found = await answer.json(content_type=None)
            assert answer.status == 200, found
            events: list[dict[str, Any]] = found["events"]
            return events

    async def published(self, topics: Sequence[str] | None = None, after: int = -1) -> list[Published]:
        """Return every event published after an index, of these topics."""
        lines: list[dict[str, Any]] = []
        while True:
            query = {"after": str(after), "limit": "5000"}
            async with self._http.get(f"{self.addresses['control']}/ledger", params=query) as answer:
                page = (await answer.json(content_type=None))["events"]
            if not page:
                return published_events(lines, topics)
            lines += page
            after = page[-1]["index"]

    async def has_published(self, events: int, limit_s: float = LIMIT_S) -> None:
        """Wait until so many events were published in all."""

        async def enough() -> bool:
            return bool((await self.stats())["ledger_total"] >= events)

        await until(enough, f"{events} events published", limit_s)


class Lab:
    """Starts processes and ends them all at its own end.

    Args:
        directory: where configurations are written; made if it is not there.
        tasks: owns the readers of the children's output.
        http: asks the children's pages.
    """

    def __init__(self, directory: Path, tasks: asyncio.TaskGroup, http: aiohttp.ClientSession) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.tasks = tasks
        self.http = http
        self.children: list[Child] = []

    async def emulator(self, scenario: Mapping[str, Any] | None = None) -> Emulator:
        """Start an emulated org and wait until it is ready.

        Args:
            scenario: its TOML file as values.
        """
        path = self._write("scenario", scenario or {})
        org = await self._start(Emulator, "emulate", "--scenario", str(path))
        org.addresses = {name: str(value) for name, value in (await _first_line(org, "pubsub")).items()}
        return org

    async def worker(self, config: Mapping[str, Any], crash: str | None = None) -> Worker:
        """Start a worker; it is not ready yet.

        Args:
            config: its configuration file as values.
            crash: ``POINT:HIT`` of :mod:`tests.crash_points`, None for a worker that lives.
        """
        path = self._write("worker", {"state": {"path": str(self.directory / "state")}, **config})
        return await self._start(Worker, "run", "--config", str(path), crash=crash)

    def _write(self, stem: str, values: Mapping[str, Any]) -> Path:
        path = self.directory / f"{stem}-{len(self.children)}.toml"
        path.write_text(toml(values), encoding="utf-8")
        return path

    async def _start(self, kind: type[AnyChild], *arguments: str, crash: str | None = None) -> AnyChild:
        return await self.start(kind, "tests.launch", *(() if crash is None else ("--crash", crash)), *arguments)

    async def start(self, kind: type[AnyChild], module: str, *arguments: str) -> AnyChild:
        """Start a module that ends with its standard input.

        Args:
            kind: what steers it.
            module: such as ``tests.launch``.
            arguments: its command line.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            cwd=ROOT,
            env=os.environ | {"SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET": "emulated"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        name = kind.__name__.lower()
        child = kind(f"{name}-{len(self.children)}", process, self.http)
        self.children.append(child)
        self.tasks.create_task(child.pump())
        return child

    async def close(self) -> None:
        """Kill what still runs, and wait until it is gone."""
        for child in self.children:
            child.send(signal.SIGKILL)
        for child in self.children:
            await child.ended()


async def _first_line(child: Child, name: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        assert child.returncode is None, f"{child.name} ended: {child.tail()}"
        return next((line for line in child.lines if name in line), None)

    found: dict[str, Any] = await until(told, f"{child.name} prints {name}")
    return found


@asynccontextmanager
async def running_lab(directory: Path) -> AsyncIterator[Lab]:
    """Hold a lab open."""
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    failure: BaseException | None = None
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as tasks:
        lab = Lab(directory, tasks, http)
        try:
            yield lab
        except BaseException as error:  # noqa: BLE001  # raised below, outside the group that would wrap it
            failure = error
        finally:
            await lab.close()
    if failure is not None:
        raise failure


def toml(values: Mapping[str, Any]) -> str:
    """Return a TOML file; JSON's scalars and lists of them are TOML too."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items())
    for name, table in values.items():
        if isinstance(table, Mapping):
            text += f"\n[{name}]\n" + "".join(
                f"{json.dumps(key)} = {json.dumps(each)}\n" for key, each in table.items()
            )
    return text


def worker_config(
    org: Emulator, bootstrap: str, prefix: str, *, topics: Sequence[str], **overrides: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return a worker's configuration for tests: quick take-over, small batches.

    Args:
        org: the emulated org.
        bootstrap: Kafka's PLAINTEXT listener.
        prefix: topic prefix, also the service's name.
        topics: topics of the org.
        overrides: values by section, over the defaults here.
    """
    config: dict[str, dict[str, Any]] = {
        "salesforce": {"login_url": org.addresses["login_url"], "client_id": "emulated"},
        "pubsub": {"endpoint": org.addresses["pubsub"], "tls": False, "topics": list(topics), "start": "earliest"},
        "kafka": {
            "bootstrap_servers": bootstrap,
            "topic_prefix": prefix,
            "partitions": 3,
            "replication_factor": 1,
            "session_timeout": "500ms",
            "transaction_timeout": "10s",
        },
        "batch": {"max_age": "20ms", "max_records": 200},
        "history": {"poll": "2s", "settle": "2s", "confirm_within": "30s"},
        "tracking": {"refresh_after": "5s"},
        "service": {"name": prefix.strip("."), "listen": "127.0.0.1:0", "log_format": "json", "shutdown_grace_s": 10},
    }
    for section, values in overrides.items():
        config.setdefault(section, {}).update(values)
    return config
