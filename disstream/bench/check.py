"""What came back of numbered records. Pure.

The sender numbers its records 0..n-1 in the order of its `send` calls and puts the number into each payload. The order
of a key is kept if the first occurrences of its records come in rising numbers; a repetition is a duplicate, whatever
its place.
"""

from __future__ import annotations

from zlib import crc32

import msgspec


class Findings(msgspec.Struct, frozen=True):
    """What a `Checker` has seen so far."""

    expected: int
    received: int
    distinct: int
    duplicates: int
    reordered: int
    """Records that came after a later one of their key."""
    foreign: int
    """Records with a number that was never sent."""
    digest: int
    """Of the payloads, whatever their order, each counted once: equal to the sender's if no byte changed."""

    @property
    def missing(self) -> int:
        return self.expected - self.distinct

    @property
    def good(self) -> bool:
        """Everything came back, in order; duplicates are told, and are no failure."""
        return not (self.missing or self.reordered or self.foreign)


class Checker:
    """Looks at every record that was read."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._seen = bytearray(expected)
        self._last: dict[str, int] = {}
        self._received = self._distinct = self._duplicates = self._reordered = self._foreign = self._digest = 0

    def add(self, number: int, key: str | None, data: bytes) -> None:
        """Count record `number`, read with `key` (None: no order is asked of it)."""
        self._received += 1
        if not 0 <= number < self._expected:
            self._foreign += 1
            return
        if self._seen[number]:
            self._duplicates += 1
            return
        self._seen[number] = 1
        self._distinct += 1
        self._digest += crc32(data)
        if key is not None:
            if self._last.get(key, -1) > number:
                self._reordered += 1
            else:
                self._last[key] = number

    def findings(self) -> Findings:
        return Findings(
            self._expected,
            self._received,
            self._distinct,
            self._duplicates,
            self._reordered,
            self._foreign,
            self._digest,
        )
