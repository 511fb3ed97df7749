"""Text becomes records and records text: nothing is lost between them, and what cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.cli.formats import (
    MAX_LINE_BYTES,
    BadLine,
    Line,
    LineSplitter,
    jsonl,
    parser,
    raw,
    table,
    table_header,
    time_text,
)
from disstream.errors import ConfigError
from disstream.model import Record


def lines(data: bytes, *sizes: int) -> Iterator[bytes]:
    """`data` as lines, fed to the splitter in pieces of `sizes` bytes and a last one."""
    splitter = LineSplitter()
    for size in sizes:
        yield from splitter.feed(data[:size])
        data = data[size:]
    yield from splitter.feed(data)
    if rest := splitter.end():
        yield rest


def parse(form: str, data: bytes, key: str | None = None) -> list[Line | BadLine]:
    return list(parser(form, key)(lines(data)))


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=10))
def test_lines_do_not_depend_on_how_they_arrive(data: bytes, sizes: list[int]) -> None:
    """However a stream is cut into reads, the same lines come out, and together they are the stream."""
    assert list(lines(data, *sizes)) == list(lines(data))
    assert b"".join(lines(data)) == data


def test_an_endless_line_costs_bounded_memory() -> None:
    """Of a line without an end only the limit is kept, it is a bad line, and the next line is read."""
    splitter = LineSplitter()
    chunk = b"x" * 1_000_000
    assert not [line for _ in range(50) for line in splitter.feed(chunk)]
    assert len(splitter.end()) == MAX_LINE_BYTES + 1
    found = list(parser("lines", None)(iter([*splitter.feed(b"\nnext\n")])))
    assert found == [BadLine(1, f"longer than {MAX_LINE_BYTES} bytes"), Line(2, b"next")]


records = st.builds(
    Record,
    data=st.one_of(st.binary(max_size=50), st.text(max_size=50).map(str.encode)),
    sequence_number=st.integers(0, 2**63 - 1),
    timestamp=st.integers(0, 2**53),
    key=st.one_of(st.none(), st.text(min_size=1, max_size=20)),
    stream=st.just("s"),
    partition_id=st.just("shardId-0000000000"),
)


@given(st.lists(records, max_size=5))
def test_what_consume_writes_produce_reads_back(given_records: list[Record]) -> None:
    """`records` gives back data, key and timestamp of every record that was written as jsonl, whatever its bytes."""
    text = b"".join(map(jsonl, given_records))
    assert text.count(b"\n") == len(given_records)
    assert parse("records", text) == [
        Line(number, r.data, r.key, r.timestamp) for number, r in enumerate(given_records, 1)
    ]


@given(st.binary(max_size=300), st.sampled_from(["lines", "jsonl", "csv", "records"]))
def test_any_bytes_are_records_or_bad_lines(data: bytes, form: str) -> None:
    """Every bad line has a number and a reason; a parser raises nothing, but for a csv header that cannot be one."""
    found: list[Line | BadLine] = []
    try:
        found.extend(parser(form, None)(lines(data)))
    except ConfigError:
        assert form == "csv"
    for item in found:
        assert isinstance(item, Line) or (item.number >= 1 and item.reason)


def test_lines_keep_everything_but_their_end() -> None:
    """Each line is a record, also an empty one; LF and CRLF are not part of it."""
    assert [item for item in parse("lines", b"a \n\r\n\xff\nb")] == [
        Line(1, b"a "),
        Line(2, b""),
        Line(3, b"\xff"),
        Line(4, b"b"),
    ]


@pytest.mark.parametrize(
    ("field", "key"),
    [(b'"x"', "x"), (b"7", "7"), (b"1.5", "1.5"), (b"true", "true"), (b"null", None), (b'""', None)],
)
def test_jsonl_takes_the_key_from_a_field(field: bytes, key: str | None) -> None:
    """The line is sent as it is; its key is the field as text, and nothing where there is nothing."""
    line = b'{"k":' + field + b', "v": 1}'
    assert parse("jsonl", line, "k") == [Line(1, line, key)]


@pytest.mark.parametrize("line", [b'{"k":[1]}', b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_jsonl_names_what_it_cannot_read(line: bytes) -> None:
    """A line that is not JSON, or whose key is no text or number, is bad; blank lines are nothing at all."""
    good = b'{"k":"a"}'
    first, second = parse("jsonl", b"\n" + line + b"\n" + good + b"\n", "k")
    assert isinstance(first, BadLine)
    assert first.number == 2
    assert second == Line(3, good, "a")


def test_csv_rows_become_objects() -> None:
    """Quoted line ends, missing keys and short rows come out as documented; a byte order mark is dropped."""
    text = b'\xef\xbb\xbfk,v\r\nx,"1\n2"\r\n\r\n,3\nshort\n\xff,4\ny,5\n'
    assert parse("csv", text, "k") == [
        Line(3, b'{"k":"x","v":"1\\n2"}', "x"),
        Line(5, b'{"k":"","v":"3"}', None),
        BadLine(6, "1 fields where the header has 2"),
        BadLine(7, "not UTF-8 text"),
        Line(8, b'{"k":"y","v":"5"}', "y"),
    ]


@pytest.mark.parametrize("form", ["jsonl", "records"])
@pytest.mark.parametrize("line", [b"\xff\xfe{", b'{"data":"\xe9"}'])
def test_other_encodings_are_named(form: str, line: bytes) -> None:
    """What is not UTF-8 is told as such, wherever in the line the parser stumbles."""
    assert parse(form, line) == [BadLine(1, "not UTF-8 text")]


def test_a_csv_header_that_is_not_text_ends_the_file() -> None:
    """The header is a bad line, and no other row may take its place: nothing behind it could be named."""
    found = []
    with pytest.raises(ConfigError, match="line 1 should be the header"):
        found.extend([next(rows := parser("csv", None)(lines(b"\x1f\xff\r\x00\nk,v\n1,2\n"))), *rows])
    rows = parser("csv", None)(lines(b"\x1f\xff\r\x00\nk,v\n1,2\n"))
    assert next(rows) == BadLine(1, "not UTF-8 text")


def test_jsonl_refuses_a_key_field_that_the_first_object_lacks() -> None:
    """A mistyped name is told with the names there are; null is a field, and later objects may lack it."""
    with pytest.raises(ConfigError, match=r"--key nope: the object in line 2 has no such field; it has a, b$"):
        parse("jsonl", b'\n{"a":1,"b":2}\n', "nope")
    with pytest.raises(ConfigError, match="it has none"):
        parse("jsonl", b"{}", "nope")
    text = b'{"k":null}\n{}\n{"k":"x"}\n'
    assert [item.key for item in parse("jsonl", text, "k") if isinstance(item, Line)] == [None, None, "x"]


def test_csv_without_the_key_column_is_a_usage_error() -> None:
    """A key column that the header lacks concerns the whole file, so no row is blamed."""
    with pytest.raises(ConfigError, match=r"--key zz.*it has k, v"):
        parse("csv", b"k,v\n1,2\n", "zz")


def test_csv_with_a_column_twice_is_a_usage_error() -> None:
    """One of two columns of a name would be lost, so nothing is read; the name is told."""
    with pytest.raises(ConfigError, match="'v'"):
        parse("csv", b"k,v,w,v\n1,2,3,4\n")


@pytest.mark.parametrize(
    "line", [b"{}", b'{"data":1}', b'{"data":"?","encoding":"base64"}', b'{"data":"x","encoding":"hex"}']
)
def test_records_refuse_what_they_did_not_write(line: bytes) -> None:
    """Missing or mistyped members, bad base64 and unknown encodings are bad lines."""
    (found,) = parse("records", line)
    assert isinstance(found, BadLine)


def test_a_table_line_stays_one_line() -> None:
    """Control characters cannot break the table or reach the terminal, and the line is cut to the width."""
    line = table(Record(b"a\nb\x1b[31m\xff", 7, 0, "k\n", "s", "shardId-0000000000"), 0)
    assert line.decode() == f"shardId-0000000000    {7:>12}  1970-01-01 00:00:00.000  {'k.':<16}  a.b.[31m\ufffd\n"
    assert len(table(Record(b"x" * 500, 7, 0), 80)) == 81
    assert len(table(Record(b"x" * 500, 7, 0), 200)) == 201


def test_a_narrow_table_leaves_room_for_the_data() -> None:
    """At 80 characters the data has a third of them, and the sequence number is whole."""
    key = "customer-000000042"
    for number, partition in ((7, "shardId-0000000012"), (10**8 - 1, "shardId-0000000000")):
        line = table(Record(b"d" * 500, number, 1_000, key, "s", partition), 80).decode()
        part, sequence, day, time, shown, data = line.split()
        assert (part, sequence, day, time, shown) == (
            str(int(partition[8:])),
            str(number),
            "01-01",
            "00:00:01",
            "customer-00…",
        )
        assert len(data) >= 26
        assert table_header(80).index(b"DATA") == line.index("ddd")


def test_other_bytes_as_they_are_written() -> None:
    """Times that no calendar has are numbers; raw is the data and a line end."""
    assert time_text(2**62) == str(2**62)
    assert raw(Record(b"\xff", 7)) == b"\xff\n"
