"""`disstream stream` creates, shows and deletes, and tells mistakes in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from disstream.cli import main
from disstream.server import Server


def invoke(server: Server, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["stream", *arguments, "--endpoint", server.url])


def test_the_life_of_a_stream(disstream_server: Server) -> None:
    """Created, listed, described, deleted; in a pipe the rows are fields separated by tabs, without a header."""
    created = invoke(disstream_server, "create", "orders", "--partitions", "2", "--retention-h", "48")
    assert (created.exit_code, created.stdout) == (0, "created orders: 2 partition(s), kept 48 h\n")
    assert invoke(disstream_server, "create", "a", "--partitions", "1", "--type", "ADVANCED").exit_code == 0

    rows = [line.split("\t") for line in invoke(disstream_server, "list").stdout.splitlines()]
    assert [row[:5] for row in rows] == [
        ["a", "RUNNING", "1", "24", "ADVANCED"],
        ["orders", "RUNNING", "2", "48", "COMMON"],
    ]
    parts = [line.split("\t") for line in invoke(disstream_server, "describe", "orders").stdout.splitlines()]
    assert [part[:5] for part in parts] == [
        ["shardId-0000000000", "ACTIVE", "0", "0", "0"],
        ["shardId-0000000001", "ACTIVE", "0", "0", str(2**62 - 1)],
    ]
    assert invoke(disstream_server, "list", "--project", "other").stdout == ""

    assert invoke(disstream_server, "delete", "orders").stdout == "deleted orders\n"
    assert [line.split("\t")[0] for line in invoke(disstream_server, "list").stdout.splitlines()] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("describe", "nope"), 1, "DIS.4301"),
        (("describe", "nope"), 1, "`disstream stream list`"),
        (("delete", "nope"), 1, "DIS.4301"),
        (("create", "taken", "--partitions", "1"), 1, "DIS.4307"),
        (("create", "bad name", "--partitions", "1"), 1, "DIS.4200"),
        (("create", "x"), 2, "--partitions"),
        (("create", "x", "--partitions", "0"), 2, "--partitions"),
        (("create", "x", "--partitions", "1", "--retention-h", "1"), 2, "--retention-h"),
        (("create", "x", "--partitions", "1", "--retention-bytes", "10 liters"), 2, "like 1000000, 500MB or 10GiB"),
        (("create", "x", "--partitions", "1", "--retention-bytes", "10KB"), 1, "retention_bytes=10000 is not within"),
        (("update", "taken"), 2, "--retention-bytes"),
        (("list", "--project", "no spaces allowed"), 2, "project"),
        (("list", "--project", ""), 2, "'--project' (env var: 'DISSTREAM_PROJECT_ID'): it is empty"),
    ],
)
def test_mistakes(disstream_server: Server, arguments: tuple[str, ...], code: int, told: str) -> None:
    """What the service refuses exits with 1 and its code in one line, what was typed wrongly with 2."""
    invoke(disstream_server, "create", "taken", "--partitions", "1")
    result = invoke(disstream_server, *arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("produce", "s"), ("stream", "list"), ("bench", "produce")])
def test_an_empty_endpoint_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """As an unset shell variable gives it: the option is named, nothing else is tried."""
    result = click.testing.CliRunner().invoke(main, [*arguments, "--endpoint", ""])
    assert result.exit_code == 2
    assert re.search(r"Invalid value for '--endpoint'.*: it is empty", result.stderr)


@pytest.mark.parametrize("arguments", [("stream", "list"), ("stream", "describe", "s"), ("--help",), ("stream", "-h")])
def test_a_reader_that_leaves_is_no_error(disstream_server: Server, arguments: tuple[str, ...]) -> None:
    """Output into a pipe that nobody reads: exit code 0, and not a word."""
    invoke(disstream_server, "create", "s", "--partitions", "1")
    assert unread(disstream_server, *arguments) == (0, "")


def test_a_failure_is_one_even_if_nobody_reads(disstream_server: Server, tmp_path: Path) -> None:
    """produce exits with 1 for a bad line and with 0 for a good one, whether or not its counts are read."""
    invoke(disstream_server, "create", "s", "--partitions", "1")
    for text, code, told in (("1\n", 0, ""), ("nope\n", 1, "line 1: ")):
        file = tmp_path / "input"
        file.write_text(text)
        exit_code, stderr = unread(disstream_server, "produce", "s", str(file), "--format", "jsonl")
        assert exit_code == code
        assert stderr.startswith(told)
        assert len(stderr.splitlines()) == code


def unread(server: Server, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose standard output nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "disstream", *arguments],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DISSTREAM_ENDPOINT": server.url},
        timeout=60,
    )
    os.close(theirs)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [(), ("stream",), ("bench",)])
def test_summaries_are_whole(arguments: tuple[str, ...]) -> None:
    """On 80 columns no command's summary is cut."""
    shown = click.testing.CliRunner().invoke(main, [*arguments, "--help"], terminal_width=80).stdout
    commands = shown.partition("Commands:\n")[2].splitlines()
    assert len(commands) >= 2
    assert not [line for line in commands if line.endswith("...")]


def test_every_command_explains_itself() -> None:
    """Each command has help, and those that do work show an example. What is told of them all stays as it was."""
    runner = click.testing.CliRunner()
    shown = runner.invoke(main, ["--help"]).stdout
    context = click.Context(main)
    for name in main.list_commands(context):
        _, command, _ = main.resolve_command(context, [name])
        assert command is not None
        assert runner.invoke(main, [name, "--help"]).exit_code == 0
        children = command.commands.values() if isinstance(command, click.Group) else [command]
        for child in children:
            assert "Example" in (child.help or ""), f"{name} {child.name} shows no example"
    assert runner.invoke(main, ["--help"]).stdout == shown


def test_a_stream_that_changes(disstream_server: Server, tmp_path: Path) -> None:
    """Scaled, updated and described: what was done is told, and mistakes are told before anything is sent."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "string"}')
    bounds = ("--auto-scale", "1:4", "--data-type", "JSON", "--schema", str(schema))
    assert invoke(disstream_server, "create", "s", "--partitions", "1", *bounds).exit_code == 0
    assert invoke(disstream_server, "scale", "s", "3").stdout == "scaled s: 3 to write, 3 to read\n"
    assert invoke(disstream_server, "scale", "s", "2").stdout == "scaled s: 2 to write, 3 to read\n"
    rows = [line.split("\t") for line in invoke(disstream_server, "describe", "s").stdout.splitlines()]
    assert [(row[1], row[4]) for row in rows] == [("ACTIVE", "0"), ("ACTIVE", str(2**62 - 1)), ("DELETED", "-")]
    assert invoke(disstream_server, "update", "s", "--retention-h", "72", "--auto-scale", "off").stdout == "updated s\n"
    assert invoke(disstream_server, "list").stdout.split("\t")[3] == "72"

    nothing = invoke(disstream_server, "update", "s")
    assert (nothing.exit_code, "nothing to change" in nothing.stderr) == (2, True)
    for bad in ("4", "4:1", "0:1", "1:x"):
        refused = invoke(disstream_server, "update", "s", "--auto-scale", bad)
        assert (refused.exit_code, f"'{bad}' is not MIN:MAX" in refused.stderr) == (2, True)
    refused = invoke(disstream_server, "update", "s", "--schema", str(Path(__file__)))
    assert (refused.exit_code, "DIS.4360" in refused.stderr) == (1, True)
    assert "DIS.4301" in invoke(disstream_server, "scale", "t", "2").stderr
    for content, told in ((b"\xff\xfe", "is not UTF-8 text"), (b" \n", "is empty")):
        schema.write_bytes(content)
        refused = invoke(disstream_server, "update", "s", "--schema", str(schema))
        assert (refused.exit_code, told in refused.stderr) == (2, True)
    refused = invoke(disstream_server, "update", "s", "--schema", str(tmp_path / "none.json"))
    assert (refused.exit_code, "cannot be read: No such file" in refused.stderr) == (2, True)
