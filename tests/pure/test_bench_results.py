"""Proves that what benches tell follows from their laps: prices, deviations, parts of a long run."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.bench.beside import Comparison, Turn
from disstream.bench.check import Checker, Sent
from disstream.bench.laps import Lap, Plan, Result, Way
from disstream.bench.machine import Origin
from disstream.bench.report import bench_lines, soak_lines, sweep_lines
from disstream.bench.soak import Sample, SoakResult
from disstream.bench.sweep import SUBJECTS, Point, SweepResult
from disstream.bench.timing import Spread

ORIGIN = Origin(
    command="disstream bench", machine="m", versions={"disstream": "1"}, commit="abc+", began_at="now", service="s"
)
PLAN = Plan(records=100, size_bytes=100, keys=7, partitions=2, repeats=2)
SPREAD = Spread(10, 0.001, 0.002, 0.003, 0.004, 0.005)


def lap(what: str = "send", seconds: float = 1.0, cpu_s: float = 0.001, untimed: int = 0, read: int = 100) -> Lap:
    sent = Sent.of((b"%d" % i, "k") for i in range(100 + untimed))
    checker = Checker(sent)
    for i in range(read):
        checker.add(i, "k", b"%d" % i)
    return Lap(
        what=what,
        ordered=True,
        records=100,
        failed=0,
        seconds=seconds,
        client_cpu_s=cpu_s,
        server_cpu_s=None,
        findings=checker.findings(),
        untimed=untimed,
        stall=SPREAD,
    )


def test_the_price_of_a_way_is_told() -> None:
    """Rates and processor times are compared lap by lap with the first way; stalls of the median are shown."""
    laps = [lap("send", 1.0), lap("send none", 0.5, 0.0005), lap("send", 2.0), lap("send none", 1.0, 0.0005)]
    lines = list(bench_lines(Result(origin=ORIGIN, plan=PLAN, laps=laps)))
    assert "send none: 2.00 of the records/s of send, 0.50 of its processor time on the client" in lines
    assert any(line.startswith("send none: loop late") and line.endswith("4.00     5.00") for line in lines)
    assert any("commit abc+" in line for line in lines)
    assert not any("due to receipt" in line for line in lines)


def test_what_was_due_is_told_with_the_disk_beside_it() -> None:
    """With a rate, the time to the receipt, the bench's own part of it, and what the disk takes."""
    open_loop = msgspec.structs.replace(lap(), latency=SPREAD, lateness=SPREAD)
    plan = msgspec.structs.replace(PLAN, rate=1000.0)
    lines = list(bench_lines(Result(origin=ORIGIN, plan=plan, laps=[open_loop], fsync=SPREAD)))
    assert any("1,000 records/s, each at its instant" in line for line in lines)
    for name in ("write and fsync, 10 times", "send: due to receipt", "send: due to sent"):
        (line,) = (line for line in lines if line.startswith(name))
        assert line.split()[-5:] == ["1.00", "2.00", "3.00", "4.00", "5.00"]


def test_untimed_records_can_be_lost_too() -> None:
    """What was sent before the clock started does not count in the rate, but must be there."""
    assert lap(untimed=20, read=120).good
    assert lap(untimed=20, read=119).lost == 1
    assert lap(untimed=20, read=120).rate == 100


def test_ways_are_named() -> None:
    """The usual order goes without saying."""
    assert [str(Way("send", "key")), str(Way("receipts", "none"))] == ["send", "receipts none"]


def test_the_deviation_is_that_of_remembered_keys() -> None:
    """Costs are compared around the middle of the cheapest and the dearest; beyond the cache they are told apart."""
    costs = {1: 0.0010, 100: 0.0008, 10_000: 0.0012, 100_000: 0.0100}
    points = [Point(value, [lap(cpu_s=cost)]) for value, cost in costs.items()]
    result = SweepResult(origin=ORIGIN, subject="keys", plan=PLAN, points=points)
    assert result.deviation() == pytest.approx((-0.2, 0.2))
    lines = list(sweep_lines(result))
    assert any("-20% to +20%" in line for line in lines)
    assert [line.split()[0] for line in lines if "beyond the 65,536 keys" in line] == ["100,000"]
    assert result.good
    assert not msgspec.structs.replace(result, points=[Point(1, [lap(read=99)])]).good


def test_a_sweep_changes_one_thing() -> None:
    """The rest of the plan stays, but for the keys that a thousand partitions need, and the length of large laps."""
    assert SUBJECTS["keys"].applied(PLAN, 5) == msgspec.structs.replace(PLAN, keys=5)
    assert SUBJECTS["partitions"].applied(PLAN, 5) == msgspec.structs.replace(PLAN, partitions=5, keys=10_000)
    plan = msgspec.structs.replace(PLAN, records=1_000_000)
    assert SUBJECTS["size"].applied(plan, 1_000_000) == msgspec.structs.replace(plan, size_bytes=1_000_000, records=60)
    assert SUBJECTS["size"].applied(plan, 10) == msgspec.structs.replace(plan, size_bytes=10)


def test_the_parts_of_a_soak() -> None:
    """Ten equal parts; the last is compared with the first; what the service holds must be what it acknowledged."""
    stored = [1000 * i if i <= 30 else 30_000 + 900 * (i - 30) for i in range(61)]
    samples = [Sample(float(i), count, 10**7, None, i * 0.002) for i, count in enumerate(stored)]
    result = SoakResult(origin=ORIGIN, plan=PLAN, samples=samples, stored=57_000, failed=0, held=57_000, stall=SPREAD)
    parts = result.slices()
    assert [part.rate for part in parts] == [1000.0] * 5 + [900.0] * 5
    assert [part.from_s for part in parts] == [6.0 * i for i in range(10)]
    assert [part.client_us for part in parts] == pytest.approx([2.0] * 5 + [2 / 0.9] * 5)
    lines = list(soak_lines(result))
    assert "last part against the first, with the machine's drift: -10.0% records/s," in lines
    assert "processor time per record +11.1% on the client, unknown on the server" in lines
    assert "memory, the same: +0.0% of the client, unknown of the server; within 5%: yes" in lines
    assert not any("fresh client" in line for line in lines)
    assert result.good
    assert not msgspec.structs.replace(result, held=57_001).good
    assert not msgspec.structs.replace(result, failed=1).good
    panels = result.picture().panels
    assert [panel.y_label.partition(",")[0] for panel in panels] == ["records/s", "processor time a record", "memory"]
    assert [list(panel.curves) for panel in panels] == [["written"], ["client"], ["client"]]


def test_memory_that_nobody_knows_is_not_called_flat() -> None:
    """Elsewhere than on Linux."""
    samples = [Sample(float(i), 1000 * i, None, None) for i in range(11)]
    result = SoakResult(origin=ORIGIN, plan=PLAN, samples=samples, stored=1, failed=0, held=1, stall=SPREAD)
    assert "memory, the same: unknown of the client, unknown of the server; within 5%: unknown" in soak_lines(result)


def test_memory_that_grows_is_told() -> None:
    """Either side's is enough."""
    for client, server in ((1.2, 1.0), (1.0, 1.2)):
        samples = [
            Sample(float(i), 1000 * i, round(10**7 * client ** (i / 60)), round(10**7 * server ** (i / 60)))
            for i in range(61)
        ]
        result = SoakResult(origin=ORIGIN, plan=PLAN, samples=samples, stored=1, failed=0, held=1, stall=SPREAD)
        (line,) = (line for line in soak_lines(result) if line.startswith("memory"))
        assert line.endswith("within 5%: NO")


def compared(moods: list[float], age: float, server: float | None = 1.0) -> Comparison:
    """Turns of a client that costs 2 us a record, and `age` as much when it is old, on a machine with these moods;
    `server`: what a record costs the server, us."""
    fresh = [Turn(1_000_000, 0, mood, 2.0 * mood, server and server * mood) for mood in moods]
    old = [Turn(1_000_000, 0, mood * age, 2.0 * mood * age) for mood in moods]
    return Comparison(old, fresh, Turn(10, 0, 1.0, 1.0))


MOODS = st.lists(st.floats(0.5, 2.0), min_size=4, max_size=12)


@given(MOODS, MOODS, st.floats(0.5, 2.0), st.floats(0.8, 1.3), st.floats(0.9, 1.1))
def test_what_the_machine_does_is_not_taken_for_age(
    begun: list[float], ended: list[float], drift: float, age: float, other: float
) -> None:
    """However it drifts between the comparisons and within them, and whatever else tells the two apart."""
    young, aged = compared(begun, other), compared([mood * drift for mood in ended], other * age)
    result = SoakResult(
        origin=ORIGIN, plan=PLAN, samples=[], stored=0, failed=0, held=0, stall=SPREAD, young=young, aged=aged
    )
    ageing = result.ageing()
    assert ageing == pytest.approx((age - 1, 1 / age - 1))
    lines = list(soak_lines(result))
    (line,) = (line for line in lines if line.startswith("what age does to the client"))
    assert ageing is not None
    assert line.endswith("yes" if all(abs(change) <= 0.05 for change in ageing) else "NO")


def test_what_the_machine_did_is_told() -> None:
    """Fresh clients tell its drift, and what the server costs is told in what they cost; or it cannot be known."""
    both = {"young": compared([1.0] * 5, 1.0), "aged": compared([1.5] * 5, 1.0, server=1.2)}
    result = SoakResult(origin=ORIGIN, plan=PLAN, samples=[], stored=0, failed=0, held=0, stall=SPREAD, **both)
    assert result.drift() == pytest.approx(0.5)
    assert result.server_ageing() == pytest.approx(0.2)
    unseen = msgspec.structs.replace(result, aged=compared([1.5] * 5, 1.0, server=None))
    assert unseen.server_ageing() is None
    stuck = msgspec.structs.replace(both["aged"], old=[Turn(0, 5, 1.0, 1.0)] * 5)
    assert msgspec.structs.replace(result, aged=stuck).ageing() is None
    for told in (result, unseen, msgspec.structs.replace(result, aged=stuck)):
        assert list(soak_lines(told))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_soak_that_hardly_began(count: int) -> None:
    """Fewer samples than parts are no error."""
    samples = [Sample(float(i), 0, None, None) for i in range(count)]
    result = SoakResult(origin=ORIGIN, plan=PLAN, samples=samples, stored=1, failed=0, held=1, stall=SPREAD)
    assert len(result.slices()) == max(count - 1, 0)
    assert list(soak_lines(result))
    assert len(result.picture().panels) == 1
