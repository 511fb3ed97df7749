"""Partition ids, key hashing and hash ranges, exactly as the service publishes them."""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import md5

from ..model import MAX_HASH_KEY, HashRange
from .errors import api_error

_PARTITION_ID = re.compile(r"(?:shardId-)?([0-9]{1,32})", re.ASCII)
MAX_PARTITION_NUMBER = 2**31 - 1


@functools.lru_cache(maxsize=4096)
def partition_id(number: int) -> str:
    """The long form: 3 -> "shardId-0000000003"."""
    return f"shardId-{number:010d}"


def partition_number(text: str) -> int:
    """The number in either spelling ("3", "shardId-0000000003"). Raises ApiError DIS.4201."""
    found = _PARTITION_ID.fullmatch(text)
    number = int(found.group(1)) if found else -1
    if not 0 <= number <= MAX_PARTITION_NUMBER:
        raise api_error("DIS.4201", f"[{text[:80]}] is neither like 'shardId-0000000000' nor a number.")
    return number


def hash_key(key: str) -> int:
    """Where a partition key falls in 0..2**63-1: the first 8 bytes of its MD5, big-endian, without the sign bit."""
    return int.from_bytes(md5(key.encode(), usedforsecurity=False).digest()[:8], "big") & MAX_HASH_KEY


def hash_ranges(count: int) -> list[HashRange]:
    """The published division into `count` partitions: equal shares, the rest goes to the last."""
    share = MAX_HASH_KEY // count
    return [HashRange(i * share, MAX_HASH_KEY if i == count - 1 else (i + 1) * share - 1) for i in range(count)]


class HashRouter:
    """Finds the partition that owns a hash key. Ranges may have gaps; a hash in a gap has no owner."""

    def __init__(self, ranges: Iterable[tuple[int, HashRange]]) -> None:
        """`ranges`: (partition number, range) of every writable partition, in any order."""
        ordered = sorted(ranges, key=lambda item: item[1].low)
        self._lows: Sequence[int] = [r.low for _, r in ordered]
        self._highs: Sequence[int] = [r.high for _, r in ordered]
        self._numbers: Sequence[int] = [n for n, _ in ordered]

    def owner(self, hashed: int) -> int | None:
        i = bisect_right(self._lows, hashed) - 1
        if i < 0 or hashed > self._highs[i]:
            return None
        return self._numbers[i]


def format_range(low: int, high: int) -> str:
    """`"[low : high]"`, the form of hash_range and sequence_number_range."""
    return f"[{low} : {high}]"


_RANGE = re.compile(r"\s*\[\s*(-?\d{1,19})\s*:\s*(-?\d{1,19})\s*\]\s*", re.ASCII)


def parse_range(text: str | None) -> tuple[int, int] | None:
    """The two numbers of a published range; None for absent, unparsable or empty (`[-1 : -1]`) ones."""
    found = _RANGE.fullmatch(text) if text else None
    if found is None:
        return None
    low, high = int(found.group(1)), int(found.group(2))
    return None if low < 0 or high < 0 else (low, high)
