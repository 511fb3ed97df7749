"""What came back of numbered records. Pure.

The sender numbers its records 0..n-1 in the order of its `send` calls and puts the number into each payload. What was
sent under a number (its key, and a digest of its bytes) is known to the checker from the sender, not from the service.
The order of a key is kept if the first occurrences of its records come in rising numbers; a repetition is a duplicate,
whatever its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec


class Sent(msgspec.Struct, frozen=True):
    """What was sent, by number."""

    keys: list[str | None]
    digests: list[int]
    """CRC-32 of the payloads: that of bytes damaged by accident is the same once in four thousand million times."""

    @classmethod
    def of(cls, records: Iterable[tuple[bytes, str | None]]) -> Sent:
        """`records`: payload and key, in the order they are sent."""
        keys, digests = [], []
        for data, key in records:
            keys.append(key)
            digests.append(crc32(data))
        return cls(keys, digests)


class Findings(msgspec.Struct, frozen=True):
    """What a `Checker` has seen so far."""

    expected: int
    received: int
    distinct: int
    duplicates: int
    reordered: int
    """Records that came after a later one of the key they were sent with."""
    rekeyed: int
    """Received with another key than they were sent with, or without it."""
    changed: int
    """Received with other bytes than they were sent with."""
    foreign: int
    """Received with a number that was never sent, or without one."""

    @property
    def missing(self) -> int:
        return self.expected - self.distinct

    @property
    def altered(self) -> bool:
        """Whether a record was received that was not sent like that."""
        return bool(self.rekeyed or self.changed or self.foreign)

    @property
    def good(self) -> bool:
        """Everything came back as it was sent, in order; duplicates are told, and are no failure."""
        return not (self.missing or self.reordered or self.altered)


class Checker:
    """Looks at every record that was read."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._expected = len(sent.keys)
        self._seen = bytearray(self._expected)
        self._last: dict[str, int] = {}
        self._received = self._distinct = self._duplicates = self._reordered = 0
        self._rekeyed = self._changed = self._foreign = 0

    def add(self, number: int | None, key: str | None, data: bytes) -> None:
        """Count record `number` (None: it bears none) with the key and the bytes it was read with."""
        self._received += 1
        if number is None or not 0 <= number < self._expected:
            self._foreign += 1
            return
        # A repetition must be the same record too, so this comes first.
        sent_key = self._sent.keys[number]
        if key != sent_key:
            self._rekeyed += 1
        if crc32(data) != self._sent.digests[number]:
            self._changed += 1
        if self._seen[number]:
            self._duplicates += 1
            return
        self._seen[number] = 1
        self._distinct += 1
        if sent_key is not None:
            if self._last.get(sent_key, -1) > number:
                self._reordered += 1
            else:
                self._last[sent_key] = number

    def findings(self) -> Findings:
        return Findings(
            self._expected,
            self._received,
            self._distinct,
            self._duplicates,
            self._reordered,
            self._rekeyed,
            self._changed,
            self._foreign,
        )
