"""What an answer says of the records of a request. Pure.

    stored(shipment, body, now)        a 2xx answer, wholly or record by record
    refused(shipment, error, now)      an error answer
    lost(shipment, error, now)         no answer: maybe applied

Each record gets its end, or goes back to the *front* of its lane's queue: nothing of a lane may pass what is tried
again. Lanes back off where that is due, and partitions that the service throttles are slowed down.
"""

from __future__ import annotations

from http import HTTPStatus

from ..errors import ApiError, ThrottledError, TransportError
from ..model import PutResult, PutResults
from ..wire.errors import RETRYABLE_RECORD_CODES
from ..wire.partitioning import partition_id, partition_number
from ..wire.places import Places, spelt_out
from ..wire.records import count_stored, decode_failed_count, decode_put_answer
from ..wire.sessions import FENCED, GAP, MOVED
from .ends import Ends
from .lanes import Lane
from .layout import Layout
from .outcome import Answer, Receipt, SharedAnswer, ShortAnswer
from .pacing import Backoff, FailureBudget
from .picking import Picker
from .shipment import Part, Shipment, halves
from .traffic import Traffic

LOCKED_OUT_S = 60.0
"""The pause after DIS.4309 where the service does not tell how long: an address that goes on stays locked out."""

FEW_LANES = 4
"""To count the records of each lane an answer is read once per lane: with more lanes, decoding it is faster (0.3 ms
instead of 9 for 200 lanes of 4 records)."""

_SPLIT_STATUS = {400, 413}
_NOT_ABOUT_CONTENT = {"DIS.4117", "DIS.4301"}
"""Refusals of a whole request that no other composition of records would avoid."""
_SESSION_CODES = {GAP, FENCED, MOVED}
_RETRYABLE_CODES = {"DIS.4205"}
"""The stream is not running: it may be being created, or scaled."""


class _Overtaken:
    """Which failed records of a request were overtaken: a later one of their key was stored by the same request."""

    def __init__(self) -> None:
        self._failed: dict[tuple[Lane, str], list[tuple[Part, int]]] = {}
        self._late: dict[Part, set[int]] = {}
        self.rests: dict[Part, Part] = {}  # part of the request -> what of it is tried again

    def failed(self, lane: Lane, key: str | None, part: Part, index: int) -> None:
        if key is not None:
            self._failed.setdefault((lane, key), []).append((part, index))

    def stored(self, lane: Lane, key: str | None) -> None:
        if key is not None:
            for part, index in self._failed.pop((lane, key), ()):
                self._late.setdefault(part, set()).add(index)

    def mark(self) -> None:
        for part, late in self._late.items():
            self.rests[part].overtaken |= late


class Answers:
    """Settles shipments, one after the other."""

    def __init__(self, layout: Layout, ends: Ends, picker: Picker, backoff: Backoff, *, ordered: bool) -> None:
        self._layout = layout
        self._ends = ends
        self._picker = picker
        self._backoff = backoff
        self._failures = FailureBudget()
        self._ordered = ordered
        self.slowed: list[Traffic] = []  # partitions that began to be throttled since the shell last looked

    def stored(self, shipment: Shipment, answer: bytes | PutResults | Places, now: float) -> None:
        """The service answered 2xx, with this body or these results. What does not fit the request is no answer."""
        try:
            if isinstance(answer, tuple):
                if self._in_places(shipment, answer):
                    self._settle_all(shipment, ShortAnswer(answer), now)
                    return
                results = spelt_out(answer)
            elif isinstance(answer, PutResults):
                if self._in_place(shipment, answer):
                    self._settle_all(shipment, Answer(answer), now)
                    return
                results = answer
            elif decode_failed_count(answer) == 0 and self._as_expected(shipment, answer):
                self._settle_all(shipment, Answer(answer), now)
                return
            else:
                results = decode_put_answer(answer)
        except TransportError as exc:
            self.lost(shipment, exc, now)
            return
        if shipment.session is not None and any(r.ok and r.sequence_number is None for r in results):
            # It is asked again, and will be told: in the same records under the same numbers.
            self.lost(shipment, TransportError("the answer tells no place of a record", outcome_unknown=True), now)
            return
        if len(results) != shipment.count:
            told = f"the answer has {len(results)} results for {shipment.count} records"
            self.lost(shipment, TransportError(told, outcome_unknown=True), now)
            return
        self._settle_each(shipment, results, now)

    def _as_expected(self, shipment: Shipment, body: bytes) -> bool:
        """Whether the answer has a place for every record, in the predicted partition: counted, if that is cheaper."""
        if not self._layout.trusted or any(lane.number is None for lane, _ in shipment.parts):
            return count_stored(body, None) == shipment.count
        per_lane: dict[int | None, int] = {}
        for lane, part in shipment.parts:
            per_lane[lane.number] = per_lane.get(lane.number, 0) + part.wire_count
        if len(per_lane) > FEW_LANES:
            return self._in_place(shipment, decode_put_answer(body))
        return all(count_stored(body, number) == count for number, count in per_lane.items())

    def _in_place(self, shipment: Shipment, results: PutResults) -> bool:
        """The same of results."""
        places = [r.partition_id for r in results if r.error_code is None and r.sequence_number is not None]
        if len(results) != shipment.count or len(places) != shipment.count:
            return False
        offset = 0
        for lane, part in shipment.parts:
            end = offset + part.wire_count
            if self._layout.trusted and lane.number is not None:
                if places[offset:end] != [partition_id(lane.number)] * (end - offset):
                    return False
            offset = end
        return True

    def _in_places(self, shipment: Shipment, places: Places) -> bool:
        """The same of the short answer."""
        if sum([place.records for place in places]) != shipment.count:
            return False
        told = iter(places)
        partition = left = 0
        trusted = self._layout.trusted
        for lane, part in shipment.parts:
            need = part.wire_count
            while need:
                if not left:
                    partition, _, left = next(told)
                if trusted and lane.number not in (None, partition):
                    return False
                step = min(need, left)
                need -= step
                left -= step
        return True

    def _settle_all(self, shipment: Shipment, answer: Answer, now: float) -> None:
        offset = 0
        for lane, part in shipment.parts:
            lane.failures = 0
            lane.apart = False
            lane.traffic.stored(part, now)
            sizes = None if part.batch.packing is None else part.sizes
            count = len(part) if sizes is None else len(sizes)
            if part.number >= 0:
                lane.numbers.stored(part.epoch, part.number + count)
            own, start = (answer, offset) if sizes is None else (SharedAnswer(answer, offset, sizes), 0)
            if part.indices is None and not part.overtaken:
                self._ends.store_whole(part, own, start)
            else:
                for place, i in enumerate(part.each(), start):
                    self._ends.store(part, i, own.receipt(place, part.attempts))
                self._ends.wake(part)
            offset += count
        self._picker.done(shipment)

    def _settle_each(self, shipment: Shipment, results: list[PutResult], now: float) -> None:
        """The slow way: a partial failure, or an answer that names other partitions than predicted."""
        offset = 0
        retries: list[tuple[Lane, Part]] = []
        slowed: dict[Lane, list[int]] = {}  # lanes that flow control stopped: [records it refused, records sent]
        behind = _Overtaken()
        short: set[Lane] = set()  # lanes of which a record was not stored
        for lane, part in shipment.parts:
            again: list[int] = []
            done: list[int] = []
            throttled = unclear = False
            resolved = 0  # records that no earlier attempt has stored, or ever will
            stored = 0  # records before the first that was not stored
            wire_count = part.wire_count
            spread = part.spread(results[offset : offset + wire_count])
            for (result, index), i in zip(spread, part.each(), strict=True):
                key = part.batch.rows.keys[i] if self._ordered else None
                if result.ok and result.sequence_number is not None:
                    self._compare_place(lane, result)
                    behind.stored(lane, key)
                    stored += lane not in short
                    done.append(i)
                    place = Receipt(result.partition_id or "", result.sequence_number, part.attempts, index=index)
                    self._ends.store(part, i, place)
                    continue
                if lane not in short:
                    short.add(lane)
                    self._stored_up_to(lane, part, stored)
                if shipment.session is not None and result.error_code in _SESSION_CODES:
                    if result.error_code == MOVED:
                        self._layout.stale = True
                    elif part.epoch == lane.numbers.epoch:
                        lane.numbers.renew()
                    if result.error_code == GAP and part.in_doubt:
                        self._ends.unknown(part, i, "the service does not know the session any more; it may be stored")
                        continue
                    resolved += result.error_code != GAP
                    part.last_error = f"{result.error_code}: {result.error_message}"
                    again.append(i)
                    behind.failed(lane, key, part, i)
                elif result.ok or (result.error_code or "").startswith(RETRYABLE_RECORD_CODES):
                    throttled = result.error_code == "DIS.4303"
                    if throttled and not again and lane.traffic.pacer is not None:
                        slowed.setdefault(lane, [0, 0])  # what the first failure is due to, the others follow from
                    unclear |= result.ok  # neither a place nor an error: it may be stored
                    part.last_error = (
                        f"{result.error_code}: {result.error_message}" if result.error_code else "no result"
                    )
                    self._ends.counts.refused_attempts += 1
                    again.append(i)
                    behind.failed(lane, key, part, i)
                else:
                    self._ends.refuse(part, i, result.error_code or "", result.error_message or "")
            offset += wire_count
            if lane not in short:
                self._stored_up_to(lane, part, len(part))
            if done:
                lane.traffic.stored(part.rest(done), now)
            if lane in slowed:
                slowed[lane][0] += len(again)
                slowed[lane][1] += len(part)
            if again:
                rest = part.rest(again)
                rest.throttled = throttled
                if unclear:
                    rest.maybe_applied = True
                    rest.unnumber()
                if resolved == len(again):
                    rest.resolve()
                retries.append((lane, rest))
                behind.rests[part] = rest
            self._ends.wake(part)
        behind.mark()
        self._picker.done(shipment)
        self._back_off([lane for lane, _ in retries if lane not in slowed], now)
        for lane, (refused, sent) in slowed.items():
            self._slow_down(lane, refused / sent, now)
        self._put_back(retries)
        for lane in {lane for lane, _ in shipment.parts} - ({lane for lane, _ in retries} - set(slowed)):
            lane.failures = 0
            lane.apart = False

    def _slow_down(self, lane: Lane, refused: float, now: float) -> None:
        """Flow control refused this part of what a request held of the lane. No failure: its pace says when it goes."""
        traffic = lane.traffic
        assert traffic.pacer is not None
        if traffic.pacer.refused(refused, traffic.lately(now), now):
            self.slowed.append(traffic)

    @staticmethod
    def _stored_up_to(lane: Lane, part: Part, count: int) -> None:
        """The first `count` records of the part are stored, and what was before it in its lane."""
        if part.number >= 0:
            behind = part.rest(list(part.each())[count:])
            lane.numbers.stored(part.epoch, part.number + part.wire_count - behind.wire_count)

    def _compare_place(self, lane: Lane, result: PutResult) -> None:
        if self._layout.trusted and lane.number is not None and result.partition_id:
            try:
                self._layout.stale |= partition_number(result.partition_id) != lane.number
            except ApiError:
                self._layout.stale = True

    def refused(self, shipment: Shipment, error: ApiError, now: float) -> None:
        """The service refused the request as a whole: nothing of it is stored, unless it failed itself (5xx)."""
        if error.outcome_unknown:
            self.lost(shipment, error, now)
            return
        for _, part in shipment.parts:
            part.last_error = str(error)
            part.throttled = isinstance(error, ThrottledError)
        self._ends.counts.refused_attempts += shipment.records
        wait_s = (error.retry_after_s or 0.0) if isinstance(error, ThrottledError) else 0.0
        lanes = list({lane: None for lane, _ in shipment.parts})
        if error.code == "DIS.4309":
            self._picker.done(shipment)
            self._picker.paused_until = max(self._picker.paused_until, now + (wait_s or LOCKED_OUT_S))
            self._put_back(shipment.parts)
        elif error.code == "DIS.4303" and lanes[0].traffic.pacer is not None:
            self._picker.done(shipment)
            for lane in lanes:
                lane.not_before = now + wait_s
                lane.apart = len(lanes) > 1  # whose fault it was, they find out one by one
                self._slow_down(lane, 0.0 if lane.apart else 1.0, now)
            self._put_back(shipment.parts)
        elif error.retryable or error.status == HTTPStatus.REQUEST_TIMEOUT or error.code in _RETRYABLE_CODES:
            self._picker.done(shipment)
            self._again(shipment.parts, now, wait_s)
        elif error.status in _SPLIT_STATUS and error.code not in _NOT_ABOUT_CONTENT and shipment.records > 1:
            # One record that the service does not take must not sink the others: halve until it stands alone.
            self._picker.done(shipment)
            self._wait_for_failures(lanes, now)
            self._put_back(
                [(lane, half) for lane, part in shipment.parts for half in halves(part, alone=len(shipment.parts) == 1)]
            )
        else:
            for _, part in shipment.parts:
                for i in part.each():
                    self._ends.refuse(part, i, error.code or f"HTTP {error.status}", error.message)
                self._ends.wake(part)
            self._picker.done(shipment)
            self._wait_for_failures(lanes, now)
            self._layout.stale |= error.code in ("DIS.4302", "DIS.4319")

    def lost(self, shipment: Shipment, error: ApiError | TransportError, now: float) -> None:
        """No answer, or one that says nothing about the records: try again, remembering that it may be there."""
        for _, part in shipment.parts:
            part.last_error = str(error)
            part.throttled = False
            part.maybe_applied |= error.outcome_unknown
            if shipment.session is None or part.number < 0:
                part.unnumber()
        self._picker.done(shipment)
        self._again(shipment.parts, now)

    def _wait_for_failures(self, lanes: list[Lane], now: float) -> None:
        """Their request was refused as a whole: the next ones wait if that has happened too often lately."""
        next_try_at = self._failures.next_try_at(now)
        for lane in lanes:
            lane.not_before = max(lane.not_before, next_try_at)

    def _again(self, parts: list[tuple[Lane, Part]], now: float, at_least_s: float = 0.0) -> None:
        self._back_off([lane for lane, _ in parts], now, at_least_s)
        self._put_back(parts)

    def _back_off(self, lanes: list[Lane], now: float, at_least_s: float = 0.0) -> None:
        for lane in dict.fromkeys(lanes):
            lane.failures += 1
            lane.not_before = now + self._backoff.pause_s(lane.failures, at_least_s)

    def _put_back(self, parts: list[tuple[Lane, Part]]) -> None:
        """To the front of their lanes, in order: nothing of a lane may pass what is tried again."""
        for lane, part in reversed(parts):
            lane.queue.appendleft(part)
            lane.activate()
