"""Everything that goes wrong in an hour of an org's life, with kills; then the topics are held against the truth.

``python -m tests.oracle_run`` is the long form of this.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker import Broker
from tests.oracle_run import Plan, run

pytestmark = pytest.mark.kafka


async def test_images_history_and_coverage_are_as_the_oracle_has_them(kafka_broker: Broker, tmp_path: Path) -> None:
    plan = Plan(kills=3, life_s=25.0, rate=25.0, speed=20.0, seed=7)
    verdict = await run(plan, kafka_broker.bootstrap, tmp_path)
    verdict.require_clean()
    counted = verdict.counted
    assert counted["true field changes"] > 500
    assert counted["found in history"] > 0.8 * counted["true field changes"]
    assert counted["losses in windows"] > 20
    assert counted["hours"] > 90, "four days passed while no worker ran"
    assert counted["hours complete, without losses"] > 30
