"""History rows, metrics rows and late facts of the emulated org behave as the Object Reference says."""

from __future__ import annotations

import pytest

from consumer.emulator.oracle import Oracle
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.org_history import HistoryRecord, label_of
from consumer.emulator.org_metrics import METRIC_TYPES
from consumer.emulator.record_ids import PREFIXES, is_id18, numbered_id
from consumer.emulator.scenario import parse
from consumer.emulator.server import emulated_org
from consumer.emulator.traffic import Traffic
from consumer.emulator.traffic_data import CHANNELS, QUEUES, REPS
from consumer.errors import EmulatorError

NOW_MS = 1_790_000_000_123
SESSION = "MessagingSession"


def begun(org: OrgModel, count: int = 1, **fields: object) -> list[str]:
    """Create sessions at NOW_MS and return their ids."""
    ids = [org.new_id(SESSION) for _ in range(count)]
    org.commit([Change("create", SESSION, one, {"Status": "Waiting", **fields}) for one in ids], NOW_MS)
    return ids


def saved(org: OrgModel, record_id: str, after_s: int = 5, **fields: object) -> None:
    org.commit([Change("update", SESSION, record_id, fields)], NOW_MS + after_s * 1000, user=REPS[0])


def rows(org: OrgModel) -> list[HistoryRecord]:
    """Return all rows but those of creations."""
    return [row for row in org.history_rows(SESSION) if row.field != "created"]


def test_a_created_record_has_one_row_without_values() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org, Priority__c="High")
    (row,) = org.history_rows(SESSION)
    assert (row.field, row.data_type, row.old, row.new) == ("created", "Text", None, None)
    assert (row.record_id, row.created_ms, row.created_by) == (record_id, 1_790_000_000_000, org.default_user)
    assert row.history_id.startswith("017")
    assert is_id18(row.history_id)


def test_each_save_of_a_transaction_has_its_rows_and_one_time() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org)
    steps = ["Active", "Inactive", "Inactive", "Ended"]
    org.commit([Change("update", SESSION, record_id, {"Status": step}) for step in steps], NOW_MS + 9_000, user=REPS[1])
    told = [(row.old, row.new, row.created_ms, row.created_by) for row in rows(org)]
    when = 1_790_000_009_000
    assert told == [
        ("Waiting", "Active", when, REPS[1]),
        ("Active", "Inactive", when, REPS[1]),
        ("Inactive", "Ended", when, REPS[1]),
    ]


def test_untracked_fields_and_untouched_values_have_no_rows() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org, Priority__c="High")
    saved(org, record_id, CSAT_Score__c=4.5, Priority__c="High", Notes__c="long")
    assert rows(org) == []
    work = org.new_id("AgentWork")
    org.commit([Change("create", "AgentWork", work, {"Status": "Opened"})], NOW_MS)
    assert list(org.history_rows("AgentWork")) == []
    assert org.tracked_fields("AgentWork") == frozenset()


def test_a_lookup_has_a_row_of_ids_and_one_of_names_in_either_order() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org, OwnerId=QUEUES[0])
    case_id = numbered_id(PREFIXES["Case"], 7)
    orders = set()
    for rep in range(1, 20):
        saved(org, record_id, rep, OwnerId=REPS[rep], CaseId=case_id if rep == 1 else None)
    found = rows(org)
    for first, second in zip(found[::2], found[1::2], strict=True):
        orders.add((first.data_type, second.data_type))
        ids, names = (first, second) if first.data_type == "EntityId" else (second, first)
        assert ids.field == names.field in {"Owner", "Case"}
        assert isinstance(ids.old, str | None)
        assert isinstance(ids.new, str | None)
        assert (names.old, names.new) == (label_of(ids.old), label_of(ids.new))
        assert ids.created_ms == names.created_ms
    assert orders == {("EntityId", "Text"), ("Text", "EntityId")}
    assert {row.new for row in rows(org) if row.field == "Case"} == {case_id, label_of(case_id), None}


def test_values_are_json_kinds_cut_at_255_and_absent_for_long_text() -> None:
    org = OrgModel(1)
    tracked = ("AcceptTime", "FollowUp__c", "CallbackAt__c", "VIP__c", "CSAT_Score__c", "ChannelGroup")
    org.history.track(SESSION, (*tracked, "Notes__c", "Topics__c", "EndUserContactId"))
    (record_id,) = begun(org, VIP__c=False)
    saved(
        org,
        record_id,
        AcceptTime=1_790_000_003_000,
        FollowUp__c=1_790_035_200_000,
        CallbackAt__c=36_003_000,
        VIP__c=True,
        CSAT_Score__c=4.5,
        ChannelGroup="x" * 300,
        Notes__c="a note",
        Topics__c="Returns;Billing",
    )
    told = {row.field: (row.data_type, row.old, row.new) for row in rows(org)}
    assert told == {
        "AcceptTime": ("DateTime", None, "2026-09-21T14:13:23.000+0000"),
        "FollowUp__c": ("DateOnly", None, "2026-09-22"),
        "CallbackAt__c": ("TimeOnly", None, "10:00:03.000Z"),
        "VIP__c": ("Boolean", False, True),
        "CSAT_Score__c": ("Double", None, 4.5),
        "ChannelGroup": ("Text", None, "x" * 255),
        "Notes__c": ("StringPlusClob", None, None),
        "Topics__c": ("MultiEnum", None, None),
    }


def test_tracking_begins_when_it_is_switched_on_and_ends_at_once() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org)
    org.history.track(SESSION, ())
    saved(org, record_id, 1, Status="Active")
    assert rows(org) == []
    org.history.track(SESSION, ("Status",))
    saved(org, record_id, 2, Status="Paused", Priority__c="Low")
    org.history.track(SESSION, ("Priority__c",))
    saved(org, record_id, 3, Status="Active")
    assert [(row.field, row.old, row.new) for row in rows(org)] == [("Status", "Active", "Paused")]
    assert org.tracked_fields(SESSION) == {"Priority__c"}


def test_what_can_not_be_tracked_is_refused() -> None:
    org = OrgModel(1)
    for name in ("Name", "LastModifiedDate", "ChannelName", "AgentMessageCount", "VisitAddress__c", "Nope"):
        with pytest.raises(EmulatorError):
            org.history.track(SESSION, ("Status", name))
    with pytest.raises(EmulatorError):
        org.history.track("Nope", ())
    org.change_schema(SESSION, [{"name": f"F{number}__c"} for number in range(21)], ["Priority__c"])
    assert "Priority__c" not in org.tracked_fields(SESSION), "gone with its field"
    with pytest.raises(EmulatorError, match="21 fields"):
        org.history.track(SESSION, [f"F{number}__c" for number in range(21)])


def test_a_delete_hides_rows_an_undelete_brings_them_back_a_purge_ends_them() -> None:
    org = OrgModel(1)
    first, second = begun(org, 2)
    saved(org, first, Status="Active")
    org.commit([Change("delete", SESSION, first)], NOW_MS + 6_000)
    assert {row.record_id for row in org.history_rows(SESSION)} == {second}
    assert [row.deleted for row in org.history_rows(SESSION, deleted=True)] == [True, False, True]
    org.commit([Change("undelete", SESSION, first)], NOW_MS + 7_000)
    assert len(org.history_rows(SESSION)) == 3
    org.commit([Change("purge", SESSION, first)], NOW_MS + 8_000)
    org.commit([Change("create", SESSION, first, {"Status": "New"})], NOW_MS + 9_000)
    assert [(row.record_id, row.created_ms) for row in org.history_rows(SESSION)] == [
        (second, 1_790_000_000_000),
        (first, 1_790_000_009_000),
    ]


def test_a_refused_transaction_leaves_no_rows() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org)
    changes = [
        Change("update", SESSION, record_id, {"Status": "Active"}),
        Change("delete", SESSION, org.new_id(SESSION)),
    ]
    with pytest.raises(EmulatorError):
        org.commit(changes, NOW_MS + 1_000)
    assert rows(org) == []


def test_gaps_silent_changes_and_overflows_write_history_too() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org)
    org.gap("UPDATE", SESSION, [record_id], NOW_MS + 1_000, fields={"Status": "Active"})
    org.silent([Change("update", SESSION, record_id, {"Status": "Paused"})], NOW_MS + 2_000)
    org.overflow(SESSION, NOW_MS + 3_000, [Change("update", SESSION, record_id, {"Status": "Ended"})])
    assert [row.new for row in rows(org)] == ["Active", "Paused", "Ended"]


def test_a_span_is_half_open_and_in_order_even_when_commits_were_not() -> None:
    org = OrgModel(1)
    (record_id,) = begun(org)
    for second, status in ((9, "Active"), (3, "Paused"), (6, "Active")):
        saved(org, record_id, second, Status=status)
    found = org.history_rows(SESSION, 1_790_000_003_000, 1_790_000_009_000)
    assert [row.created_ms for row in found] == [1_790_000_003_000, 1_790_000_006_000]
    assert [row.created_ms for row in org.history_rows(SESSION)[1:]] == [
        1_790_000_003_000,
        1_790_000_006_000,
        1_790_000_009_000,
    ]


def test_a_seeded_share_of_rows_is_visible_late() -> None:
    org = OrgModel(5)
    org.history.late = 0.1
    begun(org, 2_000)
    late = [row.visible_ms - row.created_ms for row in org.history_rows(SESSION)]
    waits = [wait for wait in late if wait]
    assert 140 < len(waits) < 260
    assert 3_000 <= min(waits) < 20_000
    assert 90_000 < max(waits) <= 120_000
    assert late == [row.visible_ms - row.created_ms for row in org.history_rows(SESSION)], "the same at every look"
    org.history.late = 0
    assert all(row.visible_ms == row.created_ms for row in org.history_rows(SESSION))


def test_owner_moves_from_a_queue_can_have_special_names() -> None:
    org = OrgModel(1)
    org.history.special = 1.0
    (record_id,) = begun(org, OwnerId=QUEUES[0])
    saved(org, record_id, 1, OwnerId=REPS[0])
    saved(org, record_id, 2, OwnerId=QUEUES[1])
    saved(org, record_id, 3, OwnerId=REPS[1])
    fields = [row.field for row in rows(org)]
    assert fields == ["ownerAccepted"] * 2 + ["Owner"] * 2 + ["ownerAssignment"] * 2


def test_history_stays_bounded_with_the_records_of_a_long_run() -> None:
    org = OrgModel(4)
    traffic = Traffic(org, 4, live=20, companions=False, keep=50)
    for second in range(200):
        traffic.step(NOW_MS + second * 1_000, 300)
    kept = sum(len(rows) for rows in org.history._rows.values())
    assert kept < 30_000
    assert {row.record_id for row in org.history_rows(SESSION)} <= set(org.records(SESSION))


def test_an_ended_session_has_six_metrics_rows_after_a_while_on_enhanced_channels() -> None:
    org = OrgModel(1)
    standard = next(channel.channel_id for channel in CHANNELS if not channel.enhanced)
    enhanced = next(channel.channel_id for channel in CHANNELS if channel.enhanced)
    waiting, old = begun(org, MessagingChannelId=enhanced)[0], begun(org, MessagingChannelId=standard)[0]
    (first,) = begun(org, MessagingChannelId=enhanced)
    assert org.metrics_rows() == []
    for record_id in (first, old):
        saved(org, record_id, 10, Status="Ended", AgentMessageCount=3, EndUserMessageCount=4)
    found = org.metrics_rows()
    assert [(row.session_id, row.metric_type) for row in found] == [(first, kind) for kind in METRIC_TYPES]
    assert [row.value for row in found[:2]] == [3, 4]
    assert all(30_000 <= row.visible_ms - 1_790_000_010_000 <= 90_000 for row in found)
    assert len({row.metrics_id for row in found}) == 6
    values = {row.metric_type: row.value for row in found}
    assert values["MaxAgentResponseTime"] >= values["AverageAgentResponseTime"]
    assert org.metrics_rows([waiting, first]) == found
    org.commit([Change("delete", SESSION, first)], NOW_MS + 200_000)
    assert org.metrics_rows() == []
    assert [row.deleted for row in org.metrics_rows(deleted=True)] == [True] * 6


def test_counts_change_after_the_end_without_an_event_and_sometimes_without_a_stamp() -> None:
    org = OrgModel(3)
    ids = begun(org, 60)
    org.commit([Change("update", SESSION, one, {"Status": "Ended"}) for one in ids], NOW_MS + 10_000)
    before = org.records(SESSION)
    org.settle(NOW_MS + 14_000)
    assert org.records(SESSION) == before, "not yet"
    assert len(org.commit([Change("create", SESSION, org.new_id(SESSION))], NOW_MS + 40_000)) == 1
    after = org.records(SESSION)
    changed = {name for one in ids for name in after[one] if after[one][name] != before[one][name]}
    assert changed == {"EndUserMessageCount", "AgentMessageCount", "PreviewDetails", "EndUserAccountId"}
    stamps = [org.row(SESSION, one).system_modstamp_ms for one in ids]  # type: ignore[union-attr] # they are there
    assert set(stamps) == {1_790_000_010_000, 1_790_000_040_000}


def test_deletes_have_a_time_a_stamp_and_a_log_that_knows_hard_deletes() -> None:
    org = OrgModel(1)
    first, second = begun(org, 2)
    row = org.row(SESSION, first)
    assert row is not None
    assert (row.deleted_ms, row.system_modstamp_ms) == (0, 1_790_000_000_000)
    org.commit([Change("delete", SESSION, first), Change("purge", SESSION, second)], NOW_MS + 4_000)
    assert (row.deleted_ms, row.system_modstamp_ms) == (1_790_000_004_000, 1_790_000_004_000)
    assert org.delete_log(SESSION) == {first: 1_790_000_004_000, second: 1_790_000_004_000}
    org.commit([Change("undelete", SESSION, first)], NOW_MS + 5_000)
    assert (row.deleted_ms, row.system_modstamp_ms) == (0, 1_790_000_005_000)
    assert org.delete_log(SESSION) == {second: 1_790_000_004_000}


def test_hidden_fields_are_in_no_event_and_no_history() -> None:
    org = OrgModel(1, invisible={SESSION: ("Status", "Priority__c")})
    (record_id,) = begun(org, Priority__c="High")
    events = org.commit(
        [Change("update", SESSION, record_id, {"Status": "Active", "Priority__c": None, "AgentType": "Bot"})],
        NOW_MS + 1_000,
        split=False,
    )
    read = Oracle(org).read(events[0])
    assert read.changed == {("AgentType", ""), ("LastModifiedDate", "")}
    assert read.nulled == frozenset()
    assert [row.field for row in rows(org)] == ["AgentType"]
    assert org.tracked_fields(SESSION).isdisjoint({"Status", "Priority__c"})
    assert org.invisible_fields(SESSION) == {"Status", "Priority__c"}
    with pytest.raises(EmulatorError, match="no field Nope"):
        OrgModel(1, invisible={SESSION: ("Nope",)})


async def test_scenario_and_fault_steer_the_history() -> None:
    text = "late_history_rows = 0\n[history_tracking]\nAccount = ['Phone']\n[hidden_fields]\nAccount = ['Fax']"
    async with emulated_org(parse(text)) as org:
        assert org.model.tracked_fields("Account") == {"Phone"}
        assert "Status" in org.model.tracked_fields(SESSION)
        assert org.model.invisible_fields("Account") == {"Fax"}
        assert org.model.history.late == 0
        await org.fault("history_tracking", entity=SESSION, fields=[])
        await org.fault("commit", changes=[{"op": "create"}])
        assert len(org.model.history_rows(SESSION)) == 0
