"""`disstream dump` does and shows what it says, and tells mistakes in one line."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import click.testing
import pytest
from dump_samples import PASSWORD, SAMPLES, Sample
from test_cli_terminal import on_terminal

from disstream.cli import main
from disstream.cli.dump import MAX_FILE_BYTES
from disstream.server import Server

OBS, DWS = SAMPLES["obs text"], SAMPLES["dws"]


def invoke(server: Server, *arguments: str, stdin: str = "") -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments, "--endpoint", server.url], input=stdin)


def rows(result: click.testing.Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


@pytest.fixture
def server(disstream_server: Server) -> Server:
    """With stream orders: two partitions, three records in the first."""
    assert invoke(disstream_server, "stream", "create", "orders", "--partitions", "2").exit_code == 0
    # The MD5 of key "a" falls into the first half of the hash space.
    lines = '{"data": "x", "key": "a"}\n' * 3
    assert invoke(disstream_server, "produce", "orders", "--format", "records", stdin=lines).exit_code == 0
    return disstream_server


def file(directory: Path, body: Any, mode: int = 0o600) -> str:
    path = directory / "destination.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    path.chmod(mode)
    return str(path)


def test_the_life_of_a_task(server: Server, tmp_path: Path) -> None:
    """Created from the documented body, listed, described, stopped, started, deleted; rows in a pipe are tabbed."""
    made = invoke(server, "dump", "create", "orders", "--file", file(tmp_path, OBS.body, 0o644))
    assert (made.exit_code, made.stdout) == (0, "created newtask on orders\n")
    ((name, kind, state, created, copied, reason),) = rows(invoke(server, "dump", "list", "orders"))
    assert (name, kind, state, copied) == ("newtask", "OBS", "ABNORMAL", "-")
    assert created.startswith("20")
    assert "does not run dump tasks yet" in reason
    assert rows(invoke(server, "dump", "describe", "orders", "newtask")) == [
        ["shardId-0000000000", "ACTIVE", "ABNORMAL", "3", "-", "-", "0"],
        ["shardId-0000000001", "ACTIVE", "ABNORMAL", "0", "-", "-", "0"],
    ]
    assert invoke(server, "dump", "stop", "orders", "newtask").stdout == "stopped newtask\n"
    assert [row[2] for row in rows(invoke(server, "dump", "list", "orders"))] == ["PAUSED"]
    started = invoke(server, "dump", "start", "orders", "newtask").stdout
    assert started.startswith("newtask is ABNORMAL: this server does not run dump tasks yet")
    assert [row[2] for row in rows(invoke(server, "dump", "list", "orders"))] == ["ABNORMAL"]
    assert invoke(server, "dump", "delete", "orders", "newtask").stdout == "deleted newtask\n"
    assert rows(invoke(server, "dump", "list", "orders")) == []


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_every_destination(disstream_server: Server, tmp_path: Path, sample: Sample) -> None:
    """The documented bodies as they stand, from standard input as well; the server takes all of them."""
    kind = "JSON" if sample.kind in ("OBS", "CLOUDTABLE") else "BLOB"
    stream = {"stream_name": "orders", "partition_count": 1, "data_type": kind}
    name = sample.destination.task_name
    make_stream(disstream_server, stream)
    made = invoke(disstream_server, "dump", "create", "orders", "--file", "-", stdin=json.dumps(sample.body))
    assert (made.exit_code, made.stdout) == (0, f"created {name} on orders\n"), made.output
    assert [row[0] for row in rows(invoke(disstream_server, "dump", "list", "orders"))] == [name]


def make_stream(server: Server, body: dict[str, Any]) -> None:
    """The command makes streams of one data type only."""
    request = urllib.request.Request(f"{server.url}/v2/demo/streams", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def test_tables_on_a_terminal(server: Server, tmp_path: Path) -> None:
    """The destination stands above the partitions, without the password."""
    assert invoke(server, "dump", "create", "orders", "--file", file(tmp_path, DWS.body)).exit_code == 0
    shown = on_terminal("dump", "describe", "orders", "dwstask", "--endpoint", server.url, columns=200)
    for told in (
        "dwstask (",
        "ABNORMAL",
        "to DWS",
        'dws_cluster_name: "dwscluster"',
        "user_password was not kept",
        "START",
    ):
        assert told in shown
    assert PASSWORD not in shown
    assert "REASON" in on_terminal("dump", "list", "orders", "--endpoint", server.url)


def test_a_password_is_not_for_others(server: Server, tmp_path: Path) -> None:
    """A file that holds one and that others can read is refused, with the remedy; nothing was sent."""
    refused = invoke(server, "dump", "create", "orders", "--file", file(tmp_path, DWS.body, 0o644))
    assert refused.exit_code == 2
    assert "chmod 600" in refused.stderr
    assert PASSWORD not in refused.output
    assert rows(invoke(server, "dump", "list", "orders")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("create", "none", "--file", "GOOD"), 1, "DIS.4301"),
        (("create", "orders", "--file", "WRONG"), 1, "obs_bucket_path='No'"),
        (("create", "orders", "--file", "BAD"), 2, "is not JSON"),
        (("create", "orders", "--file", "LIST"), 2, "destination_type"),
        (("create", "orders", "--file", "/nonexistent"), 1, "/nonexistent"),
        (("create", "orders"), 2, "--file"),
        (("list", "none"), 1, "stream list"),
        (("describe", "orders", "none"), 1, "DIS.4354"),
        (("delete", "orders", "none"), 1, "dump list"),
        (("start", "orders", "none"), 1, "DIS.4354"),
        (("stop", "orders"), 2, "TASK"),
    ],
)
def test_mistakes(server: Server, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    """One line with the service's code and a remedy, or how the command is used; no traceback."""
    bodies = {"GOOD": OBS.body, "WRONG": OBS.with_fields(obs_bucket_path="No"), "BAD": "{", "LIST": "[]"}
    given = [file(tmp_path, bodies[argument]) if argument in bodies else argument for argument in arguments]
    result = invoke(server, "dump", *given)
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        assert len(result.stderr.splitlines()) == 1


def test_a_huge_file(server: Server, tmp_path: Path) -> None:
    """Not read to its end."""
    path = tmp_path / "huge.json"
    with path.open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    result = invoke(server, "dump", "create", "orders", "--file", str(path))
    assert result.exit_code == 2
    assert "no destination is so large" in result.stderr
