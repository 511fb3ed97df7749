"""`disstream serve` in a process of its own: it says where it answers, keeps what it stored, and ends when told."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from disstream.cli import main
from disstream.errors import StorageError


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and the line it printed."""
    command = [sys.executable, "-m", "disstream", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Exit code, and what it printed after its first line."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def invoke(url: str, *arguments: str, text: bytes = b"") -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments, "--endpoint", url], input=text)


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """One line on standard output, logs on the other; SIGTERM and SIGINT exit with 0; the data directory keeps all."""
    data = str(tmp_path / "data")
    with serving("--data-dir", data) as (process, line):
        word, url, *rest = line.split()
        assert word == "serving"
        assert url.startswith("http://127.0.0.1:")
        assert data in " ".join(rest)
        assert "fsync" in line
        assert invoke(url, "stream", "create", "kept", "--partitions", "2").exit_code == 0
        assert invoke(url, "produce", "kept", text=b"a\nb\nc\n").stdout == "sent 3, stored 3, failed 0\n"
        code, out, err = stop(process, signal.SIGTERM)
        assert (code, out) == (0, "")
        assert "Traceback" not in err
    with serving("--data-dir", data, "--durability", "relaxed") as (process, line):
        assert "relaxed" in line
        rows = invoke(line.split()[1], "consume", "kept", "--no-follow", "--format", "raw").stdout.split()
        assert sorted(rows) == ["a", "b", "c"]
        assert stop(process, signal.SIGINT)[:2] == (0, "")


def test_memory_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--memory says so and makes no file where it was started."""
    monkeypatch.chdir(tmp_path)
    with serving("--memory") as (process, line):
        assert "memory" in line
        assert stop(process, signal.SIGTERM)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """The second server on a port names it in one line and does not exit with 0."""
    with serving("--memory") as (_, line):
        port = line.split()[1].rpartition(":")[2]
        result = click.testing.CliRunner().invoke(main, ["serve", "--memory", "--port", port])
        assert result.exit_code in (1, 2)
        assert port in result.stderr
        assert "Traceback" not in result.output


def test_a_server_that_dies_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the work in the background fails, serve does not linger without a port: one line and exit code 1."""

    async def fail(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr("disstream.server.server.keep_trimming", fail)
    result = click.testing.CliRunner().invoke(main, ["serve", "--memory", "--port", "0"])
    assert result.exit_code == 1
    assert "the disk is gone" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--memory", "--data-dir", "x"), "--memory"),
        (("--memory", "--host", "0.0.0.0"), "0.0.0.0"),
        (("--port", "70000"), "70000"),
        (("--durability", "none"), "none"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], told: str) -> None:
    """What cannot be served is refused with exit code 2 before anything starts."""
    result = click.testing.CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2
    assert told in result.stderr
