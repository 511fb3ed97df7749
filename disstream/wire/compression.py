"""Bodies of requests that travel compressed, as one official client sends them, answers never do; and payloads.

    Content-Encoding   body                         size before compression
    lz4                one raw block, no frame      header x-dis-lz4-content-length, required
    snappy             one raw block, no framing    a number at the beginning of the block
    zstd               one frame                    in the frame, else header x-dis-zstd-content-length, else untold

What comes out is never larger than what was announced, and nothing is taken up before the announcement is compared with
the limit. gzip and deflate are refused: no client of the service sends them, and each coding more is one more to guard.

A payload may be a raw snappy block too, which nothing says: whoever reads it must know (the official Java client's
`data.compress.enabled`, our `record_compression`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import lz4.block
import snappy
import zstandard

from ..errors import ApiError
from .errors import api_error

Compression = Literal["lz4", "snappy", "zstd"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)

_LZ4_LENGTH = "x-dis-lz4-content-length"
_ZSTD_LENGTH = "x-dis-zstd-content-length"

_ZSTD_LEVEL = 1  # a body lives for one request: level 3 takes up to twice the time for a hundredth less
_ZSTD_WINDOW = 8 * 1024 * 1024
"""What a frame without its size may make us keep beside the result: as much as every decoder should offer."""


def compress(body: bytes, kind: Compression) -> tuple[bytes, dict[str, str]]:
    """The body as it travels, and the headers that say so. Threads may call it at once."""
    headers: dict[str, str] = {"content-encoding": kind}
    match kind:
        case "lz4":
            headers[_LZ4_LENGTH] = str(len(body))
            packed: bytes = lz4.block.compress(body, store_size=False)
        case "snappy":
            packed = snappy.compress(body)
        case "zstd":
            headers[_ZSTD_LENGTH] = str(len(body))
            # One of its own for each body: a compressor must not serve two threads.
            packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)
    return packed, headers


class Packed(NamedTuple):
    """A compressed body. What comes out of it has `size_bytes`; of a zstd frame of `untold` size, at most."""

    kind: Compression
    body: bytes
    size_bytes: int
    untold: bool = False

    def unpack(self) -> bytes:
        """The body before compression. Threads may call it at once.

        Raises ApiError: DIS.4300 (damaged, or not as long as announced), 413 (a zstd frame of untold size is larger).
        """
        try:
            match self.kind:
                case "lz4":
                    body: bytes = lz4.block.decompress(self.body, uncompressed_size=self.size_bytes)
                case "snappy":
                    body = snappy.decompress(self.body)
                case "zstd":
                    return self._unpack_zstd()
        except (lz4.block.LZ4BlockError, snappy.UncompressError, zstandard.ZstdError) as exc:
            raise api_error("DIS.4300", f"[the body is not {self.kind}, or damaged: {exc}]") from exc
        if len(body) != self.size_bytes:
            told = f"[the body has {len(body)} bytes before compression, not {self.size_bytes} as announced]"
            raise api_error("DIS.4300", told)
        return body

    def _unpack_zstd(self) -> bytes:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        try:
            body = decompressor.decompress(self.body, max_output_size=self.size_bytes, allow_extra_data=False)
            if zstandard.frame_content_size(self.body) <= 0:
                # The library looks for extra data only behind a frame that tells its size.
                frame = decompressor.decompressobj()
                frame.decompress(self.body)
                if frame.unused_data:
                    raise zstandard.ZstdError(f"{len(frame.unused_data)} bytes follow the first frame")
            return body
        except zstandard.ZstdError:
            # Damaged, or too large? A frame that told its size would not be here for its size.
            if zstandard.frame_content_size(self.body) < 0:
                with decompressor.stream_reader(self.body) as reader:
                    if len(reader.read(self.size_bytes + 1)) > self.size_bytes:
                        raise too_large("more bytes", self.size_bytes) from None
            raise


RecordCompression = Literal["snappy"]


def compress_payload(payload: bytes) -> bytes:
    packed: bytes = snappy.compress(payload)
    return packed


def decompress_payload(block: bytes, limit: int) -> bytes | None:
    """What the block holds; None: it is no block of snappy, or says that it holds more than `limit` bytes."""
    try:
        if _snappy_size(block) > limit:
            return None
        payload: bytes = snappy.decompress(block)
    except (ApiError, snappy.UncompressError):
        return None
    return payload


def announced(headers: Mapping[str, str], body: bytes, limit: int) -> Packed | None:
    """What the headers and the first bytes say of a body; None: it is not compressed.

    Raises ApiError: DIS.4200 (a coding or a length that cannot be), DIS.4300 (damaged), 413 (more than `limit` bytes).
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if not body or coding in ("", "identity"):
        return None
    if coding not in COMPRESSIONS:
        raise api_error(
            "DIS.4200", f"[Content-Encoding is {coding[:40]!r}: give one of {', '.join(COMPRESSIONS)}, or none at all]"
        )
    size: int | None
    match coding:
        case "lz4":
            size = _length(headers, _LZ4_LENGTH)
            if size is None:
                raise api_error("DIS.4200", f"[{_LZ4_LENGTH} is missing: it tells the size before compression]")
        case "snappy":
            size = _snappy_size(body)
        case "zstd":
            size = _zstd_size(headers, body)
    if size is None:
        return Packed(coding, body, limit, untold=True)
    if size > limit:
        raise too_large(f"{size} bytes", limit)
    return Packed(coding, body, size)


def _length(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise api_error("DIS.4200", f"[{name} is {text[:40]!r}, which is no length]")
    return int(text)


def _snappy_size(body: bytes) -> int:
    """A little-endian number of 7 bits a byte, at most 32 bits, opens every block."""
    size = 0
    for shift, byte in zip(range(0, 35, 7), body[:5], strict=False):
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size
    raise api_error("DIS.4300", "[the body is no snappy block]")


def _zstd_size(headers: Mapping[str, str], body: bytes) -> int | None:
    try:
        size = zstandard.frame_content_size(body)
    except zstandard.ZstdError as exc:
        raise api_error("DIS.4300", f"[the body is no zstd frame: {exc}]") from exc
    return size if size >= 0 else _length(headers, _ZSTD_LENGTH)


def too_large(what: str, limit: int) -> ApiError:
    told = f"[the body has {what} before compression, more than {limit}]"
    return api_error("DIS.4200", told, status=413)
