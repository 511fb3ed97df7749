"""`disstream produce --resend` sends a spill file in order, takes out what is stored, and survives being killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click.testing
import pytest

from disstream import ConsumerConfig, blocking
from disstream.cli import main
from disstream.cli.formats import Line
from disstream.cli.resend import SpillFeed
from disstream.errors import NotStored, RecordRejected
from disstream.model import NewRecord
from disstream.producer import Envelope, ProducerConfig
from disstream.producer.spillfile import SpillEnd, SpillResend, SpillWriter, read_spill, spill_line
from disstream.server import Server
from disstream.wire.envelope import wrap

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(disstream_server: Server) -> Run:
    """Runs a command line against a server that has the stream `orders` of 3 partitions."""
    environment = {"DISSTREAM_ENDPOINT": disstream_server.url, "DISSTREAM_PROJECT_ID": "demo"}

    def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    assert invoke("stream", "create", "orders", "--partitions", "3").exit_code == 0
    return invoke


def spill(path: Path, *records: tuple[SpillEnd, NewRecord], config: ProducerConfig | None = None) -> Path:
    writer = SpillWriter(str(path), "orders", 10_000_000, config)
    writer.append(spill_line(row, end, "expired") for end, row in records)
    writer.close()
    return path


def many(count: int) -> list[tuple[SpillEnd, NewRecord]]:
    return [("not stored", NewRecord(b"%d" % i, f"k{i % 7}")) for i in range(count)]


def stored(run: Run) -> list[dict[str, object]]:
    result = run("consume", "orders", "--no-follow")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_everything_is_sent_in_order_and_the_file_is_gone(run: Run, tmp_path: Path) -> None:
    """More than a chunk, keys in order, bytes and routes as they were; the file is removed, exit code 0."""
    routed = [
        NewRecord(b"\xff\xfe", partition_id="shardId-0000000002"),
        NewRecord(b"hashed", "k", explicit_hash_key="0", timestamp=17),
    ]
    path = spill(tmp_path / "s", *many(5_000), *(("not stored", row) for row in routed))
    result = run("produce", "--resend", str(path))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "sent 5002, stored 5002, failed 0\n", "")
    assert not path.exists()
    seen: dict[object, list[int]] = {}
    rest = []
    for row in stored(run):
        if str(row["data"]).isdigit():
            seen.setdefault(row["key"], []).append(int(str(row["data"])))
        else:
            rest.append((row["partition_id"], row["data"], row["timestamp"] == 17))
    assert seen == {f"k{k}": list(range(k, 5_000, 7)) for k in range(7)}
    assert sorted(rest) == [("shardId-0000000000", "hashed", True), ("shardId-0000000002", "//4=", False)]


@pytest.mark.parametrize(
    "envelope", [None, Envelope(aggregate_records=4), Envelope(aggregate_records=1, identity=False)]
)
@pytest.mark.parametrize("compression", [None, "snappy"])
def test_the_form_is_the_producers(
    run: Run, disstream_server: Server, tmp_path: Path, envelope: Envelope | None, compression: Literal["snappy"] | None
) -> None:
    """What is sent again looks to every reader as what the producer would have sent: enveloped, compressed, or not."""
    headers = {"a": "b"} if envelope is not None else None
    nested = wrap([NewRecord(b"inner")])  # a payload that looks like an envelope: what a copier of raw records sends
    rows = [NewRecord(b"%d" % i, "k", headers=headers) for i in range(8)] + [NewRecord(nested, "k")]
    config = ProducerConfig(envelope=envelope, record_compression=compression)
    before = spill(tmp_path / "s", *[("not stored", row) for row in rows], config=config)
    with blocking.connect(disstream_server.url, project_id="demo") as dis:
        dis.streams.create("expected", partitions=3)
        with dis.producer("expected", config) as producer:
            producer.send_many(rows)
        result = run("produce", "--resend", str(before))
        assert (result.exit_code, result.stdout) == (0, "sent 9, stored 9, failed 0\n")
        found: list[list[tuple[bytes, object]]] = []
        for stream in ("expected", "orders"):
            with dis.consumer(stream, ConsumerConfig(record_compression=compression)) as consumer:
                count = len(rows)
                found.append([(record.data, record.headers) for _, record in zip(range(count), consumer, strict=False)])
                assert consumer.stats().undecoded_records == 0
            counts = [p.sequence_range.end for p in dis.streams.describe(stream).partitions if p.sequence_range]
            found[-1].append((b"", max(counts)))
    assert found[0] == found[1]


def test_a_compressed_form_is_not_sent_plain(run: Run, tmp_path: Path) -> None:
    """--format records refuses such a file: whoever reads the stream expects blocks of snappy."""
    config = ProducerConfig(record_compression="snappy")
    path = spill(tmp_path / "s", ("not stored", NewRecord(b"1", "k")), config=config)
    result = run("produce", "orders", str(path), "--format", "records")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--resend" in result.stderr
    assert stored(run) == []


def test_what_may_be_stored_is_only_sent_when_told(run: Run, tmp_path: Path) -> None:
    """Unknown and rejected records stay in the file and are told; --include-unknown sends the unknown ones."""
    path = spill(
        tmp_path / "s",
        ("not stored", NewRecord(b"1", "k")),
        ("unknown", NewRecord(b"2", "k")),
        ("rejected", NewRecord(b"3", "k")),
        ("not stored", NewRecord(b"4", "k")),
    )
    result = run("produce", "orders", "--resend", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"sent 2, stored 2, failed 0\n2 left in {path}: 1 unknown, 1 rejected\n"
    assert [row["data"] for row in stored(run)] == ["1", "4"]
    assert run("produce", "--resend", str(path)).stdout.startswith("sent 0, stored 0, failed 0\n2 left")
    result = run("produce", "--resend", str(path), "--include-unknown")
    assert result.stdout == f"sent 1, stored 1, failed 0\n1 left in {path}: 1 rejected\n"
    assert [row["data"] for row in stored(run)] == ["1", "4", "2"]


def test_what_cannot_be_sent_stays(run: Run, tmp_path: Path) -> None:
    """A record that no partition takes is named with its line and stays; sending twice stores nothing twice."""
    path = spill(
        tmp_path / "s",
        ("not stored", NewRecord(b"1", "k")),
        ("not stored", NewRecord(b"2", partition_id="shardId-0000000009")),
        ("not stored", NewRecord(b"3", "k")),
    )
    result = run("produce", "--resend", str(path))
    assert (result.exit_code, result.stdout) == (1, f"sent 1, stored 1, failed 0\n2 left in {path}: 2 not stored\n")
    assert result.stderr.startswith("line 3: partition_id='shardId-0000000009'")
    result = run("produce", "--resend", str(path), "--skip-bad")
    assert (result.exit_code, result.stdout) == (
        0,
        f"sent 1, stored 1, failed 0, skipped 1\n1 left in {path}: 1 not stored\n",
    )
    assert [row["data"] for row in stored(run)] == ["1", "3"]
    assert [line.record.data for line in read_spill(path)] == [b"2"]


def test_a_damaged_line_stops_it(run: Run, tmp_path: Path) -> None:
    """What stands before it is sent, it is named, and it and what stands behind it stay, also with --skip-bad."""
    path = spill(tmp_path / "s", ("not stored", NewRecord(b"1", "k")))
    with path.open("ab") as file:
        file.write(b"damaged\n" + spill_line(NewRecord(b"2", "k"), "not stored", ""))
    for option in ((), ("--skip-bad",)):
        result = run("produce", "--resend", str(path), *option)
        assert result.exit_code == 1
        assert "none of a spill file" in result.stderr
        assert f"2 left in {path}: 1 unreadable, 1 not stored" in result.stdout
    assert [row["data"] for row in stored(run)] == ["1"]
    assert path.read_bytes().count(b"\n") == 3


def test_killed_in_between_nothing_is_sent_twice(run: Run, tmp_path: Path) -> None:
    """What was under way when the command was killed is listed as unknown; the next run leaves it out."""
    path = spill(tmp_path / "s", *many(10))
    with SpillResend(path) as file:
        feed = SpillFeed(file, include_unknown=False)
        chunk = asyncio.run(feed.next())
        assert chunk is not None
        assert {line.end for line in read_spill(path)} == {"unknown"}
        lines = [line for line in chunk if isinstance(line, Line)]
        feed.ended(lines[0], None)
        feed.ended(lines[1], NotStored("expired"))
        feed.ended(lines[2], RecordRejected("DIS.4200", "no"))
        # ... and is killed here
    assert [line.end for line in read_spill(path)] == ["not stored", "rejected"] + ["unknown"] * 7
    result = run("produce", "--resend", str(path))
    assert result.stdout == f"sent 1, stored 1, failed 0\n8 left in {path}: 1 rejected, 7 unknown\n"


async def test_what_was_read_and_not_sent_is_as_before(tmp_path: Path) -> None:
    """A run that is stopped takes back what it had read; and what may be stored stays so unless it is stored now."""
    path = spill(tmp_path / "s", *many(3), ("unknown", NewRecord(b"?", "k")))
    with SpillResend(path) as file:
        feed = SpillFeed(file, include_unknown=True)
        chunk = await feed.next()
        assert chunk is not None
        last = chunk[3]
        assert isinstance(last, Line)
        feed.ended(last, NotStored("expired"))
        feed.take_back()
        assert await feed.next() is None
        assert file.finish() == {"not stored": 3, "unknown": 1}


def test_a_service_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    """Nobody there, or no such stream: one line, exit code 1, and the file as it was."""
    path = spill(tmp_path / "s", *many(3))
    before = path.read_bytes()
    options = ("--endpoint", "http://127.0.0.1:9", "--project", "demo")
    result = click.testing.CliRunner().invoke(main, ("produce", "--resend", str(path), *options))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert path.read_bytes() == before


def test_a_stream_that_is_gone_changes_nothing(run: Run, tmp_path: Path) -> None:
    """The same where the service does not know the stream."""
    path = spill(tmp_path / "s", *many(3))
    before = path.read_bytes()
    assert run("stream", "delete", "orders").exit_code == 0
    assert run("produce", "--resend", str(path)).exit_code == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("payments", "--resend", "{}"), "holds records of 'orders', not of 'payments'"),
        (("orders", "{}", "--resend", "{}"), "leave FILE out"),
        (("--resend", "{}", "--format", "records"), "leave --format out"),
        (
            (
                "--resend",
                "{}.missing",
            ),
            "does not exist",
        ),
        (("--resend", __file__), "is no spill file"),
        (("--resend", "{}", "--aggregate"), "leave --aggregate out"),
        (("--resend", "{}", "--header", "a=b"), "leave --header out"),
        (("orders", "--include-unknown"), "needs --resend"),
        ((), "Missing argument 'STREAM'"),
    ],
)
def test_wrong_use_is_told(run: Run, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    """What contradicts itself is exit code 2, and changes nothing."""
    path = spill(tmp_path / "s", *many(1))
    result = run("produce", *(option.format(path) for option in options))
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(list(read_spill(path))) == 1


def test_a_file_in_use_is_refused(run: Run, tmp_path: Path) -> None:
    """While its producer runs, a spill file is not sent."""
    path = spill(tmp_path / "s", *many(1))
    writer = SpillWriter(str(path), "orders", 10_000)
    result = run("produce", "--resend", str(path))
    writer.close()
    assert (result.exit_code, "in use" in result.stderr) == (2, True)


def test_a_spill_file_is_a_file_of_records(run: Run, tmp_path: Path) -> None:
    """produce --format records reads it too, and stops at what only --resend may decide."""
    path = spill(tmp_path / "s", ("not stored", NewRecord(b"1", "k", explicit_hash_key="0")))
    assert run("produce", "orders", str(path), "--format", "records").stdout == "sent 1, stored 1, failed 0\n"
    spill(path, ("unknown", NewRecord(b"2", "k")))
    result = run("produce", "orders", str(path), "--format", "records")
    assert (result.exit_code, "--resend" in result.stderr) == (1, True)
    assert [(row["data"], row["partition_id"]) for row in stored(run)] == [("1", "shardId-0000000000")] * 2
