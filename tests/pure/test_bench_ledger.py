"""Proves that what several workers reported is put together truthfully: nothing hidden, nobody accused."""

from __future__ import annotations

from disstream.bench.check import Sent
from disstream.bench.flights import Row
from disstream.bench.ledger import Assigned, Handled, Ledger, Lot

ROWS = [Row(b'{"row":%d}' % n, f"k{n % 2}") for n in range(8)]


def ledger(*lines: tuple[str, Handled | Assigned]) -> Ledger:
    book = Ledger(Sent.of(ROWS))
    for worker, line in lines:
        book.add(worker, line)
    return book


def handled(at: float, first: int, numbers: list[int], partition: str = "p") -> Handled:
    return Handled(at, [Lot(partition, first, numbers)])


def test_a_take_over_that_repeats_is_told_as_duplicates() -> None:
    """The survivor begins at the last commit: what lies between is counted once more, and is no violation of order."""
    book = ledger(
        ("a", Assigned(0.0, "a", 1, ["p"])),
        ("a", handled(1.0, 0, [0, 1, 2])),
        ("a", handled(2.0, 3, [3, 4])),
        ("b", handled(7.0, 3, [3, 4, 5])),
        ("b", handled(8.0, 6, [6, 7])),
    )
    found = book.findings()
    assert (found.missing, found.duplicates, found.reordered, found.good) == (0, 2, 0, True)
    assert book.succession("a", 3.0) == ({"p": 4.0}, [])
    assert book.written_twice() == 0
    assert book.reached({"p": 8})
    assert not book.reached({"p": 9})


def test_what_nobody_handled_is_missing() -> None:
    """Also where the survivor skipped it; that partition is named."""
    book = ledger(
        ("a", Assigned(0.0, "a", 1, ["p"])), ("a", handled(1.0, 0, [0, 1, 2])), ("b", handled(7.0, 4, [4, 5, 6, 7]))
    )
    assert book.findings().missing == 1
    assert book.succession("a", 3.0).skipped == ["p"]


def test_what_the_leaving_worker_finished_behind_the_signal_counts_as_its_own() -> None:
    """A worker that is told to end still handles what it has in hand: the next one begins behind that."""
    book = ledger(
        ("a", Assigned(0.0, "a", 1, ["p"])),
        ("a", handled(1.0, 0, [0, 1])),
        ("a", handled(3.1, 2, [2, 3])),
        ("b", handled(3.2, 4, [4, 5, 6, 7])),
    )
    assert book.succession("a", 3.0).skipped == []
    assert book.findings().good


def test_order_is_checked_over_all_workers_by_time() -> None:
    """Lines come in any order; a record of a key that is handled first behind a later one is counted."""
    late = ("b", handled(1.0, 0, [0, 1]))
    early = ("a", handled(0.5, 2, [2, 3], partition="q"))
    rest = ("a", handled(2.0, 4, [4, 5, 6, 7]))
    assert ledger(early, late, rest).findings().reordered == 2
    assert ledger(rest, early, late).findings().reordered == 2


def test_what_stands_in_the_stream_twice_is_not_the_workers_doing() -> None:
    """The same record at two places, each handled once."""
    book = ledger(("a", handled(1.0, 0, [0, 1, 1, 2, 3, 4, 5, 6, 7])))
    assert book.findings().duplicates == 1
    assert book.written_twice() == 1


def test_a_partition_that_nobody_took_over_is_not_in_the_answer() -> None:
    """And what its former owner does later is no take-over."""
    book = ledger(("a", Assigned(0.0, "a", 1, ["p", "q"])), ("a", handled(1.0, 0, [0])), ("a", handled(9.0, 1, [1])))
    assert book.succession("a", 3.0) == ({}, [])
    assert book.owned("a") == {"p", "q"}
    assert book.owned("a", at=-1.0) == frozenset()


def test_silence_and_the_busiest_moment() -> None:
    """Both count within the time that is asked for."""
    book = ledger(
        ("a", handled(1.0, 0, [0, 1])),
        ("a", handled(1.4, 2, [2])),
        ("a", handled(6.0, 3, [3])),
        ("b", handled(6.5, 4, [4])),
    )
    assert book.busiest("a", 0.5) == 3
    assert book.busiest("a", 10.0, until=1.2) == 2
    assert book.silence_s(0.0) == 4.6
    assert book.silence_s(6.2) == 0.5
    assert book.silence_s(0.0, ["b"]) == 0.0


def test_damage_is_taken_from_the_last_word_of_each_worker() -> None:
    """It is counted from the start of a worker, not per line."""
    book = ledger(("a", Handled(1.0, [], 1, 0)), ("a", Handled(2.0, [], 2, 1)), ("b", Handled(1.5, [], 0, 4)))
    found = book.findings()
    assert (found.rekeyed, found.changed) == (2, 5)


def test_partitions_are_inherited_when_others_hold_all_of_them() -> None:
    """Whether or not a record of them comes; what others held before the failure is no inheritance."""
    book = ledger(
        ("a", Assigned(0.0, "a", 1, ["p", "q"])),
        ("b", Assigned(1.0, "b", 2, ["p"])),
        ("a", Assigned(2.0, "a", 3, ["p", "q"])),
        ("b", Assigned(9.0, "b", 4, ["q"])),
    )
    assert book.inherited_s("a", 3.0) is None
    book.add("b", Assigned(9.5, "b", 5, ["p", "q"]))
    assert book.inherited_s("a", 3.0) == 6.5
