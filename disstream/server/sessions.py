"""What becomes of the records of a put that names its session (wire/sessions.py): each is stored once. Pure.

The log knows which of a producer's records it has; this decides what may be asked of it. Per lane of the session, that
is per partition in which the producer expects its records:

    begin          done                        end            begin + records
      | stored, with  | open: nothing known yet | refused,       |
      | their places  |                         | with a reason  |

`done` and `end` approach each other, in one or two rounds (two if the layout changes between looking it up and
appending), until nothing is open. So what is refused is always the end of a lane: the suffix rule of admission.py.

In a round, first the log tells what it has (`recall`): that is answered whatever the present layout, bandwidth and
memory say. Then all that cannot be stored is refused: what the log would refuse anyway, what this request or a later
one of the producer was refused before, and whatever stands behind a record that belongs elsewhere by now. The rest is
a put like any other (`PutPlan`). One request at a time of each lane, which the shell sees to: or what is refused here
might be stored this moment by a copy of the same request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import cast

from ..engine import AppendRefused, Columns, Entry, Known, PartitionRef, Replayed, Row, Span, Writer
from ..errors import ApiError
from ..model import NewRecord
from ..wire.errors import api_error
from ..wire.records import PutFailure, encode_put_answer
from ..wire.sessions import FENCED, GAP, MOVED, Session, SessionLane
from .admission import PutAnswerEncoder, PutPlan
from .layout import Layout, Records

LaneKey = tuple[PartitionRef, str]
"""A partition, and the producer."""

MAX_REFUSALS = 20_000
"""Lanes whose last refusal is remembered, and requests refused as a whole; some 5 MB each. A copy of a request that is
late by more refusals than this is one of a network that keeps requests for minutes."""

_NOWHERE = -1

_REFUSED = {
    "gap": PutFailure(GAP, "Records before this one are missing, or the session is not known: begin a new epoch."),
    "fenced": PutFailure(FENCED, "A later epoch of this lane, or a later request of the producer, has been here."),
}
_MOVED = PutFailure(MOVED, "The record belongs to another partition since the stream was scaled: read the layout.")


def session_keys(session: Session, stream_id: str) -> list[LaneKey]:
    """What one request at a time may use."""
    return [(PartitionRef(stream_id, lane.partition), session.producer) for lane in session.lanes]


class Refusals:
    """What was told not to be stored: it stays so if a copy of the request comes.

    Of each lane the last request of which records were refused, and requests that were refused as a whole: too large,
    no room for their bodies, no such stream. Those say nothing of the requests before them.
    """

    def __init__(self, limit: int = MAX_REFUSALS) -> None:
        self._limit = limit
        self._last: dict[LaneKey, int] = {}
        self._whole: dict[tuple[str, str, int], None] = {}

    def remember(self, key: LaneKey, request: int) -> None:
        """Beyond the limit the ones that were remembered longest ago are forgotten."""
        self._last[key] = max(self._last.pop(key, 0), request)
        if len(self._last) > self._limit:
            del self._last[next(iter(self._last))]

    def cover(self, key: LaneKey, request: int) -> bool:
        """Whether nothing of this request may be stored any more."""
        last = self._last.get(key)
        return last is not None and request <= last

    def remember_whole(self, project: str, session: Session) -> None:
        """The project is that of the path: a stream may not have been found."""
        self._whole[project, session.producer, session.request] = None
        if len(self._whole) > self._limit:
            del self._whole[next(iter(self._whole))]

    def cover_whole(self, project: str, session: Session) -> bool:
        """Whether it was refused as a whole before."""
        return (project, session.producer, session.request) in self._whole


class _Part:
    """The records of one lane. Places within it are counted from its first record."""

    __slots__ = ("begin", "done", "end", "failure", "lane", "spans")

    def __init__(self, lane: SessionLane, begin: int) -> None:
        self.lane = lane
        self.begin = begin
        self.done = 0
        self.end = lane.records
        self.spans: list[Span] = []
        self.failure: PutFailure | None = None

    @property
    def open(self) -> bool:
        return self.done < self.end

    @property
    def indices(self) -> range:
        """Which records of the request are open."""
        return range(self.begin + self.done, self.begin + self.end)

    def place(self, spans: Sequence[Span]) -> None:
        """The open records from the first on are stored there."""
        if spans:
            self.spans += spans
            self.done = spans[-1].end - self.lane.number

    def fail(self, place: int, failure: PutFailure) -> None:
        """The open records from `place` on are not stored."""
        if place < self.end:
            self.end, self.failure = place, failure


class SessionPlan:
    """One put of a session on its way into the log."""

    def __init__(
        self, session: Session, records: Records, stream_id: str, refusals: Refusals, project: str = ""
    ) -> None:
        """Raises ApiError DIS.4200 if the session tells of more records than there are, or of fewer."""
        if session.records != len(records):
            raise api_error("DIS.4200", f"[the session tells of {session.records} records, there are {len(records)}]")
        self._session = session
        self._records = records
        self._stream_id = stream_id
        self._refusals = refusals
        self._project = project
        self._parts: list[_Part] = []
        begin = 0
        for lane in session.lanes:
            self._parts.append(_Part(lane, begin))
            begin += lane.records
        self._put: PutPlan | None = None
        self.stored: dict[int, tuple[int, int]] = {}
        """Partition -> (records, payload bytes) that this put stored, without those that had been stored before."""
        self.throttled = False

    def _key(self, part: _Part) -> LaneKey:
        return PartitionRef(self._stream_id, part.lane.partition), self._session.producer

    @property
    def settled(self) -> bool:
        """Whether every record has its end."""
        return not any(part.open for part in self._parts)

    def asked(self) -> list[tuple[PartitionRef, Writer, int]]:
        """What to recall: the open records."""
        return [
            (PartitionRef(self._stream_id, part.lane.partition), self._writer(part), part.end - part.done)
            for part in self._parts
            if part.open
        ]

    def _writer(self, part: _Part) -> Writer:
        session, lane = self._session, part.lane
        return Writer(session.producer, lane.epoch, lane.number + part.done, session.request)

    def round(self, layout: Layout, known: Sequence[Known]) -> PutPlan | None:
        """What is left to be put, now that the log told what it knows of `asked`; None: nothing.

        Raises ApiError as `Layout.route` does, but not for a record that names a partition which is not written any
        more.
        """
        lanes, put = self._route(layout)
        refused = self._refusals.cover_whole(self._project, self._session)
        for part, found in zip([part for part in self._parts if part.open], known, strict=True):
            self._check(part, found, lanes, refused)
        left = [part for part in self._parts if part.open]
        if not left:
            return None
        if put is None or any(part.done or part.failure for part in self._parts):
            records = self._rest(left)
            put = PutPlan(records, layout, [lanes[i] for part in left for i in part.indices])
        put.writers = {part.lane.partition: self._writer(part) for part in left}
        self._put = put
        return put

    def _rest(self, left: Sequence[_Part]) -> Records:
        """The open records. Where they are those of one lane they stay what they are."""
        if len(left) == 1:
            return self._records[left[0].indices.start : left[0].indices.stop]
        return cast("Records", [self._records[i] for part in left for i in part.indices])

    def _route(self, layout: Layout) -> tuple[Sequence[int], PutPlan | None]:
        """Where each record belongs, and the put of them all if each belongs anywhere."""
        told = self._told(layout)
        if told is not None and _NOWHERE in told:
            return told, None
        try:
            put = PutPlan(self._records, layout, told)
        except ApiError as error:
            if error.code not in _GONE:
                raise
            return [_where(record, layout) for record in self._records], None
        return put.lanes, put

    def _told(self, layout: Layout) -> list[int] | None:
        """In columns a record without a key belongs where its lane says, if that is still written; None: no such."""
        records = self._records
        if not isinstance(records, Columns) or None not in records.keys:
            return None
        lanes: list[int] = []
        for part in self._parts:
            home = part.lane.partition if part.lane.partition in layout.epochs else _NOWHERE
            keys = records.keys[part.begin : part.begin + part.lane.records]
            if keys.count(None) == len(keys):
                lanes += [home] * len(keys)
            else:
                mine = enumerate(keys, part.begin)
                lanes += [home if key is None else _where(records[index], layout) for index, key in mine]
        return lanes

    def _check(self, part: _Part, known: Known, lanes: Sequence[int], refused: bool) -> None:
        part.place(known.spans)
        if known.refused is not None and known.refused.kind != "epoch":
            part.fail(part.done, _REFUSED[known.refused.kind])
        elif refused or self._refusals.cover(self._key(part), self._session.request):
            part.fail(part.done, _REFUSED["fenced"])
        else:
            partition = part.lane.partition
            mine = lanes[part.begin + part.done : part.begin + part.end]
            if mine.count(partition) < len(mine):
                stays = sum(1 for _ in takewhile(partition.__eq__, mine))
                part.fail(part.done + stays, _MOVED)

    def settle(self, entries: Sequence[Entry], results: Sequence[int | AppendRefused | Replayed]) -> None:
        """What the log said to the entries of this round's put. What met another epoch of its partition stays open."""
        assert self._put is not None
        self._settle_failures(self._put.failures)
        self.throttled = self.throttled or self._put.throttled
        self.stored.update(self._put.stored)
        parts = {part.lane.partition: part for part in self._parts}
        for entry, result in zip(entries, results, strict=True):
            part = parts[entry.partition.number]
            if isinstance(result, int):
                number = part.lane.number + part.done
                part.place((Span(number, number + len(entry.rows), result),))
                continue
            if isinstance(result, Replayed):
                part.place(result.spans)
            refused = result.refused if isinstance(result, Replayed) else result
            if refused is not None and refused.kind != "epoch":
                part.fail(part.done, _REFUSED[refused.kind])

    def _settle_failures(self, failures: Mapping[int, ApiError]) -> None:
        """What was not let in: of each lane the end."""
        if not failures:
            return
        begin = 0
        for part in self._parts:
            if part.open:
                count = part.end - part.done
                failed = next((i for i in range(count) if begin + i in failures), None)
                if failed is not None:
                    error = failures[begin + failed]
                    part.fail(part.done + failed, PutFailure(error.code, error.message))
                begin += count

    def end(self, error: ApiError) -> None:
        """Fail what is still open, and remember all that failed."""
        for part in self._parts:
            part.fail(part.done, PutFailure(error.code, error.message))
            if part.failure is not None:
                self._refusals.remember(self._key(part), self._session.request)

    def answer(self, encode: PutAnswerEncoder = encode_put_answer) -> bytes:
        """The body of the answer, record by record even if nothing was stored: a session has reasons of its own."""
        runs: list[int] = []
        first: dict[int, int] = {}
        partitions: dict[int, int] = {}
        failures: dict[int, PutFailure] = {}
        for part in self._parts:
            for number, end, sequence in part.spans:
                # Places that are not known any more: each record is a run, or they would be counted up.
                lengths = [end - number] if sequence >= 0 else [1] * (end - number)
                for length in lengths:
                    run = len(first)
                    first[run], partitions[run] = sequence, part.lane.partition
                    runs += [run] * length
            if part.failure is not None:
                failed = range(part.begin + part.done, part.begin + part.lane.records)
                failures.update(dict.fromkeys(failed, part.failure))
                runs += [_NOWHERE] * len(failed)
        return encode(runs, first, failures, partitions)

    def check(self) -> None:
        """Assert that places and numbers agree."""
        for part in self._parts:
            assert 0 <= part.done <= part.end <= part.lane.records, part
            assert (part.end < part.lane.records) == (part.failure is not None), part
            numbers = [n for number, end, _ in part.spans for n in range(number, end)]
            assert numbers == list(range(part.lane.number, part.lane.number + part.done)), part


_GONE = ("DIS.4302", "DIS.4319")


def _where(record: NewRecord | Row, layout: Layout) -> int:
    try:
        return layout.lane(record)
    except ApiError as error:
        if error.code not in _GONE:
            raise
        return _NOWHERE
