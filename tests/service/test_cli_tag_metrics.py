"""`disstream tag` and `disstream metrics` do and show what they say, and tell mistakes in one line."""

from __future__ import annotations

import asyncio
import json

import click.testing
import pytest
from test_cli_terminal import on_terminal

from disstream.cli import main
from disstream.door import connect
from disstream.model import NewRecord
from disstream.server import Server


def invoke(server: Server, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments, "--endpoint", server.url])


def rows(server: Server, *arguments: str) -> list[list[str]]:
    """The fields of what is printed into a pipe."""
    result = invoke(server, *arguments)
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def create(server: Server, *names: str) -> None:
    for name in names:
        assert invoke(server, "stream", "create", name, "--partitions", "2").exit_code == 0


def test_the_life_of_tags(disstream_server: Server) -> None:
    """Set, overwritten, listed for a stream and for all, removed."""
    server = disstream_server
    create(server, "orders", "logs")
    assert invoke(server, "tag", "set", "orders", "team=billing", "note=a.b", "urgent").stdout == (
        "set 3 tag(s) of orders\n"
    )
    assert invoke(server, "tag", "set", "orders", "note=").exit_code == 0
    assert invoke(server, "tag", "set", "logs", "team=ops").exit_code == 0
    assert rows(server, "tag", "list", "orders") == [["team", "billing"], ["note", ""], ["urgent", ""]]
    assert rows(server, "tag", "list") == [["note", ""], ["team", "billing"], ["team", "ops"], ["urgent", ""]]
    refused = invoke(server, "tag", "remove", "orders", "note", "never")
    assert (refused.exit_code, "no tag 'never': nothing is removed" in refused.stderr) == (1, True)
    assert invoke(server, "tag", "remove", "orders", "note", "urgent").stdout == "removed note, urgent of orders\n"
    assert rows(server, "tag", "list", "orders") == [["team", "billing"]]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ["a", "b", "c"]),
        (("--all", "team=x"), ["a", "b"]),
        (("--all", "team", "--all", "env=test"), ["a"]),
        (("--all", "env=test", "--all", "env=prod"), ["a", "b"]),
        (("--all", "env=none", "--all", "env"), ["a", "b"]),
        (("--all", "env=*es"), ["a"]),
        (("--any", "env=test", "--any", "other"), ["a"]),
        (("--not-all", "team=x", "--not-all", "env=test"), ["b", "c"]),
        (("--not-any", "env"), ["c"]),
        (("--name", "B"), ["b"]),
    ],
)
def test_finding(disstream_server: Server, options: tuple[str, ...], found: list[str]) -> None:
    """By each option, alone and repeated."""
    create(disstream_server, "a", "b", "c")
    invoke(disstream_server, "tag", "set", "a", "team=x", "env=test")
    invoke(disstream_server, "tag", "set", "b", "team=x", "env=prod")
    shown = rows(disstream_server, "tag", "find", *options)
    assert [row[0] for row in shown] == found
    if "a" in found:
        assert shown[0][2] == "team=x env=test"
        assert len(shown[0][1]) == 19


def fill(server: Server) -> None:
    """10 records of 3 bytes into partition 1 of stream s, read once."""

    async def work() -> None:
        async with connect(server.url, project_id="demo") as dis:
            await dis.records.put("s", [NewRecord(b"abc", partition_id="1")] * 10)
            await dis.records.get(await dis.cursors.get("s", "1", "TRIM_HORIZON"))

    asyncio.run(work())


def test_metrics(disstream_server: Server) -> None:
    """The traffic of a stream or of a partition, or what labels name; as a table or as JSON lines."""
    create(disstream_server, "s")
    assert rows(disstream_server, "metrics", "s") == []
    fill(disstream_server)
    shown = rows(disstream_server, "metrics", "s")
    assert [sum(int(row[i]) for row in shown) for i in range(1, 5)] == [30, 30, 10, 10]
    shown = rows(disstream_server, "metrics", "s", "--partition", "1", "--last", "7d")
    assert [sum(int(row[i]) for row in shown) for i in range(1, 5)] == [30, 30, 10, 10]
    assert rows(disstream_server, "metrics", "s", "--partition", "shardId-0000000000") == []
    labels = ("total_get_req_suc_per_stream", "total_put_req_latency")
    result = invoke(
        disstream_server, "metrics", "s", "--format", "jsonl", *(x for label in labels for x in ("--label", label))
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sum(line[labels[0]] for line in lines) == 1
    assert [line["timestamp"] % 60 for line in lines] == [0] * len(lines)
    assert all(line.get(labels[1], 0) >= 0 for line in lines)


def test_on_a_terminal(disstream_server: Server) -> None:
    """Tables with headers that say what the columns are."""
    create(disstream_server, "s")
    fill(disstream_server)
    invoke(disstream_server, "tag", "set", "s", "team=x")
    shown = on_terminal("metrics", "s", "--endpoint", disstream_server.url)
    for part in ("TIME (UTC)", "PUT BYTES", "GET BYTES", "PUT RECORDS", "GET RECORDS"):
        assert part in shown
    shown = on_terminal("tag", "find", "--endpoint", disstream_server.url)
    for part in ("STREAM", "ID", "TAGS", "team=x"):
        assert part in shown


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("tag", "list", "nope"), 1, "DIS.4301"),
        (("tag", "set", "nope", "k=v"), 1, "DIS.4301"),
        (("tag", "set", "s", "a b=v"), 1, "DIS.4200"),
        (("tag", "set", "s"), 2, "KEY"),
        (("tag", "set", "s", "=v"), 2, "the key is missing"),
        (("tag", "set", "s", "k=v", "k=w"), 2, "given twice"),
        (("tag", "remove", "s"), 2, "KEY"),
        (("metrics", "nope"), 1, "DIS.4301"),
        (("metrics", "s", "--partition", "9"), 1, "DIS.4302"),
        (("metrics", "s", "--label", "x"), 1, "DIS.4209"),
        (("metrics", "s", "--last", "8d"), 2, "7d at most"),
        (("metrics", "s", "--last", "1"), 2, "90s, 15m, 1h or 2d"),
        (("metrics", "s", "--last", "0s"), 2, "--last"),
        (("metrics",), 2, "STREAM"),
    ],
)
def test_mistakes(disstream_server: Server, arguments: tuple[str, ...], code: int, told: str) -> None:
    """What the service refuses exits with 1 and its code in one line, what was typed wrongly with 2."""
    create(disstream_server, "s")
    result = invoke(disstream_server, *arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
