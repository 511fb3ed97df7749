"""What a disk may have of a directory when the power fails, made up from what `record_writes.c` recorded.

A system keeps what is written in memory, and gives it to the disk when it likes, in any order, as sectors. What was
written before a sync that ended well is on the disk. So each sector of a file has one content that is safe, the one of
the last sync, and any number of younger ones, of which the disk may have any:

    write ──> pending ──sync that began behind the write──> safe

Which of them it has is sampled: no pending write, all of them, some, some sectors of some, all up to a torn one.

What is not modelled: names of files (a new one counts at once; the engine synchronises its directory before it answers
anything), and a disk that lies about syncs, except as the control that a loss would be found (`honest=False`).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_HEAD = struct.Struct("<c3xIQQ")

HOW = ["nothing", "everything", "some writes", "some writes", "some sectors", "some sectors", "torn", "torn", "but one"]


class Event(NamedTuple):
    """As record_writes.c tells them, a D as W and D: the power may fail in between."""

    kind: str
    path: Path
    at: int
    data: bytes


def recorded(log: Path) -> list[Event]:
    content = log.read_bytes()
    events: list[Event] = []
    paths: dict[int, Path] = {}
    at = 0
    while at + _HEAD.size <= len(content):
        kind, file, where, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        data = content[at : at + length]
        at += length
        if kind == b"N":
            paths[file] = Path(data.decode())
            continue
        if kind == b"D":
            events.append(Event("W", paths[file], where, data))
        events.append(Event(kind.decode(), paths[file], where, data))
    assert at == len(content)
    return events


@dataclass
class _File:
    seen: bytearray = field(default_factory=bytearray)
    """All that was written, as a reader of the running system finds it."""
    safe: bytearray = field(default_factory=bytearray)
    pending: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """Sector -> number of the write, and the sector behind it."""
    writes: int = 0
    began: list[tuple[int, int]] = field(default_factory=list)
    """For each sync that began: the writes before it, and how long the file was."""

    def write(self, at: int, data: bytes) -> None:
        self._reach(self.seen, at + len(data))
        self.seen[at : at + len(data)] = data
        self.writes += 1
        for sector in range(at // SECTOR, -(-(at + len(data)) // SECTOR)):
            content = bytes(self.seen[sector * SECTOR : (sector + 1) * SECTOR])
            self.pending.setdefault(sector, []).append((self.writes, content))

    def cut(self, length: int) -> None:
        del self.seen[length:], self.safe[length:]
        self._reach(self.seen, length)
        self.pending = {sector: versions for sector, versions in self.pending.items() if sector * SECTOR < length}

    def settle(self, sectors: list[int], writes: int) -> None:
        """The disk has what these sectors were after so many writes."""
        for sector in sectors:
            versions = self.pending.pop(sector)
            for number, content in versions:
                if number <= writes:
                    self._put(self.safe, sector, content)
            if left := [version for version in versions if version[0] > writes]:
                self.pending[sector] = left

    def with_sectors(self, chosen: dict[int, bytes]) -> bytearray:
        content = bytearray(self.safe)
        for sector, data in chosen.items():
            self._put(content, sector, data)
        return content

    def _put(self, content: bytearray, sector: int, data: bytes) -> None:
        self._reach(content, sector * SECTOR + len(data))
        content[sector * SECTOR : sector * SECTOR + len(data)] = data

    @staticmethod
    def _reach(content: bytearray, length: int) -> None:
        content.extend(bytes(max(length - len(content), 0)))


class Disk:
    """The files below a directory: those that were there `before`, and all that are written. Give it the events."""

    def __init__(self, before: Mapping[Path, bytes] | None = None, *, honest: bool = True) -> None:
        self._honest = honest
        self._files = {path: _File(bytearray(content), bytearray(content)) for path, content in (before or {}).items()}

    def add(self, event: Event) -> None:
        file = self._files.setdefault(event.path, _File())
        match event.kind:
            case "W":
                file.write(event.at, event.data)
            case "T":
                file.cut(event.at)
            case "D" if self._honest:
                first, last = event.at // SECTOR, (event.at + len(event.data) - 1) // SECTOR
                file.settle(list(range(first, last + 1)), file.writes)
            case "B":
                file.began.append((file.writes, len(file.seen)))
            case "S":
                # Syncs of a file do not overlap: one thread commits.
                writes, length = file.began.pop()
                assert not file.began
                if self._honest:
                    file.settle(list(file.pending), writes)
                    file._reach(file.safe, length)
            case "R":
                self._files[Path(event.data.decode())] = self._files.pop(event.path)
            case "M":
                raise AssertionError(f"{event.path} is written through a map, which cannot be recorded")

    def pending(self, path: Path) -> int:
        """How many sectors of a file the disk may have or not."""
        return len(self._files[path].pending) if path in self._files else 0

    def image(self, dice: random.Random, how: str) -> Iterator[tuple[Path, bytearray]]:
        """The files as the disk may have them."""
        for path, file in self._files.items():
            yield path, file.with_sectors(_choose(file, dice, how))


def _choose(file: _File, dice: random.Random, how: str) -> dict[int, bytes]:
    """Of each pending sector the content that the disk has; not named: the safe one."""
    numbers = sorted({number for versions in file.pending.values() for number, _ in versions})
    if not numbers or how == "nothing":
        return {}
    if how == "some sectors":
        chosen = {}
        for sector, versions in file.pending.items():
            choice = dice.randrange(-1, len(versions))
            if choice >= 0:
                chosen[sector] = versions[choice][1]
        return chosen
    kept = set(numbers)
    torn = 0
    if how == "some writes":
        kept = {number for number in numbers if dice.random() < 0.5}
    elif how == "torn":
        torn = dice.choice(numbers)
        kept = {number for number in numbers if number < torn}
    elif how == "but one":
        kept.discard(dice.choice(numbers))
    chosen = {}
    there = dice.random()
    for sector in sorted(file.pending):
        for number, content in file.pending[sector]:
            if number in kept or (number == torn and dice.random() < there):
                chosen[sector] = content
    return chosen
