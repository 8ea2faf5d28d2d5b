"""Facts, and repair of windows that name their records, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pytest

from consumer.changes.rows import FieldInfo
from consumer.errors import LoginUnavailableError, QuotaError, SalesforceUnavailableError
from consumer.events import LossWindow
from consumer.tracking.arrivals import Closed, FactsRead, Purpose, RowsRead
from consumer.upkeep.facts import FactsJob, facts_of
from consumer.upkeep.repair import RepairJob
from consumer.upkeep.scope import Scope, scope_of
from tests.fake_org import (
    ENTITY,
    FIELDS,
    HOUR,
    SCHEMA,
    SECOND,
    Durable,
    FakeOrg,
    Harness,
    facts_for,
    record_id,
    running,
    state_of,
)
from tests.fakes import CHANNEL, virtual


def gap(org: FakeOrg, number: int, keys: tuple[str, ...], *, reason: str = "gap_update") -> LossWindow:
    """A window over records, which ends at the end of this second."""
    now = org.now_ms() // SECOND * SECOND
    return LossWindow(f"gap:{number}", f"changes:{CHANNEL}", reason, now, now + 999, keys, ENTITY)


# Facts


def test_facts_name_what_events_do_not_carry_and_what_history_cannot_show() -> None:
    fields = {
        **FIELDS,
        "Notes__c": FieldInfo("Notes__c", "textarea", 32_000),
        "Tags__c": FieldInfo("Tags__c", "multipicklist", 255),
        "Sum__c": FieldInfo("Sum__c", "double", calculated=True),
        "City": FieldInfo("City", "string", 40, compound="Address"),
    }
    facts = facts_of(ENTITY, fields, frozenset({"OwnerId", "Status"}), has_history=True, has_metrics=True)
    assert facts.tracked == frozenset({"Owner", "Status"})
    assert facts.no_values == {"Notes__c", "Tags__c"}
    assert {"PreviewDetails", "ChannelType", "Sum__c"} <= facts.not_in_events
    assert "Status" not in facts.not_in_events
    assert "OwnerId" in facts.lookups
    assert facts.visible is not None
    assert "Address" in facts.visible
    assert "City" not in facts.visible


def test_facts_are_read_at_the_start_hourly_and_when_the_schema_changed() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)

        async def story() -> None:
            await rig.until(lambda: len(rig.arrivals(FactsRead)) == 1)
            (first,) = rig.arrivals(FactsRead)
            assert first.fields == FIELDS
            assert first.facts.has_history
            assert first.facts.has_metrics
            rig.schemas[ENTITY] = replace(SCHEMA, schema_id="schema-2")
            rig.context.changed.set()
            before = org.now_ms()
            await rig.until(lambda: len(rig.arrivals(FactsRead)) == 2)
            assert org.now_ms() - before < SECOND
            await rig.until(lambda: len(rig.arrivals(FactsRead)) == 3)
            assert HOUR <= org.now_ms() - before <= HOUR + 120 * SECOND

        await running(FactsJob(rig.context).run, story())

    virtual(main())


def test_what_cannot_be_read_is_told_once_and_asked_again_every_hour() -> None:
    async def main() -> None:
        org = FakeOrg(refused={"describe"})
        rig = Harness(org)

        async def story() -> None:
            await asyncio.sleep(3 * 3600 + 300)
            assert org.calls.count("describe") == 4
            assert rig.told.unavailable == [("describe", ENTITY)]
            org.refused = {"metrics", "history", "tracked_fields"}
            await rig.until(lambda: bool(rig.arrivals(FactsRead)))
            facts = rig.facts[ENTITY]
            assert (facts.has_history, facts.has_metrics, facts.tracked) == (False, False, None)

        await running(FactsJob(rig.context).run, story())

    virtual(main())


def test_fields_of_events_that_the_user_may_not_read_are_told_once_together() -> None:
    async def main() -> None:
        org = FakeOrg()
        org.fields = {name: info for name, info in FIELDS.items() if name not in {"Status", "OwnerId"}}
        rig = Harness(org)

        async def story() -> None:
            await rig.until(lambda: len(rig.arrivals(FactsRead)) == 2)
            assert rig.told.unavailable == [("fields", ENTITY)]
            org.fields = FIELDS
            await rig.until(lambda: len(rig.arrivals(FactsRead)) == 3)
            org.fields = {name: info for name, info in FIELDS.items() if name != "Status"}
            await rig.until(lambda: len(rig.arrivals(FactsRead)) == 4)
            assert rig.told.unavailable == [("fields", ENTITY)] * 2

        await running(FactsJob(rig.context).run, story())

    virtual(main())


def test_failures_are_backed_off_as_their_class_demands_and_told() -> None:
    async def main() -> None:
        org = FakeOrg()
        org.errors["describe"] = deque(
            [
                SalesforceUnavailableError("no answer", retry_after_s=77.0),
                QuotaError("used up"),
                LoginUnavailableError("no login", retry_after_s=33.0),
            ]
        )
        rig = Harness(org)
        await running(FactsJob(rig.context).run, rig.until(lambda: bool(rig.durable.taken)))
        delays = [delay for _, _, delay in rig.told.failed]
        assert [delay >= least for delay, least in zip(delays, (77.0, 900.0, 33.0), strict=True)] == [True] * 3
        assert delays[1] < 960

    virtual(main())


# Repair


def test_windows_are_repaired_together_in_batches_of_200() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        keys = [org.save(number, "Active") for number in range(450)]
        for number in range(30):
            rig.open(gap(org, number, tuple(keys[number * 15 : number * 15 + 15])))
        await running(RepairJob(rig.context).run, rig.until(lambda: not rig.durable.windows))
        assert [len(each) for each in org.asked] == [200, 200, 50]
        assert {key for _, key in rig.durable.states} == set(keys)
        assert not rig.marks
        assert not rig.durable.progress
        assert all(each.purpose is Purpose.REPAIR for each in rig.arrivals(RowsRead))

    virtual(main())


def test_nothing_is_closed_by_an_answer_from_before_the_windows_end() -> None:
    """The org's clock stands behind ours: its answers are older than the window's end for a while."""

    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        key = org.save(1, "Active")
        window = replace(gap(org, 1, (key,)), to_ms=org.now_ms() + 20 * SECOND)
        rig.context = replace(rig.context, now_ms=lambda: org.now_ms() + 60 * SECOND)
        rig.open(window)
        await running(RepairJob(rig.context).run, rig.until(lambda: not rig.durable.windows))
        (read,) = rig.arrivals(RowsRead)
        assert window.to_ms is not None
        assert read.answered_ms - SECOND > window.to_ms
        assert not rig.marks

    virtual(main())


def test_a_missing_record_is_named_missing_and_a_window_tells_what_it_restores() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        there, gone = org.save(1), record_id(2)
        rig.open(gap(org, 1, (there, gone)))
        await running(RepairJob(rig.context).run, rig.until(lambda: not rig.durable.windows))
        (read,) = rig.arrivals(RowsRead)
        assert read.missing == (gone,)
        assert read.window_ids == ("gap:1",)
        (closing,) = read.closings
        assert (closing.state, closing.deletes, closing.tracked_history, closing.all_changes) == (
            True,
            True,
            False,
            False,
        )
        assert set(closing.unrecoverable_fields) == set(SCHEMA.schema_fields) - {"LastModifiedDate", "LastModifiedById"}

    virtual(main())


def test_a_window_waits_for_the_history_poll_and_its_state_is_read_once() -> None:
    async def main() -> None:
        org = FakeOrg()
        facts = facts_for(has_history=True, tracked=frozenset({"Status", "Owner"}), lookups=frozenset({"OwnerId"}))
        rig = Harness(org, facts={ENTITY: facts})
        window = gap(org, 1, (org.save(1),))
        rig.open(window)

        async def story() -> None:
            await asyncio.sleep(120)
            assert rig.durable.progress["repair:gap:1"]["repaired"] == 1
            assert window.to_ms is not None
            rig.durable.progress[f"poll:history:{ENTITY}"] = {"complete_to_ms": window.to_ms - 1}
            await asyncio.sleep(60)
            assert rig.durable.windows
            rig.durable.progress[f"poll:history:{ENTITY}"] = {"complete_to_ms": window.to_ms}
            await rig.until(lambda: not rig.durable.windows)

        await running(RepairJob(rig.context).run, story())
        assert org.calls == ["rows_by_id"]
        (closed,) = rig.arrivals(Closed)
        (closing,) = closed.closings
        assert closing.tracked_history
        assert closing.repaired == 1
        assert not {"Status", "OwnerId"} & set(closing.unrecoverable_fields)
        assert "Origin" in closing.unrecoverable_fields
        assert "repair:gap:1" not in rig.durable.progress

    virtual(main())


def test_a_restart_does_not_read_again_what_was_repaired() -> None:
    async def main() -> None:
        org = FakeOrg()
        keys = tuple(org.save(number) for number in range(500))
        durable = Durable()
        window = gap(org, 1, keys)
        durable.windows[window.window_id] = window
        for kill_after in (1, 2):
            rig = Harness(org, durable, kill_after=kill_after)
            await running(RepairJob(rig.context).run, rig.killed.wait())
        rig = Harness(org, durable)
        await running(RepairJob(rig.context).run, rig.until(lambda: not rig.durable.windows))
        reads = rig.arrivals(RowsRead)
        assert [len(each.rows) for each in reads] == [200, 200, 100]
        assert reads[-1].closings[0].repaired == 400
        assert len(durable.states) == 500
        assert not durable.progress

    virtual(main())


def test_progress_of_a_window_that_something_else_closed_is_removed() -> None:
    async def main() -> None:
        durable = Durable(progress={"repair:quarantine:1": {"done": 3, "of": 3, "repaired": 3}})
        rig = Harness(FakeOrg(), durable)
        await running(RepairJob(rig.context).run, rig.until(lambda: not durable.progress))
        assert not rig.org.calls

    virtual(main())


def test_a_refused_object_is_told_once_and_others_go_on() -> None:
    async def main() -> None:
        org = FakeOrg(refused={"rows_by_id:Account"})
        rig = Harness(org, entity=None, entities=(ENTITY, "Account"))
        session, account = org.save(1), org.save(1, entity="Account")
        rig.open(replace(gap(org, 1, (account,)), entity="Account"))
        rig.open(gap(org, 2, (session,)))

        async def story() -> None:
            await rig.until(lambda: len(rig.durable.windows) == 1)
            await asyncio.sleep(2 * 3600)
            assert rig.told.unavailable == [("repair", "Account")]
            assert org.calls.count("rows_by_id") <= 4
            org.refused.clear()
            await rig.until(lambda: not rig.durable.windows)

        await running(RepairJob(rig.context).run, story())
        assert not rig.marks

    virtual(main())


def test_a_window_without_an_object_takes_it_from_the_key_prefix_of_known_records() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, entity=None, entities=("Account", ENTITY))
        key, stranger = org.save(1), record_id(7, "500")
        rig.store.put(state_of(org._row(org.save(9), org.rows[record_id(9)])))
        rig.open(replace(gap(org, 1, (key,)), entity=None))
        rig.open(replace(gap(org, 2, (stranger,)), entity=None))

        async def story() -> None:
            await rig.until(lambda: len(rig.durable.windows) == 1)
            await asyncio.sleep(60)

        await running(RepairJob(rig.context).run, story())
        assert list(rig.durable.windows) == ["gap:2"]
        assert org.asked == [(key,)]
        assert rig.told.unavailable == [("window gap:2", "")]

    virtual(main())


@pytest.mark.parametrize("name", ["quota", "down"])
def test_an_outage_only_delays_a_repair(name: str) -> None:
    async def main() -> None:
        org = FakeOrg()
        error = QuotaError("used up") if name == "quota" else SalesforceUnavailableError("down")
        org.errors["rows_by_id"] = deque([error] * 3)
        rig = Harness(org)
        rig.open(gap(org, 1, (org.save(1),)))
        await running(RepairJob(rig.context).run, rig.until(lambda: not rig.durable.windows))
        assert len(rig.told.failed) == 3
        assert not rig.marks

    virtual(main())


def test_scopes_of_windows() -> None:
    now = 100 * 24 * HOUR
    window = LossWindow("w", "s", "gap_overflow", now - HOUR, now, (), ENTITY)
    assert scope_of(window, now) is Scope.MODIFIED
    assert scope_of(replace(window, from_ms=now - 15 * 24 * HOUR), now) is Scope.ALL
    assert scope_of(replace(window, record_ids=("a",)), now) is Scope.RECORDS
    assert scope_of(replace(window, from_ms=None), now) is Scope.ALL
    for reason in ("no_snapshot", "position_lost", "position_forced", "wildcard", "of a newer version"):
        assert scope_of(replace(window, reason=reason), now) is Scope.ALL
    assert scope_of(replace(window, reason="payload_undecodable"), now) is Scope.MODIFIED
    assert scope_of(replace(window, reason="gap_update", detail={"wildcard_ids": ["0Mw*"]}), now) is Scope.ALL


def test_a_refusal_is_no_outage() -> None:
    """What will not be answered is not asked over and over."""

    async def main() -> None:
        org = FakeOrg(refused={"rows_by_id"})
        rig = Harness(org)
        rig.open(gap(org, 1, (org.save(1),)))
        await running(RepairJob(rig.context).run, asyncio.sleep(3599))
        assert org.calls == ["rows_by_id"]

    virtual(main())
