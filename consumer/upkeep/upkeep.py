"""All reads of the org beside the stream, for one generation of the pipeline."""

from __future__ import annotations

from typing import Protocol

from consumer.tasks import task_group
from consumer.upkeep.context import Context
from consumer.upkeep.expire import ExpireJob
from consumer.upkeep.facts import FactsJob
from consumer.upkeep.feed_poll import FeedJob
from consumer.upkeep.history_poll import HistoryJob
from consumer.upkeep.reconcile import ReconcileJob
from consumer.upkeep.refresh import RefreshJob
from consumer.upkeep.repair import RepairJob
from consumer.upkeep.rules import RulesJob
from consumer.upkeep.scan import ScanJob
from consumer.upkeep.shares import SharesJob


class Job(Protocol):
    """One kind of reading that goes on beside the stream."""

    async def run(self) -> None:
        """Run until cancelled."""
        ...


class Upkeep:
    """Runs every job side by side.

    Args:
        context: what the jobs work with.
    """

    def __init__(self, context: Context) -> None:
        sharing, feed = context.pace.sharing, context.pace.feed
        self._jobs: tuple[Job, ...] = (
            FactsJob(context),
            RepairJob(context),
            ScanJob(context),
            HistoryJob(context),
            RefreshJob(context),
            ReconcileJob(context),
            ExpireJob(context),
            *(() if sharing is None else (SharesJob(context, sharing), RulesJob(context, sharing))),
            *(() if feed is None else (FeedJob(context, feed),)),
        )

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            ServiceError: the pipeline does not take arrivals any more; reads that fail are tried again instead.
        """
        async with task_group() as tasks:
            for job in self._jobs:
                tasks.create_task(job.run(), name=type(job).__name__)
