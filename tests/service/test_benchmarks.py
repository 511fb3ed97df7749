"""What compares with other clients, and with what is written by hand, runs with nothing but disstream installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
VERSUS = BENCHMARKS / "peers" / "versus.py"


def test_the_peers_that_are_there_compete(tmp_path: Path) -> None:
    """Ours and the ceiling take turns and are compared; who cannot take part is told with the remedy."""
    file = tmp_path / "peers.json"
    done = subprocess.run(
        [
            *(sys.executable, VERSUS, "--rounds", "2", "--seconds", "0.02", "--json", file),
            *("--only", "ceiling", "send", "redis-py blocking, always"),
            *("--redis-server", "no-such-program", "--venvs", tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    told = json.loads(file.read_text())
    assert {name: len(turns) for name, turns in told["turns"].items()} == {"ceiling": 2, "send": 2, "send_many": 2}
    assert all(turn["rate"] > 0 and turn["records"] == 10_000 for turns in told["turns"].values() for turn in turns)
    assert "make bench-peers" in told["skipped"]["redis-py blocking, always"]
    assert "| send | " in done.stdout
    assert "redis-py blocking, always took no part" in done.stdout


def test_readers_are_compared(tmp_path: Path) -> None:
    """Each way reads everything and is compared with both ceilings; without the SDK it is told how to get it."""
    script = str(BENCHMARKS / "consumer_ceiling.py")
    command = [sys.executable, script, "--records", "9000", "--rounds", "1", "--venvs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4_000:]
    rows = {line[:19].strip(): line[19:].split() for line in done.stdout.splitlines()[2:]}
    ways = ["ceiling", "ceiling in columns", "fetch", "async for", "fetch as JSON", "async for as JSON"]
    assert list(rows)[:-1] == ways
    assert all(float(rows[way][0].replace(",", "")) > 0 for way in ways)
    assert rows["ceiling"][4] == rows["ceiling in columns"][5] == "1.00"
    assert "huaweicloudsdkdis took no part: `make bench-peers` installs it" in done.stdout


@pytest.mark.parametrize(("service", "end"), [("refuses", "not stored"), ("silent", "unknown")])
def test_memory_in_an_outage_is_measured(service: str, end: str, tmp_path: Path) -> None:
    """Three cycles of the buffer on the virtual clock: what was resident, the ends of records, and the verdict."""
    file = tmp_path / "outage.json"
    script = str(BENCHMARKS / "outage.py")
    short = ["--seconds", "360", "--senders", "3", "--service", service, "--json", str(file)]
    done = subprocess.run([sys.executable, script, *short], capture_output=True, text=True, timeout=120)
    told = json.loads(file.read_text())
    assert [at for at, _ in told["most_resident_mb"]] == [120.0, 240.0, 360.0]
    assert all(mb > told["before_mb"] / 2 > 0 for _, mb in told["most_resident_mb"])
    assert told["ends"][end] >= 6_000
    flat = told["swing"] <= 0.05
    assert f"flat within 5%: {'yes' if flat else 'NO'}" in done.stdout
    assert done.returncode == (not flat), done.stderr[-4_000:]


@pytest.mark.parametrize(
    ("script", "arguments", "titles"),
    [
        ("engine.py", ["--seconds", "0.04", "--rounds", "1"], ["append", "read, pages", "an append has"]),
        ("forms.py", ["--seconds", "0.001"], ["payload", "decoding"]),
        ("flat.py", ["--gigabytes", "0.02", "--megabytes", "5", "--rounds", "1"], ["call"]),
        ("server_cpu.py", ["--requests", "20", "--rounds", "1", "--only", "columns, 1"], ["500 records"]),
        pytest.param(
            "scale.py",
            ["--streams", "2", "20", "--partitions", "2", "--rounds", "1"],
            ["streams x"],
            marks=pytest.mark.long,
        ),
    ],
)
@pytest.mark.long
def test_the_engine_and_the_server_are_measured(
    script: str, arguments: list[str], titles: list[str], tmp_path: Path
) -> None:
    """Each checks what it times and prints its tables, whose cells are all there."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(tmp_path / "told.json")]
    if script != "forms.py":
        command += ["--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4_000:]
    lines = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    heads = [line for line in lines if any(line[0].strip().startswith(title) for title in titles)]
    assert len(heads) == len(titles)
    assert len(lines) >= 3 * len(titles)
    assert {len(line) for line in lines} == {len(head) for head in heads}
    assert "origin" in json.loads((tmp_path / "told.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["told.json"]


@pytest.mark.long
def test_workers_are_measured(tmp_path: Path) -> None:
    """Puts and gets in both forms, with one process and with two workers; all that it acknowledged is there."""
    script = str(BENCHMARKS / "workers.py")
    command = [sys.executable, script, "--rounds", "1", "--seconds", "0.05", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4_000:]
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if line.startswith("│")
    ]
    assert [row[:2] for row in rows] == [
        [kind, workers] for kind in ("put, JSON", "put, columns", "get, JSON", "get, columns") for workers in ("1", "2")
    ]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
