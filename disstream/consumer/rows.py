"""What the consumers of an app write into a lease store: the rows, and how they read. Pure.

    key                              text (JSON)
    member/<member id>/<incarnation>   {"v":1,"beat":17,"session_timeout_s":30.0,"streams":["orders"]}
                                       {"v":1,"beat":17,"session_timeout_s":30.0,"pattern":"orders-.*"}
    lease/<stream>/<number>            {"v":1,"stream_id":"Qf8x","owner":"host-1/5c2e","token":3,"heir":"host-2/77aa",
                                        "since_ms":1700000000000,"checkpoint":["41","{\\"kind\\":\\"last\\",\\"seq\\":41}"]}

**member**: one for each life of a consumer. `incarnation` is random, so a key never comes back: a row that is gone
means a member that has ended for good, whoever joins under its id later. `beat` grows with each renewal. A member whose
row was the same for its `session_timeout_s` may be removed by deleting the row as it was seen.

**lease**: one for each partition of a stream that somebody wants, from when the first one found it until the stream is
gone. `owner` is the part of a member's key behind "member/"; "" or one without a row: it is free. `token` grows with
each change of owner. `heir`, with an owner: the owner is about to give it up, and that member is to have it next;
without: it was given up for that one. `checkpoint` is what `wire/checkpoints.sealed` makes, number and metadata;
absent: nothing was pinned yet. `fresh`: the app had read nothing of the stream when the row was made, so a partition
without a checkpoint begins where the app wants to start, and not at its oldest record. `stream_id` tells a stream from
a later one of the same name. `since_ms`: wall time of the last change of owner, for people; nothing is decided by it.

Only the owner writes `heir` and `checkpoint`. Who writes a row expects the version it saw, so of two one is refused.
Absent fields have the values that are not worth writing. Another `v`, and a key of another kind, is refused: a member
that does not understand the others must not act beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from ..errors import ConfigError
from ..leases.api import Row
from ..model import Checkpoint

VERSION = 1

MEMBERS = "member/"
LEASES = "lease/"

_R = TypeVar("_R", "MemberRow", "LeaseRow")


class LeaseKey(NamedTuple):
    """A partition as its row is named."""

    stream: str
    number: int

    def text(self) -> str:
        return f"{LEASES}{self.stream}/{self.number}"


class MemberRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    v: int
    beat: int
    session_timeout_s: float
    streams: tuple[str, ...] = ()
    pattern: str = ""
    """Instead of streams: a regular expression."""


class LeaseRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    v: int
    stream_id: str
    owner: str = ""
    token: int = 0
    heir: str = ""
    since_ms: int = 0
    fresh: bool = False
    checkpoint: tuple[str, str] | None = None

    def kept(self) -> Checkpoint | None:
        """The checkpoint as the other rooms know it."""
        return None if self.checkpoint is None else Checkpoint(int(self.checkpoint[0]), self.checkpoint[1])


_member_decoder = msgspec.json.Decoder(MemberRow)
_lease_decoder = msgspec.json.Decoder(LeaseRow)


def member_key(name: str) -> str:
    return MEMBERS + name


def lease_prefix(stream: str) -> str:
    """Of all leases of a stream."""
    return f"{LEASES}{stream}/"


def checkpoint_fields(checkpoint: Checkpoint) -> tuple[str, str]:
    """As a lease row holds it: the number as text, for readers whose numbers end at 2**53."""
    return str(checkpoint.sequence_number), checkpoint.metadata


def encode_row(row: MemberRow | LeaseRow) -> str:
    return msgspec.json.encode(row).decode()


def lease_key(key: str) -> LeaseKey:
    """Raises ConfigError: the key is none of a lease."""
    stream, _, number = key.removeprefix(LEASES).rpartition("/")
    if not (key.startswith(LEASES) and stream and number.isascii() and number.isdigit()):
        raise ConfigError(
            f"the lease store holds a row {key[:200]!r}, which is none of a consumer: use another app or another store"
        )
    return LeaseKey(stream, int(number))


def read_member(key: str, text: str) -> MemberRow:
    """Raises ConfigError: another version, or not of a consumer."""
    return _read(_member_decoder, key, text)


def read_lease(key: str, text: str) -> LeaseRow:
    """Raises ConfigError: another version, or not of a consumer."""
    row = _read(_lease_decoder, key, text)
    number = row.checkpoint[0] if row.checkpoint is not None else "0"
    if not (number.isascii() and number.isdigit() and len(number) <= 19):
        raise _foreign(key, f"its checkpoint is {number[:80]!r}")
    return row


class _Version(msgspec.Struct):
    v: int


_version_decoder = msgspec.json.Decoder(_Version)


def _read(decoder: msgspec.json.Decoder[_R], key: str, text: str) -> _R:
    try:
        row = decoder.decode(text)
        version = row.v
    except msgspec.MsgspecError as exc:
        # The fields of a version that we do not know are not ours to judge.
        try:
            version = _version_decoder.decode(text).v
        except msgspec.MsgspecError:
            raise _foreign(key, str(exc)) from exc
        if version == VERSION:
            raise _foreign(key, str(exc)) from exc
    if version != VERSION:
        raise ConfigError(
            f"the lease store's row {key[:200]!r} has version {version}, this disstream knows version {VERSION}: "
            "use the same release for all consumers of the app"
        )
    return row


def _foreign(key: str, why: str) -> ConfigError:
    return ConfigError(
        f"the lease store's row {key[:200]!r} was not written by a consumer ({why}): use another app or another store"
    )


class Rows(NamedTuple):
    """All rows of an app, read."""

    members: dict[str, MemberRow]
    """By name: member id and incarnation."""
    leases: dict[LeaseKey, LeaseRow]


def read_rows(rows: Mapping[str, Row]) -> Rows:
    """What `LeaseStore.read` answered for an app. Raises ConfigError: a row that no consumer of this version wrote."""
    read = Rows({}, {})
    for key, row in rows.items():
        if key.startswith(MEMBERS):
            read.members[key.removeprefix(MEMBERS)] = read_member(key, row.text)
        else:
            read.leases[lease_key(key)] = read_lease(key, row.text)
    return read
