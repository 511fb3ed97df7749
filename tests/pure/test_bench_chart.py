"""Proves that the chart shows what happened, in every width, and keeps within it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.bench.chart import Chart, chart_lines, rates, scale

EVENTS = {
    "worker-1": [(n / 10, 100) for n in range(100)],
    "worker-2": [*((n / 10, 100) for n in range(200)), (15.0, 20_000)],
}
KILLED = Chart(duration_s=20.0, events=EVENTS, marks={"worker-1 killed": 10.0, "taken over": 15.0})


def test_the_kill_can_be_seen() -> None:
    """The victim's part is filled up to the mark and empty behind it; the peak is told as a number."""
    lines = list(chart_lines(KILLED, width=100))
    part = [line.partition("│")[2] for line in lines[:5]]  # the first worker's
    before, after = part[-1][:38], part[-1][44:]
    assert set(before) <= set("▁▂▃▄▅▆▇█")
    assert after.strip(" │") == ""
    assert any("worker-1 killed at 10.0 s" in line for line in lines)
    assert any("taken over at 15.0 s" in line for line in lines)
    assert any("beyond the scale: up to" in line for line in lines)


@given(st.integers(40, 250), st.booleans(), st.booleans())
def test_lines_keep_within_the_width(width: int, unicode: bool, colour: bool) -> None:
    """With and without colours; without unicode there are only ASCII characters."""
    lines = list(chart_lines(KILLED, width=width, unicode=unicode, colour=colour))
    for line in lines:
        plain = line.replace("\x1b[0m", "")
        for code in (36, 33):
            plain = plain.replace(f"\x1b[{code}m", "")
        assert len(plain) <= max(width, 64)
        assert unicode or line.isascii()


@given(
    st.lists(st.tuples(st.floats(-1, 30), st.integers(0, 10**6)), max_size=50), st.floats(0.1, 25), st.integers(1, 200)
)
def test_no_record_is_left_out(events: list[tuple[float, int]], duration_s: float, bins: int) -> None:
    """The rates add up to what was handled, wherever it falls."""
    total = sum(rate * duration_s / bins for rate in rates(events, duration_s, bins))
    assert abs(total - sum(count for _, count in events)) < 1e-3 * max(1, total)


def test_one_peak_does_not_flatten_everything_else() -> None:
    """The scale is that of the usual rates; with nothing at all there still is one."""
    assert scale([[100.0] * 19 + [10_000.0]]) == 150
    assert scale([[100.0, 90.0]]) == 100
    assert scale([[], [0.0]]) == 1.0


def test_nothing_handled_is_no_error() -> None:
    """An empty run has an empty chart."""
    assert list(chart_lines(Chart(duration_s=0.0, events={}, marks={}), width=80)) == []
    assert list(chart_lines(Chart(duration_s=1.0, events={"a": []}, marks={}), width=80))
