"""What of one partition is parked or suspended. Pure.

A key is *parked* when a record of it was given up: the record went to the dead letters, and later records of the key
must not overtake it. They follow into the dead letters, or wait. A partition is *suspended* when nothing of it may go
on. Both outlive the worker: `text()` travels as the annotation of the partition's checkpoint.

Letters of keys are numbered, per partition, from 1, and no number is given twice. Of a parked key is kept

    last      the number of its last letter
    failed    the number of its last letter that failed itself; it did not only follow

    not parked --park(followed=False)--> parked --park(...)--> parked --the letter `last` came back and was handled-->
                                                                                                          not parked

Letters that are sent back (redriven) name their partition and their number, and the last one of a key says that it is
the last. So it can be told, without asking anybody, what is to be done with one:

    its number is below `failed`      a letter before it failed again: it follows, or it would overtake that one
    it is the last one and `last`     nothing was written since: all letters of the key came back
    it is the last one, not `last`    more records followed meanwhile: the key stays parked until they came back too

A number that counted the letters of a key would not do: a key that is parked again soon has as many, and an old letter
that is sent a second time would unpark it.

The text, "" for nothing at all:

    p1 AWmOlO1OwahaAQA
    p1 AWmOlO1OwahaAQA ! 4711 0 1795313465000 ValueError: no such account

    p1      the version
    blob    base64 (URL form, unpadded) of varints and hashes: the number of letters, then for each key its hash (8
            bytes), `last` and `last - failed`
    !       of a suspended partition: sequence number, index, ms since the epoch, and the error

This one says that 1 letter was written, and that the key "customer-7" (hash 698e94ed4ec1a85a) is parked by it. A text
holds 25 to 33 keys, and has at most 600 characters as JSON, which is what an annotation may have.
"""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from ..wire.annotations import MAX_ANNOTATION_CHARS, json_chars

MAX_ERROR_CHARS = 60
"""Of a suspension; the whole error is logged. It has to fit beside as many keys as there may be."""

NEW_KEY_BYTES = 330
"""A key is parked for the first time only while all take no more than this ..."""

ALL_KEYS_BYTES = 360
"""... so that the numbers of those that are parked can grow."""

HASH_BYTES = 8
"""Keys that share a hash are parked together, by which nothing is lost; that takes some billions of keys."""

MAX_NUMBER = 2**48
"""More letters than there will be; what says more is damaged."""

PREFIX = "disstream-redrive"
"""How the names of the headers below begin. A handler may look at them."""

FROM_HEADER = PREFIX
"""Of a letter that was sent back: where its record was read, as partition id/sequence number/index."""

APP_HEADER = PREFIX + "-app"
"""The app that wrote the letter, and is to handle it."""

NUMBER_HEADER = PREFIX + "-number"
"""The letter's number."""

LAST_HEADER = PREFIX + "-last"
"""Of the last one of a key that was sent back: the number of the last letter of the key then."""

DISCARD_HEADER = PREFIX + "-discard"
"""Of a record without payload: nothing comes back, the letters of the key were discarded. Not for the handler."""


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
    sequence_number: int
    index: int
    number: int
    last: int | None = None
    discard: bool = False

    @classmethod
    def read(cls, headers: Mapping[str, str] | None) -> Redriven | None:
        """None: the record was not sent back, or what it says cannot be understood."""
        if not headers or FROM_HEADER not in headers:
            return None
        try:
            partition_id, sequence, index = headers[FROM_HEADER].split("/")
            last = headers.get(LAST_HEADER)
            return cls(
                headers[APP_HEADER],
                partition_id,
                _whole(sequence),
                _whole(index),
                _whole(headers[NUMBER_HEADER]),
                None if last is None else _whole(last),
                DISCARD_HEADER in headers,
            )
        except (KeyError, ValueError):
            return None

    def headers(self, *, discard: bool = False) -> dict[str, str]:
        told = {
            FROM_HEADER: f"{self.partition_id}/{self.sequence_number}/{self.index}",
            APP_HEADER: self.app,
            NUMBER_HEADER: str(self.number),
        }
        if self.last is not None:
            told[LAST_HEADER] = str(self.last)
        if discard or self.discard:
            told[DISCARD_HEADER] = "1"
        return told


class Fate(Enum):
    """What is to be done with a record."""

    HANDLE = "handle"
    """Give it to the handler."""
    FOLLOW = "follow"
    """An earlier record of its key is parked: into the dead letters, or let it wait."""
    SKIP = "skip"
    """It was sent back for another app, or says that letters were discarded: it is finished, without the handler.
    `handled` is told of it too."""


class _Parked:
    __slots__ = ("failed", "last")

    def __init__(self, last: int, failed: int) -> None:
        self.last = last
        self.failed = failed


class Parking:
    """What of one partition is parked or suspended."""

    def __init__(self) -> None:
        self._letters = 0
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
        if not self._letters and self.suspension is None:
            return ""
        blob = _varint(self._letters) + self._packed()
        text = "p1 " + urlsafe_b64encode(blob).rstrip(b"=").decode("ascii")
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

    @property
    def letters(self) -> int:
        """How many letters of keys were written of this partition, ever."""
        return self._letters

    def is_parked(self, key: str | None) -> bool:
        return bool(self._keys) and key is not None and _hash(key) in self._keys

    def park(self, key: str, *, followed: bool = False) -> bool:
        """A letter of this key is about to be written, with `number(key)` as its number.

        `followed`: the record did not fail, it goes with those before it. False: there is no room for the key; nothing
        has changed, and the partition is to be suspended.
        """
        token = _hash(key)
        known = self._keys.get(token)
        number = self._letters + 1
        self._keys[token] = _Parked(number, known.failed if known is not None and followed else number)
        if len(self._packed()) > (ALL_KEYS_BYTES if known is not None else NEW_KEY_BYTES):
            if known is None:
                del self._keys[token]
            else:
                self._keys[token] = known
            return False
        self._letters = number
        return True

    def number(self, key: str | None) -> int:
        """The number of the key's last letter; 0: it is not parked."""
        parked = self._keys.get(_hash(key)) if self._keys and key is not None else None
        return 0 if parked is None else parked.last

    def unpark(self, key: str) -> None:
        """Whatever letters there are. Twice is fine."""
        self._keys.pop(_hash(key), None)

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
        # Of another partition: it was parked under an older layout, so it comes before all that is parked here.
        foreign = redriven.partition_id != partition_id
        return Fate.HANDLE if foreign or redriven.number >= parked.failed else Fate.FOLLOW

    def handled(self, app: str, partition_id: str, key: str | None, headers: Mapping[str, str] | None) -> bool:
        """A record was handled, or skipped. True: it was the last of a parked key to come back, and unparked it."""
        if not headers or not self._keys or key is None:
            return False
        redriven = Redriven.read(headers)
        if redriven is None or redriven.app != app or redriven.partition_id != partition_id:
            return False
        token = _hash(key)
        parked = self._keys.get(token)
        if parked is None or redriven.last is None or redriven.last != parked.last:
            return False
        del self._keys[token]
        return True

    def check(self) -> None:
        """Assert every invariant."""
        for token, parked in self._keys.items():
            assert len(token) == HASH_BYTES
            assert 1 <= parked.failed <= parked.last <= self._letters
        numbers = [parked.last for parked in self._keys.values()]
        assert len(set(numbers)) == len(numbers), "a number was given twice"
        assert len(self._packed()) <= ALL_KEYS_BYTES
        text = self.text()
        assert json_chars(text) <= MAX_ANNOTATION_CHARS
        assert not text or text.isprintable()

    # --- its text -------------------------------------------------------------------------------------------------

    def _packed(self) -> bytes:
        return b"".join(
            token + _varint(parked.last) + _varint(parked.last - parked.failed) for token, parked in self._keys.items()
        )

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
        self._letters = _read_varint(blob)
        for first in blob:
            token = bytes([first, *(byte for _, byte in zip(range(HASH_BYTES - 1), blob, strict=False))])
            last = _read_varint(blob)
            failed = last - _read_varint(blob)
            if not (1 <= failed <= last <= self._letters) or token in self._keys or len(token) < HASH_BYTES:
                raise ValueError("its numbers contradict each other")
            self._keys[token] = _Parked(last, failed)
        if len(self._packed()) > ALL_KEYS_BYTES:
            raise ValueError("it holds more keys than there may be")


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
        if byte < 128 and number <= MAX_NUMBER:
            return number
        if shift > 49:
            break
    raise ValueError("its keys end too early, or hold numbers that cannot be")
