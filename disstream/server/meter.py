"""What is counted of the traffic, minute by minute. Pure.

A minute's counts of a stream go through three places, and are in exactly one of them at any time:

    open      still counted into; a flush takes them away, and what comes then opens the minute anew
    sealed    on their way into the catalog; back to open if they did not get there
    stored    in the catalog, added to what it had of that minute; here only their sum is left, for 15 minutes

So what was counted up to now is open + sealed + stored, whenever it is looked at with no flush of the stream half-way
(metrics.py sees to that). A stream whose counts cannot be stored keeps an hour of them; one without traffic for 15
minutes is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from ..engine import PartitionRef

MINUTE_MS = 60_000

MAX_OPEN_MINUTES = 60
"""Of one stream: what is lost first when nothing can be stored."""

RECENT_MINUTES = 15
"""How far back `written` knows."""


class Traffic(msgspec.Struct, array_like=True, gc=False):
    """Of one partition in one minute. Bytes are payload."""

    put_records: int = 0
    put_bytes: int = 0
    get_records: int = 0
    get_bytes: int = 0


class Counts(msgspec.Struct, array_like=True):
    """Of one stream in one minute. `put_us`, `get_us`: microseconds that the successful requests took together."""

    puts: int = 0
    put_us: int = 0
    gets: int = 0
    get_us: int = 0
    throttled_puts: int = 0
    throttled_gets: int = 0
    partitions: dict[int, Traffic] = {}

    def partition(self, number: int) -> Traffic:
        traffic = self.partitions.get(number)
        if traffic is None:
            traffic = self.partitions[number] = Traffic()
        return traffic

    def add(self, more: Counts) -> None:
        self.puts += more.puts
        self.put_us += more.put_us
        self.gets += more.gets
        self.get_us += more.get_us
        self.throttled_puts += more.throttled_puts
        self.throttled_gets += more.throttled_gets
        for number, other in more.partitions.items():
            traffic = self.partition(number)
            traffic.put_records += other.put_records
            traffic.put_bytes += other.put_bytes
            traffic.get_records += other.get_records
            traffic.get_bytes += other.get_bytes

    def written(self) -> tuple[int, int]:
        """(records, bytes)."""
        parts = self.partitions.values()
        return sum([part.put_records for part in parts]), sum([part.put_bytes for part in parts])


Minutes = dict[int, Counts]
"""Of one stream; by the minute since the epoch, or by that of its hour."""

read_hour = msgspec.msgpack.Decoder(dict[int, msgspec.Raw]).decode
"""A stored hour: minute of the hour -> what `read_minute` takes. An hour of a thousand partitions takes the loop too
long to be read, or written, at once; a minute does not."""
read_minute = msgspec.msgpack.Decoder(Counts).decode
_encode = msgspec.msgpack.Encoder().encode


def with_minutes(stored: bytes | None, more: Mapping[int, Counts]) -> bytes:
    """The stored hour (None: there is none) with `more` added, by the minute of the hour. Others stay as they are."""
    hour: dict[int, msgspec.Raw | Counts] = dict(read_hour(stored)) if stored else {}
    for minute, counts in more.items():
        known = hour.get(minute)
        if isinstance(known, msgspec.Raw):
            hour[minute] = total = read_minute(known)
            total.add(counts)
        else:
            hour[minute] = counts
    return _encode(hour)


def merge(into: Minutes, more: Mapping[int, Counts]) -> None:
    """Add `more`, of which nothing is shared afterwards."""
    for minute, counts in more.items():
        into.setdefault(minute, Counts()).add(counts)


def by_hour(minutes: Mapping[int, Counts]) -> dict[int, Minutes]:
    """Hour since the epoch -> minute of the hour -> its counts, which are shared."""
    hours: dict[int, Minutes] = {}
    for minute, counts in minutes.items():
        hours.setdefault(minute // 60, {})[minute % 60] = counts
    return hours


STREAM_VALUES: dict[str, Callable[[Counts], int | None]] = {
    "total_put_bytes_per_stream": lambda c: sum([part.put_bytes for part in c.partitions.values()]),
    "total_get_bytes_per_stream": lambda c: sum([part.get_bytes for part in c.partitions.values()]),
    "total_put_records_per_stream": lambda c: sum([part.put_records for part in c.partitions.values()]),
    "total_get_records_per_stream": lambda c: sum([part.get_records for part in c.partitions.values()]),
    "total_put_req_latency": lambda c: round(c.put_us / c.puts / 1000) if c.puts else None,
    "total_get_req_latency": lambda c: round(c.get_us / c.gets / 1000) if c.gets else None,
    "total_put_req_suc_per_stream": lambda c: c.puts,
    "total_get_req_suc_per_stream": lambda c: c.gets,
    "traffic_control_put": lambda c: c.throttled_puts,
    "traffic_control_get": lambda c: c.throttled_gets,
}
"""Label -> what it tells of a minute (API 5.6.1). None: nothing, as an average of no requests."""

PARTITION_VALUES: dict[str, Callable[[Traffic], int]] = {
    "total_put_bytes_per_partition": lambda part: part.put_bytes,
    "total_get_bytes_per_partition": lambda part: part.get_bytes,
    "total_put_records_per_partition": lambda part: part.put_records,
    "total_get_records_per_partition": lambda part: part.get_records,
}
"""The same of a partition (API 5.6.2)."""


class Meter:
    """Call `put`, `get` and `get_throttled` only with streams and partitions that exist: each takes its room."""

    def __init__(self) -> None:
        self._open: dict[str, Minutes] = {}
        self._sealed: dict[str, Minutes] = {}
        self._recent: dict[str, dict[int, tuple[int, int]]] = {}
        """Stream -> minute -> (records, bytes) written, of the stored minutes."""
        self._throttled: dict[str, set[int]] = {}
        """Stream -> the recent minutes in which puts were refused by flow control, stored or not."""
        self._began: int | None = None
        """The minute of the first call, or the one that the clock was set back to."""

    # --- counting -------------------------------------------------------------------------------------------------

    def put(
        self,
        stream_id: str,
        stored: Mapping[int, tuple[int, int]],
        took_s: float,
        now_ms: int,
        *,
        throttled: bool = False,
    ) -> None:
        """A put: partition -> (records, payload bytes) stored. Nothing stored: it failed."""
        if not (stored or throttled):
            return
        counts = self._now(stream_id, now_ms)
        if throttled:
            counts.throttled_puts += 1
            self._throttled.setdefault(stream_id, set()).add(now_ms // MINUTE_MS)
        if stored:
            counts.puts += 1
            counts.put_us += int(took_s * 1e6)
            parts = counts.partitions
            for number, (records, size) in stored.items():
                part = parts.get(number)
                if part is None:
                    part = counts.partition(number)
                part.put_records += records
                part.put_bytes += size

    def get(self, partition: PartitionRef, records: int, size: int, took_s: float, now_ms: int) -> None:
        """A get of `records` with `size` bytes of payload together."""
        counts = self._now(partition.stream_id, now_ms)
        counts.gets += 1
        counts.get_us += int(took_s * 1e6)
        part = counts.partition(partition.number)
        part.get_records += records
        part.get_bytes += size

    def get_throttled(self, stream_id: str, now_ms: int) -> None:
        """A get refused by flow control."""
        self._now(stream_id, now_ms).throttled_gets += 1

    def _now(self, stream_id: str, now_ms: int) -> Counts:
        minute = now_ms // MINUTE_MS
        minutes = self._open.get(stream_id)
        if minutes is None:
            minutes = self._open[stream_id] = {}
        counts = minutes.get(minute)
        if counts is None:
            counts = minutes[minute] = Counts()
            self._begin(minute)
            _bound(minutes)
        return counts

    def _begin(self, minute: int) -> None:
        if self._began is None or minute < self._began:  # a clock that was ahead must not blind it
            self._began = minute

    # --- looking --------------------------------------------------------------------------------------------------

    def written(self, stream_id: str, minutes: int, now_ms: int) -> list[tuple[int, int]]:
        """(records, payload bytes) put into the stream in each of the last whole `minutes`, oldest first.

        At most RECENT_MINUTES, and none that this meter has not seen from its beginning: a list shorter than asked for
        says that the server has only just started, not that there was no traffic.
        """
        now = now_ms // MINUTE_MS
        self._begin(now)
        assert self._began is not None
        recent = self._recent.get(stream_id, {})
        found = []
        for minute in range(max(now - min(minutes, RECENT_MINUTES), self._began + 1), now):
            records, size = recent.get(minute, (0, 0))
            for place in (self._sealed, self._open):
                if (counts := place.get(stream_id, {}).get(minute)) is not None:
                    more_records, more_size = counts.written()
                    records, size = records + more_records, size + more_size
            found.append((records, size))
        return found

    def throttled(self, stream_id: str, minutes: int, now_ms: int) -> bool:
        """Whether puts were refused by flow control in each of the last whole `minutes`, at most RECENT_MINUTES."""
        now = now_ms // MINUTE_MS
        return self._throttled.get(stream_id, set()).issuperset(range(now - minutes, now))

    def unstored(self, stream_id: str) -> Minutes:
        """A copy of what the catalog does not have of a stream."""
        found: Minutes = {}
        for place in (self._sealed, self._open):
            merge(found, place.get(stream_id, {}))
        return found

    def streams(self) -> set[str]:
        """The ids of all streams of which anything is known here."""
        return {*self._open, *self._sealed, *self._recent}

    # --- storing --------------------------------------------------------------------------------------------------

    def waiting(self) -> list[str]:
        """The ids of the streams with open minutes."""
        return list(self._open)

    def hours(self, stream_id: str) -> set[int]:
        """The hours since the epoch that the open minutes of a stream lie in."""
        return {minute // 60 for minute in self._open.get(stream_id, {})}

    def seal(self, stream_id: str, hours: Collection[int]) -> Minutes:
        """Take the open minutes of these hours on their way; `settle` or `unseal` follows before the next."""
        assert stream_id not in self._sealed
        minutes = self._open.get(stream_id, {})
        sealed = {minute: counts for minute, counts in minutes.items() if minute // 60 in hours}
        for minute in sealed:
            del minutes[minute]
        if not minutes:
            self._open.pop(stream_id, None)
        if sealed:
            self._sealed[stream_id] = sealed
        return sealed

    def settle(self, stream_id: str) -> None:
        """The sealed minutes have arrived, or may have: what may be there is not stored twice."""
        sealed = self._sealed.pop(stream_id, None)
        if sealed is None:
            return
        recent = self._recent.setdefault(stream_id, {})
        for minute, counts in sealed.items():
            known_records, known_size = recent.get(minute, (0, 0))
            records, size = counts.written()
            recent[minute] = known_records + records, known_size + size

    def unseal(self, stream_id: str) -> None:
        """They have not arrived: open again, with what was counted meanwhile."""
        sealed = self._sealed.pop(stream_id, {})
        if sealed:
            minutes = self._open.setdefault(stream_id, {})
            merge(minutes, sealed)
            _bound(minutes)

    def forget(self, stream_id: str) -> None:
        """The stream is no more."""
        for place in (self._open, self._sealed, self._recent, self._throttled):
            place.pop(stream_id, None)

    def forget_idle(self, now_ms: int) -> None:
        """Forget stored minutes that nobody asks for any more, and with the last one their stream."""
        now = now_ms // MINUTE_MS
        for stream_id, recent in list(self._recent.items()):
            # On both sides: a clock that was ahead must not leave minutes for ever.
            kept = {minute: written for minute, written in recent.items() if abs(now - minute) <= RECENT_MINUTES}
            if kept:
                self._recent[stream_id] = kept
            else:
                del self._recent[stream_id]
        for stream_id, seen in list(self._throttled.items()):
            seen -= {minute for minute in seen if abs(now - minute) > RECENT_MINUTES}
            if not seen:
                del self._throttled[stream_id]

    def check(self) -> None:
        """Assert the bounds."""
        for place in (self._open, self._sealed):
            for minutes in place.values():
                assert 0 < len(minutes) <= MAX_OPEN_MINUTES


def _bound(minutes: Minutes) -> None:
    while len(minutes) > MAX_OPEN_MINUTES:
        del minutes[min(minutes)]
