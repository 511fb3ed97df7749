"""Proves that the command line writes envelopes when it is asked to, and prints what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from disstream.cli import main
from disstream.server import Server

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(disstream_server: Server) -> Run:
    """Runs a command line against a server that has the streams `a` and `b`."""
    environment = {"DISSTREAM_ENDPOINT": disstream_server.url, "DISSTREAM_PROJECT_ID": "demo"}

    def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    for name in ("a", "b"):
        assert invoke("stream", "create", name, "--partitions", "1").exit_code == 0
    return invoke


def read(run: Run, stream: str) -> list[dict[str, object]]:
    result = run("consume", stream, "--no-follow")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_aggregated_lines_are_printed_one_by_one(run: Run) -> None:
    """In order, to the last of them, though they share a sequence number; `--max` counts them."""
    lines = b"".join(b"%d\n" % n for n in range(500))
    assert run("produce", "a", "--aggregate", text=lines).stdout == "sent 500, stored 500, failed 0\n"
    rows = read(run, "a")
    assert [row["data"] for row in rows] == [str(n) for n in range(500)]
    assert len({row["sequence_number"] for row in rows}) < 50
    assert len(run("consume", "a", "--max", "7").stdout.splitlines()) == 7


def test_headers_go_in_come_out_and_are_copied(run: Run, tmp_path: Path) -> None:
    """Records without any are stored as they are; `--format records` takes along what was printed."""
    assert run("produce", "a", "--header", "who=me", "--header", "empty=", text=b"x\n").exit_code == 0
    assert run("produce", "a", text=b"y\n").exit_code == 0
    headers = [{"who": "me", "empty": ""}, None]
    assert [row.get("headers") for row in read(run, "a")] == headers
    copy = tmp_path / "copy.jsonl"
    copy.write_text(run("consume", "a", "--no-follow").stdout)
    assert run("produce", "b", str(copy), "--format", "records").stdout == "sent 2, stored 2, failed 0\n"
    assert [(row["data"], row.get("headers")) for row in read(run, "b")] == list(zip("xy", headers, strict=True))


@pytest.mark.parametrize("given", ["who", "=me", ""])
def test_a_header_is_a_name_and_a_value(run: Run, given: str) -> None:
    """Anything else is wrong use."""
    result = run("produce", "a", "--header", given, text=b"x\n")
    assert (result.exit_code, "NAME=VALUE" in result.stderr) == (2, True)
