"""Producer sessions: the header by which a put tells who sends it, and which numbers its records bear. Pure.

An extension: a server that offers it names `sessions` in X-Disstream, and a client sends the header only then. It reads

    X-Disstream-Session: 9f86d081884c7d659a2feaa0c55ad015.12; 0=0:1500:700, 3=2:0:300

    producer id (32 hex digits), a dot, the number of this request among all of the producer; then for each lane, in the
    order of the records in the body: partition = epoch : number of its first record : how many records it has.

Every record belongs to a lane: the partition in which the producer expects it. In a partition, the records of one
producer and epoch are numbered from 0 without gaps, so that the server can tell a record it has from the next one.

The answer to a put in a session tells of each record: its place, which for one that was stored before is the place it
has (the sequence number is -1 if that was too long ago to know), or why it is not stored: as without a session, or by
one of the codes below. Sessions refuse no well-formed request as a whole, so DIS.4303 comes record by record, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import api_error

HEADER = "x-disstream-session"

EXTENSION = "sessions"
"""What X-Disstream names where sessions are understood."""

MAX_LANES = 256
"""Of one request: the header stays below 8 KiB, which is what most servers and proxies take."""

GAP = "DISSTREAM.SESSION_GAP"
"""Not stored: numbers before this one are missing, or the session is not known (any more). Begin a new epoch."""
FENCED = "DISSTREAM.SESSION_FENCED"
"""Not stored: a later epoch of this lane, or a later request of this producer, has been here. Nothing of an earlier
one will be stored any more."""
MOVED = "DISSTREAM.SESSION_MOVED"
"""Not stored, and never will be by an earlier attempt: the stream was scaled, and the record's key belongs to another
partition now. Read the layout, and send it there."""

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_LANE = re.compile(rf"({_NUMBER})=({_NUMBER}):({_NUMBER}):({_NUMBER})", re.ASCII)
_HEAD = re.compile(rf"([0-9a-f]{{32}})\.({_NUMBER})", re.ASCII)


class SessionLane(NamedTuple):
    """The records of one partition in a request: so many `records`, numbered from `number` on."""

    partition: int
    epoch: int
    number: int
    records: int


class Session(NamedTuple):
    """What the header of a request says. `request` grows with every attempt of the producer."""

    producer: str
    request: int
    lanes: tuple[SessionLane, ...]

    @property
    def records(self) -> int:
        """How many records the body has."""
        return sum(lane.records for lane in self.lanes)


def encode_session(session: Session) -> str:
    lanes = ", ".join(f"{p}={epoch}:{number}:{records}" for p, epoch, number, records in session.lanes)
    return f"{session.producer}.{session.request}; {lanes}"


def decode_session(text: str) -> Session:
    """Raises ApiError DIS.4200: not of this form, a partition twice, no record, or more than MAX_LANES."""
    head, _, rest = text.partition(";")
    found = _HEAD.fullmatch(head.strip())
    parts = rest.split(",") if len(rest) <= 80 * MAX_LANES else []
    lanes = [_LANE.fullmatch(part.strip()) for part in parts]
    if found is None or not lanes or len(lanes) > MAX_LANES:
        raise _bad(text)
    told = []
    for lane in lanes:
        if lane is None or lane[4] == "0":
            raise _bad(text)
        told.append(SessionLane(int(lane[1]), int(lane[2]), int(lane[3]), int(lane[4])))
    if len({lane.partition for lane in told}) < len(told):
        raise _bad(text)
    return Session(found[1], int(found[2]), tuple(told))


def _bad(text: str) -> Exception:
    return api_error("DIS.4200", f"[x-disstream-session={text[:120]!r} is no session]")
