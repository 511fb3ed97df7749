"""Figures over something that was varied, or over time, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

COLOURS = ("#1f6f8b", "#d98324", "#4c956c", "#8e5aa8")


class Panel(msgspec.Struct, frozen=True):
    """Curves with one scale, from 0 on: what is flat must look flat."""

    y_label: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Panels below each other, over the same x."""

    x_label: str
    panels: list[Panel]
    log_x: bool = False
    bounds: Mapping[str, float] = {}
    """What changes there -> x."""


def write_png(picture: Picture, path: Path) -> None:
    """Raises ImportError without matplotlib (`pip install disstream[demo]`), OSError."""
    from matplotlib.figure import Figure  # heavy, and not everybody has it

    count = len(picture.panels)
    figure = Figure(figsize=(9.0, 0.6 + 2.4 * count), dpi=130, facecolor="white", layout="constrained")
    for panel, axes in zip(picture.panels, figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0], strict=True):
        for (name, points), colour in zip(panel.curves.items(), COLOURS, strict=False):
            marker = "o" if picture.log_x else None
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=2, marker=marker, label=name)
        for name, x in picture.bounds.items():
            axes.axvline(x, color="#444444", linestyle="--", linewidth=1.2, label=name)
        if picture.log_x:
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(panel.y_label)
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(loc="lower right", frameon=True, framealpha=0.9)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel(picture.x_label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
