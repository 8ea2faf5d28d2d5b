"""The service on an embedded broker that another process holds: ``python -m tests.bench.embedded_service CONFIG``.

That broker makes no topics by request, so its holder has made them before.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from pathlib import Path

import uvloop

from consumer.cli.common import load_settings
from consumer.cli.run import stop_on_signals
from consumer.kafka.connection import Cluster
from consumer.service import Service
from consumer.telemetry import configure_logging
from tests.launch import _end_with_starter


class _MadeBefore:
    """Makes no topics, because they are there."""

    def create_topic(self, name: str, partitions: int) -> None:
        """Do nothing."""


async def _main() -> None:
    settings = load_settings(argparse.Namespace(config=Path(sys.argv[1]))).settings
    configure_logging(settings.service.log_format, settings.service.log_level)
    service = Service(settings, cluster=Cluster(settings.kafka, embedded=_MadeBefore()))
    stop_on_signals(service.stop)
    await service.run()


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
