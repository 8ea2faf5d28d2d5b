"""When a batch is cut."""

from __future__ import annotations

from consumer.delivery.batching import BatchCutter


def test_an_empty_batch_is_never_due_and_takes_any_item() -> None:
    cutter = BatchCutter(10, 100, 50)
    assert cutter.empty
    assert not cutter.due(10**9)
    assert cutter.wait_ms(10**9) is None
    assert cutter.fits(1000, 10**6)


def test_count_and_bytes_fill_a_batch() -> None:
    by_count = BatchCutter(2, 100, 50)
    by_count.add(1, 1, 0)
    assert not by_count.due(0)
    by_count.add(1, 1, 0)
    assert by_count.full
    assert by_count.due(0)
    by_bytes = BatchCutter(10, 100, 50)
    by_bytes.add(1, 100, 0)
    assert by_bytes.due(0)


def test_an_event_that_does_not_fit_belongs_to_the_next_batch_whole() -> None:
    cutter = BatchCutter(10, 100, 50)
    cutter.add(8, 80, 0)
    assert cutter.fits(2, 20)
    assert not cutter.fits(3, 20)
    assert not cutter.fits(2, 21)
    cutter.restart()
    assert cutter.fits(3, 20)


def test_age_counts_from_the_first_item() -> None:
    cutter = BatchCutter(10, 100, 50)
    cutter.add(1, 1, 1000)
    cutter.add(1, 1, 1040)
    assert cutter.wait_ms(1040) == 10
    assert not cutter.due(1049)
    assert cutter.due(1050)
    assert cutter.wait_ms(2000) == 0
    cutter.restart()
    assert cutter.wait_ms(2000) is None


def test_a_keepalive_alone_becomes_due_by_age() -> None:
    cutter = BatchCutter(10, 100, 50)
    cutter.add(0, 0, 0)
    assert not cutter.empty
    assert not cutter.due(49)
    assert cutter.due(50)


def test_a_clock_set_back_delays_a_cut_by_one_age_at_most() -> None:
    cutter = BatchCutter(10, 100, 50)
    cutter.add(1, 1, 1_000_000)
    assert cutter.wait_ms(5) == 50
    assert cutter.due(55)


def test_without_an_age_only_count_cuts() -> None:
    cutter = BatchCutter(2, None, None)
    cutter.add(1, 10**9, 0)
    assert cutter.fits(1, 10**9)
    assert not cutter.due(10**12)
    assert cutter.wait_ms(10**12) is None
    cutter.add(1, 1, 0)
    assert cutter.due(0)
