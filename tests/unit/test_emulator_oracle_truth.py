"""The oracle tells every true change and every loss: what a service can be held against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from consumer.changes.canonical import date_only, date_time, time_only
from consumer.emulator.bus import PositionRefusedError
from consumer.emulator.oracle import Oracle
from consumer.emulator.oracle_truth import Truth, image_of
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.scenario import parse
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.emulator.traffic import Traffic
from consumer.errors import EmulatorError
from tests.unit.emulator_client import TOPIC, connected, publish

NOW_MS = 1_790_000_000_123
SESSION = "MessagingSession"


class Told:
    """A running org and what its oracle says over HTTP."""

    def __init__(self, org: EmulatedOrg, http: aiohttp.ClientSession) -> None:
        self.org = org
        self.http = http

    async def lines(self, what: str, **query: str) -> list[dict[str, Any]]:
        async with self.http.get(f"{self.org.control}/oracle/{what}", params=query) as answer:
            assert answer.status == 200, await answer.text()
            return [orjson.loads(line) for line in (await answer.read()).splitlines()]

    async def sessions(self, count: int) -> list[str]:
        return [entry.record_ids[0] for entry in await publish(self.org, count)]


@asynccontextmanager
async def told(text: str = "") -> AsyncIterator[Told]:
    async with emulated_org(parse("oracle = true\nkeep_all = true\n" + text)) as org, aiohttp.ClientSession() as http:
        yield Told(org, http)


async def test_every_change_is_told_with_its_event_old_and_new() -> None:
    async with told() as it:
        (record_id,) = await it.sessions(1)
        address = {"City": "Bergen", "Street": "Strandgaten 12"}
        fields = {"Status": "Active", "AcceptTime": 1_790_000_003_000, "VisitAddress__c": address, "ChannelName": "x"}
        await it.org.fault("commit", changes=[{"op": "update", "record_id": record_id, "fields": fields}], user="005u")
        await it.org.fault("commit", changes=[{"op": "delete", "record_id": record_id}])
        await it.org.fault("commit", changes=[{"op": "undelete", "record_id": record_id}])
        lines = await it.lines("changes")
        events = [entry.event_id for entry in it.org.ledger]
        assert [(line["op"], line["field"]) for line in lines] == [
            ("create", "created"),
            ("update", "AcceptTime"),
            ("update", "ChannelName"),
            ("update", "Status"),
            ("update", "VisitAddress__c.City"),
            ("update", "VisitAddress__c.Street"),
            ("delete", ""),
            ("undelete", ""),
        ]
        accepted, derived, status, city = lines[1:5]
        assert (accepted["old"], accepted["new"]) == (None, "2026-09-21T14:13:23.000Z")
        assert (status["old"], status["new"], status["user"], status["tracked"]) == ("New", "Active", "005u", True)
        assert (city["old"], city["new"], city["tracked"]) == (None, "Bergen", False)
        assert status["event_id"] in events
        assert status["published"]
        assert (derived["event_id"], derived["published"], derived["loss"]) == (None, False, "derived")
        assert [line["index"] for line in await it.lines("changes", after="5")] == [6, 7]
        assert await it.lines("changes", entity="AgentWork") == []
        assert await it.lines("losses") == []


async def test_dropped_events_are_in_the_org_and_on_no_topic() -> None:
    async with told() as it:
        first, second = await it.sessions(2)
        published = len(it.org.ledger)
        await it.org.fault("drop", events=2, entity=SESSION)
        for record_id, status in ((first, "Active"), (second, "Active"), (first, "Ended")):
            await it.org.fault(
                "commit", changes=[{"op": "update", "record_id": record_id, "fields": {"Status": status}}]
            )
        losses = await it.lines("losses")
        kinds = [loss["kind"] for loss in losses]
        assert kinds == ["dropped", "dropped"]
        assert it.org.stats.dropped == 2
        assert len(it.org.ledger) >= published + 1
        assert {loss["event_id"] for loss in losses}.isdisjoint(entry.event_id for entry in it.org.ledger)
        assert {record for loss in losses for record in loss["record_ids"]} <= {first, second}
        hidden = [line for line in await it.lines("changes") if line["loss"] == "dropped"]
        assert hidden
        assert not any(line["published"] for line in hidden)
        records = {line["record_id"]: line for line in await it.lines("records")}
        assert records[second]["image"]["Status"] == "Active"
        assert len(it.org.model.history_rows(SESSION)) == 5, "history knows what was dropped"


async def test_a_drop_for_a_time_takes_one_object_and_clear_ends_it() -> None:
    async with told() as it:
        await it.org.fault("drop", seconds=600, entity=SESSION)
        await it.org.fault("commit", changes=[{"op": "create"}, {"op": "create", "entity": "AgentWork"}])
        assert [entry.entity for entry in it.org.ledger] == ["AgentWork"]
        await it.org.fault("clear")
        await it.sessions(1)
        assert [entry.entity for entry in it.org.ledger] == ["AgentWork", SESSION]
        (loss,) = await it.lines("losses")
        assert (loss["kind"], loss["ops"], loss["published"]) == ("dropped", ["create"], False)


async def test_events_that_share_a_replay_id_are_dropped_together() -> None:
    async with told("ungroup_merged = true") as it:
        ids = await it.sessions(3)
        await it.org.fault("drop", events=1)
        changes = [{"op": "delete", "record_id": record_id} for record_id in ids]
        assert await it.org.fault("commit", changes=changes) == []
        (entry,) = await publish(it.org, 1)
        assert entry.counter > it.org.ledger[-2].counter
        assert [loss["record_ids"] for loss in await it.lines("losses")] == [[record_id] for record_id in ids]


async def test_silent_acts_change_records_without_an_event() -> None:
    async with told() as it:
        await it.sessions(6)
        published = len(it.org.ledger)
        before = it.org.model.records(SESSION)
        await it.org.fault("silent_update", records=2)
        await it.org.fault("silent_delete", records=1)
        await it.org.fault("silent_delete", records=1, purge=True)
        await it.org.fault("silent_create", records=2, fields={"Status": "New"})
        assert len(it.org.ledger) == published
        losses = await it.lines("losses")
        assert [(loss["kind"], loss["ops"], len(loss["record_ids"])) for loss in losses] == [
            ("silent", ["update"], 2),
            ("silent", ["delete"], 1),
            ("silent", ["purge"], 1),
            ("silent", ["create"], 2),
        ]
        after = it.org.model.records(SESSION)
        updated, deleted, purged, created = (loss["record_ids"] for loss in losses)
        for record_id in updated:
            fields = losses[0]["fields"]
            old, new = before[record_id], after.get(record_id)
            assert new is None or any(old[name] != new[name] for name in fields)
        assert it.org.model.deleted_ids(SESSION) == tuple(deleted)
        assert {*created} <= after.keys()
        gone = [line for line in await it.lines("records") if line.get("purged")]
        assert [line["record_id"] for line in gone] == purged


async def test_gap_overflow_and_wildcard_hide_real_changes() -> None:
    async with told() as it:
        await it.sessions(8)
        before = it.org.model.records(SESSION)
        (gap,) = await it.org.fault("gap", records=2)
        (overflow,) = await it.org.fault("overflow", updates=2, deletes=1, creates=1)
        (wildcard,) = await it.org.fault("wildcard", fields={"ChannelGroup": "all"})
        (bare,) = await it.org.fault("overflow")
        losses = await it.lines("losses")
        assert [(loss["kind"], loss["event_id"], loss["published"]) for loss in losses] == [
            ("gap", gap.event_id, True),
            ("overflow", overflow.event_id, True),
            ("wildcard", wildcard.event_id, True),
            ("overflow", bare.event_id, True),
        ]
        assert tuple(losses[0]["record_ids"]) == gap.record_ids
        assert losses[1]["ops"] == ["create", "delete", "update"]
        assert len(losses[1]["record_ids"]) == 4
        assert losses[2]["fields"] == ["ChannelGroup"]
        assert len(losses[2]["record_ids"]) == 8
        assert losses[3]["record_ids"] == []
        after = it.org.model.records(SESSION)
        assert {record["ChannelGroup"] for record in after.values()} == {"all"}
        assert {one for one in gap.record_ids if one in after} <= after.keys() & before.keys()
        told_by = {line["loss"] for line in await it.lines("changes") if line["op"] != "create" or line["loss"]}
        assert told_by == {"gap", "overflow", "wildcard"}


async def test_poison_and_moves_and_hard_deletes_are_losses() -> None:
    async with told() as it:
        first, second = await it.sessions(2)
        await it.org.fault("poison", how="truncated")
        await it.org.fault("commit", changes=[{"op": "purge", "record_id": first}])
        await it.org.fault("commit", changes=[{"op": "delete", "record_id": second}])
        await it.org.fault("commit", changes=[{"op": "purge", "record_id": second}])
        await it.org.fault("corrupt_positions", keep_events=True)
        losses = await it.lines("losses")
        assert [(loss["kind"], loss["record_ids"]) for loss in losses] == [
            ("poison", [second]),
            ("purged", [first]),
            ("moved", []),
        ]


async def test_expired_events_are_losses_unless_they_had_left() -> None:
    async with connected(oracle=True) as client, aiohttp.ClientSession() as http:
        it = Told(client.org, http)
        sent = await publish(client.org, 2)
        stream = await client.subscribe(num=2)
        await stream.read_events(2)
        unsent = await publish(client.org, 2)
        await client.org.fault("advance_clock", seconds=73 * 3600)
        losses = await it.lines("losses")
        assert [(loss["kind"], loss["event_id"], loss["sent"]) for loss in losses] == [
            ("expired", entry.event_id, False) for entry in unsent
        ]
        assert [loss["ops"] for loss in losses] == [["create"]] * 2
        assert len(await it.lines("losses", sent="1", entity=SESSION)) == 4
        assert await it.lines("losses", entity="Account") == []
        assert [entry.sent for entry in sent] == [True, True]


async def test_a_move_of_the_org_numbers_everything_anew_from_below() -> None:
    async with told() as it:
        old = await publish(it.org, 3)
        reader = Oracle(it.org.model)
        await it.org.fault("move_org")
        new = await publish(it.org, 3)
        assert max(entry.counter for entry in new) < min(entry.counter for entry in old)
        topic = it.org.bus.topics[TOPIC]
        with pytest.raises(PositionRefusedError):
            it.org.bus.after(topic, old[-1].replay_id)
        assert it.org.bus.after(topic, new[0].replay_id) == topic.first + 1
        assert topic.end - topic.first == 3
        assert reader is not None
        kinds = [loss["kind"] for loss in await it.lines("losses")]
        assert kinds == ["moved", "expired", "expired", "expired"]


def test_commit_numbers_restart_lower_and_go_on_growing() -> None:
    org = OrgModel(1)
    numbers = []
    for _ in range(2):
        for _ in range(2):
            org.commit([Change("create", SESSION, org.new_id(SESSION))], NOW_MS)
            numbers.append(org._maker._commit_number)
        org.restart_commit_numbers()
    first, second, third, fourth = numbers
    assert 2**53 < third < fourth < first < second


async def test_a_moved_org_keeps_retained_events_on_request() -> None:
    async with told() as it:
        await publish(it.org, 3)
        await it.org.fault("move_org", keep_events=True)
        await publish(it.org, 1)
        topic = it.org.bus.topics[TOPIC]
        counters = [entry.counter for entry in topic.slice(topic.first, 9)]
        assert len(counters) == 4
        assert counters == sorted(counters)
        assert counters[-1] < 1 << 20


async def test_without_the_setting_nothing_is_kept() -> None:
    async with emulated_org() as org, aiohttp.ClientSession() as http:
        assert org.model.truth is None
        for what in ("losses", "changes", "records?entity=Nope"):
            async with http.get(f"{org.control}/oracle/{what}") as answer:
                assert answer.status == 400
                assert (await answer.json())["advice"]
        async with http.get(org.control) as answer:
            assert "GET /control/clock" in await answer.json()


def test_images_are_canonical() -> None:
    org = OrgModel(1, invisible={SESSION: ("ChannelGroup",)})
    values = {
        "AcceptTime": 1_790_000_003_007,
        "FollowUp__c": 1_790_035_200_000,
        "CallbackAt__c": 36_003_000,
        "CSAT_Score__c": 4.5,
        "VIP__c": True,
        "VisitAddress__c": {"City": "Bergen", "Latitude": 60.4},
        "ChannelGroup": "secret",
    }
    image: Any = image_of(org.store.schemas[SESSION], "0Mw", values, org.invisible_fields(SESSION))
    assert image["Id"] == "0Mw"
    assert "ChannelGroup" not in image
    assert image["AcceptTime"] == date_time(1_790_000_003_007)
    assert image["FollowUp__c"] == date_only(1_790_035_200_000)
    assert image["CallbackAt__c"] == time_only(36_003_000)
    assert (image["CSAT_Score__c"], image["VIP__c"], image["Status"]) == (4.5, True, None)
    assert image["VisitAddress__c"]["City"] == "Bergen"
    assert image["VisitAddress__c"]["PostalCode"] is None
    assert len(image["VisitAddress__c"]) == 10


def test_changes_folded_give_the_records_and_agree_with_what_events_say() -> None:
    org = OrgModel(9)
    org.truth = Truth(org.store)
    traffic = Traffic(org, 9, live=60, keep=None)
    oracle = Oracle(org)
    oracle.observe(traffic.bulk(6_000, NOW_MS, per_second=40))
    said = {
        (event_id, record_id, ".".join(filter(None, place)))
        for record_id in org.records(SESSION)
        for change in oracle.changes(SESSION, record_id)
        for event_id in [change.event_id]
        for place in change.changed
        if place[0] not in {"LastModifiedDate", "LastModifiedById"}
    }
    lines = [line for line in org.truth.changes(entity=SESSION) if line["op"] == "update"]
    live = org.records(SESSION)
    true = {
        (line["event_id"], line["record_id"], line["field"])
        for line in lines
        if line["event_id"] and line["record_id"] in live
    }
    assert true == said
    assert {line["loss"] for line in lines} == {"", "derived"}
    for name in ("Status", "OwnerId", "CaseId"):
        newest = {line["record_id"]: line["new"] for line in lines if line["field"] == name}
        assert all(live[record_id][name] == value for record_id, value in newest.items() if record_id in live)


def test_a_transaction_that_fails_leaves_no_truth() -> None:
    org = OrgModel(1)
    org.truth = Truth(org.store)
    with pytest.raises(EmulatorError):
        org.commit([Change("create", SESSION, org.new_id(SESSION), {"Nope": 1})], NOW_MS)
    with pytest.raises(EmulatorError):
        org.silent([Change("delete", SESSION, org.new_id(SESSION))], NOW_MS)
    assert len(org.truth) == 0
