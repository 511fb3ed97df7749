"""Where the records of a put go: one stream's partitions at one moment. Pure. A changed stream has a new layout.

Precedence (API 5.4.1): partition_id, explicit_hash_key, partition_key, and with none of them the partitions in turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from ..engine import Columns, Row
from ..engine.rules import weigh
from ..model import MAX_HASH_KEY, NewRecord
from ..wire.errors import api_error
from ..wire.partitioning import HashRouter, hash_key, partition_id, partition_number
from ..wire.records import are_plain
from .config import RECORD_BYTES, ServerConfig
from .documents import PartitionDoc

MAX_KNOWN_KEYS = 65_536
MAX_KNOWN_KEY_BYTES = 128
"""Together they bound the memory of known keys: about 15 MB a stream. An MD5 costs twenty times a dict's hit."""

MAX_KEYS_TOGETHER = 1_000_000
"""Of all streams: about 230 MB, if all keys are that long."""

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


Records = Sequence[NewRecord] | Sequence[Row]
"""Records of a put, as they came."""

Rows = list[Row] | Columns
"""Rows for one partition, that can be made fewer from the end."""


class Routed(NamedTuple):
    """`lanes[i]` is record i's partition number, `groups` the rows of each in order, `weight` what they cost.

    `payload`: bytes of all records together.
    """

    lanes: list[int]
    groups: dict[int, Rows]
    weight: int
    payload: int


class KeyRoom:
    """How many keys all layouts have learned since they last forgot them."""

    def __init__(self) -> None:
        self.learned = 0

    @property
    def full(self) -> bool:
        return self.learned >= MAX_KEYS_TOGETHER


class Layout:
    """Assigns records to writable partitions, whose `epochs` an append must name."""

    def __init__(self, partitions: Iterable[PartitionDoc], config: ServerConfig, room: KeyRoom | None = None) -> None:
        """`room` is shared with other layouts; who makes them sees to it that they `forget` when it is full."""
        partitions = list(partitions)
        writable = [p for p in partitions if p.writable]
        self._retired = {p.number for p in partitions if not p.writable}
        self.epochs = {p.number: p.epoch for p in writable}
        self._config = config
        self._router = HashRouter((p.number, p.hash_range) for p in writable)
        self._turns = [p.number for p in writable]
        self._turn = 0
        self._room = room or KeyRoom()
        self._known: dict[str | None, int] = {}  # never None: a record without a key has its turn

    def route(self, records: Records, lanes: list[int] | None = None) -> Routed:
        """Check and place every record of a request. `lanes`: where they were placed before.

        Raises ApiError: 413 with DIS.4200 for a record or a request that is too large; DIS.4200 (key, hash key),
        DIS.4201 or DIS.4302 for the first record that cannot be placed.
        """
        config = self._config
        # Whole columns at once: a comprehension costs a third of a loop that does it all record by record, and a map a
        # third of a comprehension.
        columns = _columns_of(records)
        sizes = [len(record.data) for record in records] if columns is None else columns.sizes
        payload = sum(sizes) if columns is None else columns.payload_bytes
        if payload > config.max_record_bytes and max(sizes) > config.max_record_bytes:
            index = next(i for i, size in enumerate(sizes) if size > config.max_record_bytes)
            raise _too_large(f"record {index} has {sizes[index]} bytes, more than {config.max_record_bytes}")
        if payload > config.max_request_bytes:
            raise _too_large(f"the records have {payload} bytes together, more than {config.max_request_bytes}")
        if columns is not None:
            if lanes is None:
                try:
                    lanes = list(map(self._known.__getitem__, columns.keys))
                except KeyError:
                    lanes = self._lanes(records)
            groups = _grouped_columns(columns, lanes)
            weight = weigh(columns)  # before they are stored it is asked for again
        else:
            lanes = self._lanes(records) if lanes is None else lanes
            rows = list(map(row_of, records))
            groups = _grouped(rows, lanes)
            weight = weigh(rows)
        return Routed(lanes, groups, weight + RECORD_BYTES * len(sizes), payload)

    def _lanes(self, records: Records) -> list[int]:
        known = self._known
        found = [None if r.partition_id or r.explicit_hash_key else known.get(r.key or "") for r in records]
        if None not in found:
            return cast("list[int]", found)
        return [self.lane(records[i]) if lane is None else lane for i, lane in enumerate(found)]

    def lane(self, record: NewRecord | Row) -> int:
        """One record's partition number. Raises ApiError DIS.4200, DIS.4201, DIS.4302 or DIS.4319 (not any more)."""
        if record.partition_id:
            number = partition_number(record.partition_id)
            if number not in self.epochs:
                code = "DIS.4319" if number in self._retired else "DIS.4302"
                raise api_error(code, f"[{partition_id(number)}]")
            return number
        if record.key:
            self._check_key(record.key)
        hashed = _explicit_hash(record.explicit_hash_key)
        if hashed is not None:
            return self._owner(hashed)
        if record.key:
            return self._learn(record.key)
        self._turn = (self._turn + 1) % len(self._turns)
        return self._turns[self._turn]

    def _learn(self, key: str) -> int:
        size = self._check_key(key)
        lane = self._owner(hash_key(key))
        if size <= MAX_KNOWN_KEY_BYTES:
            if len(self._known) >= MAX_KNOWN_KEYS:
                self.forget()
            self._known[key] = lane
            self._room.learned += 1
        return lane

    def forget(self) -> None:
        """The keys it has learned."""
        self._known.clear()

    def _check_key(self, key: str) -> int:
        """Its bytes. Raises ApiError DIS.4200 for too many."""
        size = len(key.encode())
        if size > self._config.max_partition_key_bytes:
            raise api_error(
                "DIS.4200", f"[a partition_key has {size} bytes, more than {self._config.max_partition_key_bytes}]"
            )
        return size

    def _owner(self, hashed: int) -> int:
        number = self._router.owner(hashed)
        if number is None:
            raise api_error("DIS.4302", f"[no partition owns the hash key {hashed}]")
        return number


def _columns_of(records: Records) -> Columns | None:
    """The records as columns, in a copy of their own, if they have nothing but what a row has."""
    if isinstance(records, Columns):
        return records[:]
    if not are_plain(records):
        return None
    payloads = [record.data for record in records]
    keys = [record.key for record in records]
    if "" in keys:  # that is none
        keys = [key or None for key in keys]
    return Columns(keys, list(map(len, payloads)), payloads=payloads)


def _grouped_columns(rows: Columns, lanes: list[int]) -> dict[int, Rows]:
    """The rows of each lane, in the order of their first ones."""
    if lanes and lanes.count(lanes[0]) == len(lanes):
        return {lanes[0]: rows}
    indices: dict[int, list[int]] = {lane: [] for lane in dict.fromkeys(lanes)}
    for index, lane in enumerate(lanes):
        indices[lane].append(index)
    groups: dict[int, Rows] = {}
    for lane, found in indices.items():
        begin, end = found[0], found[-1] + 1
        # Neighbours, where a producer in a session sends lane by lane.
        groups[lane] = rows[begin:end] if end - begin == len(found) else rows.pick(found)
    return groups


def _grouped(rows: list[Row], lanes: Sequence[int]) -> dict[int, Rows]:
    if len(set(lanes)) == 1:  # what an ordered producer sends
        return {lanes[0]: rows}
    groups: dict[int, list[Row]] = {}
    for lane, row in zip(lanes, rows, strict=True):
        group = groups.get(lane)
        if group is None:
            groups[lane] = [row]
        else:
            group.append(row)
    return cast("dict[int, Rows]", groups)


def row_of(record: NewRecord | Row) -> Row:
    """The record as it is stored."""
    return Row(record.data, None if record.partition_id else record.key or None, record.timestamp)


def weight_of(record: NewRecord | Row) -> int:
    """What the record adds to the weight of its request."""
    return row_of(record).weight + RECORD_BYTES


def _explicit_hash(text: str | None) -> int | None:
    """None: absent, or a number that is no hash key, which official clients pass over in favour of the key."""
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise api_error("DIS.4200", f"[explicit_hash_key={text[:80]!r} is not a number]")
    digits = text.lstrip("+-0")
    if (text[0] == "-" and digits) or len(digits) > 19:
        return None
    hashed = int(digits or "0")
    return hashed if hashed <= MAX_HASH_KEY else None


def _too_large(told: str) -> Exception:
    return api_error("DIS.4200", f"[{told}]", status=413)
