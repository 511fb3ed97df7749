"""`disstream serve` in a process of its own: it says where it answers, keeps what it stored, and ends when told."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
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
        assert "power failure" not in line + err
    with serving("--data-dir", data, "--durability", "relaxed", "--sync-interval-ms", "250") as (process, line):
        assert "relaxed: a power failure may take the last 0.25 s" in line
        rows = invoke(line.split()[1], "consume", "kept", "--no-follow", "--format", "raw").stdout.split()
        assert sorted(rows) == ["a", "b", "c"]
        code, out, err = stop(process, signal.SIGINT)
        assert (code, out) == (0, "")
        assert "WARNING disstream.server: durability is relaxed: a power failure takes" in err
        assert "the last 0.25 s" in err


def test_a_sync_interval_takes_relaxed(tmp_path: Path) -> None:
    """--sync-interval-ms where it would mean nothing is refused, and the help tells what relaxed costs."""
    for arguments in (["--data-dir", str(tmp_path / "d")], ["--memory"], ["--memory", "--durability", "relaxed"]):
        result = click.testing.CliRunner().invoke(main, ["serve", "--sync-interval-ms", "250", *arguments])
        assert result.exit_code == 2
        assert "--durability relaxed" in result.stderr
    assert not (tmp_path / "d").exists()
    told = click.testing.CliRunner().invoke(main, ["serve", "--help"]).stdout
    assert "power failure takes what was acknowledged in the last --sync-interval-ms" in " ".join(told.split())


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


CONFIG = """\
[[projects]]
id = "p1"
name = "cn-north-1"
domain = "acme"
[[users]]
name = "alice"
domain = "acme"
password = "PASS-word-1"
projects = ["p1"]
access_keys = [{ ak = "AK1", sk = "SECRET-key-1" }]
[limits]
max_fetch_bytes = 3000000
[engine]
data_dir = "from-file"
[server]
port = 1
"""


def test_a_configuration_file(tmp_path: Path) -> None:
    """Users must sign in; options beat the file, which beats the defaults; no secret is printed."""
    path = tmp_path / "server.toml"
    path.write_text(CONFIG)
    path.chmod(0o600)
    with serving("--config", str(path)) as (process, line):
        url = line.split()[1]
        assert str(tmp_path / "from-file") in line
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/v2/p1/streams", timeout=10)
        with refused.value as answer:
            assert answer.code == 401
            assert json.load(answer)["error_code"] == "DIS.4101"
        code, out, err = stop(process, signal.SIGTERM)
        assert (code, out) == (0, "")
        assert "PASS-word-1" not in line + err
        assert "SECRET-key-1" not in line + err
    kept = tmp_path / "from-file"
    assert not any(found.stat().st_mode & 0o077 for found in (kept, *kept.iterdir()))  # others read no record on disk
    with serving("--config", str(path), "--memory", "--host", "0.0.0.0") as (process, line):
        assert line.startswith("serving http://0.0.0.0:")
        assert "memory" in line
        assert "no TLS" in stop(process, signal.SIGTERM)[2]


def test_an_insecure_bind_is_told() -> None:
    """Without users, an address others can reach takes the word for it, and standard error warns."""
    with serving("--memory", "--host", "0.0.0.0", "--insecure-bind") as (process, line):
        assert line.split()[0] == "serving"
        assert line.split()[1].startswith("http://0.0.0.0:")
        code, out, err = stop(process, signal.SIGTERM)
        assert (code, out) == (0, "")
        assert "WARNING" in err
        assert "no users" in err


def test_limits_of_the_service() -> None:
    """--limits service refuses what the service would."""
    with serving("--memory", "--limits", "service") as (_, line):
        url = line.split()[1]
        assert "DIS.4308" in invoke(url, "stream", "create", "wide", "--partitions", "51").stderr
        assert invoke(url, "stream", "create", "wide", "--partitions", "50").exit_code == 0


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        (CONFIG.replace("password", "pasword"), 0o600, "server.toml:8: unknown key 'pasword' in [users]"),
        (CONFIG, 0o644, "chmod 600"),
        ("[", 0o600, "server.toml:1: not TOML"),
        (None, 0, "No such file"),
    ],
)
def test_a_wrong_configuration_file(tmp_path: Path, content: str | None, mode: int, told: str) -> None:
    """One line with the file and the line, exit code 2, no secret."""
    path = tmp_path / "server.toml"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    result = click.testing.CliRunner().invoke(main, ["serve", "--memory", "--config", str(path)])
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "PASS-word-1" not in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--memory", "--data-dir", "x"), "--memory"),
        (("--memory", "--limits", "all"), "all"),
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
