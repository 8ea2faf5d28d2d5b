"""Sharing and feed of an org before it starts, as its scenario says."""

from __future__ import annotations

from typing import Final

from consumer.emulator.org import OrgModel
from consumer.emulator.org_feed import FEED
from consumer.emulator.org_recalculation import RecalculationSettings
from consumer.emulator.org_share_truth import ShareTruth
from consumer.emulator.org_sharing import RULES, SHARE
from consumer.emulator.scenario import Scenario

_BEFORE_MS: Final = 1_400_000_000_000
"""When rules that were always there were made: 2014, long before any poll's first look."""


def prepare_sharing(model: OrgModel, scenario: Scenario) -> None:
    """Set up groups, rules, feed tracking, and what the API user may see of them.

    Raises:
        EmulatorError: a group, rule, member or field that can't be.
    """
    sharing, settings = model.sharing, scenario.sharing
    sharing.settings = RecalculationSettings(
        settings.recalc_delay_s,
        settings.recalc_s,
        settings.recreate,
        settings.recalc_gap_s,
        settings.late_share_rows,
    )
    sharing.defaults = (settings.internal, settings.external)
    for group in settings.groups:
        sharing.directory.add_group(group.name, [sharing.directory.find(each) for each in group.members])
    if scenario.oracle:
        sharing.truth = ShareTruth()
        model.feed.truth = []
    for rule in settings.rules:
        sharing.create_rule(rule.name, rule.source, rule.target, rule.level, _BEFORE_MS, description=rule.description)
    if not settings.enabled:
        model.closed[SHARE] = "invalid_type"
        model.closed[RULES] = "invalid_type"
    elif settings.rules_api != "open":
        model.closed[RULES] = settings.rules_api
    if scenario.feed.access == "none":
        model.closed[FEED] = "invalid_type"
    if scenario.feed.tracking:
        model.feed.track(scenario.feed.tracked)


def keeps_shares(scenario: Scenario) -> bool:
    """Return whether share rows are kept from the start."""
    settings = scenario.sharing
    return settings.enabled and (settings.eager or scenario.oracle or settings.acts_per_minute > 0)
