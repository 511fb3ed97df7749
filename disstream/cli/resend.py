"""`produce --resend`: a spill file sent again, in order."""

from __future__ import annotations

from collections.abc import Iterator

import click
from anyio import to_thread

from ..door import DisClient
from ..errors import ConfigError, DeliveryFailed, NotStored, RecordRejected
from ..producer.spillfile import SpilledRecord, SpillResend
from .feed import CHUNK_RECORDS, Chunk
from .formats import BadLine, Line
from .running import run, say
from .sending import Sending

CHUNK_BYTES = 4 * 1024 * 1024


class SpillFeed:
    """The records of a spill file that are to be sent, and what became of them on the way back into the file.

    Before a record is handed out its line says "unknown", on the disk; once it has its end, that. So whenever the
    command is killed, no line says "not stored" of a record that may be stored.
    """

    def __init__(self, file: SpillResend, include_unknown: bool) -> None:
        self._file = file
        self._ends = ("not stored", "unknown") if include_unknown else ("not stored",)
        self._records: Iterator[SpilledRecord] = file.records()
        self._last_line = 1
        self._out: dict[int, Line] = {}  # handed out, and without an end so far
        self.broken = False
        """A line cannot be read; nothing behind it was."""

    async def next(self) -> Chunk | None:
        """The next chunk, None at the end. Raises OSError."""
        return await to_thread.run_sync(self._read)

    def _read(self) -> Chunk | None:
        lines: list[Line] = []
        size = 0
        bad: list[BadLine] = []
        try:
            for spilled in self._records:
                self._last_line = spilled.line
                if spilled.end in self._ends:
                    lines.append(_line(spilled))
                    size += len(spilled.record.data)
                    if len(lines) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                        break
        except ConfigError as exc:
            self.broken = True
            bad.append(BadLine(self._last_line + 1, str(exc)))
        for line in lines:
            self._out[line.offset] = line
            self._file.mark(line.offset, "unknown")
        self._file.sync()
        return [*lines, *bad] or None

    def ended(self, line: Line, failure: DeliveryFailed | None) -> None:
        """Write into the file how a record ended. What may have been stored before stays unknown, unless it is now."""
        del self._out[line.offset]
        if failure is None:
            self._file.mark(line.offset, "stored")
        elif line.maybe_stored:
            return
        elif isinstance(failure, RecordRejected):
            self._file.mark(line.offset, "rejected")
        elif isinstance(failure, NotStored):
            self._file.mark(line.offset, "not stored")

    def take_back(self) -> None:
        """What was handed out and never sent is what it was."""
        for line in self._out.values():
            if not line.maybe_stored:
                self._file.mark(line.offset, "not stored")
        self._out.clear()


def _line(spilled: SpilledRecord) -> Line:
    row = spilled.record
    return Line(
        spilled.line,
        row.data,
        row.key,
        row.timestamp,
        row.partition_id,
        row.explicit_hash_key,
        headers=row.headers,
        maybe_stored=spilled.end == "unknown",
        offset=spilled.offset,
    )


def resend(
    dis: DisClient, stream: str | None, path: str, rate: float | None, skip_bad: bool, include_unknown: bool
) -> bool:
    """Send a spill file again, tell the counts and what is left in it. Returns whether all that was sent is stored."""
    with SpillResend(path) as file:
        if stream not in (None, file.stream):
            raise click.UsageError(f"{path} holds records of {file.stream!r}, not of {stream!r}")
        feed = SpillFeed(file, include_unknown)

        async def work() -> Sending:
            async with dis, dis.producer(file.stream, file.config) as producer:
                sending = Sending(producer, rate, skip_bad, feed.ended)
                await sending.run(feed)
                return sending

        sending = run(work)
        feed.take_back()
        left = file.finish()
    sending.tell()
    if left:
        told = ", ".join(f"{count} {end or 'unreadable'}" for end, count in left.items())
        say(f"{left.total()} left in {path}: {told}")
    return not (sending.failed or sending.stopped or feed.broken)
