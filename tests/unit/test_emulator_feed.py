"""Feeds of the emulated org: items that tell of changes, posts, edits, deletes, and how REST shows them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.emulator.org import Change, OrgModel
from consumer.emulator.org_feed import FEED
from consumer.emulator.traffic_data import QUEUES, REPS
from consumer.errors import EmulatorError
from tests.unit.emulator_rest import SESSION, Rest, create, rest, update

NOW = 1_790_000_000_123
FIELDS = (
    "Id, ParentId, Type, CreatedById, CreatedDate, IsDeleted, LastModifiedDate, SystemModstamp, CommentCount, "
    "LikeCount, Title, Body, LinkUrl, IsRichText, RelatedRecordId, InsertedById"
)
CHANGES = "(SELECT FieldName, OldValue, NewValue FROM FeedTrackedChanges)"
TRACKING = {"feed": {"tracking": True}}


@pytest.fixture
def org() -> OrgModel:
    org = OrgModel(1)
    org.feed.track(["Status", "OwnerId", "AcceptTime", "Notes__c"] if knows(org, "Notes__c") else ["Status", "OwnerId"])
    org.feed.truth = []
    return org


def knows(org: OrgModel, field: str) -> bool:
    return field in org.store.schemas[SESSION].index


def told(org: OrgModel, record_id: str) -> list[list[tuple[str, Any, Any]]]:
    return [[(each.field, each.old, each.new) for each in item.tracked] for item in org.feed.of(record_id)]


def test_one_item_tells_of_all_tracked_fields_of_one_save(org: OrgModel) -> None:
    (one,) = create(org, 1, NOW, Status="New", OwnerId=QUEUES[0])
    update(org, one, NOW + 2000, Status="Active", OwnerId=REPS[0], Origin="Help")
    update(org, one, NOW + 3000, Origin="OptIn")
    made, changed = told(org, one)
    assert made == [("created", None, None)]
    assert sorted(changed) == [
        ("MessagingSession.Owner", "Queue 1", str(org.sharing.directory.name_of(REPS[0]))),
        ("MessagingSession.Status", "New", "Active"),
    ]
    item = org.feed.of(one)[1]
    assert (item.type, item.created_ms, item.stamp_ms) == ("TrackedChange", NOW + 2000, (NOW + 2000) // 1000 * 1000)


def test_without_tracking_nothing_is_told_and_unknown_fields_cannot_be_tracked(org: OrgModel) -> None:
    org.feed.track(())
    (one,) = create(org, 1, NOW, Status="New")
    assert org.feed.of(one) == ()
    with pytest.raises(EmulatorError, match="has no field Nope"):
        org.feed.track(["Nope"])


def test_items_go_with_their_session_and_come_back_with_it(org: OrgModel) -> None:
    (one,) = create(org, 1, NOW, Status="New")
    kept, gone = (org.feed.post(one, "TextPost", text, NOW, REPS[0]) for text in ("kept", "gone"))
    org.feed.delete(gone.item_id, NOW + 1000)
    org.commit([Change("delete", SESSION, one)], NOW + 2000)
    assert all(item.deleted for item in org.feed.of(one))
    assert (kept.stamp_ms, gone.stamp_ms) == ((NOW + 2000) // 1000 * 1000, (NOW + 1000) // 1000 * 1000)
    assert set(org.feed.deleted) == {item.item_id for item in org.feed.of(one)}
    org.commit([Change("undelete", SESSION, one)], NOW + 3000)
    assert (kept.deleted, gone.deleted) == (False, True)
    assert set(org.feed.deleted) == {gone.item_id}
    org.commit([Change("purge", SESSION, one)], NOW + 4000)
    assert len(org.feed) == 0
    assert org.feed.by_stamp(0, float("inf")) == []
    assert len(org.feed.deleted) == 3
    ops = [(line["op"], line["item_id"]) for line in org.feed.lines(after=2)]
    first = org.feed.truth[0]["item_id"] if org.feed.truth else ""
    assert ops == [
        ("removed", gone.item_id),
        ("removed", first),
        ("removed", kept.item_id),
        ("restored", first),
        ("restored", kept.item_id),
        ("removed", first),
        ("removed", kept.item_id),
    ]


def test_forgotten_sessions_leave_no_items(org: OrgModel) -> None:
    for one in create(org, 3, NOW, Status="New"):
        org.forget(SESSION, one)
    assert (len(org.feed), org.feed.deleted, org.feed.items()) == (0, {}, [])


def test_edits_move_both_stamps_and_only_live_items_take_them(org: OrgModel) -> None:
    (one,) = create(org, 1, NOW, Status="New")
    item = org.feed.post(one, "LinkPost", "", NOW, REPS[0])
    assert item.link is not None
    assert org.feed.post(one, "ContentPost", "x", NOW, REPS[0]).related is not None
    assert org.feed.post(one, "AdvancedTextPost", "x", NOW, REPS[0]).rich
    for what in ("body", "like", "comment"):
        org.feed.edit(item.item_id, what, "new" if what == "body" else "", NOW + 5000)
    assert (item.body, item.likes, item.comments) == ("new", 1, 1)
    assert (item.modified_ms, item.stamp_ms) == (NOW + 5000, (NOW + 5000) // 1000 * 1000)
    assert org.feed.by_stamp(item.stamp_ms, item.stamp_ms) == [item]
    assert item.item_id in org.feed.pick(10, posts=True)
    org.feed.delete(item.item_id, NOW + 6000)
    for act in (
        lambda: org.feed.delete(item.item_id, NOW),
        lambda: org.feed.edit(item.item_id, "like", "", NOW),
    ):
        with pytest.raises(EmulatorError, match="no feed item"):
            act()


acts = st.lists(st.tuples(st.sampled_from(("post", "edit", "delete", "drop", "back", "late")), st.integers(0, 99)))


@given(acts)
@settings(max_examples=60, deadline=None)
def test_every_item_stands_once_in_the_order_of_time(steps: list[tuple[str, int]]) -> None:
    org, now = OrgModel(1), NOW
    (one,) = create(org, 1, NOW, Status="New")
    for act, number in steps:
        now += number * 37
        live = org.feed.pick(1)
        if act == "post":
            org.feed.post(one, "TextPost", "x", now, REPS[0])
        elif act == "late":
            org.feed.post(one, "TextPost", "x", now - 5000, REPS[0])
        elif act == "drop" and org.record(SESSION, one):
            org.commit([Change("delete", SESSION, one)], now)
        elif act == "back" and not org.record(SESSION, one):
            org.commit([Change("undelete", SESSION, one)], now)
        elif live and act == "edit":
            org.feed.edit(live[0], "like", "", now)
        elif live and act == "delete":
            org.feed.delete(live[0], now)
    found = org.feed.by_stamp(0, float("inf"))
    assert found == sorted(org.feed.items(), key=lambda item: (item.stamp_ms, item.item_id))
    assert {item.item_id for item in found if item.deleted} == set(org.feed.deleted)


# REST


def moment(epoch_ms: int) -> str:
    return dt.datetime.fromtimestamp(epoch_ms // 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def feed(org: Rest, where: str = "", which: str = "queryAll") -> list[dict[str, Any]]:
    return await org.rows(f"SELECT {FIELDS}, {CHANGES} FROM {FEED} {where} ORDER BY SystemModstamp, Id", which)


async def test_rest_shows_items_with_their_field_changes_inside() -> None:
    async with rest(**TRACKING) as org:
        (one,) = org.create(1, Status="New")
        update(org.org.model, one, org.org.state.now_ms(), Status="Active")
        await org.org.fault("feed_post", record_ids=[one], body="Hello", user=REPS[0])
        created, changed, post = await feed(org)
        assert created["FeedTrackedChanges"]["records"][0]["FieldName"] == "created"
        inner = changed["FeedTrackedChanges"]
        assert (inner["totalSize"], inner["done"]) == (1, True)
        (tracked,) = inner["records"]
        assert tracked["attributes"]["type"] == "FeedTrackedChange"
        assert (tracked["FieldName"], tracked["OldValue"]) == ("MessagingSession.Status", "New")
        assert post["FeedTrackedChanges"] is None
        assert (post["Type"], post["Body"], post["ParentId"], post["InsertedById"]) == (
            "TextPost",
            "Hello",
            one,
            REPS[0],
        )


async def test_deleted_items_are_for_query_all_and_get_deleted_with_a_moved_stamp() -> None:
    async with rest() as org:
        (one,) = org.create(1)
        await org.org.fault("feed_post", record_ids=[one], body="a")
        (item,) = await feed(org)
        org.org.state.clock.advance(120)
        await org.org.fault("feed_delete", item_ids=[item["Id"]])
        assert await feed(org, which="query") == []
        (gone,) = await feed(org)
        assert gone["IsDeleted"]
        assert gone["SystemModstamp"] > item["SystemModstamp"]
        assert gone["LastModifiedDate"] == item["LastModifiedDate"]
        org.org.state.clock.advance(120)
        now = org.org.state.now_ms()
        span = {"start": moment(now - 3_600_000), "end": moment(now)}
        answer = await org.ask(f"sobjects/{FEED}/deleted", params=span)
        assert [each["id"] for each in answer.body["deletedRecords"]] == [item["Id"]]
        await org.org.fault("feed_post", record_ids=[one], body="b")
        org.org.state.clock.advance(120)
        span["end"] = moment(org.org.state.now_ms())
        assert len((await org.ask(f"sobjects/{FEED}/updated", params=span)).body["ids"]) == 1


async def test_pages_by_time_and_id_give_every_item_once() -> None:
    async with rest() as org:
        (one,) = org.create(1)
        for number in range(9):
            await org.org.fault("feed_post", record_ids=[one], body=str(number))
            org.org.state.clock.advance(0.4)
        low, found, stamp, last = moment(0), list[str](), moment(0), "000000000000000AAA"
        while True:
            where = (
                f"WHERE SystemModstamp >= {low} AND SystemModstamp < 2999-01-01T00:00:00Z AND "
                f"((SystemModstamp = {stamp} AND Id > '{last}') OR SystemModstamp > {stamp})"
            )
            order = f"{where} ORDER BY SystemModstamp, Id LIMIT 2"
            page = (await org.query(f"SELECT Id, SystemModstamp FROM {FEED} {order}", "queryAll")).body["records"]
            if not page:
                break
            found += [row["Id"] for row in page]
            stamp, last = page[-1]["SystemModstamp"].replace(".000+0000", "Z"), page[-1]["Id"]
        assert found == [row["Id"] for row in await feed(org)]
        assert len(found) == 9
        assert len(await org.rows(f"SELECT Id FROM {FEED} WHERE ParentId = '{one}' ORDER BY Id")) == 9
        assert len(await org.rows(f"SELECT Id FROM {FEED} ORDER BY Id")) == 9
        assert len(await org.rows(f"SELECT Id FROM {FEED}")) == 9


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        ("SELECT Nope FROM FeedTrackedChanges", "INVALID_FIELD"),
        ("SELECT FieldName FROM FeedComments", "INVALID_TYPE"),
        ("SELECT FieldName FROM FeedTrackedChanges LIMIT 1", "MALFORMED_QUERY"),
        ("SELECT (SELECT Id FROM X) FROM FeedTrackedChanges", "MALFORMED_QUERY"),
        ("SELECT COUNT() FROM FeedTrackedChanges", "MALFORMED_QUERY"),
    ],
)
async def test_subqueries_know_one_relationship_and_plain_fields(inside: str, code: str) -> None:
    async with rest() as org:
        assert (await org.query(f"SELECT Id, ({inside}) FROM {FEED}")).code == code


async def test_other_objects_have_no_subqueries_and_bulk_has_none_at_all() -> None:
    async with rest() as org:
        assert (await org.query(f"SELECT Id, {CHANGES} FROM MessagingSession")).code == "INVALID_TYPE"
        assert (await org.query("SELECT Id, Id FROM MessagingSession")).code == "MALFORMED_QUERY"
        order = {"operation": "query", "query": f"SELECT Id, {CHANGES} FROM {FEED}"}
        assert (await org.ask("jobs/query", "POST", json=order)).code == "INVALIDJOB"


async def test_a_closed_feed_and_hidden_fields_are_refused() -> None:
    async with rest(feed={"access": "none"}) as org:
        assert (await org.query(f"SELECT Id FROM {FEED}")).code == "INVALID_TYPE"
        assert (await org.ask(f"sobjects/{FEED}/describe")).status == 404
        await org.org.fault("object_access", entity=FEED, access="open")
        assert (await org.query(f"SELECT Id FROM {FEED}")).status == 200
    async with rest(hidden_fields={FEED: ["Body"]}) as org:
        assert (await org.query(f"SELECT Id, Body FROM {FEED}")).code == "INVALID_FIELD"
        names = [field["name"] for field in (await org.ask(f"sobjects/{FEED}/describe")).body["fields"]]
        assert "Body" not in names
        assert "Title" in names
    with pytest.raises(EmulatorError, match="has no field Nope"):
        async with rest(hidden_fields={FEED: ["Nope"]}):
            pass
