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


def bench(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["bench", *arguments])


def test_produce(disstream_server: Server, tmp_path: Path) -> None:
    """Every lap of every mode has all records acknowledged, read back, none lost, doubled or out of order; the laps
    take turns; the JSON says the same, and where it comes from."""
    file = tmp_path / "result.json"
    modes = ["send", "receipts", "send_many"]
    chosen = [word for mode in modes for word in ("--mode", mode)]
    result = bench("produce", *SMALL, *chosen, "--endpoint", disstream_server.url, "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "median of 2" in result.stdout
    assert "receipts: loop late to its timers" in result.stdout
    told = json.loads(file.read_text())
    assert [lap["what"] for lap in told["laps"]] == modes * 2
    for lap in told["laps"]:
        found = lap["findings"]
        assert lap["records"] == found["distinct"] == found["received"] == 3000
        assert found["reordered"] == found["rekeyed"] == found["changed"] == found["foreign"] == lap["failed"] == 0
        assert lap["seconds"] > 0
        assert lap["stall"]["count"] > 0
    assert told["plan"]["size_bytes"] == 100
    assert "Python" in told["origin"]["machine"]
    assert set(told["origin"]) == {"command", "machine", "versions", "commit", "began_at", "service"}
    left = click.testing.CliRunner().invoke(main, ["stream", "list", "--endpoint", disstream_server.url])
    assert left.stdout == ""


def test_the_price_of_order(disstream_server: Server) -> None:
    """--order all does each of them, and compares the others with the first."""
    result = bench(
        "produce", "--records", "500", "--repeats", "1", "--order", "all", "--endpoint", disstream_server.url
    )
    assert result.exit_code == 0, result.output
    assert "send strict: " in result.stdout
    assert "send none: " in result.stdout


def test_latency(tmp_path: Path) -> None:
    """Each record is sent at its instant; the time from there to the receipt covers the time to its call; the disk of
    the server of its own was measured."""
    file = tmp_path / "result.json"
    result = bench("latency", "--rate", "500", "--seconds", "0.4", "--json", str(file))
    assert result.exit_code == 0, result.output
    told = json.loads(file.read_text())
    (lap,) = told["laps"]
    assert lap["records"] == lap["latency"]["count"] == lap["lateness"]["count"] == 200
    assert lap["seconds"] >= 199 / 500
    assert 0 <= lap["lateness"]["p50_s"] <= lap["latency"]["p50_s"] <= lap["latency"]["max_s"]
    assert told["fsync"]["p50_s"] > 0
    assert "send: due to receipt" in result.stdout


def test_latency_end_to_end(disstream_server: Server, tmp_path: Path) -> None:
    """A consumer reads meanwhile: what it got is compared, and its time covers all records, from when they were due."""
    file = tmp_path / "result.json"
    arguments = ("--rate", "500", "--seconds", "0.4", "--json", str(file), "--endpoint", disstream_server.url)
    result = bench("latency", "--end-to-end", *arguments)
    assert result.exit_code == 0, result.output
    (lap,) = json.loads(file.read_text())["laps"]
    assert lap["records"] == lap["arrival"]["count"] == lap["latency"]["count"] == 200
    assert lap["findings"]["distinct"] == 200
    assert lap["findings"]["reordered"] == 0
    assert 0 < lap["arrival"]["p50_s"] <= lap["arrival"]["max_s"]
    assert "end to end: due to the consumer's loop" in result.stdout


def test_produce_at_a_rate(disstream_server: Server) -> None:
    """At more records a second than are timed, all are sent, and some are timed; at a rate there is one mode."""
    pace = ("--rate", "20000", "--endpoint", disstream_server.url)
    result = bench("produce", "--records", "4000", "--repeats", "1", *pace)
    assert result.exit_code == 0, result.output
    assert "send: due to receipt" in result.stdout
    assert bench("produce", "--mode", "send_many", *pace).exit_code == 2


@pytest.mark.parametrize(
    "subject", ["keys", *[pytest.param(name, marks=pytest.mark.long) for name in ("partitions", "size")]]
)
def test_sweep(disstream_server: Server, subject: str, tmp_path: Path) -> None:
    """Every value has its laps, in the order given, and its point in the picture."""
    pytest.importorskip("matplotlib")
    file, png = tmp_path / "result.json", tmp_path / "a" / "sweep.png"
    options = ("--records", "400", "--repeats", "1", "--endpoint", disstream_server.url)
    result = bench("sweep", subject, "--values", "9,20", *options, "--json", str(file), "--png", str(png))
    assert result.exit_code == 0, result.output
    told = json.loads(file.read_text())
    assert [(point["value"], len(point["laps"])) for point in told["points"]] == [(9, 1), (20, 1)]
    assert {lap["records"] for point in told["points"] for lap in point["laps"]} == {400}
    assert png.read_bytes().startswith(b"\x89PNG")


def test_soak(tmp_path: Path) -> None:
    """A short run has its samples, memory of both sides, turns with a fresh client at both ends, and as many records in
    the service as were acknowledged."""
    file = tmp_path / "result.json"
    result = bench("soak", "--seconds", "1", "--json", str(file))
    assert result.exit_code == 0, result.output
    told = json.loads(file.read_text())
    assert told["stored"] == told["held"] == told["plan"]["records"] > 0
    assert [sample["stored"] for sample in told["samples"]] == sorted(sample["stored"] for sample in told["samples"])
    assert len(told["samples"]) == 51
    assert "last part against the first" in result.stdout
    for comparison in (told["young"], told["aged"]):
        assert [len(comparison[one]) for one in ("old", "fresh")] == [4, 4]
        assert all(turn["records"] and turn["cpu_s"] > 0 for turn in (*comparison["old"], *comparison["fresh"]))
        assert all(turn["server_cpu_s"] is not None for turn in comparison["fresh"])
    assert "what age does to the client: processor time" in result.stdout


def test_soak_without_a_comparison(disstream_server: Server, tmp_path: Path) -> None:
    """--compare 0 leaves it out; a service that runs already tells nothing of its memory."""
    file = tmp_path / "result.json"
    short = ("--seconds", "1", "--compare", "0", "--mode", "send_many")
    result = bench("soak", *short, "--json", str(file), "--endpoint", disstream_server.url)
    assert result.exit_code == 0, result.output
    told = json.loads(file.read_text())
    assert (told["young"], told["aged"]) == (None, None)
    assert told["stored"] == told["held"] > 0
    assert "fresh client" not in result.stdout


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
    lines = result.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "other bytes" in line)
    header, figures = lines[at : at + 2]
    assert figures[: header.index(column) + len(column)].split()[-1] == "500"


def test_wrong_use(disstream_server: Server, tmp_path: Path) -> None:
    """A data directory is for the server of its own; an endpoint that is not there is one line and exit code 1."""
    runner = click.testing.CliRunner()
    both = runner.invoke(main, ["bench", "produce", "--endpoint", disstream_server.url, "--data-dir", str(tmp_path)])
    assert both.exit_code == 2
    for values in ("1,x", "", "0", "10,4"):
        assert bench("sweep", "size", "--values", values).exit_code == 2
    absent = runner.invoke(main, ["bench", "produce", *SMALL, "--endpoint", "http://127.0.0.1:9"])
    assert absent.exit_code == 1
    assert "127.0.0.1:9" in absent.stderr
