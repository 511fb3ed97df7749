"""Records per second of several workers over time: as text for a terminal, and as PNG.

Who takes over works off what waited, for a moment many times faster than the traffic is. On a scale for that moment
nothing else could be seen, so the scale is that of the traffic, and what exceeds it is marked and told as a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

ROWS = 5
"""Height of a worker's part of the chart, in lines of text."""
MIN_COLUMNS = 20
STEP_S = 0.5
"""Of the PNG: what is counted together."""

_BLOCKS = " ▁▂▃▄▅▆▇█"
_COLOURS = (36, 33, 32, 35)
"""ANSI: cyan, yellow, green, magenta; none says good or bad."""
_PNG_COLOURS = ("#1f6f8b", "#d98324", "#4c956c", "#8e5aa8")


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be seen. Seconds from the beginning."""

    duration_s: float
    events: dict[str, list[tuple[float, int]]]
    """Name -> (when, how many records)."""
    marks: dict[str, float]
    """What happened -> when."""


def rates(events: Sequence[tuple[float, int]], duration_s: float, bins: int) -> list[float]:
    """Records per second in each of `bins` equal parts of the time. What came later counts in the last one."""
    step_s = duration_s / bins
    counts = [0] * bins
    for at, count in events:
        counts[min(max(int(at / step_s), 0), bins - 1)] += count
    return [count / step_s for count in counts]


def chart_lines(chart: Chart, *, width: int, unicode: bool = True, colour: bool = False) -> Iterator[str]:
    """The chart in lines of at most `width` characters (but of what it takes at least)."""
    if chart.duration_s <= 0:
        return
    names = list(chart.events)
    margin = max(map(len, (*names, "records/s"))) + 8
    columns = max(width - margin - 2, MIN_COLUMNS)
    series = {name: rates(chart.events[name], chart.duration_s, columns) for name in names}
    top = scale(series.values())
    at = {label: min(int(s / chart.duration_s * columns), columns - 1) for label, s in chart.marks.items()}
    wall, floor, corner, above = "│─└▲" if unicode else "|-+^"
    for number, name in enumerate(names):
        for row in range(ROWS, 0, -1):
            label = f"{name:<{margin - 8}}{top:>7,.0f} " if row == ROWS else " " * margin
            cells = [_cell(rate / top * ROWS - (row - 1), unicode) for rate in series[name]]
            if row == ROWS:
                cells = [above if rate > top else cell for rate, cell in zip(series[name], cells, strict=True)]
            for column in at.values():
                cells[column] = wall if cells[column] == " " else cells[column]
            text = "".join(cells).rstrip()
            yield (label + wall + _coloured(text, number, colour)).rstrip()
        yield f"{'':<{margin - 8}}{0:>7} {corner}{floor * columns}"
    yield from (" " * (margin + 1) + line for line in (_times(chart.duration_s, columns), *_flags(chart, at, columns)))
    peak = max(max(line) for line in series.values())
    if peak > top:
        yield f"{'':<{margin + 1}}{above} beyond the scale: up to {peak:,.0f} records/s"


def scale(series: Iterable[Sequence[float]]) -> float:
    """A round number that nine in ten of the rates above 0 stay below, and all unless some are far higher."""
    ordered = sorted(rate for line in series for rate in line if rate > 0)
    if not ordered:
        return 1.0
    usual = ordered[math.ceil(len(ordered) * 0.9) - 1]
    return _round_up(min(ordered[-1], usual * 1.3))


def _cell(height: float, unicode: bool) -> str:
    """One character, of which `height` (0 to 1) is filled."""
    if unicode:
        return _BLOCKS[min(max(round(height * 8), 0), 8)]
    return "#" if height >= 0.5 else " "


def _coloured(text: str, number: int, colour: bool) -> str:
    return f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{text}\x1b[0m" if colour and text else text


def _round_up(value: float, steps: Sequence[float] = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)) -> float:
    """The next of these, or of these times ten, a hundred, ..., or divided by them. `value` is more than 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value)


def _times(duration_s: float, columns: int) -> str:
    """The axis below: about every ten columns a time, at the column it begins in."""
    step_s = max(_round_up(duration_s * 10 / columns, (1, 2, 5, 10)), 1.0)
    line = ""
    for number in range(int(duration_s / step_s) + 1):
        column = int(number * step_s / duration_s * columns)
        label = f"{number * step_s:.0f} s"
        if not line or len(line) < column <= columns - len(label):
            line = f"{line:<{column}}{label}"
    return line


def _flags(chart: Chart, at: dict[str, int], columns: int) -> Iterator[str]:
    """A line for each mark: an arrow at its column, with its words on the side where they fit."""
    for label, column in at.items():
        words = f"{label} at {chart.marks[label]:.1f} s"
        if column + 2 + len(words) <= columns:
            yield f"{'':<{column}}^ {words}"
        else:
            yield f"{words + ' ^':>{column + 1}}"


def write_png(chart: Chart, path: Path) -> None:
    """Raises ImportError without matplotlib (`pip install disstream[demo]`), OSError."""
    from matplotlib.figure import Figure  # heavy, and not everybody has it

    figure = Figure(figsize=(9.0, 3.8), dpi=130, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    bins = max(1, round(chart.duration_s / STEP_S))
    step_s = chart.duration_s / bins
    middles = [(number + 0.5) * step_s for number in range(bins)]
    series = {name: rates(events, chart.duration_s, bins) for name, events in chart.events.items()}
    top = scale(series.values())
    for number, (name, values) in enumerate(series.items()):
        colour = _PNG_COLOURS[number % len(_PNG_COLOURS)]
        axes.plot(middles, values, color=colour, linewidth=2, label=name)
        axes.fill_between(middles, values, color=colour, alpha=0.15)
        peak = max(values)
        if peak > top:
            axes.annotate(
                f"up to {peak:,.0f}",
                (middles[values.index(peak)], top),
                xytext=(8, -4),
                textcoords="offset points",
                va="top",
                fontsize=9,
                color=colour,
            )
    for label, at in chart.marks.items():
        axes.axvline(at, color="#444444", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"{label} at {at:.1f} s",
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color="#222222",
        )
    axes.set_xlim(0, chart.duration_s)
    axes.set_ylim(0, top)
    axes.set_xlabel("seconds since the first record was sent")
    axes.set_ylabel("records handled per second")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", frameon=True, framealpha=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
