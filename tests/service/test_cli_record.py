"""`disstream produce` and `disstream consume` do what their help says, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click.testing
import pytest

from disstream.cli import main
from disstream.cli.feed import Feed
from disstream.cli.formats import Line, parser
from disstream.door import connect
from disstream.errors import DeliveryFailed, DeliveryUnknown, NotStored, RecordRejected
from disstream.producer import Producer, Receipt
from disstream.server import Server

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(disstream_server: Server) -> Run:
    """Runs a command line against a server that has the streams `one` (1 partition) and `three`."""
    environment = {"DISSTREAM_ENDPOINT": disstream_server.url, "DISSTREAM_PROJECT_ID": "demo"}

    def invoke(*arguments: str, text: bytes = b"") -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, arguments, input=text, env=environment)

    for name, partitions in (("one", "1"), ("three", "3")):
        assert invoke("stream", "create", name, "--partitions", partitions).exit_code == 0
    return invoke


def read(run: Run, stream: str, *options: str) -> list[dict[str, object]]:
    result = run("consume", stream, "--no-follow", *options)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_lines_go_in_and_come_out(run: Run) -> None:
    """Each line is stored once, in order, and printed with all it has; bytes that are not text as base64."""
    sent = run("produce", "one", text=b"a\n\xff\xfe\n\nlast")
    assert (sent.exit_code, sent.stdout, sent.stderr) == (0, "sent 4, stored 4, failed 0\n", "")
    rows = read(run, "one")
    assert [row["data"] for row in rows] == ["a", "//4=", "", "last"]
    assert [row.get("encoding") for row in rows] == [None, "base64", None, None]
    assert [row["sequence_number"] for row in rows] == [0, 1, 2, 3]
    assert list(rows[0]) == ["partition_id", "sequence_number", "key", "timestamp", "data"]
    assert (rows[0]["partition_id"], rows[0]["key"]) == ("shardId-0000000000", None)


def test_a_stream_can_be_copied(run: Run, tmp_path: Path) -> None:
    """What consume printed, produce --format records stores again with key, time and bytes."""
    run("produce", "three", "--format", "jsonl", "--key", "k", text=b'{"k":"x"}\n{"k":"y"}\n{"k":null}\n')
    run("produce", "three", text=b"\xff\n")
    copy = tmp_path / "copy.jsonl"
    copy.write_text(run("consume", "three", "--no-follow").stdout)
    assert run("produce", "one", str(copy), "--format", "records").stdout == "sent 4, stored 4, failed 0\n"

    def parts(stream: str) -> list[tuple[str, str, str]]:
        return sorted((str(r["data"]), str(r["key"]), str(r["timestamp"])) for r in read(run, stream))

    assert parts("one") == parts("three")
    assert len(parts("one")) == 4


def test_csv_rows_are_keyed_by_a_column(run: Run) -> None:
    """Rows of a key keep their order in one partition."""
    rows = "".join(f"c{i % 5},{i}\n" for i in range(50))
    assert run("produce", "three", "--format", "csv", "--key", "who", text=f"who,n\n{rows}".encode()).exit_code == 0
    seen: dict[object, list[int]] = {}
    for row in read(run, "three"):
        data = json.loads(str(row["data"]))
        assert data["who"] == row["key"]
        seen.setdefault(row["key"], []).append(int(data["n"]))
    assert seen == {f"c{k}": list(range(k, 50, 5)) for k in range(5)}


def test_a_bad_line_stops_the_run(run: Run) -> None:
    """It is named with its number, what stood before it is stored, what stands behind it is not; exit code 1."""
    sent = run("produce", "one", "--format", "jsonl", text=b"1\n2\nnope\n4\n")
    assert (sent.exit_code, sent.stdout) == (1, "sent 2, stored 2, failed 0\n")
    assert sent.stderr.startswith("line 3: ")
    assert [row["data"] for row in read(run, "one")] == ["1", "2"]


@pytest.mark.parametrize("from_file", [True, False])
def test_gzip_is_unpacked(run: Run, tmp_path: Path, from_file: bool) -> None:
    """Known by its first bytes, not its name; joined files are one input."""
    packed = gzip.compress(b"k,v\n" + b"a,1\n" * 40_000) + gzip.compress(b"b,2\n")
    file = tmp_path / "rows"
    file.write_bytes(packed)
    sent = run("produce", "one", *([str(file)] if from_file else []), "--format", "csv", "--key", "k", text=packed)
    assert (sent.exit_code, sent.stdout, sent.stderr) == (0, "sent 40001, stored 40001, failed 0\n", "")
    assert [(row["key"], row["data"]) for row in read(run, "one")][-2:] == [
        ("a", '{"k":"a","v":"1"}'),
        ("b", '{"k":"b","v":"2"}'),
    ]


def test_padded_gzip_is_whole(run: Run) -> None:
    """Zeros behind the last member, as tapes and block devices leave them, are no damage."""
    result = run("produce", "one", text=gzip.compress(b"a\nb\n") + bytes(512))
    assert result.exit_code == 0, result.output
    assert "sent 2, stored 2, failed 0" in result.stdout


async def test_an_input_that_does_not_wait_is_waited_for() -> None:
    """A pipe somebody set to non-blocking is read to its end: "nothing yet" is not the end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as source:
        feed = Feed(source, parser("lines", None))
        os.write(writing, b"one\n")
        first = await feed.next()
        os.write(writing, b"two\n")
        os.close(writing)
        second = await feed.next()
        assert [line.data for chunk in (first, second) for line in chunk or () if isinstance(line, Line)] == [
            b"one",
            b"two",
        ]
        assert await feed.next() is None


def test_damaged_gzip_is_told(run: Run) -> None:
    """Cut off or altered: one line, exit code 1; and no small file makes us hold a large one."""
    packed = bytearray(gzip.compress(b"line\n" * 10))
    cut = run("produce", "one", text=bytes(packed[:-1]))
    packed[-5] ^= 1  # of the checksum
    altered = run("produce", "one", text=bytes(packed))
    junk = run("produce", "one", text=b"\x1f\x8bjunk")
    for result, told in ((cut, "cut off"), (altered, "damaged gzip"), (junk, "damaged gzip")):
        assert result.exit_code == 1
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
    bomb = gzip.compress(b"x" * 200_000_000, 1)
    assert run("produce", "one", "--skip-bad", text=bomb).stdout == "sent 0, stored 0, failed 0, skipped 1\n"


def test_other_encodings_are_bad_lines(run: Run) -> None:
    """CSV that is not UTF-8 is named by line, and --skip-bad leaves that row out."""
    text = "k,v\na,1\nb,é\nc,3\n".encode("latin-1")
    stopped = run("produce", "one", "--format", "csv", text=text)
    assert (stopped.exit_code, stopped.stdout, stopped.stderr) == (
        1,
        "sent 1, stored 1, failed 0\n",
        "line 3: not UTF-8 text\n",
    )
    skipped = run("produce", "one", "--format", "csv", "--skip-bad", text=text)
    assert (skipped.exit_code, skipped.stdout) == (0, "sent 2, stored 2, failed 0, skipped 1\n")
    utf16 = run("produce", "one", "--format", "csv", text="k,v\na,1\n".encode("utf-16"))
    assert (utf16.exit_code, utf16.stderr) == (1, "line 1: not UTF-8 text\n")


def test_a_mistyped_key_field_sends_nothing(run: Run) -> None:
    """--key that the first object lacks is a usage error, before any record loses its order."""
    sent = run("produce", "three", "--format", "jsonl", "--key", "nope", text=b'{"id":1}\n{"id":2}\n')
    assert sent.exit_code == 2
    assert "--key nope" in sent.stderr
    assert "it has id" in sent.stderr
    assert read(run, "three") == []


def test_bad_lines_can_be_skipped(run: Run) -> None:
    """With --skip-bad the rest is stored, and the skipped lines are counted; also one too large for a record."""
    text = b"1\nnope\n" + b'"' + b"x" * 1_100_000 + b'"\n4\n'
    sent = run("produce", "one", "--format", "jsonl", "--skip-bad", text=text)
    assert (sent.exit_code, sent.stdout) == (0, "sent 2, stored 2, failed 0, skipped 2\n")
    assert [line.split(":")[0] for line in sent.stderr.splitlines()] == ["line 2", "line 3"]
    assert [row["data"] for row in read(run, "one")] == ["1", "4"]


def test_records_that_the_service_refuses_are_told(run: Run) -> None:
    """They count as failed, their cause is named once, and the exit code is 1."""
    row = json.dumps({"data": "x", "key": "k" * 70_000})  # longer than the server's limit, which only the server knows
    sent = run("produce", "one", "--format", "records", text=f"{row}\n".encode())
    assert (sent.exit_code, sent.stdout) == (1, "sent 1, stored 0, failed 1\n")
    assert sent.stderr.startswith("failed: 1 x rejected (DIS.4200), for example: ")
    assert len(sent.stderr.splitlines()) == 1


def test_one_outage_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures count by kind and code, whatever their details say, most frequent first, each with one example."""

    def ends(record: int) -> DeliveryFailed:
        if record % 4 == 0:
            return RecordRejected("DIS.4200", f"bad\n{record}")
        return DeliveryUnknown("cut") if record == 1 else NotStored("expired", f"after {record} attempts")

    async def send(self: Producer, data: object, **options: object) -> Awaitable[Receipt]:
        failed: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        failed.set_exception(ends(int(bytes(data))))  # type: ignore[call-overload]
        return failed

    monkeypatch.setattr(Producer, "send", send)
    sent = run("produce", "one", text=b"".join(b"%d\n" % i for i in range(12)))
    assert (sent.exit_code, sent.stdout) == (1, "sent 12, stored 0, failed 12\n")
    assert sent.stderr.splitlines() == [
        "failed: 8 x not stored (expired), for example: after 2 attempts",
        "failed: 3 x rejected (DIS.4200), for example: bad 0",
        "failed: 1 x unknown whether it is stored, for example: cut",
    ]


def test_the_rate_is_an_upper_bound(run: Run) -> None:
    """21 records at 100 a second need at least a fifth of a second."""
    begun = time.monotonic()
    assert run("produce", "one", "--rate", "100", text=b"x\n" * 21).exit_code == 0
    assert time.monotonic() - begun >= 0.2


def test_where_reading_begins_and_ends(run: Run) -> None:
    """--from takes both ends, a number and a time; --max and --no-follow end it; --partition chooses."""
    run("produce", "one", text=b"".join(b"%d\n" % i for i in range(5)))
    run("produce", "three", text=b"".join(b"%d\n" % i for i in range(30)))

    def data(stream: str, *options: str) -> list[object]:
        return [row["data"] for row in read(run, stream, *options)]

    assert data("one", "--from", "3") == ["3", "4"]
    assert data("one", "--from", "5") == []
    assert data("one", "--from", "latest") == []
    assert data("one", "--from", "earliest", "--max", "2") == ["0", "1"]
    assert data("one", "--from", "2000-01-01") == ["0", "1", "2", "3", "4"]
    later = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, UTC).isoformat()
    assert data("one", "--from", later) == []
    parts = [data("three", "--partition", p) for p in ("0", "shardId-0000000001", "2")]
    assert sorted(int(str(n)) for part in parts for n in part) == list(range(30))
    assert sorted(data("three", "--partition", "0", "--partition", "1"), key=str) == sorted(
        parts[0] + parts[1], key=str
    )
    assert len(run("consume", "three", "--max", "7").stdout.splitlines()) == 7  # follows, and ends all the same


def test_raw_and_table(run: Run) -> None:
    """raw is the data alone; table has a header and one line a record."""
    run("produce", "one", text=b"a\nb\n")
    assert run("consume", "one", "--no-follow", "--format", "raw").stdout == "a\nb\n"
    header, first, second = run("consume", "one", "--no-follow", "--format", "table").stdout.splitlines()
    assert header.split()[:2] == ["PARTITION", "SEQUENCE"]
    assert (first.split()[1], first.split()[-1], second.split()[-1]) == ("0", "a", "b")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("consume", "nope"), 1, "DIS.4301"),
        (("produce", "nope"), 1, "`disstream stream create NAME`"),
        (("consume", "one", "--from", "9", "--max", "1"), 1, "DIS.4224"),
        (("produce", "one", "/proc/self/mem"), 1, "Input/output error"),
        (("consume", "three", "--from", "0"), 2, "--partition"),
        (("consume", "three", "--partition", "9"), 2, "shardId-0000000002"),
        (("consume", "three", "--partition", "x"), 2, "[x]"),
        (("consume", "one", "--from", "yesterday"), 2, "'yesterday'"),
        (("consume", "one", "--from", "9" * 5000), 2, "sequence number"),
        (("consume", "one", "--from", str(2**63)), 2, "sequence number"),
        (("consume", "one", "--from", "0001-01-01"), 2, "0001-01-01"),
        (("consume", "one", "--from", "9999-12-31T23:59:59-14:00"), 2, "9999-12-31"),
        (("consume", "one", "--no-follow", "--timeout", "0"), 2, "--timeout"),
        (("consume", "one", "--no-follow", "--timeout", "inf"), 2, "--timeout"),
        (("produce", "one", "--rate", "nan"), 2, "--rate"),
        (("produce", "one", "--key", "k"), 2, "--key"),
        (("produce", "one", "/does/not/exist"), 2, "/does/not/exist"),
        (("produce", "one", "--format", "csv", "--key", "zz"), 0, ""),
    ],
)
def test_mistakes_are_one_clear_line(run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    """A refusal of the service exits with 1 and its code, a wrong use with 2; neither with a traceback."""
    result = run(*arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        assert len(result.stderr.splitlines()) == 1


def test_an_unreachable_service_is_told() -> None:
    """One line naming the endpoint, exit code 1."""
    result = click.testing.CliRunner().invoke(main, ["consume", "x", "--endpoint", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9" in result.stderr


def without(descriptor: str, *arguments: str, endpoint: str = "http://127.0.0.1:9") -> tuple[int, str]:
    """Exit code and standard error of a command that is started with a closed standard descriptor."""
    command = [sys.executable, "-m", "disstream", *arguments, "--endpoint", endpoint]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {descriptor}', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=60
    )
    return done.returncode, done.stderr


def test_closed_standard_descriptors(run: Run, disstream_server: Server, tmp_path: Path) -> None:
    """No input to read and no output to write to are told in a line; whoever needs neither works without them."""
    code, told = without("<&-", "produce", "one")
    assert (code, told.splitlines()[-1]) == (
        2,
        "Error: Invalid value for '[FILE]': standard input is closed: name a file",
    )
    assert without(">&-", "consume", "one") == (
        1,
        "Error: standard output is closed: there is nowhere to write the records\n",
    )
    file = tmp_path / "lines"
    file.write_text("a\n")
    url = disstream_server.url
    assert without("<&- >&-", "produce", "one", str(file), endpoint=url) == (0, "")
    assert without("<&- >&- 2>&-", "stream", "list", endpoint=url) == (0, "")
    assert [row["data"] for row in read(run, "one")] == ["a"]


def test_an_interrupted_read_to_the_end_is_no_success(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is how following ends; before the end of --no-follow it means that something is missing."""

    def interrupted(work: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("disstream.cli.record"), "run", interrupted)
    assert run("consume", "one").exit_code == 0
    result = run("consume", "one", "--no-follow")
    assert (result.exit_code, result.stderr) == (1, "Error: interrupted before the end\n")


@pytest.mark.parametrize("way", ["dead", "hanging"])
def test_no_follow_ends_without_the_service(way: str) -> None:
    """What was read is printed; then, a while after the server died or hangs, exit code 1 and why."""
    server = subprocess.Popen(
        [sys.executable, "-m", "disstream", "serve", "--memory", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        endpoint = ("--endpoint", server.stdout.readline().split()[1])
        runner = click.testing.CliRunner()
        runner.invoke(main, ["stream", "create", "s", "--partitions", "1", *endpoint])
        text = b"".join(b"%09d" % i + b"x" * 50_000 + b"\n" for i in range(1000))  # more than is read ahead
        assert runner.invoke(main, ["produce", "s", *endpoint], input=text).exit_code == 0
        reading = subprocess.Popen(
            [sys.executable, "-m", "disstream", "consume", "s", "--no-follow", "--timeout", "1.5", *endpoint],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert reading.stdout is not None
        assert reading.stderr is not None
        with reading, reading.stdout as out, reading.stderr as err:
            printed = [out.readline()]
            server.send_signal(signal.SIGKILL if way == "dead" else signal.SIGSTOP)
            printed += out.readlines()
            told = err.read().decode().splitlines()
        assert reading.returncode == 1
        numbers = [json.loads(line)["sequence_number"] for line in printed]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < 1000
        assert told[-1].startswith("Error: nothing could be read for 1.5 s; the last error: ")
        assert endpoint[1] in told[-1]
    finally:
        server.kill()
        server.communicate()


def start(server: Server, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "disstream", *arguments, "--endpoint", server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_follow_until_the_reader_has_seen_enough(run: Run, disstream_server: Server) -> None:
    """consume prints records as they come; when its pipe closes it ends quietly with 0, and with 0 at Ctrl-C."""
    run("produce", "one", text=b"first\n")
    piped, stopped = (start(disstream_server, "consume", "one", "--format", "raw") for _ in range(2))
    for process in (piped, stopped):
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
    run("produce", "one", text=b"second\n")
    for process in (piped, stopped):
        assert process.stdout is not None
        assert process.stdout.readline() == b"second\n"
    assert piped.stdout is not None
    piped.stdout.close()
    run("produce", "one", text=b"third\n")  # the write that finds the pipe closed
    stopped.send_signal(signal.SIGINT)
    for process in (piped, stopped):
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def test_an_interrupted_producer_stores_what_it_read(run: Run, disstream_server: Server) -> None:
    """Lines of a pipe are stored as they come; Ctrl-C ends the input, and the counts are printed."""
    process = start(disstream_server, "produce", "one")
    assert process.stdin is not None
    process.stdin.write(b"a\nb\nunfinished")
    process.stdin.flush()

    async def until_stored() -> None:
        async with connect(disstream_server.url, project_id="demo") as dis, dis.consumer("one") as consumer:
            seen = 0
            while seen < 2:
                seen += len(await consumer.fetch(timeout_s=30))

    asyncio.run(until_stored())
    process.send_signal(signal.SIGINT)
    process.wait(30)  # before its input is closed, which would end the last line
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, b"sent 2, stored 2, failed 0\n", b"")


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, that can be killed, and its URL."""
    command = [sys.executable, "-m", "disstream", "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[1]
        finally:
            process.kill()


@contextlib.contextmanager
def producing(url: str) -> Iterator[subprocess.Popen[str]]:
    """`produce s` reading a pipe, with its first record stored."""
    runner = click.testing.CliRunner()
    assert runner.invoke(main, ["stream", "create", "s", "--partitions", "1", "--endpoint", url]).exit_code == 0
    with subprocess.Popen(
        [sys.executable, "-m", "disstream", "produce", "s", "--endpoint", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        guard = threading.Timer(60, process.kill)  # so that a line that never comes is a failure, and no hanging test
        guard.start()
        try:
            feed(process, "first")
            assert runner.invoke(main, ["consume", "s", "--max", "1", "--endpoint", url]).exit_code == 0
            yield process
        finally:
            guard.cancel()
            process.kill()


def feed(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


@pytest.mark.parametrize("way", ["interrupted", "ended"])
def test_waiting_for_a_service_that_is_away_can_be_given_up(way: str) -> None:
    """The outage is told, then what is waited for; the next Ctrl-C prints the counts, exit code 1, no traceback."""
    with serving("--memory", "--port", "0") as (server, url), producing(url) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        server.kill()
        server.wait()
        feed(process, "second")
        assert process.stderr.readline().startswith("puts fail and are tried again ")
        if way == "interrupted":
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "waiting for 1 records; Ctrl-C again gives up\n"
        else:
            process.stdin.close()
            process.stdin = None
            assert process.stderr.readline() == "waiting for 1 records; Ctrl-C gives up\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (1, "sent 2, stored 1, failed 1\n")
        assert err.startswith("failed: 1 x ")
        assert len(err.splitlines()) == 1


def test_the_end_of_an_outage_is_told(tmp_path: Path) -> None:
    """One line when puts begin to fail and one when they are answered again; everything is stored."""
    data = ("--data-dir", str(tmp_path / "data"))
    with serving("--port", "0", *data) as (server, url), producing(url) as process:
        assert process.stderr is not None
        server.kill()
        server.wait()
        feed(process, "second")
        assert process.stderr.readline().startswith("puts fail and are tried again ")
        with serving("--port", url.rpartition(":")[2], *data):
            assert process.stderr.readline().startswith("puts are answered again ")
            assert process.communicate(timeout=30) == ("sent 2, stored 2, failed 0\n", "")
            assert process.returncode == 0
