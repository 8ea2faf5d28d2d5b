"""Sharing of the emulated org over HTTP: queries of every order, refusals, acts, and what the oracle tells."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.emulator.org_shares import RULES, SHARE
from consumer.emulator.rest_query import Plan
from consumer.emulator.rest_tables import tables_of
from consumer.emulator.scenario import parse
from consumer.emulator.sharing_start import prepare_sharing
from consumer.emulator.traffic_data import QUEUES, REPS
from consumer.errors import EmulatorError
from tests.unit.emulator_client import until
from tests.unit.emulator_rest import ROOT, SESSION, Rest, rest
from tests.unit.emulator_sharing import NOW, session, sharing_org

COLUMNS = "Id, ParentId, UserOrGroupId, AccessLevel, RowCause, LastModifiedDate, LastModifiedById"
NOTHING = "000000000000000AAA"
EVERYBODY = [{"name": "All", "source": "AllInternalUsers", "target": "Supervisors"}]


async def shares(org: Rest, where: str = "", **options: Any) -> list[dict[str, Any]]:
    return await org.rows(f"SELECT {COLUMNS} FROM {SHARE} {where}", **options)


async def lines(org: Rest, what: str, **query: str) -> list[dict[str, Any]]:
    async with org.http.get(f"{org.org.control}/oracle/{what}", params=query) as answer:
        assert answer.status == 200, await answer.text()
        return [orjson.loads(line) for line in (await answer.read()).splitlines()]


async def settled(org: Rest) -> dict[str, Any]:
    """Set the clock ahead until no recalculation is under way."""
    while True:
        async with org.http.get(f"{org.org.control}/oracle/settled") as answer:
            body: dict[str, Any] = await answer.json()
        if body["settled"]:
            return body
        org.org.state.clock.advance(5)


# Queries


async def test_shares_of_named_sessions_come_by_parent_and_id_over_several_pages() -> None:
    async with rest(sharing={"rules": EVERYBODY}) as org:
        made = org.create(200, OwnerId=REPS[0])
        org.create(5, OwnerId=REPS[1])
        named = ", ".join(f"'{each}'" for each in made)
        asked = f"WHERE ParentId IN ({named})"
        page = {"headers": {"Sforce-Query-Options": "batchSize=200"}}
        ordered = await shares(org, f"{asked} ORDER BY ParentId, Id", **page)
        assert org.org.stats.rest_calls["query_more"] == 1
        assert len(ordered) == 400
        assert ordered == sorted(ordered, key=lambda row: (row["ParentId"], row["Id"]))
        assert {row["ParentId"] for row in ordered} == set(made)
        assert sorted(await shares(org, asked), key=str) == sorted(ordered, key=str)
        owner = next(row for row in ordered if row["RowCause"] == "Owner")
        assert (owner["UserOrGroupId"], owner["AccessLevel"]) == (REPS[0], "All")
        assert owner["LastModifiedDate"].endswith(".000+0000")
        assert owner["attributes"]["url"] == f"{ROOT}/sobjects/{SHARE}/{owner['Id']}"


async def test_sweeps_by_id_and_by_parent_give_every_row_once() -> None:
    async with rest(sharing={"rules": EVERYBODY}) as org:
        org.create(25, OwnerId=REPS[0])
        by_id, last = list[str](), NOTHING
        while page := await shares(org, f"WHERE Id > '{last}' ORDER BY Id LIMIT 7"):
            by_id += [row["Id"] for row in page]
            last = by_id[-1]
        by_parent, parent, last = list[tuple[str, str]](), NOTHING, NOTHING
        while page := await shares(
            org,
            f"WHERE ((ParentId = '{parent}' AND Id > '{last}') OR ParentId > '{parent}') ORDER BY ParentId, Id LIMIT 7",
        ):
            by_parent += [(row["ParentId"], row["Id"]) for row in page]
            parent, last = by_parent[-1]
        count = await org.query(f"SELECT COUNT() FROM {SHARE}")
        assert count.body == {"totalSize": 50, "done": True, "records": []}
        assert len(by_id) == len(set(by_id)) == 50
        assert by_id == sorted(by_id)
        assert sorted(each for _, each in by_parent) == by_id
        assert by_parent == sorted(by_parent)


async def test_pages_by_time_and_id_give_every_row_of_a_window_once() -> None:
    async with rest(sharing={"rules": []}) as org:
        for _ in range(6):
            org.create(3, OwnerId=REPS[0])
            org.org.state.clock.advance(0.6)
        rows = await shares(org, "ORDER BY LastModifiedDate, Id")
        window = [row for row in rows if row["LastModifiedDate"] > rows[0]["LastModifiedDate"]]
        low = window[0]["LastModifiedDate"].replace(".000+0000", "Z")
        found, stamp, last = list[str](), low, NOTHING
        while page := await shares(
            org,
            f"WHERE LastModifiedDate >= {low} AND LastModifiedDate < 2999-01-01T00:00:00Z AND ((LastModifiedDate = "
            f"{stamp} AND Id > '{last}') OR LastModifiedDate > {stamp}) ORDER BY LastModifiedDate, Id LIMIT 2",
        ):
            found += [row["Id"] for row in page]
            stamp, last = page[-1]["LastModifiedDate"].replace(".000+0000", "Z"), page[-1]["Id"]
        assert found == [row["Id"] for row in window]


conditions = st.sampled_from(
    [
        "ParentId = '{p}'",
        "ParentId IN ('{p}', '{q}')",
        "ParentId > '{p}'",
        "ParentId <= '{q}'",
        "Id = '{i}'",
        "Id > '{i}'",
        "Id < '{j}'",
        "LastModifiedDate >= {t}",
        "LastModifiedDate < {t}",
        "LastModifiedDate = {t}",
        "RowCause = 'Rule'",
        "AccessLevel != 'All'",
        "UserOrGroupId = '{u}'",
        "ParentId != '{p}'",
        "UserOrGroup.Name LIKE 'Queue%'",
        "IsDeleted = false",
    ]
)
trees = st.recursive(
    conditions,
    lambda inner: st.builds(
        lambda op, items, negated: f"{'NOT ' if negated else ''}({f' {op} '.join(items)})",
        st.sampled_from(("AND", "OR")),
        st.lists(
            inner.map(lambda each: each if each.startswith(("(", "NOT")) else f"({each})"), min_size=2, max_size=3
        ),
        st.booleans(),
    ),
    max_leaves=6,
)
orders = st.sampled_from(
    ["", "Id", "ParentId, Id", "ParentId", "LastModifiedDate, Id", "LastModifiedDate", "Id DESC", "ParentId DESC, Id"]
)


@given(trees, orders, st.sampled_from(["", " LIMIT 4"]), st.integers(0, 10**6))
@settings(max_examples=250, deadline=None)
def test_what_narrows_the_search_never_changes_the_answer(where: str, order: str, limit: str, pick: int) -> None:
    org = sharing_org(truth=False)
    org.sharing.create_rule("A", "AllInternalUsers", "Supervisors", "Read", NOW)
    made = [session(org, (*QUEUES, *REPS)[number * 7 % 40], NOW + number * 700) for number in range(9)]
    org.sharing.share(made[pick % 9], REPS[39], "Read", NOW + 20_000)
    org.sharing.share(made[pick % 9], REPS[39], "Edit", NOW + 30_000)
    rows = [row for row in org.sharing.rows.by_id() if not row.gone]
    first, second = rows[pick % len(rows)], rows[pick // 7 % len(rows)]
    stamp = dt.datetime.fromtimestamp(first.stamp_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = where.format(
        p=first.parent_id, q=second.parent_id, i=first.share_id, j=second.share_id, t=stamp, u=second.grantee
    )
    text = f"SELECT {COLUMNS} FROM {SHARE} WHERE {condition}" + (f" ORDER BY {order}" if order else "")
    quick, slow = tables_of(org), tables_of(org)
    plain = slow[SHARE.lower()]
    plain.keys = lambda bounds, *, deleted: rows  # type: ignore[method-assign] # all rows, in no helpful order
    plain.in_order = lambda order, bounds, *, deleted: None  # type: ignore[method-assign]
    narrowed = asyncio.run(Plan(text + (limit if order else ""), quick).run(NOW + 10**6, deleted=False))
    whole = asyncio.run(Plan(text + (limit if order else ""), slow).run(NOW + 10**6, deleted=False))
    if order in {"ParentId", "LastModifiedDate"}:
        assert len(narrowed.rows) == len(whole.rows)
    elif order:
        assert list(narrowed.rows) == list(whole.rows)
    else:
        assert sorted(narrowed.rows) == sorted(whole.rows)


async def test_a_query_sees_the_rows_as_they_were_when_it_began() -> None:
    org = sharing_org(truth=False, delay_s=(0.0, 0.0), duration_s=(0.0, 0.0))
    org.sharing.create_rule("A", "Queue_1", "Supervisors", "Read", NOW)
    for number in range(2_500):
        session(org, QUEUES[0], NOW + number)
    now = NOW + 10_000
    before = {row.share_id for row in org.sharing.rows.by_id() if not row.gone}
    tables = tables_of(org)
    by_parent = f"SELECT Id, ParentId FROM {SHARE} WHERE ParentId > '{NOTHING}' ORDER BY ParentId, Id"
    async with asyncio.TaskGroup() as group:
        query = group.create_task(Plan(f"SELECT Id FROM {SHARE}", tables).run(now, deleted=False))
        sweep = group.create_task(Plan(by_parent, tables).run(now, deleted=False))
        await asyncio.sleep(0)
        org.sharing.recalculate(now)
        while not org.sharing.settled:
            org.settle(now + 100)
    assert {row[0] for row in query.result().rows} == before
    rows_of = Counter(row[1] for row in sweep.result().rows)
    assert len(rows_of) == 2_500
    assert set(rows_of.values()) == {2}


# People


async def test_people_roles_and_groups_can_be_read() -> None:
    async with rest() as org:
        directory = org.org.model.sharing.directory
        oslo, queue = directory.find("Role:Team_Oslo"), QUEUES[0]
        named = f"WHERE Id IN ('{oslo}', '{queue}')"
        groups = await org.rows(f"SELECT Id, Name, DeveloperName, Type, RelatedId, Related.Name FROM Group {named}")
        by_id = {row["Id"]: row for row in groups}
        assert by_id[queue]["Type"] == "Queue"
        assert by_id[queue]["Related"] is None
        assert (by_id[oslo]["Type"], by_id[oslo]["Related"]["Name"]) == ("Role", "Team Oslo")
        (user,) = await org.rows(f"SELECT Id, Name, Username, UserType, IsActive FROM User WHERE Id IN ('{REPS[0]}')")
        assert (user["UserType"], user["IsActive"]) == ("Standard", True)
        roles = await org.rows("SELECT Id, Name, DeveloperName, ParentRoleId FROM UserRole ORDER BY Id")
        assert len(roles) == 7
        held = await org.rows(f"SELECT UserOrGroupId FROM GroupMember WHERE GroupId = '{queue}'")
        assert {row["UserOrGroupId"] for row in held} == set(directory.members[queue])
        queues = await org.rows("SELECT QueueId, SobjectType FROM QueueSobject")
        assert {row["QueueId"] for row in queues} == set(QUEUES)
        defaults = f"SELECT InternalSharingModel FROM EntityDefinition WHERE QualifiedApiName = '{SESSION}'"
        assert (await org.rows(defaults))[0]["InternalSharingModel"] == "Private"
        await org.org.fault("org_default", internal="ReadWrite")
        assert (await org.rows(defaults))[0]["InternalSharingModel"] == "ReadWrite"


async def test_a_share_names_its_grantee_and_its_session() -> None:
    async with rest() as org:
        org.create(1, OwnerId=QUEUES[2])
        (row, *_) = await org.rows(f"SELECT UserOrGroup.Name, Parent.Name FROM {SHARE} WHERE RowCause = 'Owner'")
        assert row["UserOrGroup"]["Name"] == "Queue 3"
        assert row["Parent"]["Name"].startswith("MS-")


# Rules


async def test_rules_are_read_with_their_stamps_and_get_deleted_tells_of_those_gone() -> None:
    fields = (
        "Id, Name, DeveloperName, Description, AccessLevel, GroupId, UserOrGroupId, LastModifiedById, SystemModstamp"
    )
    async with rest() as org:
        await org.org.fault("rule_create", name="Mine", source="Queue_1", target="Quality", description="why")
        rules = await org.rows(f"SELECT {fields} FROM {RULES} ORDER BY Id")
        assert [rule["Name"] for rule in rules] == ["First queue to supervisors", "North to quality", "Mine"]
        assert (rules[2]["GroupId"], rules[2]["Description"]) == (QUEUES[0], "why")
        await org.org.fault("rule_delete", rule="Mine")
        org.org.state.clock.advance(120)
        now = dt.datetime.fromtimestamp(org.org.state.now_ms() / 1000, dt.UTC)
        span = {"start": (now - dt.timedelta(hours=1)).isoformat(), "end": now.isoformat()}
        answer = await org.ask(f"sobjects/{RULES}/deleted", params=span)
        assert [each["id"] for each in answer.body["deletedRecords"]] == [rules[2]["Id"]]
        assert len(await org.rows(f"SELECT Id FROM {RULES}", "queryAll")) == 2
        await org.org.fault("rule_change", rule="North to quality", level="Edit")
        org.org.state.clock.advance(120)
        span["end"] = dt.datetime.fromtimestamp(org.org.state.now_ms() / 1000, dt.UTC).isoformat()
        assert (await org.ask(f"sobjects/{RULES}/updated", params=span)).body["ids"] == [rules[1]["Id"]]


@pytest.mark.parametrize(("access", "code"), [("invalid_type", "INVALID_TYPE"), ("no_access", "INSUFFICIENT_ACCESS")])
async def test_rules_can_be_closed(access: str, code: str) -> None:
    async with rest(sharing={"rules_api": access}) as org:
        assert (await org.query(f"SELECT Id FROM {RULES}")).code == code
        assert (await org.ask(f"sobjects/{RULES}/describe")).status == 404
        listed = [each["name"] for each in (await org.ask("sobjects")).body["sobjects"]]
        assert RULES not in listed
        assert SHARE in listed
        await org.org.fault("object_access", access="open")
        assert (await org.query(f"SELECT Id FROM {RULES}")).status == 200


async def test_an_org_without_sharing_has_no_such_objects() -> None:
    async with rest(sharing={"enabled": False}) as org:
        org.create(1, OwnerId=REPS[0])
        for name in (SHARE, RULES):
            assert (await org.query(f"SELECT Id FROM {name}")).code == "INVALID_TYPE"
        with pytest.raises(EmulatorError, match="no sharing"):
            await org.org.fault("transfer")
        assert not org.org.model.sharing.active


async def test_shares_have_no_updated_and_no_deleted_and_hidden_fields_are_refused() -> None:
    async with rest(hidden_fields={SHARE: ["LastModifiedById"]}) as org:
        span = {"start": "2026-09-21T14:00:00Z", "end": "2026-09-21T15:00:00Z"}
        for what in ("updated", "deleted"):
            assert (await org.ask(f"sobjects/{SHARE}/{what}", params=span)).code == "NOT_FOUND"
        assert (await org.query(f"SELECT {COLUMNS} FROM {SHARE}")).code == "INVALID_FIELD"
        fields = [each["name"] for each in (await org.ask(f"sobjects/{SHARE}/describe")).body["fields"]]
        assert "LastModifiedById" not in fields
        assert len(fields) == 7


async def test_removed_rows_are_gone_from_query_all_too() -> None:
    async with rest(sharing={"rules": []}) as org:
        (one,) = org.create(1, OwnerId=REPS[0])
        await org.org.fault("transfer", record_ids=[one], to=REPS[1])
        found = await org.rows(f"SELECT UserOrGroupId, IsDeleted FROM {SHARE}", "queryAll")
        assert [(row["UserOrGroupId"], row["IsDeleted"]) for row in found] == [(REPS[1], False)]


async def test_late_rows_are_counted_and_found_only_when_their_time_has_come() -> None:
    async with rest(sharing={"rules": [], "late_share_rows": 1.0, "eager": True}) as org:
        org.create(4, OwnerId=REPS[0])
        assert await shares(org) == []
        assert (await org.query(f"SELECT COUNT() FROM {SHARE}")).body["totalSize"] == 0
        org.org.state.clock.advance(130)
        assert len(await shares(org)) == 4
        assert (await org.query(f"SELECT COUNT() FROM {SHARE}")).body["totalSize"] == 4


async def test_shares_are_kept_from_the_first_question_on() -> None:
    async with rest() as org:
        org.create(3, OwnerId=QUEUES[0])
        assert not org.org.model.sharing.active
        assert len(await shares(org)) == 6
        org.create(1, OwnerId=QUEUES[0])
        assert len(await shares(org)) == 8
        order = {"operation": "query", "query": f"SELECT Id FROM {SHARE}"}
        assert (await org.ask("jobs/query", "POST", json=order)).status == 200


# Acts


async def test_a_transfer_moves_owner_rows_and_publishes_events() -> None:
    async with rest() as org:
        made = org.create(5, OwnerId=QUEUES[0])
        entries = await org.org.fault("transfer", records=5, to="Queue_2")
        assert sorted(each for entry in entries for each in entry.record_ids) == sorted(
            each for entry in entries for each in entry.record_ids if each in made
        )
        assert {row["UserOrGroupId"] for row in await shares(org, "WHERE RowCause = 'Owner'")} == {QUEUES[1]}
        await org.org.fault("transfer", records=2)
        owners = [row["UserOrGroupId"] for row in await shares(org, "WHERE RowCause = 'Owner'")]
        assert owners.count(QUEUES[1]) == 3


async def test_manual_shares_come_change_and_go() -> None:
    async with rest() as org:
        made = org.create(3, OwnerId=QUEUES[5])
        await org.org.fault("share", record_ids=made, to=REPS[0], level="Read", user=REPS[1])
        manual = "WHERE RowCause = 'Manual' ORDER BY Id"
        given_rows = await shares(org, manual)
        assert {(row["UserOrGroupId"], row["AccessLevel"], row["LastModifiedById"]) for row in given_rows} == {
            (REPS[0], "Read", REPS[1])
        }
        await org.org.fault("level_change", records=3)
        changed = await shares(org, manual)
        assert [row["Id"] for row in changed] == [row["Id"] for row in given_rows]
        assert {row["AccessLevel"] for row in changed} == {"Edit"}
        await org.org.fault("level_change", record_ids=made, to=REPS[0], level="Read")
        assert {row["AccessLevel"] for row in await shares(org, manual)} == {"Read"}
        await org.org.fault("unshare", records=2)
        assert len(await shares(org, manual)) == 1
        await org.org.fault("share", records=3)
        assert len(await shares(org, manual)) >= 3


async def test_membership_and_recalculate_work_by_name_and_by_chance() -> None:
    async with rest(sharing={"rules": EVERYBODY, "recreate": 0.0}) as org:
        directory = org.org.model.sharing.directory
        await org.org.fault("membership", group="Quality", member=REPS[30], add=True)
        assert REPS[30] in directory.members[directory.find("Quality")]
        await org.org.fault("membership", group="Quality", member=REPS[30], add=False)
        assert REPS[30] not in directory.members[directory.find("Quality")]
        await org.org.fault("membership", group="UserRole:Team_Oslo", add=True)
        await org.org.fault("membership", group="UserRole:Team_Oslo", add=False)
        for _ in range(20):
            await org.org.fault("membership")
        org.create(4, OwnerId=REPS[0])
        before = await shares(org, "WHERE RowCause = 'Rule'")
        await settled(org)
        await org.org.fault("recalculate")
        await settled(org)
        after = await shares(org, "WHERE RowCause = 'Rule'")
        assert {row["ParentId"] for row in before} == {row["ParentId"] for row in after}
        assert not {row["Id"] for row in before} & {row["Id"] for row in after}


async def test_acts_that_can_not_be_done_say_why() -> None:
    async with rest(sharing={"rules": []}) as org:
        for kind, parameters, why in (
            ("transfer", {}, "no MessagingSession record"),
            ("share", {"record_ids": ["0Mw"]}, "no live MessagingSession 0Mw"),
            ("rule_change", {}, "no sharing rule yet"),
            ("rule_delete", {"rule": "x"}, "no sharing rule 'x'"),
            ("rule_create", {"source": "x"}, "no user, group or role 'x'"),
            ("feed_delete", {"item_ids": ["x"]}, "no feed item x"),
        ):
            with pytest.raises(EmulatorError, match=why):
                await org.org.fault(kind, **parameters)
        async with org.http.post(f"{org.org.control}/fault", json={"kind": "rule_create"}) as answer:
            assert (await answer.json())["done"] == "rule_create"
        async with org.http.get(f"{org.org.control}/faults") as answer:
            assert "transfer" in (await answer.json())["fault"]


async def test_random_acts_come_by_themselves_and_can_be_stopped() -> None:
    scenario = {"sharing": {"acts_per_minute": 60_000}, "feed": {"acts_per_minute": 60_000}}
    async with rest(traffic={"sessions": 40}, keep_all=True, **scenario) as org:
        faults = org.org.stats.faults
        wanted = (
            "transfer",
            "share",
            "level_change",
            "unshare",
            "rule_create",
            "rule_delete",
            "membership",
            "recalculate",
        )
        await until(lambda: all(faults[each] for each in (*wanted, "feed_post", "feed_edit", "feed_delete")))
        assert len(org.org.model.sharing.rules) <= 12
        await org.org.fault("sharing_traffic", sharing=0, feed=0)
        done = faults.total()
        await settled(org)
        assert faults.total() == done
        await org.org.fault("sharing_traffic", feed=60_000)
        await until(lambda: faults.total() > done + 1)


# The oracle


async def test_the_oracle_tells_shares_gaps_rules_feed_and_settled_spans() -> None:
    settings = {"recalc_delay_s": [0, 0], "recalc_s": [0, 0], "recreate": 1.0, "recalc_gap_s": 5.0}
    async with rest(oracle=True, keep_all=True, sharing=settings, feed={"tracking": True}) as org:
        (one,) = org.create(1, OwnerId=QUEUES[0], Status="New")
        await org.org.fault("recalculate")
        org.org.state.clock.advance(1)
        body = await settled(org)
        assert (body["active"], body["recalculations"], body["unseen_rows"], body["rows"]) == (True, 0, 0, 2)
        assert len(body["spans"]) == 2
        assert body["spans"][-1][1] is None
        found = await lines(org, "shares", parent=one)
        assert [(each["row_cause"], each["access_level"], each["to_ms"]) for each in found] == [
            ("Owner", "All", None),
            ("Rule", "Edit", None),
        ]
        (gap,) = await lines(org, "share_gaps", parent=one)
        assert found[1]["from_ms"] < gap["from_ms"] < gap["to_ms"] <= gap["from_ms"] + 7_000
        (owner, rule) = await lines(org, "share_rows", parent=one)
        assert (owner["row_cause"], rule["hidden_until_ms"]) == ("Owner", 0)
        assert len(await lines(org, "share_rows")) == 2
        assert [each["op"] for each in await lines(org, "rules")] == ["created", "created"]
        assert [each["op"] for each in await lines(org, "feed")] == ["created"]
        assert await lines(org, "feed", after="0") == []
        async with org.http.get(f"{org.org.control}/oracle/feed?after=x") as answer:
            assert answer.status == 400
        async with org.http.get(org.org.control) as answer:
            assert "GET /control/oracle/settled" in await answer.json()


async def test_without_an_oracle_only_the_present_is_told() -> None:
    async with rest() as org:
        for what in ("shares", "share_gaps", "rules", "feed"):
            async with org.http.get(f"{org.org.control}/oracle/{what}") as answer:
                assert answer.status == 400
        assert (await settled(org))["spans"] is None
        assert await lines(org, "share_rows") == []


# Scenarios


def test_a_scenario_says_groups_rules_defaults_and_times() -> None:
    text = """
[sharing]
internal = "Read"
recalc_delay_s = [1, 2]
recalc_s = [3, 4]
recreate = 0.25
recalc_gap_s = 1.5
late_share_rows = 0.1
[[sharing.groups]]
name = "Night shift"
members = ["Supervisors", "Role:Team_Oslo"]
[[sharing.rules]]
name = "Nights"
source = "Night shift"
target = "Quality"
level = "Edit"
[feed]
tracking = true
tracked = ["Status"]
"""
    org = sharing_org(begin=False)
    prepare_sharing(org, parse(text))
    (rule,) = org.sharing.rules.values()
    assert rule.group_id == org.sharing.directory.find("Night_shift")
    assert org.sharing.defaults == ("Read", "Private")
    kept = org.sharing.settings
    assert (kept.delay_s, kept.duration_s, kept.recreate, kept.gap_s, kept.late) == ((1, 2), (3, 4), 0.25, 1.5, 0.1)
    assert org.feed.tracked == {"Status"}
