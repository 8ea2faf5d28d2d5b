"""Records of shares, access, sharing rules and feed items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.access import access_tombstone, decode_access, encode_access
from consumer.delivery.feed import Feed
from consumer.delivery.ledger import decode_ledger, encode_ledger
from consumer.delivery.sharing import Sharing
from consumer.delivery.sharing_rules import SharingRules
from consumer.errors import ForeignStateError
from consumer.events import OutboundRecord
from consumer.tracking.access import (
    AccessState,
    Grantee,
    KnownShare,
    RuleFact,
    ShareCause,
    ShareFact,
    SharesDue,
    SharingRule,
)
from consumer.tracking.feed_values import FeedFact, FeedItem, FeedSeen, TrackedField
from consumer.tracking.values import LedgerEntry
from tests.contract.topic_schemas import RecordShapeError, kind_of, validate_record
from tests.delivery_values import ORG, TOPICS
from tests.tracking_values import ENTITY, RECORD, S0

TEXT = st.text(max_size=5)
# Makes Hypothesis's table of characters, once on a machine; a first example that had to wait for it would fail.
TEXT.validate()

USER = "005000000000001AAA"
GROUP = "00G000000000001AAA"
FACT = ShareFact(
    fact_id="granted:x",
    kind="granted",
    record_id=RECORD,
    share_id="02c000000000001AAA",
    user_or_group_id=GROUP,
    grantee=Grantee("Queue", "Support"),
    access_level="All",
    previous_access_level=None,
    row_cause="Owner",
    not_before_ms=S0,
    not_after_ms=S0 + 1000,
    modified_ms=S0,
    changed_by=USER,
    observed_ms=S0 + 5000,
    cause=ShareCause.OWNER_CHANGE,
)
UNSEEN = replace(
    FACT, kind="unseen", share_id=None, user_or_group_id=None, grantee=None, access_level=None, row_cause=None
)
RULE = SharingRule(
    "0Yo000000000001AAA", {"Name": "Team", "AccessLevel": "Read", "GroupId": GROUP, "UserOrGroupId": USER}, S0, USER
)
RULE_FACT = RuleFact("rule:x", "created", RULE, {}, None, S0 + 1000, S0, S0 + 1000, baseline=True)
ITEM = FeedItem(
    "0D5000000000001AAA",
    RECORD,
    "TrackedChange",
    S0,
    S0 + 1000,
    deleted=False,
    values={"CreatedById": USER, "Body": "Hello", "LikeCount": 2, "LastModifiedDate": "2026-01-01T00:00:00.000Z"},
    tracked=(TrackedField("MessagingSession.Status", "New", None),),
)


def checked(record: OutboundRecord) -> Any:
    """Return the value of a record that is as its schema promises, with exactly the promised fields and no others."""
    return validate_record(kind_of(record.topic), record.key, record.value, record.headers)


def shared(fact: ShareFact) -> OutboundRecord:
    (record,) = Sharing(ORG, TOPICS).records(ENTITY, [fact], S0)
    return record


def test_a_grant_stands_under_its_record_with_all_it_says() -> None:
    record = shared(FACT)
    assert (record.topic, record.key) == (TOPICS.of(ENTITY, "sharing"), RECORD.encode())
    value = checked(record)
    assert value == {
        "id": "granted:x",
        "kind": "granted",
        "record_id": RECORD,
        "share_id": "02c000000000001AAA",
        "user_or_group_id": GROUP,
        "grantee_type": "Queue",
        "grantee_name": "Support",
        "access_level": "All",
        "previous_access_level": None,
        "row_cause": "Owner",
        "not_before": "2026-09-21T14:13:20.000Z",
        "not_after": "2026-09-21T14:13:21.000Z",
        "modified_at": "2026-09-21T14:13:20.000Z",
        "changed_by": USER,
        "observed_at": "2026-09-21T14:13:25.000Z",
        "cause": "owner_change",
    }


@pytest.mark.parametrize(
    "fact",
    [
        UNSEEN,
        replace(FACT, kind="revoked", modified_ms=None, not_before_ms=None),
        replace(FACT, kind="level_changed", previous_access_level="Read"),
        replace(FACT, row_cause="", grantee=None, changed_by=None),
    ],
)
def test_every_kind_of_fact_is_as_promised(fact: ShareFact) -> None:
    checked(shared(fact))


@pytest.mark.parametrize(
    "fact",
    [
        replace(FACT, kind=cast("Any", "taken")),
        replace(FACT, share_id=None),
        replace(FACT, kind="level_changed"),
        replace(FACT, not_before_ms=S0 + 2000),
        replace(UNSEEN, user_or_group_id=USER),
    ],
)
def test_what_is_not_promised_is_refused(fact: ShareFact) -> None:
    with pytest.raises(RecordShapeError):
        checked(shared(fact))


def test_nothing_told_is_no_record() -> None:
    assert Sharing(ORG, TOPICS).records(ENTITY, [], S0) == []
    assert SharingRules(ORG, TOPICS).records(ENTITY, [], S0) == []
    assert Feed(ORG, TOPICS).records(ENTITY, [], S0) == []


def test_a_rule_stands_under_its_own_id() -> None:
    changed = replace(RULE_FACT, kind="changed", changed={"Name": ("A", "B")}, baseline=False)
    deleted = replace(RULE_FACT, kind="deleted", baseline=False, grantees={GROUP: Grantee("Queue", "Support")})
    records = SharingRules(ORG, TOPICS).records(ENTITY, [RULE_FACT, changed, deleted], S0)
    assert {record.key for record in records} == {RULE.rule_id.encode()}
    values = [checked(record) for record in records]
    assert values[1]["changed"] == [{"field": "Name", "old_value": "A", "new_value": "B"}]
    assert (values[0]["changed_by"], values[2]["changed_by"]) == (USER, None), "nobody knows who deleted it"
    assert (values[2]["group_type"], values[2]["group_name"]) == ("Queue", "Support")


def fed(fact: FeedFact, **more: Any) -> OutboundRecord:
    (record,) = Feed(ORG, TOPICS, **more).records(ENTITY, [fact], S0)
    return record


def test_a_feed_item_names_its_columns_and_passes_others_through() -> None:
    value = checked(fed(FeedFact("feed:x", "created", ITEM, S0)))
    assert (value["body"], value["like_count"], value["created_by"]) == ("Hello", 2, USER)
    assert value["other"] == {"LastModifiedDate": "2026-01-01T00:00:00.000Z"}
    assert value["changes"] == [{"field": "MessagingSession.Status", "old_value": "New", "new_value": None}]
    assert value["title"] is None


def test_a_removed_item_without_its_record_stands_under_its_own_id() -> None:
    gone = FeedItem(ITEM.item_id, None, None, None, S0, deleted=True, values={})
    record = fed(FeedFact("feed:x", "removed", gone, S0))
    assert record.key == ITEM.item_id.encode()
    checked(record)


def test_a_large_item_is_cut_and_says_so() -> None:
    large = replace(ITEM, values={**ITEM.values, "Body": "x" * 5_000, "More__c": "y" * 5_000})
    value = checked(fed(FeedFact("feed:x", "created", large, S0), max_record_bytes=2_000))
    assert value["truncated"] is True
    assert len(value["body"]) == 255
    assert value["other"] == {}


# Access


def grantees() -> st.SearchStrategy[Grantee | None]:
    return st.none() | st.builds(Grantee, st.sampled_from(["User", "Queue"]), st.none() | TEXT)


MS = st.integers(min_value=0, max_value=4_000_000_000_000)


@st.composite
def known_shares(draw: st.DrawFn) -> KnownShare:
    start = draw(st.none() | MS)
    return KnownShare(
        draw(st.sampled_from([USER, GROUP])),
        draw(st.sampled_from(["", "Owner", "Rule"])),
        draw(st.sampled_from(["Read", "Edit"])),
        draw(st.sampled_from(["02c1", "02c2"])),
        draw(grantees()),
        (start, max(draw(MS), start or 0)),
        draw(st.none() | MS),
        draw(MS),
        draw(st.none() | MS),
    )


@given(st.lists(known_shares(), unique_by=lambda share: share.key, max_size=6).map(tuple), st.booleans(), MS)
def test_known_shares_survive_their_record(shares: tuple[KnownShare, ...], complete: bool, as_of_ms: int) -> None:
    access = AccessState(ENTITY, RECORD, shares, complete, as_of_ms)
    record = encode_access(TOPICS, ORG, access)
    checked(record)
    back = decode_access(record.key, record.value or b"")
    assert (back.entity, back.record_id, back.shares, back.complete, back.as_of_ms) == (
        ENTITY,
        RECORD,
        shares,
        complete,
        as_of_ms,
    )


def many(count: int) -> AccessState:
    shares = tuple(
        KnownShare(
            f"005{number:012}AAA",
            "Manual",
            "Read",
            f"02c{number:012}AAA",
            Grantee("User", "N" * 40),
            (None, S0),
            modified_ms=S0,
            seen_ms=S0 - 5,
            missing_ms=S0,
            missed_again_ms=S0 + 30_000,
        )
        for number in range(count)
    )
    return AccessState(ENTITY, RECORD, shares, complete=True, as_of_ms=S0)


def test_what_the_texts_tell_is_not_written_again() -> None:
    value = checked(encode_access(TOPICS, ORG, many(1)))
    assert (value["shares"][0]["since"], value["shares"][0]["since_not_before"]) == ("2026-09-21T14:13:20.000Z", None)
    assert set(value["shares"][0]) & {"since_ms", "seen_ms", "missing_ms", "missed_again_ms", "modified_ms"} == {
        *("seen_ms", "missing_ms", "missed_again_ms", "modified_ms"),
    }


@pytest.mark.parametrize("since", [(None, 10**15), (10**15, S0), (-(10**15), 10**15)])
def test_times_that_no_text_can_tell_survive_their_record(since: tuple[int | None, int]) -> None:
    access = AccessState(ENTITY, RECORD, (replace(many(1).shares[0], since=since),))
    record = encode_access(TOPICS, ORG, access)
    assert decode_access(record.key, record.value or b"").shares == access.shares


def test_times_as_earlier_versions_wrote_them_are_read() -> None:
    record = encode_access(TOPICS, ORG, many(1))
    value = orjson.loads(record.value or b"")
    value["shares"][0]["since_ms"] = [None, S0]
    assert decode_access(record.key, orjson.dumps(value)).shares == many(1).shares


def test_a_large_record_loses_names_then_what_is_read_again_then_shares_and_then_is_not_complete() -> None:
    whole = len(encode_access(TOPICS, ORG, many(20)).value or b"")
    nameless = encode_access(TOPICS, ORG, many(20), max_record_bytes=whole - 100)
    value = checked(nameless)
    assert (value["truncated"], value["complete"], len(value["shares"])) == (True, True, 20)
    assert {share["grantee_name"] for share in value["shares"]} == {None}
    assert {share["modified_ms"] for share in value["shares"]} == {S0}
    bare = encode_access(TOPICS, ORG, many(20), max_record_bytes=len(nameless.value or b"") - 1)
    value = checked(bare)
    assert (value["truncated"], value["complete"], len(value["shares"])) == (True, True, 20)
    back = decode_access(bare.key, bare.value or b"")
    assert back.shares == tuple(
        replace(share, grantee=Grantee("User"), modified_ms=None) for share in many(20).shares
    ), "and nothing else: it must be known until when a missed share was there"
    cut = encode_access(TOPICS, ORG, many(20), max_record_bytes=whole // 3)
    value = checked(cut)
    assert len(cut.value or b"") <= whole // 3
    assert (value["complete"], 0 < len(value["shares"]) < 20) == (False, True)
    back = decode_access(cut.key, cut.value or b"")
    assert not back.complete, "so that the next reading tells the rest"
    assert {(share.seen_ms, share.missing_ms) for share in back.shares} == {(S0 - 5, S0)}


def test_a_newer_or_foreign_record_of_access_is_refused() -> None:
    record = encode_access(TOPICS, ORG, many(1))
    value = orjson.loads(record.value or b"")
    for wrong in ({**value, "v": 2}, {**value, "shares": [{}]}, {**value, "as_of_ms": "1"}, {"v": 1}):
        with pytest.raises(ForeignStateError):
            decode_access(record.key, orjson.dumps(wrong))
    for field, text in (
        *(("since", None), ("since", S0), ("since", "2026-09-21"), ("since", "2026-13-21T14:13:20.000Z")),
        *(("since_not_before", "2026-09-21T14:13:20.000"), ("since_not_before", True), ("since_ms", [1])),
    ):
        share = {**value["shares"][0], field: text}
        with pytest.raises(ForeignStateError):
            decode_access(record.key, orjson.dumps({**value, "shares": [share]}))
    assert access_tombstone(TOPICS, ENTITY, RECORD).value is None


# Ledger


@given(
    st.none()
    | st.builds(
        SharesDue,
        MS,
        st.sampled_from(ShareCause),
        st.none() | MS,
        st.none() | MS,
        st.integers(0, 9),
        st.booleans(),
        st.none() | st.just(USER),
    ),
    st.lists(st.builds(FeedSeen, st.sampled_from(["0D51", "0D52"]), MS, st.booleans()), max_size=3).map(tuple),
)
def test_owed_share_reads_and_told_feed_items_survive_the_ledger(
    shares: SharesDue | None, feed: tuple[FeedSeen, ...]
) -> None:
    entry = LedgerEntry(ENTITY, RECORD, shares=shares, feed=feed)
    record = encode_ledger(TOPICS, entry)
    validate_record("ledger", record.key, record.value, record.headers)
    back = decode_ledger(record.key, record.value)
    if entry.empty:
        assert back is None
    else:
        assert back is not None
        assert (back.shares, back.feed) == (shares, feed)


def test_a_ledger_of_another_service_is_refused() -> None:
    for wrong in ({"due_ms": "1", "cause": "sweep"}, {"due_ms": 1, "cause": "whim"}):
        with pytest.raises(ForeignStateError):
            decode_ledger(RECORD.encode(), orjson.dumps({"v": 1, "entity": ENTITY, "shares": wrong}))
