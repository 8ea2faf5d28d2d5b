"""The file of the local store: where it lies, whom it serves, and what becomes of one that can't be used."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.errors import StoreError
from consumer.store import database as database_module
from consumer.store import tables
from consumer.store.file import Owner, StoreFile, store_directory
from consumer.store.sqlite import SqliteStore
from tests.store_values import CHANNEL, ENTITY, ORG, access, codec_of, committed, contents, entry, key, record_id, state

OWNER = Owner("svc", ORG, CHANNEL, "t.", (CHANNEL,))
NAME = f"svc.{ORG}.MessagingSessionChangeEvent"
STALE_MS = 302_400_000
NOW_MS = 1_790_000_000_000


def opened(directory: Path, owner: Owner = OWNER, now_ms: int = NOW_MS, **options: int) -> SqliteStore:
    """Return a store that is attached to the test's cluster."""
    store = SqliteStore(directory, owner, codec_of(), now_ms=lambda: now_ms, **options)
    try:
        store.attach("cluster-1", stale_after_ms=STALE_MS)
    except BaseException:
        store.close()
        raise
    return store


def filled(directory: Path) -> str:
    """Leave a file with one record behind, and return its generation."""
    store = opened(directory)
    committed(store, state(1), entry(1, due_ms=5), offset=7)
    store.see(ENTITY, [record_id(1)], "job")
    store.close()
    return store.generation


def reopened(directory: Path, owner: Owner = OWNER, now_ms: int = NOW_MS) -> tuple[dict[int, object], str, list[str]]:
    """Open the file again; return its contents, its generation, and the reasons of rebuilding that were logged."""
    with capture_logs() as logs:
        store = opened(directory, owner, now_ms)
    try:
        return dict(contents(store, 5)), store.generation, [each["reason"] for each in logs if "reason" in each]
    finally:
        store.close()


def test_what_was_merged_is_there_after_a_restart_and_what_was_not_is_not(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, state(1), entry(1, due_ms=5), offset=7)
    store.see(ENTITY, [record_id(1)], "job")
    store.put(state(2))
    store.cut()
    store.close()
    again = opened(tmp_path)
    assert contents(again, 3) == {1: (1, 5)}
    assert list(again.offsets().values()) == [7]
    assert again.generation == store.generation
    assert list(again.unseen(ENTITY, "job", "", 9)) == []
    assert again.newest_ms == NOW_MS
    again.close()


def test_least_recently_written_is_told_across_restarts(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, entry(1, facts=1), entry(2, facts=1))
    store.close()
    store = opened(tmp_path)
    committed(store, entry(1, facts=1))
    assert store.unsettled(ENTITY, 9) == [key(2), key(1)]
    store.close()


def test_the_file_is_named_after_service_org_and_channel_and_closed_to_others(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "here"
    store = opened(directory)
    assert store.path == directory / f"{NAME}.sqlite3"
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    store.close()


def test_a_second_worker_takes_the_next_file_and_a_free_one_is_taken_again(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert [first.path.name, second.path.name] == [f"{NAME}.sqlite3", f"{NAME}.1.sqlite3"]
    committed(first, state(1), offset=3)
    assert contents(second, 2) == {}
    first.close()
    third = opened(tmp_path)
    assert (third.path, contents(third, 2)) == (first.path, {1: (1, None)})
    second.close()
    third.close()


def test_too_many_workers_are_told_so(tmp_path: Path) -> None:
    files = [StoreFile(tmp_path, OWNER) for _ in range(16)]
    with pytest.raises(StoreError, match="16 workers"):
        StoreFile(tmp_path, OWNER)
    for each in files:
        each.release()


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        (replace(OWNER, topic_prefix="u."), "another value of topic_prefix"),
        (replace(OWNER, contract=OWNER.contract + 1), "another value of contract"),
        (replace(OWNER, channels=(CHANNEL, "/data/CaseChangeEvent")), "another value of channels"),
    ],
)
def test_a_file_of_somebody_else_is_rebuilt(tmp_path: Path, owner: Owner, reason: str) -> None:
    generation = filled(tmp_path)
    found, after, reasons = reopened(tmp_path, owner)
    assert (found, len(reasons)) == ({}, 1)
    assert reason in reasons[0]
    assert after != generation


@pytest.mark.parametrize("name", ["org_id", "channel", "service"])
def test_a_copied_file_of_somebody_else_is_rebuilt(tmp_path: Path, name: str) -> None:
    filled(tmp_path)
    with sqlite3.connect(tmp_path / f"{NAME}.sqlite3") as connection:
        connection.execute("UPDATE identity SET value = 'other' WHERE name = ?", (name,))
    connection.close()
    found, _, reasons = reopened(tmp_path)
    assert (found, reasons) == ({}, [f"it was written for another value of {name}"])


def test_a_file_filled_from_another_cluster_is_rebuilt(tmp_path: Path) -> None:
    filled(tmp_path)
    store = SqliteStore(tmp_path, OWNER, codec_of(), now_ms=lambda: NOW_MS)
    store.attach("cluster-2", stale_after_ms=STALE_MS)
    assert contents(store, 2) == {}
    store.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b"not a database at all, but long enough" * 200), "it is damaged"),
        (lambda path: path.write_bytes(b""), "it is of another format"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096]), "it is damaged"),
        (lambda path: execute(path, "UPDATE identity SET value = '99' WHERE name = 'format'"), "a newer version"),
        (lambda path: execute(path, "UPDATE identity SET value = '0' WHERE name = 'format'"), "another format"),
        (lambda path: execute(path, "DROP TABLE identity"), "another format"),
    ],
)
def test_a_file_that_is_not_ours_to_read_is_rebuilt(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    generation = filled(tmp_path)
    spoil(tmp_path / f"{NAME}.sqlite3")
    found, after, reasons = reopened(tmp_path)
    assert found == {}
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert after != generation
    assert reopened(tmp_path)[2] == [], "only once"


def execute(path: Path, statement: str) -> None:
    """Change the file behind the store's back."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(("age_ms", "kept"), [(STALE_MS, True), (STALE_MS + 1, False), (-5_000, True)])
def test_a_file_that_may_have_missed_tombstones_is_rebuilt(tmp_path: Path, age_ms: int, kept: bool) -> None:
    filled(tmp_path)
    found, _, reasons = reopened(tmp_path, now_ms=NOW_MS + age_ms)
    assert (found, reasons != []) == (({1: (1, 5)}, False) if kept else ({}, True))


def test_a_batch_without_states_keeps_the_file_fresh(tmp_path: Path) -> None:
    filled(tmp_path)
    store = opened(tmp_path, now_ms=NOW_MS + STALE_MS)
    store.merge(store.cut(), {})
    store.close()
    assert reopened(tmp_path, now_ms=NOW_MS + 2 * STALE_MS)[0] == {1: (1, 5)}


def test_damage_found_at_work_is_told_and_mended_by_the_next_generation(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, *(state(number, filling=2_000) for number in range(500)))
    store.close()
    content = bytearray(store.path.read_bytes())
    content[4096 * 40 : -4096] = b"\xff" * (len(content) - 4096 * 41)
    store.path.write_bytes(content)
    store = opened(tmp_path, cache_records=100)
    with pytest.raises(StoreError, match="damaged"):
        contents(store, 500)
    store.attach("cluster-1", stale_after_ms=STALE_MS)
    assert contents(store, 2) == {}
    committed(store, state(1))
    assert contents(store, 2) == {1: (1, None)}
    store.close()


def test_a_full_disk_stops_the_batch_whole_and_the_next_generation_goes_on(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, state(1), offset=7)
    connection = store._database._must()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 5}")  # SQLite tells it as it tells a full disk
    for number in range(2, 200):
        store.put(state(number, filling=3_000))
    store.put(state(3, entity="Case"))
    delta = store.cut()
    with pytest.raises(StoreError, match=r"full.*has room"):
        store.merge(delta, {("t.messaging-session.state", 0): 9})
    store.drop()
    assert "Case" not in store._database.objects, "a number that was not written must not be used"
    store.attach("cluster-1", stale_after_ms=STALE_MS)
    assert (contents(store, 200), list(store.offsets().values())) == ({1: (1, None)}, [7])
    assert list(store.entities()) == [ENTITY]
    committed(store, *(state(number, filling=3_000) for number in range(2, 200)), state(3, entity="Case"), offset=9)
    assert len(contents(store, 200)) == 199
    assert list(store.entities()) == ["Case", ENTITY]
    store.close()


def test_a_failed_checkpoint_fails_the_next_batch(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store._database._checkpoints.failure = sqlite3.OperationalError("disk I/O error")
    store.put(state(1))
    with pytest.raises(StoreError, match="disk I/O error"):
        store.merge(store.cut(), {})
    store.drop()
    store.attach("cluster-1", stale_after_ms=STALE_MS)
    committed(store, state(1))
    store.close()


def test_a_directory_that_can_not_be_written_is_told_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"can't be read or written: .*state\.path"):
        opened(tmp_path / "file" / "below")
    target = tmp_path / f"{NAME}.sqlite3"
    target.mkdir()
    with pytest.raises(StoreError, match=r"can't be read or written"):
        opened(tmp_path)
    target.rmdir()
    opened(tmp_path).close()


def test_the_write_ahead_log_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_LOG_BYTES", 4 << 20)
    store = opened(tmp_path)
    log = store.path.with_name(store.path.name + "-wal")
    sizes = []
    for number in range(60):
        committed(store, *(state(100 * number + each, filling=2_000) for each in range(100)))
        sizes.append(log.stat().st_size)
    assert max(sizes) < 16 << 20
    assert store.records(ENTITY) == 6_000
    store.close()


def test_checkpoints_are_made_beside_the_work(tmp_path: Path) -> None:
    store = opened(tmp_path)
    before = store.path.stat().st_size
    committed(store, *(state(each, filling=2_000) for each in range(1_000)))
    checkpoints = store._database._checkpoints
    checkpoints.close()
    assert checkpoints.failure is None
    assert store.path.stat().st_size > before + 1_000_000
    store.close()


def test_the_cache_is_bounded_by_count_and_bytes_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    decoded: list[str] = []
    store = SqliteStore(tmp_path, OWNER, codec_of(on_decode=decoded.append), cache_records=3)
    committed(store, *(state(number) for number in range(6)))
    for number in (3, 4, 5, 3, 9, 9, 3):
        store.get(key(number))
    assert decoded == [], "the last three were in the cache, and 9 is known to be nowhere"
    store.get(key(4))
    store.get(key(0))
    store.get(key(3))
    assert decoded == [record_id(4), record_id(0)]
    store.close()
    decoded.clear()
    store = SqliteStore(tmp_path, OWNER, codec_of(on_decode=decoded.append), cache_bytes=80_000)
    committed(store, *(state(number, filling=2_000) for number in range(10)))
    assert store._state_cache.bytes <= 80_000
    for number in (9, 8, 7):
        store.get(key(number))
    assert decoded == []
    store.get(key(1))
    assert decoded == [record_id(1)]
    store.close()


def test_known_shares_and_what_is_owed_of_them_are_there_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, access(1, shares=2), access(2), access(3), entry(4, shares_due_ms=5), entry(5, feed=1))
    store.remove_access(key(2))
    store.merge(store.cut(), {})
    store.see(ENTITY, [record_id(1)], "sweep")
    store.put_access(access(9))
    store.close()
    store = opened(tmp_path)
    found = store.access(key(1))
    assert found is not None
    assert len(found.shares) == 2
    assert [store.access(key(number)) for number in (2, 9)] == [None, None]
    assert len(store.unseen_access(ENTITY, "none", "", 9)) == 2
    assert list(store.unseen_access(ENTITY, "sweep", "", 9)) == [record_id(3)]
    assert store.due_shares(ENTITY, 5, 9) == [key(4)]
    assert store.unsettled(ENTITY, 9) == [key(5)]
    store.close()


def test_a_file_from_before_sharing_is_rebuilt(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / f"{NAME}.sqlite3"
    execute(path, "DROP TABLE access")
    execute(path, "UPDATE identity SET value = '1' WHERE name = 'format'")
    found, _, reasons = reopened(tmp_path)
    assert (found, len(reasons)) == ({}, 1)
    assert "another format" in reasons[0]


def statements(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that every statement is put into with which the store reads the file from now on."""
    asked: list[str] = []
    rows = store._database.rows

    def told(statement: str, values: Any = ()) -> Any:
        asked.append(statement)
        return rows(statement, values)

    monkeypatch.setattr(store._database, "rows", told)
    return asked


def test_known_shares_have_a_bounded_cache_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path, cache_records=3)
    committed(store, state(1), entry(1, due_ms=1), *(access(number) for number in range(6)))
    asked = statements(store, monkeypatch)
    for number in (3, 4, 5, 3, 9, 9, 3):
        store.access(key(number))
    assert len(asked) == 1, "the last three were in the cache, and 9 is known to be nowhere"
    store.access(key(4))
    assert len(asked) == 2
    store.get(key(1))
    store.ledger(key(1))
    assert len(asked) == 2, "shares drive out no states and entries"
    store.close()
    store = opened(tmp_path, cache_bytes=80_000)
    committed(store, *(access(number, shares=20) for number in range(40)))
    assert 0 < store._access_cache.bytes <= 10_000
    store.close()


def test_due_and_unseen_shares_are_found_by_an_index(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, access(1), entry(1, shares_due_ms=1, feed=1))
    values = {"object": 1, "after": "", "job": 1, "limit": 9}
    for statement, given in (
        (tables.SHARES_DUE, (1, 5, 9)),
        (tables.UNSETTLED, (1, 9)),
        (tables.UNSEEN_ACCESS, values),
    ):
        plan = [row[3] for row in store._database.rows(f"EXPLAIN QUERY PLAN {statement}", given)]
        # Only entries that are due at the same moment are sorted.
        sorted_whole = [step for step in plan if "TEMP B-TREE" in step and "RIGHT PART" not in step]
        assert not [step for step in plan if step.startswith("SCAN")] + sorted_whole, plan
        assert any("INDEX" in step for step in plan)
    store.close()


def test_what_is_expected_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    committed(store, *(state(number) for number in range(150)), entry(7, due_ms=1))
    store.close()
    store = opened(tmp_path)
    store.put(state(3, version=9))
    asked = statements(store, monkeypatch)
    expected = [key(number) for number in range(160)]
    store.expect(expected)
    assert len(asked) == 4, "two statements for a hundred records"
    store.expect(expected)
    for each in expected:
        assert (store.get(each) is None) == (each[1] >= record_id(150))
        assert (store.ledger(each) is None) == (each != key(7))
    assert len(asked) == 4
    store.close()


def test_only_the_latest_scans_are_remembered(tmp_path: Path) -> None:
    store = opened(tmp_path)
    committed(store, state(1))
    for job in range(8):
        store.see(ENTITY, [record_id(1)], f"job{job}")
    remembered = [job for job in range(8) if not store.unseen(ENTITY, f"job{job}", "", 9)]
    assert remembered == [4, 5, 6, 7]
    assert store._database.rows("SELECT count(*) FROM seen") == [(4,)]
    store.close()


def test_the_directory_comes_from_the_settings_or_systemd_or_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    systemd = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}
    assert store_directory(Path("~/here"), systemd) == tmp_path / "here"
    assert store_directory(None, systemd) == Path("/var/lib/a")
    assert store_directory(None, {}) == tmp_path / ".local/state/session-consumer"
