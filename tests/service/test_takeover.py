"""The second part of the demo: a worker that is killed costs nothing but time and a bounded number of repetitions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anyio
import click.testing
import pytest

from disstream.bench.flights import Row
from disstream.bench.report import takeover_lines
from disstream.bench.takeover import Takeover, TakeoverReport
from disstream.cli import main


@pytest.fixture(scope="module")
def report() -> TakeoverReport:
    """Of one real run: three processes, a short session, little traffic."""
    rows = [Row(b'{"row":%d}' % number, f"k{number % 50}") for number in range(2000)]
    return anyio.run(Takeover(rows, pace_s=5.0, session_timeout_s=1.5).run)


def test_nothing_is_lost_and_the_survivor_goes_on(report: TakeoverReport) -> None:
    """All is handled, in order; the survivor has what the victim had, after the session time-out."""
    assert report.good, report
    assert (report.acknowledged, report.findings.missing, report.findings.reordered) == (2000, 0, 0)
    assert len(report.begins_s) == report.orphans > 0
    assert min(report.begins_s.values()) > 0.5


def test_the_report_tells_it(report: TakeoverReport) -> None:
    """Who was killed, who took over, what was repeated and how much it may have been; the verdict is last."""
    lines = [line.strip() for line in takeover_lines(report)]
    assert any(line.startswith("killed") and report.victim in line for line in lines)
    assert any(line.startswith("taken over        after") and report.survivor in line for line in lines)
    assert "missing           0" in lines
    assert any(line.startswith(f"duplicates        {report.repeated:,}; at most {report.bound:,}: ") for line in lines)
    assert lines[-1].startswith("PASSED")


@pytest.mark.long
def test_the_command_draws_it(tmp_path: Path) -> None:
    """`disstream demo` shows both parts, with a chart and a picture; where that cannot be drawn it says so."""
    orders = tmp_path / "orders.csv"
    orders.write_text("customer,n\n" + "".join(f"c{number % 20},{number}\n" for number in range(500)))
    png = tmp_path / "new" / "picture.png"
    arguments = ["demo", str(orders), "--key", "customer", "--pace-s", "2", "--png", str(png)]
    result = click.testing.CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("PASSED") == 2
    assert "killed at" in result.stdout
    if importlib.util.find_spec("matplotlib"):
        assert png.read_bytes().startswith(b"\x89PNG")
        assert str(png) in result.stdout
    else:
        assert "takes matplotlib" in result.stderr
