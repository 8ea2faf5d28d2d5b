"""Sessions that were there before the emulated org's first event."""

from __future__ import annotations

from consumer.emulator.org import OrgModel
from consumer.emulator.traffic import Traffic
from consumer.emulator.traffic_values import SESSION

_NOW_MS = 1_790_000_000_000


def _org(sessions: int, *, live: int = 40) -> tuple[OrgModel, Traffic]:
    org = OrgModel(1)
    traffic = Traffic(org, 1, live=live, companions=False, keep=None)
    traffic.populate(sessions, _NOW_MS)
    return org, traffic


def test_the_past_is_there_and_nothing_tells_of_it() -> None:
    org, _ = _org(1_000)
    assert len(org.records(SESSION)) == 1_000
    assert len(org.history_rows(SESSION)) == 0
    stamps = [row.system_modstamp_ms for row in org.store.table(SESSION).values() if row.system_modstamp_ms]
    assert max(stamps) < _NOW_MS
    assert len(stamps) == 1_000


def test_each_session_of_the_past_is_one_of_its_own() -> None:
    org, _ = _org(1_000)
    records = org.records(SESSION).values()
    for name in ("Id", "Name", "SessionKey"):
        assert len({record[name] for record in records}) == 1_000


def test_the_newest_go_on_and_the_traffic_changes_them() -> None:
    org, traffic = _org(500, live=40)
    before = org.records(SESSION)
    assert traffic.live == 20
    made = traffic.step(_NOW_MS + 1_000, 400)
    changed = {each for event in made for each in event.record_ids if each in before}
    assert len(changed) == 20


def test_changing_one_session_leaves_its_pattern_s_other_copies_alone() -> None:
    org, traffic = _org(1_000, live=40)
    before = org.records(SESSION)
    touched = {each for event in traffic.step(_NOW_MS + 1_000, 400) for each in event.record_ids}
    assert {each: org.record(SESSION, each) for each in before.keys() - touched} == {
        each: before[each] for each in before.keys() - touched
    }


def test_without_a_past_the_same_seed_gives_the_same_traffic() -> None:
    (_, plain), (_, empty) = _org(0), _org(0)
    assert [event.payload for event in plain.step(_NOW_MS, 50)] == [event.payload for event in empty.step(_NOW_MS, 50)]
