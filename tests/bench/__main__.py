"""``python -m tests.bench``: the README's benchmarks; every figure is a ratio against its baseline in the same run.

The org, the service and each baseline are processes of their own. Runs that are compared alternate, and the middle one
of an odd number counts, because the machine is rarely ours alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from consumer.kafka.embedded import EmbeddedBroker
from tests.bench import decoder
from tests.bench.rig import BATCH, Rig, Run, peak_bytes, relay
from tests.broker import BrokerUnavailableError, kafka_version, running_broker
from tests.processes import Lab, running_lab

_EVENTS = 30_000
_PART = 1_500
"""Events of the straightforward client, which is slow, and whose rate does not change."""
_SLOW_EVENTS = 20_000
_SLOW_RTT_MS = 300
_SLOW_S = 8.0
_WINDOW = 100
_MIB = 1 << 20


def _say(line: str = "") -> None:
    print(line, flush=True)  # noqa: T201  # the command's output


def _org(events: int, split: str = "full") -> dict[str, object]:
    return {"split": split, "traffic": {"preload": events, "companions": False, "rate": 0}}


@contextlib.contextmanager
def _broker() -> Iterator[tuple[str, EmbeddedBroker | None]]:
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker())
        except BrokerUnavailableError as error:
            _say(f"!! NO REAL KAFKA HERE ({error}).")
            _say(
                "!! The embedded broker stands in for it: it stores nothing, so these ratios say little about Kafka.\n"
            )
            embedded = stack.enter_context(EmbeddedBroker())
            yield embedded.bootstrap, embedded
            return
        _say(f"Apache Kafka {kafka_version()} at {broker.bootstrap}, one node on this machine.\n")
        yield broker.bootstrap, None


async def _throughput(rig: Rig, rounds: int) -> None:
    _say(f"1. Events per second through the whole service ({rounds} alternating runs, the middle one counts)")
    runs: dict[str, list[Run]] = {"service": [], "sharing": [], "passthrough": [], "straightforward": []}
    for _ in range(rounds):
        runs["service"].append(await rig.service(_EVENTS * 9 // 10))
        runs["sharing"].append(await rig.service(_EVENTS * 9 // 10, sharing=True))
        runs["passthrough"].append(await rig.client("passthrough", _EVENTS))
        runs["straightforward"].append(await rig.client("straightforward", _PART))
    rates = {name: median(run.rate for run in each) for name, each in runs.items()}
    texts = {
        "service": f"the service, images and history, transactions of {BATCH} records",
        "sharing": "the same, shares, rules and feeds read beside it",
        "passthrough": "(a) pass-through of payload bytes, transactions of the same size",
        "straightforward": "(b) avro's DatumReader, one send_and_wait per event",
    }
    _say(f"   {'':66} {'events/s':>9} {'processor':>12} {'service is':>11}")
    for name, text in texts.items():
        cost = median(run.cpu_us for run in runs[name])
        _say(f"   {text:66} {rates[name]:9,.0f} {cost:6.0f} µs/ev {rates['service'] / rates[name]:10.2f}x")
    peak = max(run.peak_bytes for run in runs["service"])
    _say(f"   Peak memory of the service under this load: {_mib(peak)}.\n")


async def _round_trips(lab: Lab, bootstrap: str, embedded: EmbeddedBroker | None) -> None:
    _say(f"2. Throughput against the window limit, {_WINDOW} events per round trip")
    _say(f"   {'round trip':>10}  {'responses':16} {'events/s':>9} {'limit':>9} {'of limit':>9} {'(a) reaches':>12}")
    for split, text in (("full", "large"), ("single", "one event each")):
        org = await lab.emulator(_org(_EVENTS // 2, split))
        rig = Rig(lab, bootstrap, org, embedded)
        for rtt_ms, events in ((0, _EVENTS // 3), (20, _EVENTS // 3), (100, 4_000)):
            async with contextlib.AsyncExitStack() as stack:
                way = await stack.enter_async_context(relay(org.addresses["pubsub"], rtt_ms)) if rtt_ms else None
                rate = (await rig.service(events, pubsub=way)).rate
                plain = (await rig.client("passthrough", events, pubsub=way)).rate
            limit = _WINDOW * 1000 / rtt_ms if rtt_ms else 0.0
            told = f"{limit:9,.0f} {rate / limit:9.2f} {plain / limit:12.2f}" if limit else f"{'none':>9}"
            _say(f"   {rtt_ms:7} ms  {text:16} {rate:9,.0f} {told}")
        await org.stop()
    _say()


def _decoders() -> None:
    _say("3. Decoding one MessagingSession payload (best of 5 rounds, in turn)")
    _say(f"   {'':20} {'bytes':>6} {'ours':>9} {'fastavro':>17} {'avro':>18}")
    for each in decoder.compare():
        ours = each.ours_us
        _say(
            f"   {each.change_type:20} {each.payload_bytes:6} {ours:6.1f} µs {each.fastavro_us:7.1f} µs"
            f" {each.fastavro_us / ours:5.1f}x {each.avro_us:7.0f} µs {each.avro_us / ours:5.1f}x"
        )
    _say()


async def _slow_kafka(lab: Lab) -> None:
    """Run the service on a broker that answers late, and see that memory stays where it is."""
    with EmbeddedBroker() as broker:
        set_rtt = broker._library.rd_kafka_mock_broker_set_rtt
        set_rtt.restype, set_rtt.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]
        assert set_rtt(broker._cluster, 1, _SLOW_RTT_MS) == 0
        org = await lab.emulator(_org(_SLOW_EVENTS))
        rig = Rig(lab, broker.bootstrap, org, broker)
        worker = await rig.start("slow.")
        buffered = received = committed = 0.0
        before = 0
        began: float | None = None
        while began is None or time.monotonic() - began < _SLOW_S:
            now_buffered, received, committed = await rig.metrics(
                worker, "buffer_events", "events_received_total", "batch_events_sum"
            )
            buffered = max(buffered, now_buffered)
            if received and began is None:
                began, before = time.monotonic(), peak_bytes(worker.pid)
            await asyncio.sleep(0.1)
        peak = peak_bytes(worker.pid)
        await worker.kill()
        await org.stop()
    _say(f"4. Memory with {_SLOW_EVENTS:,} events waiting and a Kafka that answers after {_SLOW_RTT_MS} ms")
    _say(f"   peak {_mib(peak)} ({_mib(before)} as the first event came); at most {buffered:,.0f} events buffered")
    _say(f"   of {received:,.0f} received and {committed:,.0f} committed in {_SLOW_S:.0f} s: credits wait for Kafka.\n")


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size else "not told by this system"


async def _main(parts: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        async with running_lab(Path(name)) as lab:
            if "1" in parts or "2" in parts:
                with _broker() as (bootstrap, embedded):
                    if "1" in parts:
                        org = await lab.emulator(_org(_EVENTS))
                        await _throughput(Rig(lab, bootstrap, org, embedded), rounds)
                        await org.stop()
                    if "2" in parts:
                        await _round_trips(lab, bootstrap, embedded)
            if "3" in parts:
                _decoders()
            if "4" in parts:
                await _slow_kafka(lab)


def main() -> int:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="?", default="1234", help="which parts, such as 13 (default: all)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="alternating runs of part 1 (default: 3)")
    args = parser.parse_args()
    began = time.monotonic()
    asyncio.run(_main(args.parts, args.rounds))
    _say(f"{time.monotonic() - began:.0f} s in all. Other work on this machine moves every figure; the ratios less.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
