"""The server takes records as JSON and as protobuf, plain and compressed, and means the same by all of them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import zstandard
from accounts import Signer, application
from server_http import Answer, AppCaller, Caller, serving

from disstream.engine.memory import MemoryEngine
from disstream.errors import ApiError
from disstream.model import NewRecord, PutResult, Record
from disstream.server import App, ServerConfig
from disstream.server.compression import INLINE_BYTES, Unpacking
from disstream.testing.clock import run_simulated
from disstream.wire.compression import COMPRESSIONS, Compression, Packed, compress
from disstream.wire.http import Request
from disstream.wire.protobuf import decode_page_protobuf, decode_put_answer_protobuf, encode_put_protobuf
from disstream.wire.records import decode_put_answer, encode_put, page_decoder

PROTOBUF = "application/x-protobuf; charset=utf-8"
AS_PROTOBUF = {"content-type": PROTOBUF}
POST = ("POST", "/v2/p/records")

Put = Callable[[Caller, str, list[NewRecord]], Awaitable[Answer]]


async def in_json(caller: Caller, stream: str, records: list[NewRecord]) -> Answer:
    return await caller.call(*POST, encode_put(stream, records))


async def in_protobuf(caller: Caller, stream: str, records: list[NewRecord]) -> Answer:
    return await caller.call(*POST, encode_put_protobuf(stream, records), **AS_PROTOBUF)


def results(answer: Answer) -> list[PutResult]:
    if answer.headers["content-type"] == "application/x-protobuf":
        return decode_put_answer_protobuf(answer.body)
    return decode_put_answer(answer.body)


async def page(caller: Caller, cursor: str, **headers: str) -> list[Record]:
    answer = await caller.call("GET", f"/v2/p/records?partition-cursor={cursor}", **headers)
    assert answer.status == 200
    if answer.headers["content-type"] == "application/x-protobuf":
        return decode_page_protobuf(answer.body, "s", "p")[0]
    return page_decoder("s", "p")(answer.body)[0]


async def fresh(**config: Any) -> AppCaller:
    engine = MemoryEngine()
    await engine.start()
    return AppCaller(App(engine, ServerConfig(data_dir=None, **config)))


RECORDS = [
    NewRecord(b"\x00\xff", key="k1"),
    NewRecord(b"", key="key-42", timestamp=5),
    NewRecord(b"a", key="k1", explicit_hash_key=str(2**63 - 1)),
    NewRecord(b"b", key="k1", explicit_hash_key=str(2**63 - 1), partition_id="1"),
    NewRecord(b"c", key="", explicit_hash_key="0", partition_id="shardId-0000000002"),
    NewRecord(b"d", key="k1", explicit_hash_key="-5"),
    NewRecord("分".encode(), key="分区", partition_id="", timestamp=0),
]


def test_the_same_put_in_both_forms() -> None:
    """Equal puts get equal answers and store equal records, and each page reads the same in both forms."""

    async def main() -> None:
        told, stored = [], []
        for put in (in_json, in_protobuf):
            caller = await fresh()
            await caller.create("s", 3)
            told.append(results(await put(caller, "s", RECORDS)))
            cursors = [await caller.cursor("s", str(n), cursor_type="TRIM_HORIZON") for n in range(3)]
            pages = [await page(caller, cursor) for cursor in cursors]
            assert [await page(caller, cursor, **AS_PROTOBUF) for cursor in cursors] == pages
            stored.append(pages)
        assert told[0] == told[1]
        assert stored[0] == stored[1]
        assert sum(len(records) for records in stored[0]) == len(RECORDS)

    run_simulated(main)


@pytest.mark.parametrize(
    ("records", "status", "code"),
    [
        ([], 400, "DIS.4202"),
        ([NewRecord(b"")] * 51, 400, "DIS.4200"),
        ([NewRecord(b"x" * 101)], 413, "DIS.4200"),
        ([NewRecord(b"x" * 100)] * 11, 413, "DIS.4200"),
        ([NewRecord(b"", key="k" * 11)], 400, "DIS.4200"),
        ([NewRecord(b"", explicit_hash_key="x")], 400, "DIS.4200"),
        ([NewRecord(b"", partition_id="x")], 400, "DIS.4201"),
        ([NewRecord(b"", partition_id="9")], 400, "DIS.4302"),
    ],
)
def test_the_same_refusals_in_both_forms(records: list[NewRecord], status: int, code: str) -> None:
    """What cannot be put is refused alike, always in JSON, and nothing of it is stored."""
    small = {
        "max_record_bytes": 100,
        "max_request_bytes": 1_000,
        "max_request_records": 50,
        "max_partition_key_bytes": 10,
    }

    async def main() -> None:
        for put in (in_json, in_protobuf):
            caller = await fresh(**small)
            await caller.create("s")
            answer = await put(caller, "s", records)
            assert (answer.status, answer.code) == (status, code), put
            assert (await in_protobuf(caller, "other", [NewRecord(b"")])).code == "DIS.4301"
            assert (await in_protobuf(caller, "", [NewRecord(b"")])).code == "DIS.4200"
            assert await caller.ranges("s") == ["[0 : 0]"]

    run_simulated(main)


def test_partial_failures_are_told_in_both_forms() -> None:
    """Where only some records are taken in, both forms say which, under the suffix rule, and store the same ones."""
    tight = {"max_record_bytes": 100, "max_partition_key_bytes": 10, "max_pending_bytes": 700}
    records = [NewRecord(b"x" * 100, partition_id=str(n % 2)) for n in range(12)]

    async def main() -> None:
        told = []
        for put in (in_json, in_protobuf):
            caller = await fresh(**tight)
            await caller.create("s", 2)
            told.append(results(await put(caller, "s", records)))
        assert told[0] == told[1]
        failed = [result.error_code for result in told[0]]
        assert None in failed
        assert "DIS.4303" in failed
        for lane in (failed[::2], failed[1::2]):
            assert lane == sorted(lane, key=lambda code: code is not None)

    run_simulated(main)


async def test_the_content_type_chooses() -> None:
    """On get the content type alone chooses the form, its parameters do not matter; refusals are JSON."""
    async with serving() as http:
        await http.create("s")
        await http.put("s", {"data": "eA==", "partition_key": "k"})
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")
        for kind in (PROTOBUF, "application/x-protobuf;charset=utf-8", "Application/X-Protobuf"):
            answer = await http.call("GET", f"/v2/p/records/?partition-cursor={cursor}&limit=9", content_type=kind)
            assert (answer.status, answer.headers["content-type"]) == (200, "application/x-protobuf")
            (record,) = decode_page_protobuf(answer.body, "s", "p")[0]
            assert (record.data, record.key, record.sequence_number) == (b"x", "k", 0)
            refusal = await http.call("GET", "/v2/p/records?partition-cursor=x", content_type=kind)
            assert refusal.code == "DIS.4217"
            assert (await http.call(*POST, b"\xff", content_type=kind)).code == "DIS.4300"
            listed = await http.call("GET", "/v2/p/streams", content_type=kind)
            assert listed.code == ""
        for kind in ("application/json", "application/x-protobuffer", "text/plain"):
            assert (await http.call("GET", f"/v2/p/records?partition-cursor={cursor}", content_type=kind)).code == ""


@pytest.mark.parametrize("kind", COMPRESSIONS)
async def test_compressed_bodies(kind: Compression) -> None:
    """Every body may be compressed, small or large, JSON or protobuf, and no answer ever is."""
    async with serving() as http:
        body, headers = compress(json.dumps({"stream_name": "s", "partition_count": 1}).encode(), kind)
        assert (await http.call("POST", "/v2/p/streams", body, **headers)).code == ""
        records = [NewRecord(b"%d" % n * size) for n, size in enumerate((1, 10, INLINE_BYTES))]
        for encode, type_ in ((encode_put, "application/json"), (encode_put_protobuf, PROTOBUF)):
            for record in records:
                body, headers = compress(encode("s", [record]), kind)
                headers |= {"content-type": type_, "accept-encoding": kind}
                answer = await http.call(*POST, body, **headers)
                assert answer.status == 200
                assert "content-encoding" not in answer.headers
        assert [row.data for row in await page(http, await http.cursor("s", cursor_type="TRIM_HORIZON"))] == [
            record.data for record in records * 2
        ]
        answer = await http.call("GET", "/v2/p/streams", content_encoding=kind, accept_encoding=kind)
        assert answer.code == ""
        assert "content-encoding" not in answer.headers


async def test_compressed_bodies_that_are_refused() -> None:
    """Unknown and several codings, missing and lying lengths, damaged bodies: each has its code, and all goes on."""
    async with serving(max_body_bytes=10_000, max_buffered_bytes=10_000) as http:
        await http.create("s")
        body = encode_put("s", [NewRecord(b"x" * 1_000)])
        packed = {kind: compress(body, kind) for kind in COMPRESSIONS}
        lz4, lz4_headers = packed["lz4"]
        for coding in ("gzip", "deflate", "br", "lz4, zstd"):
            answer = await http.call(*POST, lz4, **{**lz4_headers, "content-encoding": coding})
            assert (answer.status, answer.code) == (400, "DIS.4200")
            assert "lz4, snappy, zstd" in answer.told["message"]
        assert (await http.call(*POST, lz4, content_encoding="lz4")).code == "DIS.4200"
        for length in ("1", "9999"):
            told = {"content_encoding": "lz4", "x_dis_lz4_content_length": length}
            assert (await http.call(*POST, lz4, **told)).code == "DIS.4300"
        for kind, (data, headers) in packed.items():
            assert (await http.call(*POST, data[:-1], **headers)).code == "DIS.4300"
            large, told = compress(b" " * 10_001, kind)
            answer = await http.call(*POST, large, **told)
            assert (answer.status, answer.code) == (413, "DIS.4200")
            assert (await http.call(*POST, data, **headers)).code == ""
        assert await http.ranges("s") == ["[0 : 3]"]


@pytest.mark.parametrize("kind", COMPRESSIONS)
async def test_the_signature_covers_the_compressed_bytes(kind: Compression) -> None:
    """A body signed as it is sent is let in; one that was signed before it was compressed is not."""
    async with application() as app:
        alice = Signer(app, "alice")
        await alice.create("s", project="a1")
        plain = encode_put_protobuf("s", [NewRecord(b"x" * 1_000)])
        body, headers = compress(plain, kind)
        target = ("POST", "/v2/a1/records")
        assert (await alice.call(*target, body, content_type=PROTOBUF, **headers)).status == 200
        request = alice.request(*target, plain, content_type=PROTOBUF, **headers)
        request.body = body
        assert (await alice.send(request)).code == "DIS.4112"


def _held(size: int, kind: Compression = "lz4") -> Request:
    body, headers = compress(bytes(size), kind)
    return Request(method="POST", target="/", headers=headers, body=body)


async def test_what_decompression_makes_is_bounded() -> None:
    """Bodies that are being handled share a budget: who does not fit is told DIS.4305 until others are done."""
    unpacking = Unpacking(ServerConfig(data_dir=None, max_body_bytes=1_000, max_buffered_bytes=8_000))
    async with unpacking.unpacked(_held(1_000)) as body:
        assert (len(body), unpacking.held_bytes) == (1_000, 1_000)
        async with unpacking.unpacked(_held(900)):
            with pytest.raises(ApiError, match=r"DIS\.4305"):
                async with unpacking.unpacked(_held(101)):
                    pass
            async with unpacking.unpacked(_held(100)):
                assert unpacking.held_bytes == 2_000
    assert unpacking.held_bytes == 0


async def test_a_frame_of_untold_size_takes_no_more_than_it_has() -> None:
    """Many small ones are handled at once, and a large one finds its room: none takes what a body may have at most."""
    unpacking = Unpacking(ServerConfig(data_dir=None))
    packer = zstandard.ZstdCompressor(write_content_size=False)
    sizes = [1, 1_000] * 50 + [INLINE_BYTES, INLINE_BYTES + 1, 2_000_000]
    async with contextlib.AsyncExitStack() as stack:
        for size in sizes:
            body = packer.compress(b"x" * size)
            request = Request(method="POST", target="/", headers={"content-encoding": "zstd"}, body=body)
            assert len(await stack.enter_async_context(unpacking.unpacked(request))) == size
        assert unpacking.held_bytes == sum(sizes)
        request.body = packer.compress(bytes(ServerConfig().max_body_bytes + 1))
        with pytest.raises(ApiError) as caught:
            await stack.enter_async_context(unpacking.unpacked(request))
        assert caught.value.status == 413
        assert unpacking.held_bytes == sum(sizes)
    assert unpacking.held_bytes == 0


async def test_a_failed_body_leaves_nothing_behind() -> None:
    """A body that cannot be decompressed, or whose handling fails, gives back what it held; one alone always fits."""
    unpacking = Unpacking(ServerConfig(data_dir=None, max_body_bytes=2 * INLINE_BYTES, max_buffered_bytes=10**6))
    for size in (1_000, 2 * INLINE_BYTES):
        request = _held(size)
        request.body = request.body[:-1]
        with pytest.raises(ApiError, match=r"DIS\.4300"):
            async with unpacking.unpacked(request):
                pass
        with pytest.raises(RuntimeError):
            async with unpacking.unpacked(_held(size)):
                raise RuntimeError
    assert unpacking.held_bytes == 0


async def test_much_that_comes_to_little_does_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body is decompressed in a thread also if it announces a few bytes: here, blocks of nothing."""
    threads: list[int] = []
    unpack = Packed.unpack

    def noted(packed: Packed) -> bytes:
        threads.append(threading.get_ident())
        return unpack(packed)

    monkeypatch.setattr(Packed, "unpack", noted)
    unpacking = Unpacking(ServerConfig(data_dir=None))
    for blocks, inline in ((1_000, True), (INLINE_BYTES, False)):
        body = b"\x28\xb5\x2f\xfd\x00\x58" + b"\x00\x00\x00" * blocks + b"\x01\x00\x00"
        headers = {"content-encoding": "zstd", "x-dis-zstd-content-length": "5"}
        async with unpacking.unpacked(Request(method="POST", target="/", headers=headers, body=body)) as plain:
            assert plain == b""
        assert (threads[-1] == threading.get_ident()) is inline
