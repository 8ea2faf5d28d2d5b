"""Queries over the emulated org's records: conditions, order, values, permissions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.emulator.org import Change, OrgModel
from consumer.emulator.rest_answers import json_records
from consumer.emulator.rest_errors import RestError
from consumer.emulator.rest_query import CHUNK, Plan
from consumer.emulator.rest_tables import EntityTable, tables_of
from consumer.emulator.traffic_data import QUEUES, REPS
from consumer.errors import EmulatorError
from tests.unit.emulator_rest import SESSION, create, ids, run, update

NOW = 1_790_000_000_000  # 2026-09-21T14:13:20Z


@pytest.fixture
def model() -> OrgModel:
    return OrgModel(1)


async def records(model: OrgModel, soql: str, now_ms: int = NOW, *, deleted: bool = False) -> list[dict[str, Any]]:
    """Return rows as REST writes them, without their attributes."""
    result = await run(model, soql, now_ms, deleted=deleted)
    found = await json_records(result, result.rows, "v62.0")
    return [{name: value for name, value in each.items() if name != "attributes"} for each in found]


async def refusal(model: OrgModel, soql: str) -> str:
    with pytest.raises(RestError) as refused:
        await run(model, soql)
    assert refused.value.status == 400
    return refused.value.code


async def test_text_compares_without_case_and_null_is_unequal_to_all(model: OrgModel) -> None:
    (new,) = create(model, 1, NOW, Status="New", ChannelGroup="North")
    (bare,) = create(model, 1, NOW, Status="Ended")
    assert await ids(model, "WHERE Status = 'NEW'") == [new]
    assert await ids(model, "WHERE ChannelGroup != 'South'") == [new, bare]
    assert await ids(model, "WHERE ChannelGroup NOT IN ('north')") == [bare]
    assert await ids(model, "WHERE ChannelGroup = null") == [bare]
    assert await ids(model, "WHERE ChannelGroup != null") == [new]
    assert await ids(model, "WHERE ChannelGroup > 'a' OR ChannelGroup < 'a'") == [new]
    assert await ids(model, "WHERE NOT (ChannelGroup = 'north')") == [bare]
    assert await ids(model, "WHERE Status IN ('new', 'ended') AND (ChannelGroup = null OR Status = 'x')") == [bare]


async def test_like_knows_wildcards_and_their_escapes(model: OrgModel) -> None:
    first, second = (create(model, 1, NOW, ChannelGroup=text)[0] for text in ("100% North", "1000 South"))
    assert await ids(model, "WHERE ChannelGroup LIKE '100%'") == [first, second]
    assert await ids(model, r"WHERE ChannelGroup LIKE '100\% n%'") == [first]
    assert await ids(model, "WHERE ChannelGroup LIKE '100_ South'") == [second]
    assert await ids(model, "WHERE ChannelGroup LIKE 'North'") == []


async def test_numbers_dates_and_times_compare_by_value(model: OrgModel) -> None:
    (low,) = create(model, 1, NOW, CSAT_Score__c=1.5, FollowUp__c=1_789_948_800_000, CallbackAt__c=36_000_000)
    (high,) = create(model, 1, NOW, CSAT_Score__c=4.0, FollowUp__c=1_790_035_200_000, CallbackAt__c=72_000_000)
    assert await ids(model, "WHERE CSAT_Score__c >= 4") == [high]
    assert await ids(model, "WHERE FollowUp__c <= 2026-09-21") == [low]
    assert await ids(model, "WHERE CallbackAt__c > 12:00:00.000Z") == [high]
    assert await ids(model, "WHERE CSAT_Score__c < null") == []


async def test_ids_may_have_15_characters_and_pages_by_id_meet_every_row_once(model: OrgModel) -> None:
    made = create(model, 25, NOW)
    assert await ids(model, f"WHERE Id = '{made[3][:15]}'") == [made[3]]
    assert await ids(model, f"WHERE Id IN ('{made[4]}', '{made[1]}', '{made[1][:15]}')") == [made[1], made[4]]
    seen: list[str] = []
    last = "000000000000000AAA"
    while page := await ids(model, f"WHERE Id > '{last}' ORDER BY Id LIMIT 10"):
        seen += page
        last = page[-1]
    assert seen == sorted(made)
    assert await ids(model, f"WHERE Id >= '{made[2]}' AND Id < '{made[5]}' ORDER BY Id") == made[2:5]
    assert await ids(model, "ORDER BY Id DESC LIMIT 2 OFFSET 1") == [made[-2], made[-3]]


async def test_the_list_of_ids_follows_creation_purge_and_both_at_once(model: OrgModel) -> None:
    table = tables_of(model)["messagingsession"]
    assert isinstance(table, EntityTable)
    tables = {"messagingsession": table}

    async def ordered() -> list[str]:
        result = await Plan("SELECT Id FROM MessagingSession ORDER BY Id", tables).run(NOW, deleted=False)
        return [row[0] for row in result.rows]

    made = create(model, 3, NOW)
    assert await ordered() == made
    model.commit([Change("purge", SESSION, made[1])], NOW)
    made = [made[0], made[2], *create(model, 1, NOW)]
    assert await ordered() == made
    model.commit([Change("purge", SESSION, made[0])], NOW)
    assert await ordered() == made[1:]
    newest = made[-1]
    made += create(model, 1, NOW)
    with pytest.raises(EmulatorError):
        # What a failed transaction has touched is put back last, as if it were the newest.
        model.commit([Change("update", SESSION, newest), Change("update", SESSION, "nothing")], NOW)
    assert await ordered() == made[1:]


async def test_windows_of_time_are_half_open_and_whole_seconds(model: OrgModel) -> None:
    early, late = create(model, 1, NOW)[0], create(model, 1, NOW + 2000)[0]
    model.store.table(SESSION)[late].system_modstamp_ms += 700
    stamp = "SystemModstamp"
    assert await ids(model, f"WHERE {stamp} >= 2026-09-21T14:13:20Z AND {stamp} < 2026-09-21T14:13:22Z") == [early]
    assert await ids(model, f"WHERE {stamp} = 2026-09-21T14:13:22Z") == [late]
    assert await ids(model, f"WHERE {stamp} > 2026-09-21T14:13:20Z ORDER BY {stamp}, Id") == [late]
    assert await ids(model, "WHERE CreatedDate > 2026-09-21T14:13:20Z") == [late]
    assert await ids(model, f"WHERE Id = '{early}' AND {stamp} <= 2026-09-21T14:13:20Z") == [early]


async def test_only_conditions_that_must_hold_narrow_a_search(model: OrgModel) -> None:
    early, late = create(model, 1, NOW)[0], create(model, 1, NOW + 2000)[0]
    assert await ids(model, f"WHERE Id = '{early}' OR Id = '{late}'") == [early, late]
    assert await ids(model, f"WHERE Id != '{early}'") == [late]
    assert await ids(model, f"WHERE Id NOT IN ('{late}')") == [early]
    assert await ids(model, "WHERE CreatedDate != 2026-09-21T14:13:20Z") == [late]
    assert await ids(model, f"WHERE NOT Id = '{early}'") == [late]
    after = f"(CreatedDate = 2026-09-21T14:13:20Z AND Id > '{early}') OR CreatedDate > 2026-09-21T14:13:20Z"
    assert await ids(model, f"WHERE CreatedDate < 2026-09-21T15:00:00Z AND ({after}) ORDER BY CreatedDate, Id") == [
        late
    ]


async def test_order_has_several_keys_and_a_place_for_nulls(model: OrgModel) -> None:
    b, a, none = (create(model, 1, NOW, **fields)[0] for fields in ({"ChannelGroup": "b"}, {"ChannelGroup": "A"}, {}))
    assert await ids(model, "ORDER BY ChannelGroup") == [none, a, b]
    assert await ids(model, "ORDER BY ChannelGroup NULLS LAST") == [a, b, none]
    assert await ids(model, "ORDER BY ChannelGroup DESC") == [none, b, a]
    assert await ids(model, "ORDER BY ChannelGroup DESC NULLS LAST") == [b, a, none]
    assert await ids(model, "ORDER BY Status, ChannelGroup ASC NULLS LAST, Id") == [a, b, none]


async def test_deleted_rows_show_only_when_asked_for(model: OrgModel) -> None:
    kept, gone = create(model, 2, NOW)
    model.commit([Change("delete", SESSION, gone)], NOW)
    assert await ids(model, "") == [kept]
    assert await ids(model, "WHERE IsDeleted = true") == []
    assert await ids(model, "", deleted=True) == [kept, gone]
    assert await ids(model, "WHERE IsDeleted = true", deleted=True) == [gone]


async def test_values_are_written_as_rest_writes_them(model: OrgModel) -> None:
    address = {"Street": "Strandgaten 12", "City": "Bergen", "Latitude": 60.4}
    (one,) = create(
        model,
        1,
        NOW,
        OwnerId=QUEUES[0],
        AcceptTime=NOW + 250,
        CSAT_Score__c=4,
        FollowUp__c=NOW,
        CallbackAt__c=36_000_000,
        VIP__c=True,
        EndUserMessageCount=3,
        VisitAddress__c=address,
    )
    (row,) = await records(
        model,
        "SELECT id, ACCEPTTIME, SystemModstamp, CSAT_Score__c, FollowUp__c, CallbackAt__c, VIP__c, EndUserMessageCount,"
        " VisitAddress__c, VisitAddress__City__s, CaseId, owner.name, Case.Name FROM messagingsession",
    )
    assert row == {
        "Id": one,
        "AcceptTime": "2026-09-21T14:13:20.250+0000",
        "SystemModstamp": "2026-09-21T14:13:20.000+0000",
        "CSAT_Score__c": 4.0,
        "FollowUp__c": "2026-09-21",
        "CallbackAt__c": "10:00:00.000Z",
        "VIP__c": True,
        "EndUserMessageCount": 3,
        "VisitAddress__c": {
            "city": "Bergen",
            "country": None,
            "countryCode": None,
            "geocodeAccuracy": None,
            "latitude": 60.4,
            "longitude": None,
            "postalCode": None,
            "state": None,
            "stateCode": None,
            "street": "Strandgaten 12",
        },
        "VisitAddress__City__s": "Bergen",
        "CaseId": None,
        "Owner": {
            "attributes": {"type": "Name", "url": f"/services/data/v62.0/sobjects/Name/{QUEUES[0]}"},
            "Name": row["Owner"]["Name"],
        },
        "Case": None,
    }
    assert row["Owner"]["Name"].startswith("Queue")


async def test_a_person_has_a_name_and_its_parts_a_company_only_the_name(model: OrgModel) -> None:
    person = {"Salutation": "Dr.", "FirstName": "Elif", "LastName": "Novák"}
    create(model, 1, NOW, "Account", Name=person, BillingAddress={"City": "Lyon"})
    create(model, 1, NOW, "Account", Name="Casa Roble")
    create(model, 1, NOW, "Widget__c", Place__c={"Latitude": 1.5, "Longitude": 2.5})
    soql = "SELECT Name, FirstName, LastName, Salutation, BillingCity FROM Account ORDER BY Name DESC"
    assert await records(model, soql) == [
        {"Name": "Elif Novák", "FirstName": "Elif", "LastName": "Novák", "Salutation": "Dr.", "BillingCity": "Lyon"},
        {"Name": "Casa Roble", "FirstName": None, "LastName": None, "Salutation": None, "BillingCity": None},
    ]
    (widget,) = await records(model, "SELECT Place__c, Place__Latitude__s FROM Widget__c")
    assert widget == {"Place__c": {"latitude": 1.5, "longitude": 2.5}, "Place__Latitude__s": 1.5}


@pytest.mark.parametrize(
    ("soql", "code"),
    [
        ("SELECT Id FROM Nothing", "INVALID_TYPE"),
        ("SELECT Nothing FROM MessagingSession", "INVALID_FIELD"),
        ("SELECT Owner.Status FROM MessagingSession", "INVALID_FIELD"),
        ("SELECT Nothing.Name FROM MessagingSession", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE Nothing = 1", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE AgentMessageCount = 1", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE PreviewDetails = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE Notes__c LIKE 'x%'", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession ORDER BY EndUserMessageCount", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession ORDER BY Notes__c", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE VisitAddress__c = null", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE Status = 5", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE CreatedDate > '2026-01-01T00:00:00Z'", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE CreatedDate > 2026-01-01", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE VIP__c = 'true'", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE CSAT_Score__c = '5'", "INVALID_FIELD"),
        ("SELECT Id FROM MessagingSession WHERE Id = 'nothing'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM MessagingSession WHERE OwnerId = '0055g0000000001AAB'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM MessagingSession WHERE VIP__c > true", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM MessagingSession WHERE CSAT_Score__c LIKE '5%'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM MessagingSessionHistory WHERE NewValue = 'Ended'", "INVALID_FIELD"),
        ("SELECT QualifiedApiName FROM FieldDefinition", "EXTERNAL_OBJECT_UNSUPPORTED_EXCEPTION"),
    ],
)
async def test_questions_that_are_refused(model: OrgModel, soql: str, code: str) -> None:
    assert await refusal(model, soql) == code


async def test_a_field_hidden_by_permission_is_as_unknown_as_one_that_does_not_exist() -> None:
    hidden = OrgModel(1, invisible={SESSION: ["Status"]})
    for soql in ("SELECT Status FROM MessagingSession", "SELECT Id FROM MessagingSession WHERE Status = 'New'"):
        assert await refusal(hidden, soql) == "INVALID_FIELD"
    defined = "SELECT QualifiedApiName FROM FieldDefinition WHERE EntityDefinition.QualifiedApiName = '{}'"
    names = {row["QualifiedApiName"] for row in await records(hidden, defined.format(SESSION))}
    assert "OwnerId" in names
    assert "Status" not in names


async def test_a_schema_change_changes_the_columns(model: OrgModel) -> None:
    tables = tables_of(model)
    before = tables["messagingsession"].columns()
    model.change_schema(SESSION, [{"name": "Mood__c"}], ["ChannelIntent"])
    after = tables["messagingsession"].columns()
    assert after.keys() - before.keys() == {"mood__c"}
    assert before.keys() - after.keys() == {"channelintent"}


async def test_tracked_fields_are_those_field_definition_names(model: OrgModel) -> None:
    model.history.track(SESSION, ["Status", "OwnerId"])
    found = await records(
        model,
        "SELECT QualifiedApiName, EntityDefinition.QualifiedApiName FROM FieldDefinition "
        "WHERE EntityDefinition.QualifiedApiName = 'MessagingSession' AND IsFieldHistoryTracked = true",
    )
    assert {row["QualifiedApiName"] for row in found} == {"Status", "OwnerId"}
    assert found[0]["EntityDefinition"]["QualifiedApiName"] == SESSION


async def test_history_rows_come_by_time_two_for_a_lookup_and_some_late(model: OrgModel) -> None:
    model.history.late = 0
    (one,) = create(model, 1, NOW, Status="New", OwnerId=QUEUES[0])
    update(model, one, NOW + 5000, Status="Active", OwnerId=REPS[0])
    soql = (
        "SELECT MessagingSessionId, Field, DataType, OldValue, NewValue, CreatedDate FROM MessagingSessionHistory "
        "WHERE CreatedDate >= 2026-09-21T14:13:20Z AND CreatedDate < 2026-09-21T14:13:26Z ORDER BY CreatedDate, Id"
    )
    rows = await records(model, soql, NOW + 5000)
    assert [(row["Field"], row["DataType"]) for row in rows[:1]] == [("created", "Text")]
    assert sorted((row["Field"], row["DataType"]) for row in rows[1:]) == [
        ("Owner", "EntityId"),
        ("Owner", "Text"),
        ("Status", "DynamicEnum"),
    ]
    assert {row["MessagingSessionId"] for row in rows} == {one}
    assert rows[-1]["CreatedDate"] == "2026-09-21T14:13:25.000+0000"
    assert len(await records(model, soql.replace("13:26Z", "13:25Z"), NOW + 5000)) == 1
    model.history.late = 1.0
    assert await records(model, soql, NOW + 5000) == []
    assert len(await records(model, soql, NOW + 200_000)) == 4


async def test_metrics_rows_appear_some_time_after_the_end(model: OrgModel) -> None:
    (one,) = create(model, 1, NOW, Status="Active")
    update(model, one, NOW, Status="Ended", EndTime=NOW)
    soql = (
        "SELECT MessagingSessionId, MessagingSessionMetricType, MessagingSessionMetricValue "
        f"FROM MessagingSessionMetrics WHERE MessagingSessionId IN ('{one}')"
    )
    assert await records(model, soql, NOW) == []
    found = await records(model, soql, NOW + 86_400_000)
    assert len({row["MessagingSessionMetricType"] for row in found}) == 6
    assert all(isinstance(row["MessagingSessionMetricValue"], int) for row in found)


async def test_a_result_keeps_the_values_of_its_moment(model: OrgModel) -> None:
    (one,) = create(model, 1, NOW, Status="New", VisitAddress__c={"City": "Bergen"})
    result = await run(model, "SELECT Status, VisitAddress__c FROM MessagingSession")
    update(model, one, NOW, Status="Ended", VisitAddress__c={"City": "Lyon"})
    (row,) = await json_records(result, result.rows, "v62.0")
    assert row["Status"] == "New"
    assert row["VisitAddress__c"]["city"] == "Bergen"


async def test_a_long_question_gives_others_their_turn(model: OrgModel) -> None:
    create(model, 3 * CHUNK, NOW)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(other())
        assert (await run(model, "SELECT COUNT() FROM MessagingSession")).total == 3 * CHUNK
        task.cancel()
    assert turns >= 2


_STATUS = st.sampled_from(["New", "Active", "Ended", None])
_SCORE = st.sampled_from([None, 1.0, 2.5, 4.0])
_SIMPLE = st.one_of(
    st.tuples(st.just("Status"), st.sampled_from(["=", "!="]), _STATUS),
    st.tuples(st.just("CSAT_Score__c"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), _SCORE),
)


def _holds(condition: tuple[str, str, Any], row: dict[str, Any]) -> bool:
    name, op, value = condition
    have = row.get(name)
    if op in {"=", "!="}:
        return bool((have == value) == (op == "="))
    if have is None or value is None:
        return False
    return bool({"<": have < value, "<=": have <= value, ">": have > value, ">=": have >= value}[op])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"Status": _STATUS, "CSAT_Score__c": _SCORE}), max_size=12),
    st.lists(_SIMPLE, min_size=1, max_size=3),
    st.sampled_from(["AND", "OR"]),
    st.booleans(),
)
def test_a_where_finds_what_plain_python_finds(
    rows: list[dict[str, Any]],
    conditions: list[tuple[str, str, Any]],
    joint: str,
    negated: bool,
) -> None:
    model = OrgModel(1)
    expected = []
    for row in rows:
        (made,) = create(model, 1, NOW, **row)
        found = [_holds(condition, row) for condition in conditions]
        if (all(found) if joint == "AND" else any(found)) != negated:
            expected.append(made)
    text = f" {joint} ".join(
        f"{name} {op} " + ("null" if value is None else f"'{value}'" if isinstance(value, str) else str(value))
        for name, op, value in conditions
    )
    where = f"WHERE NOT ({text})" if negated else f"WHERE {text}"
    assert asyncio.run(ids(model, where)) == expected
