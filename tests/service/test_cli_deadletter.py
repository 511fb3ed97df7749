"""`disstream deadletter` lists, sends back and discards what workers wrote, in streams and in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

from disstream import blocking
from disstream.cli import main
from disstream.model import NewRecord, Record
from disstream.server import Server
from disstream.wire.envelope import unwrap
from disstream.worker.letters import Letter, encode_letter, letter_line

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(disstream_server: Server) -> Run:
    """Runs a command line against a server that has the streams `orders` and `dead`."""
    environment = {"DISSTREAM_ENDPOINT": disstream_server.url, "DISSTREAM_PROJECT_ID": "demo"}

    def invoke(*arguments: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, env=environment)

    for stream in ("orders", "dead"):
        assert invoke("stream", "create", stream, "--partitions", "2").exit_code == 0
    return invoke


def letter(number: int, key: str | None = "k", data: bytes | None = None, **more: Any) -> Letter:
    payload = b"%d" % number if data is None else data
    record = Record(payload, number, 1000 + number, key, "orders", "shardId-0000000000")
    told: dict[str, Any] = {"error": ValueError("no\tsuch\naccount"), "attempts": 3, "at_ms": 1_795_313_465_000, **more}
    return Letter.of(record, app="billing", member_id="m", **told)


def written(path: Path, *letters: Letter) -> str:
    path.write_bytes(b"".join(map(letter_line, letters)))
    return str(path)


def read_back(run: Run) -> list[tuple[str, str | None]]:
    result = run("consume", "orders", "--no-follow")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [(row["data"], row["key"]) for row in rows]


def test_a_file_is_listed_sent_back_once_and_empty_then(run: Run, tmp_path: Path) -> None:
    """Lines of columns in a pipe; what was sent is marked beside the file, which is as it was."""
    path = written(tmp_path / "letters.jsonl", letter(1), letter(2, None), letter(1), letter(3, "x", b"\xff\x00"))
    before = Path(path).read_bytes()
    result = run("deadletter", "list", path)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[4:] for row in rows] == [
        ["1", "k", "3", "ValueError: no such account", "-"],
        ["2", "-", "3", "ValueError: no such account", "-"],
        ["3", "x", "3", "ValueError: no such account", "-"],
    ]
    assert rows[0][:4] == ["2026-11-22 02:11:05.000", "billing", "orders", "shardId-0000000000"]
    result = run("deadletter", "redrive", f"file:{path}", "--dry-run", "--key", "k")
    assert (result.exit_code, result.stderr) == (0, "would send 1 of 3 letters\n")
    result = run("deadletter", "redrive", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "sent 3 of 3 letters\n", "")
    assert sorted(read_back(run), key=str) == [("/wA=", "x"), ("1", "k"), ("2", None)]
    assert run("deadletter", "redrive", path).stdout == "sent 0 of 3 letters\n"
    assert run("deadletter", "list", path).stdout == ""
    assert run("deadletter", "list", path, "--all").stdout.count("settled\n") == 3
    assert Path(path).read_bytes() == before
    assert len(read_back(run)) == 3


def test_a_stream_is_listed_as_lines_that_the_other_commands_read(
    run: Run, disstream_server: Server, tmp_path: Path
) -> None:
    """--format jsonl gives a file of letters; sent back from there, they are the same records."""
    with blocking.connect(disstream_server.url, project_id="demo") as dis:
        dis.records.put("dead", [NewRecord(encode_letter(letter(n, f"k{n % 2}")), f"k{n % 2}") for n in range(5)])
    result = run("deadletter", "list", "stream:dead", "--format", "jsonl", "--app", "billing")
    assert (result.exit_code, result.stderr) == (0, "")
    path = tmp_path / "some.jsonl"
    path.write_bytes(result.stdout_bytes)
    assert run("deadletter", "redrive", str(path)).stdout == "sent 5 of 5 letters\n"
    assert run("deadletter", "redrive", "stream:dead", "--since", "2026-11-22T02:11:06+00:00").stdout == (
        "sent 0 of 5 letters\n"
    )
    assert run("deadletter", "redrive", "stream:dead", "--since", "2026-11-22T02:11:05+00:00").stdout == (
        "sent 5 of 5 letters\n"
    )
    assert run("deadletter", "list", "stream:dead").stdout == ""
    back = read_back(run)
    assert [data for data, key in back if key == "k0"] == ["0", "2", "4"] * 2
    assert [data for data, key in back if key == "k1"] == ["1", "3"] * 2
    assert run("deadletter", "list", "stream:dead", "--all", "--limit", "2").stdout.count("settled\n") == 2


def test_letters_of_parked_keys_travel_in_envelopes(run: Run, disstream_server: Server, tmp_path: Path) -> None:
    """With headers by which the worker knows them; without a worker the keys stay parked, and the exit code is 1."""
    path = written(tmp_path / "l.jsonl", letter(1, parked=True), letter(2, error=None, parked=True), letter(3, "x"))
    result = run("deadletter", "redrive", path, "--wait", "0")
    told = "sent 3 of 3 letters\n1 key to be unparked once a worker has handled all of it\n"
    assert (result.exit_code, result.stdout) == (0, told)
    with blocking.connect(disstream_server.url, project_id="demo") as dis:
        found: dict[bytes, dict[str, str]] = {}
        for partition in ("0", "1"):
            page = dis.records.get(dis.cursors.get("orders", partition, "TRIM_HORIZON"))
            found |= {r.data: dict(r.headers or {}) for r in unwrap(page.records)}
    place = "shardId-0000000000"
    assert found == {
        b"1": {"disstream-redrive": f"{place}/1/0", "disstream-redrive-app": "billing"},
        b"2": {
            "disstream-redrive": f"{place}/2/0",
            "disstream-redrive-app": "billing",
            "disstream-redrive-after": "1/0",
            "disstream-redrive-last": "2/0",
        },
        b"3": {},
    }
    again = written(tmp_path / "m.jsonl", letter(7, parked=True))
    result = run("deadletter", "redrive", again, "--wait", "0.1")
    assert (result.exit_code, result.stdout) == (1, "sent 1 of 1 letters\n")
    assert "key 'k' of orders/shardId-0000000000, app billing, stays parked: no worker of billing" in result.stderr


def test_discard_wants_to_know_which(run: Run, tmp_path: Path) -> None:
    """Not everything by a slip; what is discarded is not sent back any more."""
    path = written(tmp_path / "l.jsonl", letter(1), letter(2, "x"))
    result = run("deadletter", "discard", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--key" in result.stderr
    assert run("deadletter", "discard", path, "--key", "x").stdout == "discarded 1 of 2 letters\n"
    assert run("deadletter", "redrive", path).stdout == "sent 1 of 2 letters\n"
    assert read_back(run) == [("1", "k")]


def test_what_a_crash_cut_is_passed_over(run: Run, tmp_path: Path) -> None:
    """A last line without its end is none yet, in both files; a damaged line between others is named."""
    path = Path(written(tmp_path / "l.jsonl", letter(1)))
    line = letter_line(letter(2))
    path.write_bytes(path.read_bytes() + b"damaged\n" + line + letter_line(letter(3))[:-5])
    Path(f"{path}.settled").write_bytes(b'{"disstream_settled":1,"at_ms"')
    result = run("deadletter", "redrive", str(path))
    assert (result.exit_code, result.stdout) == (0, "sent 2 of 2 letters\n")
    assert f"passed over: {path} line 2: b'damaged" in result.stderr
    assert run("deadletter", "redrive", str(path)).stdout == "sent 0 of 2 letters\n"
    path.write_bytes(path.read_bytes()[: -len(letter_line(letter(3))) + 5] + letter_line(letter(3)))
    assert run("deadletter", "redrive", str(path)).stdout == "sent 1 of 3 letters\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("list", "orders"), 2, "say stream:NAME"),
        (("list", "stream:nowhere"), 1, "DIS.4301"),
        (("list", "./nowhere.jsonl"), 2, "there is no such file"),
        (("list", "stream:dead", "--since", "yesterday"), 2, "no ISO 8601 time"),
        (("redrive", "stream:dead", "--rate", "nan"), 2, "no finite number"),
        (("redrive", "stream:dead", "--key", ""), 2, "it is empty"),
        (("redrive", "stream:dead", "--endpoint", "http://127.0.0.1:9"), 1, "127.0.0.1:9"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    """Exit code 2 for the caller's, 1 for what the service says; no traceback."""
    result = run("deadletter", *arguments)
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_a_stream_that_is_gone_keeps_the_letters(run: Run, tmp_path: Path) -> None:
    """Where the records came from does not exist any more: told, and nothing is marked."""
    path = written(tmp_path / "l.jsonl", letter(1))
    assert run("stream", "delete", "orders").exit_code == 0
    result = run("deadletter", "redrive", path)
    assert (result.exit_code, result.stdout) == (1, "sent 0 of 1 letters\n")
    assert "DIS.4301" in result.stderr
    assert run("deadletter", "list", path).stdout.count("\n") == 1
