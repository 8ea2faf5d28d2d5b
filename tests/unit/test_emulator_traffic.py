"""The emulated contact centre shows every kind of change, stays bounded, and survives what scenarios do to it."""

from __future__ import annotations

from consumer.emulator.oracle import Oracle
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.traffic import Traffic

NOW_MS = 1_790_000_000_123
SESSION = "MessagingSession"


def test_traffic_shows_every_kind_of_change_a_contact_centre_makes() -> None:
    org = OrgModel(3)
    traffic = Traffic(org, 3, keep=None)
    events = traffic.bulk(12_000, NOW_MS, per_second=40)
    oracle = Oracle(org)
    oracle.observe(events)
    reads = [oracle.read(event) for event in events]
    assert {event.entity for event in events} == set(org.entities()) - {"Widget__c"}
    assert {event.change_type for event in events} == {"CREATE", "UPDATE", "DELETE", "UNDELETE"}
    assert {
        read.values.get("Status") for read, event in zip(reads, events, strict=True) if event.entity == SESSION
    } >= {
        "New",
        "Consent",
        "Waiting",
        "Active",
        "Inactive",
        "Paused",
        "Error",
        "Ended",
    }
    assert {read.values.get("EndedByType") for read in reads} >= {"Agent", "Bot", "EndUser", "System"}
    assert {read.values.get("AgentType") for read in reads} >= {"Agent", "Bot", "BotToAgent", "System"}
    assert any(len(event.record_ids) > 3 for event in events), "merged events"
    assert any(event.sequence_number > 3 for event in events), "multi-event transactions"
    assert any(read.diffs for read in reads), "diffs"
    assert any(read.nulled for read in reads), "nulled fields"
    nested_only = [read for read in reads if read.changed and all(part for _, part in read.changed)]
    assert nested_only, "nested-only bitmaps"
    assert any(read.change_origin == "" for read in reads), "the platform's own writes have no origin"
    assert any(read.change_origin for read in reads)
    updated = [read for read in reads if read.change_type == "UPDATE"]
    assert any(("LastModifiedDate", "") not in read.changed for read in updated)
    purged = set(oracle.record_ids(SESSION)) - set(org.records(SESSION)) - set(org.deleted_ids(SESSION))
    assert purged, "hard deletes, which no event tells of"


def test_traffic_is_bounded_in_live_sessions_and_memory() -> None:
    org = OrgModel(4)
    traffic = Traffic(org, 4, live=5, companions=False, keep=50)
    for second in range(60):
        events = traffic.step(NOW_MS + second * 1_000, 100)
        assert len(events) >= 100
        assert {event.entity for event in events} == {SESSION}
        assert traffic.live <= 5
    assert len(org.records(SESSION)) <= 5 + 50 + 301


def test_traffic_goes_on_whatever_a_scenario_did_to_its_records() -> None:
    org = OrgModel(6)
    traffic = Traffic(org, 6, live=40)
    traffic.bulk(2_000, NOW_MS, per_second=100)
    for entity in ("MessagingSession", "AgentWork", "PendingServiceRouting", "MessagingEndUser", "Account"):
        for place, record_id in enumerate(org.records(entity)):
            org.gap("DELETE", entity, [record_id], NOW_MS + 60_000)
            if place % 3 == 0:
                org.commit([Change("purge", entity, record_id)], NOW_MS + 60_000)
    for record_id in org.deleted_ids(SESSION)[::2]:
        org.gap("UNDELETE", SESSION, [record_id], NOW_MS + 61_000)
    org.change_schema(SESSION, [{"name": "VIP__c", "doc": "Data:Text"}], ["VIP__c", "Topics__c", "VisitAddress__c"])
    assert len(traffic.bulk(2_000, NOW_MS + 62_000, per_second=100)) >= 2_000


def test_traffic_fills_fields_that_a_schema_change_added() -> None:
    org = OrgModel(7)
    traffic = Traffic(org, 7, live=40)
    traffic.bulk(500, NOW_MS)
    kinds = {
        "A__c": "Text",
        "B__c": "Boolean",
        "C__c": "Double",
        "D__c": "DateOnly",
        "E__c": "Location",
        "F__c": "Integer",
    }
    added = [{"name": name, "doc": f"Data:{kind}:{'0' * 15}"} for name, kind in kinds.items()]
    org.change_schema(SESSION, [*added, {"name": "CampaignId", "doc": "ForeignKey:EntityId"}], [])
    seen: set[str] = set()
    for event in traffic.bulk(2_000, NOW_MS + 60_000):
        seen |= Oracle(org).read(event).values.keys()
    assert seen >= {*kinds, "CampaignId"}
