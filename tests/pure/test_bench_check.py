"""The checker behind demo and bench sees each kind of damage, and the report says so."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.bench.check import Checker, Findings, Sent
from disstream.bench.demo import DemoReport
from disstream.bench.laps import Lap, Plan, Result, median
from disstream.bench.machine import Origin
from disstream.bench.report import bars, bench_lines, demo_lines


def look(keys: Sequence[str | None], numbers: Sequence[int]) -> Findings:
    """What a checker finds when `numbers` come back of records that were sent with `keys`, as they were sent."""
    checker = Checker(Sent.of((b"%d" % number, key) for number, key in enumerate(keys)))
    for number in numbers:
        checker.add(number, keys[number] if 0 <= number < len(keys) else None, b"%d" % number)
    return checker.findings()


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=40), st.randoms(use_true_random=False))
def test_any_interleaving_of_ordered_keys_is_good(keys: list[str | None], dice: random.Random) -> None:
    """Records may come in any order as long as each key keeps its own; repetitions are duplicates and nothing else."""
    lanes: dict[object, list[int]] = {}
    for number, key in enumerate(keys):
        lanes.setdefault(key if key is not None else number, []).append(number)
    seen: list[int] = []
    while lanes:
        lane = dice.choice(list(lanes))
        seen.append(lanes[lane].pop(0))
        if not lanes[lane]:
            del lanes[lane]
        if dice.random() < 0.2:
            seen.append(dice.choice(seen))
    found = look(keys, seen)
    assert found.good
    assert found.duplicates == len(seen) - len(keys)


def test_damage_is_seen() -> None:
    """A missing record, one that overtook another of its key, and one that was never sent are each counted."""
    assert look("aaa", [0, 2]).missing == 1
    swapped = look("aaa", [0, 2, 1])
    assert (swapped.reordered, swapped.missing, swapped.good) == (1, 0, False)
    assert look(["b", "a", None], [1, 0, 2]).reordered == 0
    foreign = look("a", [0, 1, -1])
    assert (foreign.foreign, foreign.good) == (2, False)


@pytest.mark.parametrize(
    ("number", "key", "data", "damage"),
    [
        (1, None, b"1", {"rekeyed": 1}),
        (1, "b", b"1", {"rekeyed": 1}),
        (0, "a", b"0", {"rekeyed": 1}),
        (1, "a", b"1\0", {"changed": 1}),
        (1, "b", b"", {"changed": 1, "rekeyed": 1}),
        (None, "a", b"1", {"foreign": 1}),
    ],
)
def test_a_record_that_was_not_sent_like_that_is_seen(
    number: int | None, key: str | None, data: bytes, damage: dict[str, int]
) -> None:
    """A key that was dropped, exchanged or invented, other bytes, no number: each makes the run bad, even in a
    repetition of a record that came as it was sent.
    """
    checker = Checker(Sent.of([(b"0", None), (b"1", "a")]))
    checker.add(0, None, b"0")
    checker.add(1, "a", b"1")
    assert checker.findings().good
    checker.add(number, key, data)
    found = checker.findings()
    assert {name: getattr(found, name) for name in ("rekeyed", "changed", "foreign")} == {
        "rekeyed": 0,
        "changed": 0,
        "foreign": 0,
        **damage,
    }
    assert not found.good


def test_order_is_that_of_the_keys_that_were_sent() -> None:
    """Dropping the keys does not hide that records of a key were exchanged."""
    checker = Checker(Sent.of([(b"0", "a"), (b"1", "a")]))
    for number in (1, 0):
        checker.add(number, None, b"%d" % number)
    assert (checker.findings().reordered, checker.findings().rekeyed) == (1, 2)


GOOD = DemoReport(
    sent=2,
    acknowledged=2,
    failures={},
    findings=look(["a", None], [0, 1]),
    bytes_sent=2,
    write_s=1.0,
    bytes_read=2,
    read_s=1.0,
    latencies_s=[0.001, 0.002],
    partitions={"p0": 2, "p1": 0},
    keys=1,
    keyed=1,
)


def test_a_good_demo_passes() -> None:
    """The verdict of a run in which everything came back is PASSED, with the figures above it."""
    text = "\n".join(demo_lines(GOOD, "x.csv"))
    assert text.splitlines()[-1].startswith("PASSED")
    assert "acknowledged      2 of 2" in text
    assert "p50 1 ms, p99 2 ms" in text


@pytest.mark.parametrize(
    "damage",
    [
        {"acknowledged": 1, "failures": {"expired": 1}},
        {"findings": look("aa", [0])},
        {"findings": msgspec.structs.replace(GOOD.findings, rekeyed=1)},
        {"findings": msgspec.structs.replace(GOOD.findings, changed=1)},
        {"findings": msgspec.structs.replace(GOOD.findings, foreign=1)},
    ],
)
def test_a_bad_demo_fails(damage: dict[str, object]) -> None:
    """A record that was not acknowledged, did not come back or came back as another makes the verdict FAILED."""
    report = msgspec.structs.replace(GOOD, **damage)
    assert not report.good
    assert list(demo_lines(report, "x.csv"))[-1].startswith("FAILED")


ORIGIN = Origin(
    command="c",
    machine="m",
    versions={"disstream": "1"},
    commit=None,
    began_at="2026-01-01T00:00:00+00:00",
    service="s",
)


def lap(records: int, found: Findings, seconds: float = 1.0, failed: int = 0, ordered: bool = True) -> Lap:
    return Lap(
        what="send",
        ordered=ordered,
        records=records,
        failed=failed,
        seconds=seconds,
        client_cpu_s=0.5,
        server_cpu_s=None,
        findings=found,
    )


def test_bench_counts_lost_records_and_names_the_median() -> None:
    """A lap with an acknowledged record that is not there is bad; the median is a lap that was run."""
    plan = Plan(records=2, size_bytes=8, keys=1, partitions=1, repeats=3)
    whole, lossy = look("aa", [0, 1]), look("aa", [0])
    laps = [lap(2, whole, 1.0), lap(2, whole, 2.0), lap(2, whole, 4.0)]
    result = Result(origin=ORIGIN, plan=plan, laps=laps)
    assert result.good
    assert median(laps) is laps[1]
    assert any("median of 3" in line for line in bench_lines(result))
    bad = lap(2, lossy)
    assert bad.lost == 1
    assert not Result(origin=ORIGIN, plan=plan, laps=[bad]).good
    swapped = lap(2, look("aa", [1, 0]))
    assert not Result(origin=ORIGIN, plan=plan, laps=[swapped]).good
    assert Result(origin=ORIGIN, plan=plan, laps=[lap(2, look("aa", [1, 0]), ordered=False)]).good
    for damage in ("rekeyed", "changed", "foreign"):
        altered = lap(2, msgspec.structs.replace(whole, **{damage: 1}), ordered=False)
        assert not Result(origin=ORIGIN, plan=plan, laps=[altered]).good


def test_bars() -> None:
    """They are to scale, and tell count and share."""
    assert bars({"b": 1, "aa": 3}, width=6) == [
        "aa  ██████          3   75.0%",
        "b   ██              1   25.0%",
    ]
