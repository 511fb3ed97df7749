"""`disstream data` as it is typed: beside a server, without one, and on what is no data directory."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import click.testing
import pytest
from test_cli_serve import invoke, serving, stop
from test_cli_terminal import on_terminal

from disstream.cli import main
from disstream.engine.embedded.environment import FORMAT


def data(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code and both outputs."""
    done = click.testing.CliRunner().invoke(main, ["data", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stdout, done.stderr


def told(*arguments: str | Path) -> Any:
    code, out, err = data(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def consumed(url: str) -> list[str]:
    return sorted(invoke(url, "consume", "orders", "--no-follow", "--format", "raw").stdout.split())


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A data directory with 300 records in two partitions, whose server has ended."""
    directory = tmp_path / "data"
    with serving("--data-dir", str(directory)) as (process, line):
        url = line.split()[1]
        assert invoke(url, "stream", "create", "orders", "--partitions", "2").exit_code == 0
        text = "".join(f"{n}\n" for n in range(300)).encode()
        assert invoke(url, "produce", "orders", text=text).exit_code == 0
        assert invoke(url, "app", "create", "billing").exit_code == 0
        assert invoke(url, "consume", "orders", "--no-follow", "--app", "billing").exit_code == 0
        assert stop(process, signal.SIGTERM)[0] == 0
    return directory


def test_a_day_in_the_life(filled: Path, tmp_path: Path) -> None:
    """Checked, backed up beside a running server, lost, restored, compacted: the server serves what was there."""
    copy = tmp_path / "copy"
    with serving("--data-dir", str(filled)) as (process, line):
        found = told("check", filled)
        assert (found["findings"], found["server"], found["rows"]) == ([], process.pid, 300)
        assert found["documents"] > 3
        code, out, _ = data("backup", filled, copy)
        assert code == 0
        assert out.startswith(f"copied {filled} to {copy}: ")
        assert f"format {FORMAT}, beside process {process.pid}" in out
        assert told("stats", filled)["server"] == process.pid
        before = consumed(line.split()[1])
        assert len(before) == 300
        code, _, err = data("compact", filled)
        assert (code, err.count("\n")) == (1, 1)
        assert "stop it first" in err
        process.kill()
    (filled / "data.mdb").write_bytes((filled / "data.mdb").read_bytes()[:5000])
    code, out, err = data("check", filled)
    assert code == 1
    assert "pages damaged" in err
    assert "restore a backup" in out
    assert data("restore", copy, filled)[0] == 1  # not without --force
    assert told("restore", copy, filled, "--force")["target_bytes"] == (copy / "data.mdb").stat().st_size
    code, out, err = data("check", filled)
    assert (code, out) == (0, "")
    assert "clean" in err
    assert told("compact", filled)["format"] == FORMAT
    with serving("--data-dir", str(filled)) as (process, line):
        assert consumed(line.split()[1]) == before
        lag = invoke(line.split()[1], "app", "lag", "billing", "orders").stdout
        assert lag.split()[-1] == "0"


def test_stats(filled: Path) -> None:
    """One line a partition in a pipe, by the stream's name; the figures of the file in JSON."""
    code, out, err = data("stats", filled)
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [(row[0], row[1]) for row in rows] == [("demo/orders", "0"), ("demo/orders", "1")]
    assert sum(int(row[2]) for row in rows) == 300
    assert sum(int(row[3]) for row in rows) == sum(len(str(n)) for n in range(300))
    figures = told("stats", filled)
    assert figures["file_bytes"] == (filled / "data.mdb").stat().st_size
    assert figures["pages"] == figures["live_pages"] + figures["free_pages"]
    assert figures["free_pages"] >= 0
    assert [table["name"] for table in figures["tables"]][:3] == ["meta", "partitions", "batches"]
    assert (figures["server"], figures["readers"]) == (None, [])


@pytest.mark.long
def test_on_a_terminal(filled: Path, tmp_path: Path) -> None:
    """Tables have headers, and who watches sees what is done."""
    shown = on_terminal("data", "stats", str(filled), columns=150)
    for text in ("ROWS A BATCH", "demo/orders", "nobody serves from it", "free", "the disk has"):
        assert text in shown
    assert "copied" in on_terminal("data", "backup", str(filled), str(tmp_path / "copy"))


def test_what_is_no_data_directory(tmp_path: Path) -> None:
    """One line that says what to name instead, exit code 1, and nothing is made. Without a directory: bad usage."""
    for command in (["stats"], ["backup", "--force"]):
        more = [tmp_path / "other"] if command[0] == "backup" else []
        code, out, err = data(*command, tmp_path, *more)
        assert (code, out, err.count("\n")) == (1, "", 1), command
        assert "no data.mdb in it: name the directory" in err
        assert data(command[0])[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_findings_are_lines(filled: Path) -> None:
    """In a pipe a finding is one line: stream id, partition, rows, what, remedy."""
    path = filled / "data.mdb"
    content = path.read_bytes()
    at = content.rindex(b"1" + b"2" + b"3")
    path.write_bytes(content[:at] + b"x" + content[at + 1 :])
    code, out, err = data("check", filled)
    assert code == 1
    assert "finding(s)" in err
    for line in out.splitlines():
        stream_id, partition, rows, what, remedy = line.split("\t")
        assert len(stream_id) == 19
        assert partition in "01"
        assert "-" in rows
        assert "checksum" in what
        assert "disstream app reset" in remedy
