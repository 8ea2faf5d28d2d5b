"""A real Apache Kafka for tests, benchmarks and demonstrations; ``python -m tests.broker`` runs one until Ctrl-C.

Resolved in this order: ``KAFKA_BOOTSTRAP`` names a running cluster; Java 17 and Maven fetch the broker's jars once
into ``.cache/kafka/<version>/libs`` and run them; Docker runs Apache's image. The broker lives in a temporary
directory and ends with its starter, even if that is killed: a guard process holds the other end of a pipe.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.certificates import write_certificates

try:
    import fcntl
except ImportError:  # Windows: no advisory locks; two first runs at once may fetch the jars twice
    fcntl = None  # type: ignore[assignment]  # the name must exist for the check below

ROOT = Path(__file__).resolve().parent.parent
POM = Path(__file__).with_name("kafka-pom.xml")
READY_LIMIT_S = 60.0
"""Longest wait for the first metadata answer; under 2 s on an idle machine."""

# Ends the broker when this process's end of the pipe closes, which the kernel does even after SIGKILL.
_GUARD = """
import signal, subprocess, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def watch():
    sys.stdin.buffer.read()
    child.kill()  # its data goes too, so there is nothing to shut down in order
threading.Thread(target=watch, daemon=True).start()
sys.exit(child.wait())
"""

_JAVA_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms256m", "-Xmx512m", "-Djava.awt.headless=true")

SCRAM_USER, SCRAM_PASSWORD = "scram-user", "scram-pass-1"
PLAIN_USER, PLAIN_PASSWORD = "plain-user", "plain-pass-1"


class BrokerUnavailableError(Exception):
    """No real broker can be had here; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a running broker listens.

    Attributes:
        bootstrap: host:port of the PLAINTEXT listener.
        sasl: host:port of the SASL_PLAINTEXT listener (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), empty without it.
        ssl: host:port of the SSL listener, empty without it.
        sasl_ssl: host:port of the SASL_SSL listener, empty without it.
        ca_file: certificate authority of the SSL listeners, None without them.
        proxied: host:port of one more PLAINTEXT listener, whose clients are told to go to ``proxy_port``; for tests
            that put a proxy of their own there. Empty for a broker that was not started here.
        proxy_port: port of 127.0.0.1 where that proxy has to listen.
        pid: process id of the broker's guard, None for a broker that was not started here.
    """

    bootstrap: str
    sasl: str = ""
    ssl: str = ""
    sasl_ssl: str = ""
    ca_file: Path | None = None
    pid: int | None = None
    proxied: str = ""
    proxy_port: int = 0


def free_ports(count: int) -> list[int]:
    """Return ``count`` different free TCP ports of 127.0.0.1."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _java_missing() -> str:
    java = shutil.which("java")
    if java is None:
        return "no java on the path"
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    if found is None or int(found[1]) < 17:
        return f"java is {found[1] if found else 'of unknown version'}, Kafka needs 17 or later"
    if not (_libs_dir() / ".complete").exists() and shutil.which("mvn") is None:
        return "no mvn on the path to fetch Kafka's jars"
    return ""


def kafka_version() -> str:
    """Return the broker version that the tests run."""
    found = re.search(r"<kafka\.version>([^<]+)<", POM.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def _libs_dir() -> Path:
    return ROOT / ".cache" / "kafka" / kafka_version() / "libs"


def fetch_jars(limit_s: float = 300.0) -> Path:
    """Return the folder of the broker's jars, fetching them with Maven the first time.

    Raises:
        BrokerUnavailableError: Maven failed or took longer than ``limit_s`` seconds.
    """
    libs = _libs_dir()
    if (libs / ".complete").exists():
        return libs
    libs.parent.mkdir(parents=True, exist_ok=True)
    with (libs.parent / "lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when the holder dies
        if not (libs / ".complete").exists():
            _run_maven(libs, limit_s)
            (libs / ".complete").touch()
    return libs


def _run_maven(libs: Path, limit_s: float) -> None:
    shutil.rmtree(libs, ignore_errors=True)
    command = [
        shutil.which("mvn") or "mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={libs}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailableError(f"Maven fetched Kafka's jars for over {limit_s:.0f} s") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise BrokerUnavailableError(f"Maven could not fetch Kafka's jars: {lines[0] if lines else 'no output'}")


def _proxied_properties(port: int, proxy_port: int) -> dict[str, str]:
    return {"listeners": f"PROXIED://127.0.0.1:{port}", "advertised.listeners": f"PROXIED://127.0.0.1:{proxy_port}"}


def _plain_properties(port: int, controller: int, directory: Path) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
        "log.dirs": str(directory / "data"),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "100",
        "auto.create.topics.enable": "false",
        # Tests of outlived transactions wait for this, 10 s by default.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "log.cleaner.backoff.ms": "500",
        "log.initial.task.delay.ms": "500",
    }


def _secure_properties(ports: dict[str, int], pem: Path) -> dict[str, str]:
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    plain = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="broker" password="broker" user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
    )
    properties = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pem),
    }
    for name in ("sasl_plaintext", "sasl_ssl"):
        properties[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
        properties[f"listener.name.{name}.scram-sha-256.sasl.jaas.config"] = scram
        properties[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = scram
    extra = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    return properties | {"listeners": extra, "advertised.listeners": extra}


def _write_properties(directory: Path, *parts: dict[str, str]) -> Path:
    merged: dict[str, str] = {}
    for part in parts:
        for key, value in part.items():
            joined = key in {"listeners", "advertised.listeners"} and key in merged
            merged[key] = f"{merged[key]},{value}" if joined else value
    path = directory / "server.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in merged.items()), encoding="utf-8")
    return path


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line for line in lines if "ERROR" in line or "Exception" in line] or lines
    return telling[0][:300] if telling else "it said nothing"


def _port_open(bootstrap: str) -> bool:
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False


async def _metadata_answer(bootstrap: str, deadline: float, died: threading.Event) -> None:
    # The port first: it is cheap to ask and, unlike the client, logs nothing while nobody listens.
    while not _port_open(bootstrap) and not died.is_set() and time.monotonic() < deadline:  # noqa: ASYNC110  # a process sets no event
        await asyncio.sleep(0.05)
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
        try:
            await admin.start()
            if (await admin.describe_cluster())["brokers"]:
                return
        except (KafkaError, OSError, TimeoutError):
            if died.is_set() or time.monotonic() > deadline:
                raise
        finally:
            await admin.close()
        await asyncio.sleep(0.1)


def wait_ready(bootstrap: str, limit_s: float = READY_LIMIT_S, died: threading.Event | None = None) -> None:
    """Return once the cluster answers a metadata request with a broker in it.

    Raises:
        BrokerUnavailableError: it did not within ``limit_s`` seconds, or its process ended.
    """
    work = _metadata_answer(bootstrap, time.monotonic() + limit_s, died or threading.Event())
    try:
        # A thread of its own, because the caller may already be inside an event loop.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, work).result()
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailableError(f"no metadata answer from {bootstrap}: {error}") from error


def _java_command(libs: Path, *arguments: str) -> list[str]:
    java = shutil.which("java") or "java"
    logging = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")
    return [java, *_JAVA_FLAGS, *logging, "-cp", f"{libs}{os.sep}*", *arguments]


@contextlib.contextmanager
def _java_broker(*, secure: bool) -> Iterator[Broker]:
    libs = fetch_jars()
    with tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        port, controller, sasl, ssl, sasl_ssl, proxied, proxy_port = free_ports(7)
        properties = [_plain_properties(port, controller, directory), _proxied_properties(proxied, proxy_port)]
        scram: list[str] = []
        broker = Broker(f"127.0.0.1:{port}")
        if secure:
            ca_file, pem = write_certificates(directory)
            ports = {"SASL_PLAINTEXT": sasl, "SSL": ssl, "SASL_SSL": sasl_ssl}
            properties.append(_secure_properties(ports, pem))
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                scram += ["--add-scram", f"{mechanism}=[name={SCRAM_USER},password={SCRAM_PASSWORD}]"]
            names = [f"127.0.0.1:{each}" for each in (sasl, ssl, sasl_ssl)]
            broker = Broker(broker.bootstrap, names[0], names[1], names[2], ca_file)
        config = _write_properties(directory, *properties)
        # Never with a leading hyphen, which the format tool would take for an option.
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        log = directory / "broker.log"
        with log.open("wb") as output:
            done = subprocess.run(
                _java_command(
                    libs, "kafka.tools.StorageTool", "format", "--cluster-id", cluster_id,
                    "--config", str(config), *scram,
                ),
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, timeout=READY_LIMIT_S, check=False,
            )  # fmt: skip
            if done.returncode:
                raise BrokerUnavailableError(f"Kafka's storage could not be formatted: {_tail(log)}")
            with _guarded(_java_command(libs, "kafka.Kafka", str(config)), output) as (pid, died):
                try:
                    wait_ready(broker.bootstrap, died=died)
                except BrokerUnavailableError as error:
                    raise BrokerUnavailableError(f"Kafka did not start ({_tail(log)})") from error
                yield replace(broker, pid=pid, proxied=f"127.0.0.1:{proxied}", proxy_port=proxy_port)


@contextlib.contextmanager
def _guarded(command: list[str], output: object) -> Iterator[tuple[int, threading.Event]]:
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, *command],
        stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
    )  # type: ignore[call-overload]  # fmt: skip  # output is an open file, which its stub can't say here
    died = threading.Event()

    def watch() -> None:
        guard.wait()
        died.set()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield guard.pid, died
    finally:
        guard.stdin.close()
        if not died.wait(10):
            guard.kill()
            died.wait(5)


@contextlib.contextmanager
def _docker_broker() -> Iterator[Broker]:
    port = free_ports(1)[0]
    settings = _plain_properties(port, 9093, Path("/tmp/kafka"))
    settings["controller.quorum.voters"] = "1@localhost:9093"
    settings["listeners"] = f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:9093"
    environment: list[str] = []
    for key, value in settings.items():
        environment += ["-e", f"KAFKA_{key.upper().replace('.', '_')}={value}"]
    command = ["docker", "run", "--rm", "-d", "-p", f"127.0.0.1:{port}:{port}", *environment]
    command.append(f"apache/kafka:{kafka_version()}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerUnavailableError(f"docker could not run Kafka: {error}") from error
    if done.returncode:
        raise BrokerUnavailableError(f"docker could not run Kafka: {done.stderr.strip().splitlines()[-1]}")
    container = done.stdout.strip()
    try:
        wait_ready(f"127.0.0.1:{port}")
        yield Broker(f"127.0.0.1:{port}")
    finally:
        subprocess.run(["docker", "kill", container], capture_output=True, timeout=60, check=False)


@contextlib.contextmanager
def running_broker(*, secure: bool = False) -> Iterator[Broker]:
    """Run a real broker, or find the one that ``KAFKA_BOOTSTRAP`` names.

    Args:
        secure: with SASL, SSL and SASL_SSL listeners too; needs Java here, whatever ``KAFKA_BOOTSTRAP`` says.

    Raises:
        BrokerUnavailableError: neither is possible.
    """
    given = os.environ.get("KAFKA_BOOTSTRAP", "")
    if given and not secure:
        wait_ready(given, limit_s=15.0)
        yield Broker(given)
        return
    missing = _java_missing()
    if not missing:
        with _java_broker(secure=secure) as broker:
            yield broker
    elif not secure and shutil.which("docker"):
        try:
            with _docker_broker() as broker:
                yield broker
        except BrokerUnavailableError as error:
            raise BrokerUnavailableError(f"{missing}, and {error}") from error
    else:
        raise BrokerUnavailableError(f"{missing}, and no docker")


def main() -> int:
    """Run a broker until Ctrl-C and print its bootstrap address on one line."""
    # A shell that starts a suite in the background has it ignore Ctrl-C, and all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with running_broker() as broker:
            print(broker.bootstrap, flush=True)  # noqa: T201  # the command's one line of output
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except BrokerUnavailableError as error:
        print(f"No broker: {error}.", file=sys.stderr)  # noqa: T201  # the command's error line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
