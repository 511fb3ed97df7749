"""On a terminal the commands draw: tables with headers, progress on standard error."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_cli_serve import invoke

from disstream.server import Server


def on_terminal(*arguments: str, columns: int = 120) -> str:
    """What a command shows when both outputs are a terminal of so many columns; it must exit with 0."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def collect() -> None:
        try:
            while chunk := os.read(ours, 4096):
                shown.extend(chunk)
        except OSError:  # how Linux tells that nobody has the other side open any more
            return

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        code = subprocess.call(
            [sys.executable, "-m", "disstream", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
            timeout=60,
        )
    finally:
        os.close(theirs)
        reader.join(30)
        os.close(ours)
    assert code == 0, shown
    return shown.decode()


def test_streams_are_tables(disstream_server: Server) -> None:
    """list and describe have headers on a terminal, and describe a title."""
    endpoint = ("--endpoint", disstream_server.url)
    assert invoke(disstream_server.url, "stream", "create", "orders", "--partitions", "2").exit_code == 0
    listed = on_terminal("stream", "list", *endpoint)
    assert "RETENTION (h)" in listed
    assert "orders" in listed
    described = on_terminal("stream", "describe", "orders", *endpoint)
    assert "LAST HASH KEY" in described
    assert "COMMON, BLOB, kept 24 h" in described


@pytest.mark.parametrize("columns", [80, 60, 30])
def test_a_narrow_terminal_costs_no_figure(disstream_server: Server, columns: int) -> None:
    """Statuses, counters and times are whole however narrow it is; names and hash keys wrap."""
    endpoint = ("--endpoint", disstream_server.url)
    name = "orders-of-all-customers-in-the-northern-region"
    assert invoke(disstream_server.url, "stream", "create", name, "--partitions", "1").exit_code == 0
    assert invoke(disstream_server.url, "produce", name, text=b"x\n" * 12_345).exit_code == 0
    described = on_terminal("stream", "describe", name, *endpoint, columns=columns)
    assert "…" not in described
    for whole in ("shardId-0000000000", "ACTIVE", "12345"):
        assert whole in described.split()
    assert re.search(r"created \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC\r\n", described)
    listed = on_terminal("stream", "list", *endpoint, columns=columns)
    assert "…" not in listed
    assert "RUNNING" in listed.split()
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", listed)


def test_what_a_stream_may_hold(disstream_server: Server) -> None:
    """It is given in bytes or with a unit, told when it is made and by its description, and taken away again."""
    endpoint = ("--endpoint", disstream_server.url)
    made = invoke(disstream_server.url, "stream", "create", "s", "--partitions", "1", "--retention-bytes", "10MiB")
    assert made.stdout == "created s: 1 partition(s), kept 24 h or 10,485,760 bytes\n"
    for given, told in (("2000000", "or 2,000,000 bytes,"), ("3GB", "or 3,000,000,000 bytes,"), ("0", "kept 24 h,")):
        updated = invoke(disstream_server.url, "stream", "update", "s", "--retention-bytes", given)
        assert updated.stdout == "updated s\n"
        assert told in on_terminal("stream", "describe", "s", *endpoint, columns=120)


def test_records_as_a_table(disstream_server: Server, tmp_path: Path) -> None:
    """On 80 columns the data of a record is shown, and no line is longer."""
    endpoint = ("--endpoint", disstream_server.url)
    assert invoke(disstream_server.url, "stream", "create", "s", "--partitions", "1").exit_code == 0
    file = tmp_path / "lines"
    file.write_text("the data of the record\n" + "x" * 200 + "\n")
    on_terminal("produce", "s", str(file), *endpoint)
    shown = on_terminal("consume", "s", "--no-follow", "--format", "table", *endpoint, columns=80)
    assert "the data of the record" in shown
    assert max(map(len, shown.splitlines())) == 80


def test_the_demo_draws_its_progress(tmp_path: Path) -> None:
    """Three bars while it runs, and the report at the end."""
    file = tmp_path / "x.csv"
    file.write_text("k,n\n" + "".join(f"{i % 7},{i}\n" for i in range(1000)))
    shown = on_terminal("demo", str(file), "--key", "k", "--no-takeover")
    for bar in ("sent", "acknowledged", "received"):
        assert bar in shown
    assert "PASSED" in shown
