"""Proves the spill file: what is written is read back, bounded, locked, private, and whole after a crash."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import disstream
from disstream.errors import ConfigError
from disstream.model import NewRecord
from disstream.producer import Envelope, ProducerConfig
from disstream.producer.spillfile import SpillResend, SpillWriter, read_spill, spill_line

ROWS = [
    NewRecord(b"7 apples", "customer-7"),
    NewRecord(b"\xff\x00", None, "shardId-0000000002"),
    NewRecord('größer\n"'.encode(), "schlüssel", None, "9223372036854775807", 17),
    NewRecord(b""),
]


def write(path: Path, rows: list[NewRecord] = ROWS, limit: int = 100_000, stream: str = "orders") -> int:
    writer = SpillWriter(str(path), stream, limit)
    try:
        return writer.append(spill_line(row, "not stored", "expired") for row in rows)
    finally:
        writer.close()


def test_the_file_is_as_drawn(tmp_path: Path) -> None:
    """Bytes, not only a round trip: a header line, then `end` in twelve bytes, and text where the data is text."""
    path = tmp_path / "orders.spill"
    writer = SpillWriter(str(path), "orders", 10_000)
    writer.append([spill_line(ROWS[0], "not stored", "expired"), spill_line(ROWS[1], "unknown", "")])
    writer.close()
    header, *lines = path.read_bytes().splitlines()
    assert header.startswith(b'{"spill":1,"stream":"orders","created":"2')
    assert lines == [
        b'{"end":"not stored","cause":"expired","data":"7 apples","key":"customer-7"}',
        b'{"end":"unknown"   ,"cause":"","data":"/wA=","partition_id":"shardId-0000000002","encoding":"base64"}',
    ]
    assert all(isinstance(json.loads(line), dict) for line in lines)


@given(
    st.lists(
        st.builds(
            NewRecord,
            st.binary(max_size=30) | st.text(max_size=10).map(str.encode),
            st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
            st.none() | st.just("shardId-0000000001"),
            st.none() | st.integers(0, 2**63 - 1).map(str),
            st.none() | st.integers(0, 2**62),
        ),
        max_size=8,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[NewRecord]) -> None:
    """Any bytes, keys and routes come back as they were, in order, over two runs of the producer."""
    path = tmp_path_factory.mktemp("spill") / "s"
    write(path, rows)
    write(path, rows)
    found = list(disstream.read_spill(path)) if rows else []
    assert path.exists() == bool(rows)
    assert [line.record for line in found] == rows + rows
    assert {(line.stream, line.end, line.cause) for line in found} <= {("orders", "not stored", "expired")}


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """Payloads may be secret: mode 0600, whatever the umask, also after it was written anew."""
    path = tmp_path / "s"
    previous = os.umask(0)
    try:
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with SpillResend(path) as file:
            file.mark(next(file.records()).offset, "stored")
            file.finish()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(read_spill(path))) == len(ROWS) - 1


@pytest.mark.parametrize("torn", [b"{", b'{"end":"not stored","cause":"", "data":"half', b"\x00" * 100])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """After a crash the reader skips it with a warning, and the next writer cuts it off and goes on."""
    caplog.set_level(logging.WARNING, logger="disstream.producer")
    path = tmp_path / "s"
    write(path)
    with path.open("ab") as file:
        file.write(torn)
    assert [line.record for line in read_spill(path)] == ROWS
    assert "a torn last line is skipped" in caplog.text
    write(path, ROWS[:1])
    assert "a torn last line is cut off" in caplog.text
    assert [line.record for line in read_spill(path)] == ROWS + ROWS[:1]
    assert torn not in path.read_bytes() or torn == b"{"


def test_it_is_bounded(tmp_path: Path) -> None:
    """Nothing is written beyond the limit, nothing after the first that did not fit, and no line is cut."""
    path = tmp_path / "s"
    assert write(path, [NewRecord(b"x" * 40, "k")] * 100, limit=1_000) < 20
    assert 900 < path.stat().st_size <= 1_000
    writer = SpillWriter(str(path), "orders", 1_000)
    assert writer.append([spill_line(NewRecord(b"x" * 400), "not stored", "")]) == 0
    assert writer.full
    assert writer.append([spill_line(NewRecord(b""), "not stored", "")]) == 0
    writer.close()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"my precious data\nand more\n", "is no spill file"),
        (b"my precious data, without an end", "is no spill file"),
        (b'{"spill":1,"stream":"payments","created":"x"}\n', "holds records of stream 'payments'"),
        (b'{"spill":2,"stream":"orders","created":"x"}\n', "is no spill file"),
        (b"\xff\n", "is no spill file"),
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, told: str) -> None:
    """A file that is no spill file of this stream is refused at the start, and not touched."""
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        write(path)
    assert path.read_bytes() == content


def test_a_file_is_of_one_form(tmp_path: Path) -> None:
    """Its first line says what readers expect; a producer of another form is refused, one of the same appends."""
    path = tmp_path / "s"
    forms: list[dict[str, Any]] = [
        {},
        {"envelope": Envelope()},
        {"record_compression": "snappy"},
        {"envelope": Envelope(), "record_compression": "snappy"},
    ]
    line = spill_line(ROWS[0], "not stored", "")
    for form in forms:
        for other in forms:
            writer = SpillWriter(str(path), "orders", 10_000, ProducerConfig(**form))
            writer.append([line])
            writer.close()
            config = ProducerConfig(**other, order="strict", linger_s=0.1)
            if other is form:
                SpillWriter(str(path), "orders", 10_000, config).close()
            else:
                with pytest.raises(ConfigError, match=r"this producer has .* --resend"):
                    SpillWriter(str(path), "orders", 10_000, config)
            with SpillResend(path) as file:
                assert file.config == ProducerConfig(**form)
            path.unlink()


@pytest.mark.parametrize(
    "form",
    [
        '"record_compression":"lz4"',
        '"envelope":{"aggregate_records":0,"aggregate_bytes":1,"identity":true}',
        '"envelope":{"aggregate_records":1,"aggregate_bytes":1}',
        '"envelope":{"aggregate_records":1,"aggregate_bytes":1,"identity":true,"encrypted":true}',
        '"encryption":"aes"',
    ],
)
def test_a_form_that_is_not_known_is_not_guessed(tmp_path: Path, form: str) -> None:
    """A header of a later version, or a damaged one, is refused: nothing is sent in a form that nobody expects."""
    path = tmp_path / "s"
    path.write_text(f'{{"spill":1,"stream":"orders","created":"x",{form}}}\n')
    with pytest.raises(ConfigError):
        SpillResend(path)


def test_places_where_no_file_can_be_are_refused(tmp_path: Path) -> None:
    """A directory, a pipe, no directory: ConfigError that names the path, at once."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "s"):
        with pytest.raises(ConfigError, match=path.name):
            write(path)


def test_one_at_a_time(tmp_path: Path) -> None:
    """While a producer has it, neither another one nor a resend gets it; then they do."""
    path = tmp_path / "s"
    writer = SpillWriter(str(path), "orders", 10_000)
    writer.append([spill_line(ROWS[0], "not stored", "expired")])
    for other in (lambda: SpillWriter(str(path), "orders", 10_000), lambda: SpillResend(path)):
        with pytest.raises(ConfigError, match="in use"):
            other()
    assert len(list(read_spill(path))) == 1, "looking is allowed"
    writer.close()
    SpillResend(path).close()


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"end":"not stored"}',
        b'{"end":"stolen    ","cause":"","data":""}',
        b'{"data":"x","cause":"","end":"not stored"}',
        b'{"end":"not stored","cause":"","data":"#","encoding":"base64"}',
        b'{"end":"not stored","cause":"","data":5}',
        b'{"end":"not stored","cause":"","data":"\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: bytes) -> None:
    """In the middle of a file it is an error with its number; what stands before it is read."""
    path = tmp_path / "s"
    write(path)
    with path.open("ab") as file:
        file.write(line + b"\n" + spill_line(ROWS[0], "not stored", ""))
    reading = read_spill(path)
    assert [next(reading).record for _ in ROWS] == ROWS
    with pytest.raises(ConfigError, match=r"line 6 is none of a spill file"):
        next(reading)


def test_a_failed_append_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a write: the error comes out, no half line stays, and the next append works."""
    path = tmp_path / "s"
    writer = SpillWriter(str(path), "orders", 100_000)
    writer.append([spill_line(ROWS[0], "not stored", "")])
    before = path.read_bytes()
    real, calls = os.pwrite, [0]

    def half(fd: int, data: memoryview, offset: int) -> int:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(28, "No space left on device")
        return real(fd, data[: len(data) // 2], offset)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        writer.append([spill_line(row, "not stored", "") for row in ROWS])
    assert path.read_bytes() == before
    monkeypatch.setattr(os, "pwrite", real)
    assert writer.append([spill_line(ROWS[1], "not stored", "")]) == 1
    writer.close()
    assert [line.record for line in read_spill(path)] == ROWS[:2]


def test_marks_take_records_out(tmp_path: Path) -> None:
    """Marked lines read as marked; finish keeps what is not stored, byte for byte, and removes an empty file."""
    path = tmp_path / "s"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    with SpillResend(path) as file:
        first, second, third, _last = file.records()
        file.mark(first.offset, "stored")
        file.mark(second.offset, "unknown")
        file.mark(third.offset, "rejected")
        assert [(line.end, line.record) for line in read_spill(path)] == [
            ("unknown", ROWS[1]),
            ("rejected", ROWS[2]),
            ("not stored", ROWS[3]),
        ]
        assert file.finish() == {"unknown": 1, "rejected": 1, "not stored": 1}
    kept = path.read_bytes().splitlines(keepends=True)
    assert (kept[0], kept[3]) == (lines[0], lines[4])
    assert not (tmp_path / "s.new").exists()
    with SpillResend(path) as file:
        for line in file.records():
            file.mark(line.offset, "stored")
        assert file.finish() == {}
    assert not path.exists()
