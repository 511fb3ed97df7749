"""Compressed bodies: what official clients send is read, and nothing else costs more than it announces."""

from __future__ import annotations

import subprocess
import sys

import lz4.block
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError
from disstream.wire.compression import COMPRESSIONS, Compression, announced, compress

LIMIT = 1_000_000
KINDS = st.sampled_from(COMPRESSIONS)


def unpack(body: bytes, headers: dict[str, str], limit: int = LIMIT) -> bytes:
    packed = announced(headers, body, limit)
    return body if packed is None else packed.unpack()


def refused(body: bytes, headers: dict[str, str], limit: int = LIMIT) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        unpack(body, headers, limit)
    return caught.value.status, caught.value.code


def endless_zstd(blocks: int, *, window_log: int = 17) -> bytes:
    """A frame without its size: blocks of 128 KiB zeros in four bytes each."""
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3])
    block = (1 << 1 | 131_072 << 3).to_bytes(3, "little") + b"\x00"
    return header + block * blocks + b"\x01\x00\x00"


@given(KINDS, st.binary(max_size=5_000) | st.integers(0, 300).map(lambda n: b"record " * n))
def test_round_trip(kind: Compression, body: bytes) -> None:
    """What is compressed comes back, under the headers that official clients send."""
    packed, headers = compress(body, kind)
    assert headers["content-encoding"] == kind
    assert headers.get(f"x-dis-{kind}-content-length", str(len(body))) == str(len(body))
    assert unpack(packed, headers, len(body)) == body


def test_forms_on_the_wire() -> None:
    """Raw blocks of lz4 and snappy, a zstd frame: what the libraries themselves make of them."""
    body = b"stream record " * 100
    assert lz4.block.decompress(compress(body, "lz4")[0], uncompressed_size=len(body)) == body
    assert snappy.decompress(compress(body, "snappy")[0]) == body
    assert zstandard.decompress(compress(body, "zstd")[0]) == body
    assert compress(body, "lz4")[1] == {"content-encoding": "lz4", "x-dis-lz4-content-length": "1400"}
    assert compress(body, "snappy")[1] == {"content-encoding": "snappy"}
    assert compress(body, "zstd")[1] == {"content-encoding": "zstd", "x-dis-zstd-content-length": "1400"}


def test_spellings() -> None:
    """The coding counts in any case; none, identity and a coding of no body count for nothing."""
    packed, headers = compress(b"body", "lz4")
    assert unpack(packed, {**headers, "content-encoding": " LZ4 "}) == b"body"
    for coding in ("", "identity", "IDENTITY"):
        assert announced({"content-encoding": coding}, b"body", LIMIT) is None
    assert announced({}, b"body", LIMIT) is None
    assert announced({"content-encoding": "gzip"}, b"", LIMIT) is None


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "lz4, snappy", "zstd,zstd", "identity, lz4", "x" * 5_000])
def test_other_codings_are_refused(coding: str) -> None:
    """What is not known, and several at once, is DIS.4200, which names those that are."""
    with pytest.raises(ApiError, match=r"DIS\.4200.*lz4, snappy, zstd") as caught:
        announced({"content-encoding": coding}, b"x", LIMIT)
    assert len(caught.value.message) < 200


def test_zstd_tells_its_size_or_not() -> None:
    """The length header of zstd is optional, also for a frame that does not tell its size; the frame is believed."""
    body = b"x" * 10_000
    with_size, without = (zstandard.ZstdCompressor(write_content_size=told).compress(body) for told in (True, False))
    for headers in ({}, {"x-dis-zstd-content-length": "10000"}):
        for packed in (with_size, without):
            assert unpack(packed, {"content-encoding": "zstd", **headers}) == body
    assert unpack(with_size, {"content-encoding": "zstd", "x-dis-zstd-content-length": "5"}) == body
    assert refused(without, {"content-encoding": "zstd", "x-dis-zstd-content-length": "9999"}) == (413, "DIS.4200")
    for packed in (with_size, without):
        assert unpack(packed, {"content-encoding": "zstd"}, 10_000) == body
        assert refused(packed, {"content-encoding": "zstd"}, 9_999) == (413, "DIS.4200")


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_what_lies(kind: Compression) -> None:
    """A body cut short, longer than announced, of another coding or no coding at all is DIS.4300."""
    packed, headers = compress(b"stream record " * 100, kind)
    others = [compress(b"stream record " * 100, other)[0] for other in COMPRESSIONS if other != kind]
    for body in (packed[:-1], packed + packed, packed + b"x", b'{"stream_name":"s"}', b"\xff" * 40, *others):
        assert refused(body, headers) == (400, "DIS.4300")


def test_nothing_follows_a_zstd_frame() -> None:
    """A second frame is no part of the body, nor silently left out, whether the first one tells its size or not."""
    for told in (True, False):
        packed = zstandard.ZstdCompressor(write_content_size=told).compress(b"first")
        for length in ({}, {"x-dis-zstd-content-length": "5"}, {"x-dis-zstd-content-length": "10"}):
            headers = {"content-encoding": "zstd", **length}
            assert unpack(packed, headers) == b"first"
            for more in (packed, b"x", b"\x50\x2a\x4d\x18\x04\x00\x00\x00more", endless_zstd(1)):
                assert refused(packed + more, headers) == (400, "DIS.4300")


def test_lengths_that_cannot_be() -> None:
    """lz4 needs its length, as digits; one that is not the truth is DIS.4300."""
    packed, headers = compress(b"stream record " * 100, "lz4")
    for length in ("", "-1", "1e3", "0x10", "٣", "9" * 30, "12 34"):
        assert refused(packed, {**headers, "x-dis-lz4-content-length": length}) == (400, "DIS.4200")
    for length in ("0", "1399", "1401", str(LIMIT)):
        assert refused(packed, {**headers, "x-dis-lz4-content-length": length}) == (400, "DIS.4300")


def test_too_large_is_refused_by_its_announcement() -> None:
    """413 for whatever tells that it is larger than the limit, before anything is decompressed."""
    lz4_headers = {"content-encoding": "lz4", "x-dis-lz4-content-length": str(2**31)}
    assert refused(b"\x00", lz4_headers) == (413, "DIS.4200")
    assert refused(b"\xff\xff\xff\xff\x0f\x00", {"content-encoding": "snappy"}) == (413, "DIS.4200")
    ten_gb = b"\x28\xb5\x2f\xfd\xc0\x38" + (10 * 2**30).to_bytes(8, "little") + b"\x01\x00\x00"
    assert refused(ten_gb, {"content-encoding": "zstd"}) == (413, "DIS.4200")
    for kind in COMPRESSIONS:
        packed, headers = compress(b"x" * 1_001, kind)
        assert refused(packed, headers, 1_000) == (413, "DIS.4200")


def test_frames_that_want_much_memory() -> None:
    """A frame that asks for a larger window than 8 MiB is refused, one that asks for it is not."""
    assert len(unpack(endless_zstd(2, window_log=23), {"content-encoding": "zstd"})) == 262_144
    assert refused(endless_zstd(2, window_log=24), {"content-encoding": "zstd"}) == (400, "DIS.4300")
    assert refused(endless_zstd(2, window_log=31), {"content-encoding": "zstd"}) == (400, "DIS.4300")


def tried(body: bytes, headers: dict[str, str], limit: int) -> tuple[int, str]:
    """The size of what came out, or the code of the refusal."""
    try:
        packed = announced(headers, body, limit)
        return (0 if packed is None else len(packed.unpack())), ""
    except ApiError as error:
        return 0, error.code


@given(KINDS, st.binary(max_size=300), st.binary(max_size=20))
def test_arbitrary_bodies(kind: Compression, body: bytes, length: bytes) -> None:
    """Arbitrary bytes under any coding become a body of the announced size or an ApiError, never anything else."""
    name = f"x-dis-{kind}-content-length"
    for headers in ({name: "100"}, {name: length.decode("latin-1")}, {}):
        size, code = tried(body, {"content-encoding": kind, **headers}, 1_000)
        assert size <= 1_000
        assert code in ("", "DIS.4200", "DIS.4300")


@given(KINDS, st.data())
def test_damaged_bodies(kind: Compression, data: st.DataObject) -> None:
    """A body with flipped bits, or cut short, is refused or at least of the size it told; nothing crashes."""
    original = b"".join(b"record %d of many;" % i for i in range(200))
    packed, headers = compress(original, kind)
    damaged = bytearray(packed[: data.draw(st.integers(1, len(packed)))])
    for at in data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), max_size=5)):
        damaged[at // 8] ^= 1 << at % 8
    size, code = tried(bytes(damaged), headers, LIMIT)
    assert size <= LIMIT
    assert code in ("", "DIS.4200", "DIS.4300")


BOMBS = """
import resource, sys
sys.path.insert(0, "tests/wire")
from test_compression import endless_zstd
from disstream.errors import ApiError
from disstream.wire.compression import announced, compress

LIMIT = 12 * 2**20
zeros, headers = compress(bytes(10 * LIMIT), "snappy")
lz4_headers = {"content-encoding": "lz4", "x-dis-lz4-content-length": str(LIMIT)}
bombs = [
    (endless_zstd(10_000), {"content-encoding": "zstd"}),
    (endless_zstd(10_000), {"content-encoding": "zstd", "x-dis-zstd-content-length": "1000"}),
    (endless_zstd(90, window_log=31), {"content-encoding": "zstd"}),
    (zeros, headers),
    (b"\\x80\\x80\\x80\\x04" + zeros[4:], headers),
    (b"\\x00" * 100, {"content-encoding": "lz4", "x-dis-lz4-content-length": str(2**31)}),
    (b"\\x1f\\x00\\x01\\x00" + b"\\xff" * 2_000_000, lz4_headers),
]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()
for body, headers in bombs:
    try:
        announced(headers, body, LIMIT).unpack()
    except ApiError:
        continue
    raise AssertionError(headers)
print(peak() - before)
"""

PEAK = """
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures the peak of a process's memory as Linux tells it")
def test_bombs_do_not_go_off() -> None:
    """40 KB that would become 1.3 GB, and their like, are refused within three times the limit of 12 MiB."""
    told = subprocess.run([sys.executable, "-c", PEAK + BOMBS], check=True, capture_output=True, text=True)
    assert int(told.stdout) < 3 * 12 * 1024
