"""What of one partition is parked or suspended. Pure.

A key is *parked* when a record of it was given up: the record went to the dead letters, and later records of the key
must not overtake it. They follow into the dead letters, or wait. A partition is *suspended* when nothing of it may go
on. Both outlive the worker: `text()` travels as the annotation of the partition's checkpoint.

Letters that are sent back (redriven) come as new records of the partition. Their headers tell the *origin*, which is
the place (sequence number, index) where the record stood the first time, however often it failed since; and the origin
of the letter before it, of its key. Of a parked key is kept

    below    every record of the key whose origin lies below this has been handled
    last     the place of the record whose letter was written last

and so it can be told, without asking anybody, what is to be done with a record that came back:

    the one before it lies below `below`          it is its turn: it is handled, and then `below` lies behind it
    else                                          that one failed again, or followed: it follows, into another letter
    with it all letters up to `last` came back    the key is unparked

A record says the latter if it is the last of those that were sent, and all letters of the key were. If more records
followed meanwhile, `last` is another place by then, and the key stays parked until they came back too. Places and not
counts: who reads the partition again after a crash gives every letter the same place, and no place comes twice.

This is exact except for one case: a worker died after it had written letters, before it committed; the one that took
over has not come so far yet; and in these seconds letters are sent back. Then a record may be handled before another
one of its key, which is in the dead letters. Nothing is lost then either.

The text, "" for nothing at all:

    p1 5yRpjpTtTsGoWgAA
    p1 5yRpjpTtTsGoWgAA ! 4711 0 1795313465000 ValueError: no such account

    p1      the version
    blob    base64 (URL form, unpadded) of varints and hashes: the highest sequence number there is; then for each key
            its hash (8 bytes), `last` as distance from that, and `below` as distance from `last`. A distance is
            doubled, and 1 added if an index follows, which is a varint.
    !       of a suspended partition: sequence number, index, ms since the epoch, and the error

A text holds 20 keys, and has at most 600 characters as JSON, which is what an annotation may have.
"""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import TypeAlias

from ..model import Record
from ..wire.annotations import MAX_ANNOTATION_CHARS, json_chars

MAX_ERROR_CHARS = 60
"""Of a suspension; the whole error is logged. It has to fit beside as many keys as there may be."""

MAX_KEYS = 20
"""Parked at once, in one partition. 10 bytes are left for the places of each: they fit while no record of a key lies
more than some million records behind. Keys that are parked must be able to get letters, whatever may not."""

MAX_KEYS_BYTES = 360
"""What is left of an annotation for keys, beside the longest suspension."""

HASH_BYTES = 8
"""Keys that share a hash are parked together, by which nothing is lost; that takes some billions of keys."""

PREFIX = "disstream-redrive"
"""How the names of the headers below begin. A handler may look at them."""

ORIGIN_HEADER = PREFIX
"""Of a letter that was sent back: its origin, as partition id/sequence number/index."""

APP_HEADER = PREFIX + "-app"
"""The app that wrote the letter, and is to handle it."""

LAST_HEADER = PREFIX + "-last"
"""Of the last one of a key that was sent back: the place of the last letter, as sequence number/index."""

AFTER_HEADER = PREFIX + "-after"
"""The origin of the letter before it, of its key, as sequence number/index. Absent: it is the first."""

DISCARD_HEADER = PREFIX + "-discard"
"""Of a record without payload: nothing comes back, the last letter of the key was discarded. Not for the handler."""

Place: TypeAlias = tuple[int, int]
"""Sequence number and index of a record."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a partition is suspended: the record it stopped at, what went wrong, and when (ms since the epoch)."""

    sequence_number: int
    index: int
    error: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a record that was sent back says of itself."""

    app: str
    partition_id: str
    origin: Place
    after: Place | None = None
    last: Place | None = None
    discard: bool = False

    @classmethod
    def read(cls, headers: Mapping[str, str] | None) -> Redriven | None:
        """None: the record was not sent back, or what it says cannot be understood."""
        if not headers or ORIGIN_HEADER not in headers:
            return None
        try:
            partition_id, _, origin = headers[ORIGIN_HEADER].partition("/")
            after, last = headers.get(AFTER_HEADER), headers.get(LAST_HEADER)
            return cls(
                headers[APP_HEADER],
                partition_id,
                _place(origin),
                None if after is None else _place(after),
                None if last is None else _place(last),
                DISCARD_HEADER in headers,
            )
        except (KeyError, ValueError):
            return None

    def headers(self) -> dict[str, str]:
        told = {ORIGIN_HEADER: f"{self.partition_id}/{self.origin[0]}/{self.origin[1]}", APP_HEADER: self.app}
        if self.after is not None:
            told[AFTER_HEADER] = f"{self.after[0]}/{self.after[1]}"
        if self.last is not None:
            told[LAST_HEADER] = f"{self.last[0]}/{self.last[1]}"
        if self.discard:
            told[DISCARD_HEADER] = "1"
        return told


class Fate(Enum):
    """What is to be done with a record."""

    HANDLE = "handle"
    """Give it to the handler."""
    FOLLOW = "follow"
    """An earlier record of its key is parked: into the dead letters, or let it wait."""
    SKIP = "skip"
    """It was sent back for another app, or says that a letter was discarded: it is finished, without the handler.
    `handled` is told of it too."""


class _Parked:
    __slots__ = ("below", "last")

    def __init__(self, last: Place, below: Place) -> None:
        self.last = last
        self.below = below


class Parking:
    """What of one partition is parked or suspended."""

    def __init__(self) -> None:
        self._keys: dict[bytes, _Parked] = {}
        self.suspension: Suspension | None = None
        self.damage: str | None = None
        """What was wrong with the text that this was read from; None: nothing. To be logged: keys were unparked."""

    @classmethod
    def read(cls, text: str) -> Parking:
        """What `text()` wrote. A text that cannot be read is as none, and `damage` tells why."""
        parking = cls()
        try:
            parking._read(text)
        except ValueError as exc:
            parking = cls()
            parking.damage = f"{text[:40]!r} is no parking of this version: {exc}"
        return parking

    def text(self) -> str:
        """As an annotation takes it, on one line; "" if there is nothing to be kept."""
        if not self._keys and self.suspension is None:
            return ""
        text = "p1 " + urlsafe_b64encode(self._packed()).rstrip(b"=").decode("ascii")
        if self.suspension is not None:
            at = self.suspension
            text += f" ! {at.sequence_number} {at.index} {at.at_ms} {at.error}"
        return text

    # --- suspension -----------------------------------------------------------------------------------------------

    def suspend(self, sequence_number: int, index: int, error: str, at_ms: int) -> None:
        self.suspension = Suspension(sequence_number, index, _shown(error), at_ms)

    def resume(self) -> None:
        self.suspension = None

    # --- keys -----------------------------------------------------------------------------------------------------

    @property
    def parked_keys(self) -> int:
        """How many keys are parked."""
        return len(self._keys)

    def is_parked(self, key: str | None) -> bool:
        return bool(self._keys) and key is not None and _hash(key) in self._keys

    def park(self, app: str, record: Record) -> bool:
        """A letter of this record, which has a key and failed or follows, is about to be written.

        False: there is no room for the key; nothing has changed, and the partition is to be suspended.
        """
        assert record.key is not None, "without a key there is nothing to park"
        token, place = _hash(record.key), (record.sequence_number, record.index)
        known = self._keys.get(token)
        if known is None:
            self._keys[token] = _Parked(place, origin(app, record.partition_id, place, record.headers))
        else:
            self._keys[token] = _Parked(max(place, known.last), known.below)
        if len(self._keys) > MAX_KEYS or len(self._packed()) > MAX_KEYS_BYTES:
            if known is None:
                del self._keys[token]
            else:
                self._keys[token] = known
            return False
        return True

    def unpark(self, key: str) -> None:
        """Whatever letters there are. Twice is fine."""
        self._keys.pop(_hash(key), None)

    def unpark_all(self) -> None:
        """Every key, as `unpark`."""
        self._keys.clear()

    # --- records --------------------------------------------------------------------------------------------------

    def fate(self, app: str, partition_id: str, key: str | None, headers: Mapping[str, str] | None) -> Fate:
        """What `app` does with a record of this partition, at the moment its turn has come."""
        redriven = Redriven.read(headers) if headers else None
        if redriven is not None and (redriven.app != app or redriven.discard):
            return Fate.SKIP
        if not self._keys or key is None:
            return Fate.HANDLE
        parked = self._keys.get(_hash(key))
        if parked is None:
            return Fate.HANDLE
        if redriven is None:
            return Fate.FOLLOW
        if redriven.partition_id != partition_id:  # parked under an older layout: it comes before all that is here
            return Fate.HANDLE
        its_turn = redriven.after is None or redriven.after < parked.below or redriven.origin < parked.below
        return Fate.HANDLE if its_turn else Fate.FOLLOW

    def handled(self, app: str, partition_id: str, key: str | None, headers: Mapping[str, str] | None) -> bool:
        """A record was handled, or skipped. True: what is parked has changed by that, and `text` with it; the key may
        be unparked now (`is_parked`)."""
        if not headers or not self._keys or key is None:
            return False
        redriven = Redriven.read(headers)
        if redriven is None or redriven.app != app or redriven.partition_id != partition_id:
            return False
        token = _hash(key)
        parked = self._keys.get(token)
        if parked is None:
            return False
        changed = False
        if not redriven.discard and parked.below <= min(redriven.origin, parked.last):
            sequence, index = min(redriven.origin, parked.last)
            parked.below = (sequence, index + 1)
            changed = True
        # Not "==": a worker that died before its commit may have written later letters than are known here.
        if redriven.last is not None and redriven.last >= parked.last:
            del self._keys[token]
            changed = True
        return changed

    def check(self) -> None:
        """Assert every invariant."""
        for token, parked in self._keys.items():
            assert len(token) == HASH_BYTES
            assert (0, 0) <= parked.below <= (parked.last[0], parked.last[1] + 1)
        assert len(self._keys) <= MAX_KEYS
        assert len(self._packed()) <= MAX_KEYS_BYTES
        text = self.text()
        assert json_chars(text) <= MAX_ANNOTATION_CHARS
        assert not text or text.isprintable()

    # --- its text -------------------------------------------------------------------------------------------------

    def _packed(self) -> bytes:
        highest = max((parked.last[0] for parked in self._keys.values()), default=0)
        blob = [_varint(highest)]
        for token, parked in self._keys.items():
            sequence, index = parked.last
            blob += token, _distance(highest - sequence, index)
            blob.append(_distance(sequence - parked.below[0], parked.below[1]))
        return b"".join(blob)

    def _read(self, text: str) -> None:
        if not text:
            return
        version, _, rest = text.partition(" ")
        if version != "p1":
            raise ValueError("it does not begin with p1")
        encoded, suspended, told = rest.partition(" ! ")
        try:
            blob = b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except ValueError as exc:
            raise ValueError(f"its keys are not base64 ({exc})") from None
        self._read_keys(iter(blob))
        if suspended:
            sequence, index, at_ms, *error = told.split(" ", 3)
            place, when = _whole(sequence), _whole(at_ms, 14)
            self.suspend(place, _whole(index, 5), error[0] if error else "", when)

    def _read_keys(self, blob: Iterator[int]) -> None:
        highest = _read_varint(blob)
        for first in blob:
            token = bytes([first, *(byte for _, byte in zip(range(HASH_BYTES - 1), blob, strict=False))])
            behind, index = _read_distance(blob)
            last = highest - behind, index
            behind, index = _read_distance(blob)
            below = last[0] - behind, index
            if token in self._keys or len(token) < HASH_BYTES or not (0, 0) <= below <= (last[0], last[1] + 1):
                raise ValueError("its keys contradict each other")
            self._keys[token] = _Parked(last, below)
        if len(self._keys) > MAX_KEYS or len(self._packed()) > MAX_KEYS_BYTES:
            raise ValueError("it holds more keys than there may be")


def origin(app: str, partition_id: str, place: Place, headers: Mapping[str, str] | None) -> Place:
    """Where a record of this partition, that is at `place`, stood the first time."""
    redriven = Redriven.read(headers) if headers else None
    if redriven is None or redriven.app != app or redriven.partition_id != partition_id:
        return place
    return min(redriven.origin, place)


def _hash(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def _shown(error: str) -> str:
    """One short line."""
    line = " ".join(error[: 10 * MAX_ERROR_CHARS].split())
    # What JSON escapes would take more room than there is.
    shown = "".join(c if c.isprintable() else "?" for c in line.replace('"', "'").replace("\\", "/"))
    return shown if len(shown) <= MAX_ERROR_CHARS else shown[: MAX_ERROR_CHARS - 1] + "…"


def _whole(text: str, digits: int = 19) -> int:
    # isascii: str.isdigit alone accepts superscripts, which int() refuses
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise ValueError(f"{text[:40]!r} is no number")
    return int(text)


def _place(text: str) -> Place:
    sequence, _, index = text.partition("/")
    return _whole(sequence), _whole(index)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _read_varint(blob: Iterator[int]) -> int:
    number = shift = 0
    for byte in blob:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number
        if shift > 63:
            break
    raise ValueError("its keys end too early, or hold numbers that cannot be")


def _distance(behind: int, index: int) -> bytes:
    return _varint(2 * behind + 1) + _varint(index) if index else _varint(2 * behind)


def _read_distance(blob: Iterator[int]) -> Place:
    number = _read_varint(blob)
    return number >> 1, _read_varint(blob) if number & 1 else 0
