"""`disstream bench` counts only what was acknowledged, verifies it, and tells what it ran on."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest

from disstream.cli import main
from disstream.client import Records
from disstream.model import Cursor, Page, Record
from disstream.server import Server

SMALL = ("--records", "3000", "--repeats", "2", "--keys", "7")


@pytest.mark.parametrize("mode", ["send", "send_many"])
def test_produce(disstream_server: Server, tmp_path: Path, mode: str) -> None:
    """Every lap has all records acknowledged, read back, none lost, doubled or out of order; the JSON says the same."""
    file = tmp_path / "result.json"
    result = click.testing.CliRunner().invoke(
        main, ["bench", "produce", *SMALL, "--mode", mode, "--endpoint", disstream_server.url, "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    assert "median of 2" in result.stdout
    told = json.loads(file.read_text())
    assert [lap["what"] for lap in told["laps"]] == [mode, mode]
    for lap in told["laps"]:
        found = lap["findings"]
        assert lap["records"] == found["distinct"] == found["received"] == 3000
        assert found["reordered"] == found["rekeyed"] == found["changed"] == found["foreign"] == lap["failed"] == 0
        assert lap["seconds"] > 0
    assert told["plan"]["size_bytes"] == 100
    assert "Python" in told["origin"]["machine"]
    left = click.testing.CliRunner().invoke(main, ["stream", "list", "--endpoint", disstream_server.url])
    assert left.stdout == ""


def test_consume_with_a_server_of_its_own(tmp_path: Path) -> None:
    """Both ways of reading see everything; the server it started tells its processor time and is gone afterwards."""
    file = tmp_path / "result.json"
    result = click.testing.CliRunner().invoke(
        main, ["bench", "consume", *SMALL, "--data-dir", str(tmp_path / "data"), "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    laps = json.loads(file.read_text())["laps"]
    assert [lap["what"] for lap in laps] == ["fetch", "async for"] * 2
    assert {lap["findings"]["distinct"] for lap in laps} == {3000}
    assert (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["produce", "consume"])
@pytest.mark.parametrize(("damage", "column"), [("key", "other key"), ("bytes", "other bytes")])
def test_altered_records_fail(
    disstream_server: Server, command: str, damage: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that drops keys, or destroys payloads behind the record's number, is found out: exit code 1."""
    get = Records.get

    async def tampering(self: Records, cursor: Cursor, *, max_bytes: int | None = None) -> Page:
        page = await get(self, cursor, max_bytes=max_bytes)
        records = [
            Record(
                r.data if damage == "key" else r.data[:8] + bytes(len(r.data) - 8),
                r.sequence_number,
                r.timestamp,
                None if damage == "key" else r.key,
                r.stream,
                r.partition_id,
            )
            for r in page.records
        ]
        return Page(records, page.next_cursor)

    monkeypatch.setattr(Records, "get", tampering)
    result = click.testing.CliRunner().invoke(
        main, ["bench", command, "--records", "500", "--repeats", "1", "--endpoint", disstream_server.url]
    )
    assert result.exit_code == 1, result.output
    header, figures = result.stdout.splitlines()[5:7]
    assert figures[: header.index(column) + len(column)].split()[-1] == "500"


def test_wrong_use(disstream_server: Server, tmp_path: Path) -> None:
    """A data directory is for the server of its own; an endpoint that is not there is one line and exit code 1."""
    runner = click.testing.CliRunner()
    both = runner.invoke(main, ["bench", "produce", "--endpoint", disstream_server.url, "--data-dir", str(tmp_path)])
    assert both.exit_code == 2
    absent = runner.invoke(main, ["bench", "produce", *SMALL, "--endpoint", "http://127.0.0.1:9"])
    assert absent.exit_code == 1
    assert "127.0.0.1:9" in absent.stderr
