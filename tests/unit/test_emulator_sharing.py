"""Sharing of the emulated org, rule by rule: owners, rules, groups, manual shares, recalculations, defaults."""

from __future__ import annotations

import pytest

from consumer.emulator.org import Change
from consumer.emulator.org_groups import ADMIN, Directory
from consumer.emulator.traffic_data import QUEUES, REPS
from consumer.errors import EmulatorError
from tests.unit.emulator_rest import SESSION
from tests.unit.emulator_sharing import NOW, as_kept, from_scratch, give, ids, rows, session, settle, sharing_org, told

SECOND_MS = 1000
QUEUE, OTHER_QUEUE = QUEUES[:2]
REP, OTHER_REP = REPS[20:22]


# Who there is


def test_rules_about_a_queue_are_about_its_own_records() -> None:
    directory = Directory()
    assert directory.groups_of(QUEUE) == {QUEUE}
    (member,) = (each for each in directory.members[QUEUE] if each == REPS[0])
    assert QUEUE not in directory.groups_of(member)


def test_roles_and_nested_groups_reach_their_users() -> None:
    directory = Directory()
    lyon = next(each for each in REPS[3:] if directory.users[each].role_id == directory.find("UserRole:Team_Lyon"))
    groups = directory.groups_of(lyon)
    for name in ("Role:Team_Lyon", "Quality", "AllInternalUsers", "Organization:AllInternalUsers"):
        assert directory.find(name) in groups
    for name in ("Team_Lyon", "Region_South", "Service_Director"):
        assert directory.find(f"RoleAndSubordinates:{name}") in groups
    for name in ("Role:Region_South", "RoleAndSubordinates:Region_North", "Specialists"):
        assert directory.find(name) not in groups
    directory.set_role(lyon, "")
    assert directory.find("RoleAndSubordinates:Service_Director") not in directory.groups_of(lyon)


def test_groups_that_hold_one_another_are_no_endless_circle() -> None:
    directory = Directory()
    inner = directory.add_group("Inner", [REP])
    outer = directory.add_group("Outer", [inner])
    directory.add_member(inner, outer)
    assert {inner, outer} <= directory.groups_of(REP)
    directory.remove_member(inner, REP)
    assert not {inner, outer} & directory.groups_of(REP)


def test_names_find_users_groups_and_roles_or_say_that_there_is_none() -> None:
    directory = Directory()
    assert directory.find(directory.users[REP].username) == REP
    assert directory.find(REP) == REP
    assert directory.find("Queue_1") == directory.find("Queue 1") == QUEUE
    assert directory.name_of(directory.find("Role:Team_Oslo")) == "Team Oslo"
    assert directory.name_of(None) is None
    for wrong in ("Nobody", "Role:Nobody", "UserRole:Nobody", ""):
        with pytest.raises(EmulatorError, match="there is no"):
            directory.find(wrong)
    with pytest.raises(EmulatorError, match="already"):
        directory.add_group("Quality")
    with pytest.raises(EmulatorError, match="no queue or public group"):
        directory.add_member(directory.find("Role:Team_Oslo"), REP)
    with pytest.raises(EmulatorError, match="there is no user or group"):
        directory.add_member(QUEUE, "005nobody")
    with pytest.raises(EmulatorError, match="is a queue"):
        directory.add_member(directory.find("Quality"), QUEUE)
    with pytest.raises(EmulatorError, match="there is no user"):
        directory.set_role("005nobody", "")


# Owners


def test_a_new_session_has_its_owners_row_and_those_of_the_rules() -> None:
    org = sharing_org()
    org.sharing.create_rule("A", "Queue_1", "Supervisors", "Edit", NOW)
    supervisors = org.sharing.directory.find("Supervisors")
    one = session(org, QUEUE, NOW + 5)
    assert rows(org, one) == {("Owner", QUEUE, "All"), ("Rule", supervisors, "Edit")}
    owner = org.sharing.rows.of(one)[0]
    assert (owner.stamp_ms, owner.by) == (NOW // 1000 * 1000, ADMIN)
    assert rows(org, session(org, REP)) == {("Owner", REP, "All")}


def test_an_owner_change_replaces_the_owner_row_and_takes_all_manual_rows() -> None:
    org = sharing_org(recreate=0.0)
    org.sharing.create_rule("A", "Queue_1", "Supervisors", "Edit", NOW)
    org.sharing.create_rule("B", "AllInternalUsers", "Quality", "Read", NOW)
    one = session(org, QUEUE)
    assert org.sharing.share(one, OTHER_REP, "Read", NOW)
    give(org, one, REP, NOW + 2000)
    quality = org.sharing.directory.find("Quality")
    assert rows(org, one) == {("Owner", REP, "All"), ("Rule", quality, "Read")}
    kept = ids(org, one)
    give(org, one, OTHER_REP, NOW + 4000)
    assert ids(org, one)["Rule", quality] == kept["Rule", quality]
    assert ids(org, one)["Owner", OTHER_REP] != kept["Owner", REP]
    give(org, one, OTHER_REP, NOW + 6000)
    assert {row.stamp_ms for row in org.sharing.rows.of(one) if row.cause == "Owner"} == {(NOW + 4000) // 1000 * 1000}


def test_several_rules_for_one_grantee_make_one_row_with_the_highest_level() -> None:
    org = sharing_org()
    for name, group, level in (("A", "Queue_1", "Read"), ("B", "Queue_1", "Edit"), ("C", "Queue_1", "Read")):
        org.sharing.create_rule(name, group, "Quality", level, NOW)
    one = session(org, QUEUE)
    assert rows(org, one) == {("Owner", QUEUE, "All"), ("Rule", org.sharing.directory.find("Quality"), "Edit")}
    org.sharing.delete_rule("B", NOW)
    settle(org, NOW)
    assert rows(org, one) == {("Owner", QUEUE, "All"), ("Rule", org.sharing.directory.find("Quality"), "Read")}


def test_deletes_take_all_rows_and_an_undelete_brings_back_those_of_owner_and_rules() -> None:
    org = sharing_org()
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    one = session(org, QUEUE)
    org.sharing.share(one, REP, "Edit", NOW)
    before = ids(org, one)
    org.commit([Change("delete", SESSION, one)], NOW + 1)
    assert rows(org, one) == set()
    org.commit([Change("undelete", SESSION, one)], NOW + 2)
    after = ids(org, one)
    assert set(after) == set(before) - {("Manual", REP)}
    assert not set(after.values()) & set(before.values())
    org.commit([Change("purge", SESSION, one)], NOW + 3)
    assert org.sharing.rows.count == 0


def test_unannounced_changes_move_shares_too() -> None:
    org = sharing_org()
    one = session(org, QUEUE)
    org.silent([Change("update", SESSION, one, {"OwnerId": REP})], NOW + 1)
    assert rows(org, one) == {("Owner", REP, "All")}
    org.gap("DELETE", SESSION, [one], NOW + 2)
    assert rows(org, one) == set()


def test_rows_of_what_was_there_are_as_old_as_it() -> None:
    org = sharing_org(begin=False)
    one = session(org, QUEUE, NOW - 60_000)
    assert org.sharing.rows.count == 0
    org.sharing.begin(NOW)
    org.sharing.begin(NOW)
    assert [row.stamp_ms for row in org.sharing.rows.of(one)] == [(NOW - 60_000) // 1000 * 1000]
    org.forget(SESSION, one)
    assert org.sharing.rows.count == 0


# Manual shares


def test_a_manual_share_that_is_there_is_changed_and_keeps_its_id() -> None:
    org = sharing_org()
    one = session(org, QUEUE)
    assert org.sharing.share(one, REP, "Read", NOW, by=OTHER_REP)
    before = ids(org, one)
    assert not org.sharing.share(one, REP, "Read", NOW + 5000)
    assert org.sharing.share(one, REP, "Edit", NOW + 5000)
    assert ids(org, one) == before
    (row,) = org.sharing.manual_rows(one)
    assert (row.level, row.stamp_ms) == ("Edit", (NOW + 5000) // 1000 * 1000)
    assert org.sharing.rows.parents_with_manual() == [one]
    assert org.sharing.unshare(one, REP, NOW + 6000)
    assert not org.sharing.unshare(one, "", NOW + 6000)
    assert org.sharing.rows.parents_with_manual() == []


def test_nothing_is_shared_with_the_owner_nor_below_the_default_nor_of_a_deleted_session() -> None:
    org = sharing_org()
    one = session(org, REP)
    assert not org.sharing.share(one, REP, "Edit", NOW)
    org.sharing.set_defaults("Read", "Private", NOW)
    assert not org.sharing.share(one, OTHER_REP, "Read", NOW)
    assert org.sharing.share(one, OTHER_REP, "Edit", NOW)
    org.commit([Change("delete", SESSION, one)], NOW)
    assert not org.sharing.share(one, OTHER_REP, "Edit", NOW)
    with pytest.raises(EmulatorError, match="no access level"):
        org.sharing.share(one, OTHER_REP, "All", NOW)


# Recalculations


def test_a_new_rule_reaches_old_records_late_and_new_ones_at_once() -> None:
    org = sharing_org(delay_s=(10.0, 10.0), duration_s=(4.0, 4.0))
    old = [session(org, QUEUE) for _ in range(8)]
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    assert not org.sharing.settled
    new = session(org, QUEUE, NOW + 1)
    org.settle(NOW + 9_999)
    assert [len(rows(org, each)) for each in (*old, new)] == [1] * 8 + [2]
    org.settle(NOW + 12_000)
    reached = [len(rows(org, each)) for each in old]
    assert 8 < sum(reached) < 16
    assert reached == sorted(reached, reverse=True)
    org.settle(NOW + 14_000)
    assert org.sharing.settled
    assert as_kept(org) == from_scratch(org)


@pytest.mark.parametrize("recreate", [0.0, 1.0])
def test_a_recalculation_makes_rows_anew_without_changing_anything(recreate: float) -> None:
    org = sharing_org()
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    sessions = [session(org, QUEUE) for _ in range(5)]
    now = settle(org, NOW)
    before, kept = [ids(org, each) for each in sessions], as_kept(org)
    org.sharing.recalculate(now, recreate=recreate)
    later = settle(org, now)
    after = [ids(org, each) for each in sessions]
    assert as_kept(org) == kept
    assert [each["Owner", QUEUE] for each in before] == [each["Owner", QUEUE] for each in after]
    assert (before == after) == (recreate == 0.0)
    if recreate:
        assert all(row.stamp_ms >= now // 1000 * 1000 for each in sessions for row in org.sharing.rows.of(each)[1:])
        assert later > now


def test_a_level_or_target_that_changes_reaches_the_rows_of_the_rule() -> None:
    org = sharing_org(recreate=0.0)
    rule = org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW, description="why")
    one = session(org, QUEUE)
    before = ids(org, one)
    changed = org.sharing.change_rule("A", NOW + 1000, level="Edit", by=REP)
    assert (changed.modified_by, changed.modified_ms, changed.created_ms) == (REP, NOW + 1000, NOW)
    now = settle(org, NOW + 1000)
    quality, queue = org.sharing.directory.find("Quality"), org.sharing.directory.find("Queue_2")
    assert rows(org, one) == {("Owner", QUEUE, "All"), ("Rule", quality, "Edit")}
    assert ids(org, one) == before
    org.sharing.change_rule(rule.rule_id, now, target="Specialists", name="B")
    now = settle(org, now)
    assert rows(org, one) == {("Owner", QUEUE, "All"), ("Rule", org.sharing.directory.find("Specialists"), "Edit")}
    org.sharing.change_rule("B", now, group=queue)
    now = settle(org, now)
    assert rows(org, one) == {("Owner", QUEUE, "All")}
    assert org.sharing.change_rule("B", now) == org.sharing.rule("B")
    assert org.sharing.settled


def test_memberships_move_rows_of_the_members_records() -> None:
    org = sharing_org()
    org.sharing.create_rule("A", "Supervisors", "Quality", "Read", NOW)
    one, quality = session(org, REP), org.sharing.directory.find("Quality")
    for change, there in ((org.sharing.add_member, True), (org.sharing.remove_member, False)):
        change("Supervisors", REP, NOW)
        now = settle(org, NOW)
        assert (("Rule", quality, "Read") in rows(org, one)) == there
    org.sharing.create_rule("B", "RoleAndSubordinates:Region_North", "Quality", "Edit", now)
    org.sharing.add_member("UserRole:Team_Oslo", REP, now)
    now = settle(org, now)
    assert ("Rule", quality, "Edit") in rows(org, one)
    org.sharing.remove_member("UserRole:Team_Bergen", REP, now)
    assert org.sharing.settled
    org.sharing.remove_member("UserRole:Team_Oslo", REP, now)
    settle(org, now)
    assert rows(org, one) == {("Owner", REP, "All")}


def test_members_of_a_target_do_not_move_rows_but_have_them_recalculated() -> None:
    org = sharing_org(recreate=1.0)
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    one = session(org, QUEUE)
    before, kept = ids(org, one), rows(org, one)
    now = settle(org, NOW)
    org.sharing.add_member("Quality", REP, now)
    settle(org, now)
    assert rows(org, one) == kept
    assert ids(org, one) != before


def test_a_row_that_stays_can_be_away_for_a_moment_and_the_oracle_tells_it_as_a_gap() -> None:
    org = sharing_org(recreate=1.0, gap_s=3.0)
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    sessions = [session(org, QUEUE) for _ in range(4)]
    settle(org, NOW)
    truth = org.sharing.truth
    assert truth is not None
    gaps = [(line["parent_id"], line["to_ms"]) for line in truth.gap_lines()]
    assert sorted(str(parent) for parent, _ in gaps) == sorted(sessions)
    assert None not in [to_ms for _, to_ms in gaps]
    spans = [line for line in truth.share_lines(sessions[0]) if line["row_cause"] == "Rule"]
    assert [(line["from_ms"], line["to_ms"]) for line in spans] == [(NOW, None)]


def test_an_owner_change_within_a_gap_ends_the_share_where_the_gap_began() -> None:
    org = sharing_org(recreate=1.0, gap_s=60.0, delay_s=(1.0, 1.0), duration_s=(0.0, 0.0))
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    one = session(org, QUEUE)
    org.settle(NOW + 1_500)
    truth = org.sharing.truth
    assert truth is not None
    assert rows(org, one) == {("Owner", QUEUE, "All")}
    give(org, one, REP, NOW + 5_000)
    ended = [line["to_ms"] for line in truth.share_lines(one) if line["row_cause"] == "Rule"]
    assert ended == [NOW + 1_500]
    assert list(truth.gap_lines()) == []
    settle(org, NOW + 5_000)
    assert rows(org, one) == {("Owner", REP, "All")}


def test_a_higher_default_takes_rows_that_give_no_more() -> None:
    org = sharing_org()
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    org.sharing.create_rule("B", "Queue_1", "Specialists", "Edit", NOW)
    one = session(org, QUEUE)
    org.sharing.share(one, REP, "Read", NOW)
    org.sharing.share(one, OTHER_REP, "Edit", NOW)
    org.sharing.set_defaults("Read", "Private", NOW)
    assert len(rows(org, one)) == 5
    now = settle(org, NOW)
    assert {(cause, level) for cause, _, level in rows(org, one)} == {
        ("Owner", "All"),
        ("Rule", "Edit"),
        ("Manual", "Edit"),
    }
    org.sharing.set_defaults("ReadWrite", "Private", now)
    now = settle(org, now)
    assert rows(org, one) == {("Owner", QUEUE, "All")}
    org.sharing.set_defaults("Private", "Private", now)
    settle(org, now)
    assert {cause for cause, _, _ in rows(org, one)} == {"Owner", "Rule"}
    with pytest.raises(EmulatorError, match="no defaults"):
        org.sharing.set_defaults("None", "Private", now)


def test_a_great_recalculation_takes_many_turns() -> None:
    org = sharing_org(truth=False, duration_s=(0.0, 0.0))
    made = [Change("create", SESSION, org.new_id(SESSION), {"OwnerId": QUEUE}) for _ in range(2_500)]
    org.commit(made, NOW)
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    counts = []
    while not org.sharing.settled:
        org.settle(NOW + 60_000)
        counts.append(org.sharing.rows.count)
    assert counts == [3_500, 4_500, 5_000]


def test_rules_have_names_of_their_own_and_groups_that_exist() -> None:
    org = sharing_org()
    org.sharing.create_rule("A b", "Queue_1", REP, "Read", NOW)
    assert org.sharing.rule("A_b").name == "A b"
    with pytest.raises(EmulatorError, match="already"):
        org.sharing.create_rule("A_b", "Queue_1", "Quality", "Read", NOW)
    with pytest.raises(EmulatorError, match="no group"):
        org.sharing.create_rule("B", REP, "Quality", "Read", NOW)
    with pytest.raises(EmulatorError, match="no sharing rule"):
        org.sharing.delete_rule("B", NOW)
    for number in range(299):
        org.sharing.create_rule(f"R{number}", "Queue_6", "Quality", "Read", NOW)
    with pytest.raises(EmulatorError, match="300"):
        org.sharing.create_rule("C", "Queue_1", "Quality", "Read", NOW)


# Late rows, and the oracle


def test_a_late_row_counts_from_when_queries_find_it() -> None:
    org = sharing_org(late=1.0)
    one = session(org, QUEUE)
    (row,) = org.sharing.rows.of(one)
    assert NOW + 3_000 <= row.hidden_until_ms <= NOW + 120_000
    assert row.stamp_ms == NOW // 1000 * 1000
    assert org.sharing.hidden_rows(NOW) == 1
    assert told(org, row.hidden_until_ms - 1) == {}
    assert told(org, row.hidden_until_ms) == {row.key: "All"}
    give(org, one, REP, NOW + 1000)
    assert told(org, row.hidden_until_ms) != {row.key: "All"}
    assert org.sharing.hidden_rows(NOW + 1000) == 1
    assert org.sharing.hidden_rows(NOW + 130_000) == 0


def test_the_oracle_has_one_line_for_each_unchanged_level_and_every_rule_change() -> None:
    org = sharing_org(recreate=1.0)
    rule = org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
    one = session(org, QUEUE, NOW)
    now = settle(org, NOW + SECOND_MS)
    org.sharing.change_rule("A", now, level="Edit", target="Specialists")
    org.sharing.delete_rule("A", now + 7)
    truth = org.sharing.truth
    assert truth is not None
    assert [line for line in truth.share_lines(one) if line["row_cause"] == "Rule"] == [
        {
            "parent_id": one,
            "user_or_group_id": org.sharing.directory.find("Quality"),
            "row_cause": "Rule",
            "access_level": "Read",
            "from_ms": NOW,
            "to_ms": None,
        }
    ]
    quality = org.sharing.directory.find("Quality")
    told_rules = [(line["op"], line["at_ms"], line["previous"]) for line in truth.rule_lines()]
    assert told_rules == [
        ("created", NOW, {}),
        ("changed", now, {"AccessLevel": "Read", "UserOrGroupId": quality}),
        ("deleted", now + 7, {}),
    ]
    assert org.sharing.deleted_rules == {rule.rule_id: (now + 7) // 1000 * 1000}
    assert [line["index"] for line in truth.rule_lines()] == [0, 1, 2]


def test_settled_spans_end_where_a_recalculation_is_ordered_and_begin_where_it_is_done() -> None:
    org = sharing_org()
    truth = org.sharing.truth
    assert truth is not None
    session(org, QUEUE)
    assert truth.settled_spans() == [[NOW, None]]
    org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW + 50)
    assert truth.settled_spans() == [[NOW, NOW + 50]]
    done = settle(org, NOW + 50)
    assert truth.settled_spans() == [[NOW, NOW + 50], [done, None]]
