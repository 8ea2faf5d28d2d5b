"""One record of each topic of sharing and feeds, as the service makes it."""

from __future__ import annotations

from typing import Any, Literal

from consumer.delivery.access import encode_access
from consumer.delivery.feed import Feed
from consumer.delivery.sharing import Sharing
from consumer.delivery.sharing_rules import SharingRules
from consumer.events import OutboundRecord
from consumer.tracking.access import AccessState, Grantee, KnownShare, RuleFact, ShareCause, ShareFact, SharingRule
from consumer.tracking.feed_values import FeedFact, FeedItem, TrackedField
from tests.delivery_values import ORG, RECORD, TOPICS
from tests.tracking_values import S0

USER, GROUP = "005000000000001AAA", "00G000000000001AAA"


def sharing_record(**changes: Any) -> OutboundRecord:
    """Return the record of a grant, with some attributes of the fact replaced."""
    given: dict[str, Any] = {
        "fact_id": "granted:1",
        "kind": "granted",
        "record_id": RECORD,
        "share_id": "02c000000000001AAA",
        "user_or_group_id": GROUP,
        "grantee": Grantee("Queue", "Support"),
        "access_level": "All",
        "previous_access_level": None,
        "row_cause": "Owner",
        "not_before_ms": S0,
        "not_after_ms": S0 + 1000,
        "modified_ms": S0,
        "changed_by": USER,
        "observed_ms": S0 + 2000,
        "cause": ShareCause.OWNER_CHANGE,
    }
    (record,) = Sharing(ORG, TOPICS).records("MessagingSession", [ShareFact(**{**given, **changes})], S0)
    return record


def access_record() -> OutboundRecord:
    """Return the record of one known share that was missed once."""
    share = KnownShare(
        GROUP, "Owner", "All", "02c000000000001AAA", Grantee("Queue", "Support"), (S0, S0), S0, S0 - 1, S0
    )
    return encode_access(TOPICS, ORG, AccessState("MessagingSession", RECORD, (share,), complete=True, as_of_ms=S0))


def rule_record(kind: Literal["created", "changed", "deleted"] = "created") -> OutboundRecord:
    """Return the record of an owner sharing rule."""
    rule = SharingRule("0Yo000000000001AAA", {"Name": "Team", "GroupId": GROUP, "UserOrGroupId": USER}, S0, USER)
    changed = {"Name": ("Old", "Team")} if kind == "changed" else {}
    fact = RuleFact(f"{kind}:1", kind, rule, changed, None, S0, S0, S0)
    (record,) = SharingRules(ORG, TOPICS).records("MessagingSession", [fact], S0)
    return record


def feed_record() -> OutboundRecord:
    """Return the record of a feed item that tells a field change."""
    tracked = (TrackedField("MessagingSession.Status", "New", None),)
    item = FeedItem("0D5000000000001AAA", RECORD, "TrackedChange", S0, S0, False, {"Body": "b", "More__c": 1}, tracked)
    (record,) = Feed(ORG, TOPICS).records("MessagingSession", [FeedFact("created:1", "created", item, S0)], S0)
    return record
