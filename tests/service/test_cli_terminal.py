"""On a terminal the commands draw: tables with headers, progress on standard error."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

from disstream.server import Server


def on_terminal(*arguments: str) -> str:
    """What a command shows when both outputs are a terminal; it must exit with 0."""
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
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
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
    on_terminal("stream", "create", "orders", "--partitions", "2", *endpoint)
    listed = on_terminal("stream", "list", *endpoint)
    assert "RETENTION (h)" in listed
    assert "orders" in listed
    described = on_terminal("stream", "describe", "orders", *endpoint)
    assert "LAST HASH KEY" in described
    assert "RUNNING, COMMON, BLOB, kept 24 h" in described


def test_the_demo_draws_its_progress(tmp_path: Path) -> None:
    """Three bars while it runs, and the report at the end."""
    file = tmp_path / "x.csv"
    file.write_text("k,n\n" + "".join(f"{i % 7},{i}\n" for i in range(1000)))
    shown = on_terminal("demo", str(file), "--key", "k")
    for bar in ("sent", "acknowledged", "received"):
        assert bar in shown
    assert "PASSED" in shown
