"""In which form a batch could be stored: what putting and getting it costs, and how many bytes it takes.

    text       records as they stand in a page of JSON, base64 and all, with the end of each; CRC-32 in front
    rows       msgpack, an array for each record: format 1
    columns    keys, sizes and all payloads in one piece, in msgpack: what the engine stores
    columns + lz4, zstd 1, zstd 3   the same, all behind the header compressed

One batch of 500 records, no disk; nanoseconds a record, of the best of many runs, checksum included. *Put* is from what
was decoded of a body to the stored value; *get* from the value to the finished page, in the three forms that clients
ask for. What decoding a body costs comes before it, whatever the form: it is shown apart. Payloads are random bytes,
which nothing compresses, or flights (JSON of examples/data), one a record; keys are those of 97, or the aircraft.

    python benchmarks/forms.py [--seconds 0.4] [--json FILE]

Predicted: columns put in 100 ns and get in 350 as JSON, text gets in 70; flights compress to a third with lz4 at 150 ns
a record for putting and 50 for getting, to a quarter with zstd at 400 and 150; random bytes cost the attempt.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import lz4.block
import msgspec
import zstandard

from disstream.bench.flights import SHIPPED, read_rows
from disstream.bench.machine import Origin
from disstream.engine import Columns, Row
from disstream.engine.embedded import batch
from disstream.model import NewRecord, Record
from disstream.wire.columns import decode_columns, encode_columns
from disstream.wire.pages import PageBatch, decode_page_columns, encode_page_columns
from disstream.wire.protobuf import decode_page_protobuf, decode_put_protobuf, encode_page_protobuf, encode_put_protobuf
from disstream.wire.records import PageRow, decode_put, encode_page, encode_put, page_decoder

BATCH = 500
FIRST = 1_000_000
NOW = 1_700_000_000_000
KEYS = 97
HEADER_BYTES = 32
"""Of a stored batch; what follows is what would be compressed."""


class Form(NamedTuple):
    """`rows`: a value as what a page is made of; `as_json`, where it is found otherwise."""

    put: Callable[[Columns], bytes]
    rows: Callable[[bytes], Columns]
    as_json: Callable[[bytes], bytes] | None = None


class Costs(msgspec.Struct, frozen=True):
    """Nanoseconds and bytes, each of a record."""

    payload: str
    form: str
    put: float
    get_json: float
    get_protobuf: float
    get_columns: float
    stored_bytes: float


class Decoding(msgspec.Struct, frozen=True):
    """Nanoseconds a record, from a body to what `Form.put` takes."""

    payload: str
    json: float
    protobuf: float
    columns: float


class Tables(msgspec.Struct, frozen=True):
    origin: Origin
    forms: list[Costs]
    decoding: list[Decoding]


# --- what is stored -----------------------------------------------------------------------------------------------


def payloads() -> dict[str, list[Row]]:
    dice = random.Random(1)
    found = {
        f"random, {size} B": [Row(dice.randbytes(size), f"key-{index % KEYS}") for index in range(BATCH)]
        for size in (100, 1024)
    }
    flights = [Row(row.data, row.key) for row in read_rows(SHIPPED, "tailnum")[:BATCH]]
    size = sum(len(row.data) for row in flights) // BATCH
    return {**found, f"flights, {size} B": flights}


# --- the forms ----------------------------------------------------------------------------------------------------


def columns_put(rows: Columns) -> bytes:
    return bytes(batch.encode(rows).value(FIRST, NOW))


def columns_rows(value: bytes) -> Columns:
    return batch.unopened(value, batch.verify(value))


_rows_decoder = msgspec.msgpack.Decoder(list[Row])


def rows_put(rows: Columns) -> bytes:
    body = msgspec.msgpack.encode(list(rows))
    return zlib.crc32(body).to_bytes(4, "big") + body


def rows_rows(value: bytes) -> Columns:
    return Columns.of(_rows_decoder.decode(checked(value)))


def text_put(rows: Columns) -> bytes:
    encode = msgspec.json.Encoder().encode
    parts = [encode(row) for row in page_rows(rows)]
    ends = array("I", accumulate(map(len, parts))).tobytes()
    body = len(parts).to_bytes(4, "big") + ends + b",".join(parts)
    return zlib.crc32(body).to_bytes(4, "big") + body


def text_json(value: bytes) -> bytes:
    return b"".join((b'{"records":[', _text(value), b'],"next_partition_cursor":"cursor"}'))


def _text(value: bytes) -> memoryview:
    body = checked(value)
    return body[4 + 4 * int.from_bytes(body[:4], "big") :]


_text_decoder = msgspec.json.Decoder(list[PageRow])


def text_rows(value: bytes) -> Columns:
    found = _text_decoder.decode(b"[" + _text(value) + b"]")
    return Columns.of([Row(row.data, row.partition_key) for row in found])


def checked(value: bytes) -> memoryview:
    """What follows the checksum. Ends the run if that does not match."""
    view = memoryview(value)
    if zlib.crc32(view[4:]) != int.from_bytes(view[:4], "big"):
        raise SystemExit("the checksum does not match")
    return view[4:]


def compressed(pack: Callable[[bytes], bytes], unpack: Callable[[memoryview], bytes]) -> Form:
    """Columns whose rows are compressed. The checksum covers what is compressed: less to sum up."""

    def put(rows: Columns) -> bytes:
        stored = columns_put(rows)
        body = pack(stored[HEADER_BYTES:])
        return zlib.crc32(body).to_bytes(4, "big") + stored[:HEADER_BYTES] + body

    def take(value: bytes) -> Columns:
        view = memoryview(value)
        if zlib.crc32(view[4 + HEADER_BYTES :]) != int.from_bytes(view[:4], "big"):
            raise SystemExit("the checksum does not match")
        whole = bytes(view[4 : 4 + HEADER_BYTES]) + unpack(view[4 + HEADER_BYTES :])
        return batch.unopened(whole, batch.header(whole))

    return Form(put, take)


def zstd(level: int) -> Form:
    packer, unpacker = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    return compressed(packer.compress, unpacker.decompress)


FORMS = {
    "text": Form(text_put, text_rows, text_json),
    "rows": Form(rows_put, rows_rows),
    "columns": Form(columns_put, columns_rows),
    "columns + lz4": compressed(lz4.block.compress, lz4.block.decompress),
    "columns + zstd 1": zstd(1),
    "columns + zstd 3": zstd(3),
}


# --- pages --------------------------------------------------------------------------------------------------------


def page_rows(rows: Columns) -> list[PageRow]:
    numbers = map(str, range(FIRST, FIRST + len(rows)))
    return [
        PageRow(number, data, NOW, "CreateTime", key)
        for number, data, key in zip(numbers, rows.payloads, rows.keys, strict=True)
    ]


def as_json(rows: Columns) -> bytes:
    return encode_page(page_rows(rows), "cursor")


def as_protobuf(rows: Columns) -> bytes:
    return encode_page_protobuf(page_rows(rows), "cursor")


def as_columns(rows: Columns) -> bytes:
    return encode_page_columns([PageBatch(FIRST, NOW, rows.packed, rows.data)], "cursor")


# --- the measurement ----------------------------------------------------------------------------------------------


def ns_per_record(function: Callable[[], object], seconds: float) -> float:
    """The best of many runs: what it costs when nobody else takes the processor."""
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best / BATCH * 1e9


def fresh(rows: Sequence[Row]) -> Callable[[], Columns]:
    """Columns that nobody has looked at, as they come out of a body."""
    keys, sizes = [row.key for row in rows], [len(row.data) for row in rows]
    data = memoryview(b"".join(row.data for row in rows))
    return lambda: Columns(keys, sizes, None, data)


def measure(name: str, rows: list[Row], seconds: float) -> Iterator[Costs]:
    for title, form in FORMS.items():
        yield measure_form(name, title, form, rows, seconds)


def measure_form(name: str, title: str, form: Form, rows: list[Row], seconds: float) -> Costs:
    make = fresh(rows)
    value = form.put(make())

    def in_json() -> bytes:
        return as_json(form.rows(value)) if form.as_json is None else form.as_json(value)

    def in_protobuf() -> bytes:
        return as_protobuf(form.rows(value))

    def in_columns() -> bytes:
        return as_columns(form.rows(value))

    expected = [(row.data, row.key) for row in rows]
    pages: dict[str, Sequence[Record]] = {
        "JSON": page_decoder("s", "p")(in_json())[0],
        "protobuf": decode_page_protobuf(in_protobuf(), "s", "p")[0],
        "columns": decode_page_columns(in_columns(), "s", "p")[0],
    }
    for kind, records in pages.items():
        if [(record.data, record.key) for record in records] != expected:
            raise SystemExit(f"{title}: the page in {kind} is another one")
    return Costs(
        name,
        title,
        ns_per_record(lambda: form.put(make()), seconds),
        ns_per_record(in_json, seconds),
        ns_per_record(in_protobuf, seconds),
        ns_per_record(in_columns, seconds),
        len(value) / BATCH,
    )


def measure_decoding(name: str, rows: list[Row], seconds: float) -> Decoding:
    records = [NewRecord(row.data, row.key) for row in rows]
    in_json, in_protobuf = encode_put("s", records), encode_put_protobuf("s", records)
    in_columns = encode_columns("s", records)
    assert in_columns is not None
    return Decoding(
        name,
        ns_per_record(lambda: decode_put(in_json, BATCH), seconds),
        ns_per_record(lambda: decode_put_protobuf(in_protobuf, BATCH), seconds),
        ns_per_record(lambda: decode_columns(in_columns, BATCH), seconds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.4, help="for each figure (default: 0.4)")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    if not SHIPPED.exists():
        raise SystemExit(f"there is no {SHIPPED}: run this in a checkout of the repository")
    origin = Origin.here(" ".join(["python", *sys.argv]), "no service: one batch in memory")
    kinds = payloads()
    print(origin.machine)
    print("\n| payload | form | put ns | get JSON ns | get protobuf ns | get columns ns | bytes stored |")
    print("|---|---|" + "---:|" * 5)
    tables = Tables(origin, [], [])
    for name, rows in kinds.items():
        for cost in measure(name, rows, options.seconds):
            tables.forms.append(cost)
            told = (cost.put, cost.get_json, cost.get_protobuf, cost.get_columns, cost.stored_bytes)
            print(f"| {name} | {cost.form} | " + " | ".join(f"{figure:.0f}" for figure in told) + " |", flush=True)
    print("\n| decoding a body of | JSON ns | protobuf ns | columns ns |")
    print("|---|---:|---:|---:|")
    for name, rows in kinds.items():
        found = measure_decoding(name, rows, options.seconds)
        tables.decoding.append(found)
        print(f"| {name} | {found.json:.0f} | {found.protobuf:.0f} | {found.columns:.0f} |", flush=True)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(tables), indent=1) + b"\n")


if __name__ == "__main__":
    main()
