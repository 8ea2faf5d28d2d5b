"""Access changes in every way it can, and workers are killed; then every fact is held against the org's truth.

``python -m tests.sharing_run`` is the long form of this.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker import Broker
from tests.sharing_run import Plan, run

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_sharing_is_as_the_oracle_has_it(kafka_broker: Broker, tmp_path: Path) -> None:
    plan = Plan(
        sessions=150,
        kills=3,
        life_s=25.0,
        rate=8.0,
        acts_per_minute=90.0,
        speed=6.0,
        poll_s=15,
        settle_s=8,
        sweep_s=60,
        moments=400,
        moments_asked=4,
        seed=5,
    )
    verdict = await run(plan, kafka_broker.bootstrap, tmp_path)
    verdict.require_clean()
    counted = verdict.counted
    assert counted["facts that are true"] > 150
    assert counted["revoked (owner_change)"] > 10
    assert counted["answers yes"] > 100
    assert counted["answers no"] > 20
    assert counted["feed records"] > 20
    assert counted["sharing-rules records"] > 2
