"""One run of `produce`: from the input to the counts."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

import anyio

from ..errors import BufferFull, ConfigError, DeliveryFailed, NotStored, RecordRejected
from ..producer import Delivery, Envelope, Producer, ProducerConfig
from .feed import Chunk
from .formats import BadLine, Line
from .running import say, show_progress

UNSETTLED_RECORDS = 16_000
"""Records that were sent and not yet looked at: enough to keep the producer busy, little to remember."""

HEADERS_KEPT = ProducerConfig(envelope=Envelope(aggregate_records=1, identity=False))
"""An envelope around what has headers, and around nothing else."""

QUIET_S = 1.0
"""How long the last records may take at the end of the input before somebody is told."""


class Source(Protocol):
    """Where records come from: `Feed`, or `SpillFeed`."""

    async def next(self) -> Chunk | None: ...


class Sending:
    """One run of `produce`: reads, sends, and counts how the records ended."""

    def __init__(
        self,
        producer: Producer,
        rate: float | None,
        skip_bad: bool,
        on_end: Callable[[Line, DeliveryFailed | None], None] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """`on_end` hears of each record and its failure (None: stored), in the order of sending. `headers`: of each
        record, beside its own."""
        self._headers = headers or {}
        self._producer = producer
        self._rate = rate
        self._skip_bad = skip_bad
        self._on_end = on_end
        self._unsettled: deque[tuple[Line, Delivery]] = deque()
        self._warned = False  # that records are under way, and how to give them up
        self.sent = self.stored = self.failed = self.skipped = 0
        self.causes: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        """Cause -> the details of the first failure it had."""
        self.stopped = False
        """The input was not sent to its end."""

    async def run(self, source: Source) -> None:
        async with anyio.create_task_group() as tasks:
            reading, draining = anyio.CancelScope(), anyio.CancelScope()
            tasks.start_soon(self._obey_signals, reading, draining, name="signals")
            if show_progress():
                tasks.start_soon(self._draw, name="progress")
            with reading:
                await self._send_all(source)
            tasks.start_soon(self._warn_later, name="warn")
            with draining:
                await self._producer.flush()
            while self._unsettled:
                await self._settle_oldest()
            tasks.cancel_scope.cancel()

    async def _obey_signals(self, reading: anyio.CancelScope, draining: anyio.CancelScope) -> None:
        """Ctrl-C and SIGTERM end the input. Who was told that records are under way gives them up with the next.

        Not simply the second: Ctrl-C reaches all of a pipeline, so the first may come just after the end of our input.
        """
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._warned:
                    self.stopped = True
                    draining.cancel()
                    await self._producer.abort()
                else:
                    reading.cancel()
                    self._warn("Ctrl-C again gives up")

    async def _warn_later(self) -> None:
        await anyio.sleep(QUIET_S)
        if not self._warned:
            self._warn("Ctrl-C gives up")

    def _warn(self, remedy: str) -> None:
        self._warned = True
        if waiting := self._producer.stats().waiting:
            say(f"waiting for {waiting} records; {remedy}", err=True)

    async def _send_all(self, source: Source) -> None:
        begun = anyio.current_time()
        while (chunk := await source.next()) is not None:
            if not await self._send_chunk(chunk, begun):
                self.stopped = True
                return
            while len(self._unsettled) > UNSETTLED_RECORDS:
                await self._settle_oldest()

    async def _send_chunk(self, chunk: Chunk, begun: float) -> bool:
        """Send a chunk's records; False when something stops the run."""
        for item in chunk:
            if isinstance(item, BadLine):
                if not self._bad(item):
                    return False
                continue
            if self._rate is not None:
                await anyio.sleep_until(begun + self.sent / self._rate)
            try:
                headers = {**self._headers, **(item.headers or {})} or None
                delivery = await self._producer.send(
                    item.data,
                    key=item.key,
                    partition_id=item.partition_id,
                    explicit_hash_key=item.explicit_hash_key,
                    timestamp=item.timestamp,
                    headers=headers,
                )
            except ConfigError as exc:  # the record itself cannot be sent, whatever the service
                if not self._bad(BadLine(item.number, str(exc))):
                    return False
                continue
            except BufferFull as exc:
                say(f"line {item.number}: {exc}", err=True)
                return False
            self._unsettled.append((item, delivery))
            self.sent += 1
        return True

    def _bad(self, line: BadLine) -> bool:
        say(f"line {line.number}: {line.reason}", err=True)
        self.skipped += self._skip_bad
        return self._skip_bad

    async def _settle_oldest(self) -> None:
        """Count how the oldest record ended. Cancelled: it is still to be counted."""
        line, delivery = self._unsettled[0]
        failure: DeliveryFailed | None = None
        try:
            await delivery
            self.stored += 1
        except DeliveryFailed as exc:
            failure = exc
            self.failed += 1
            cause, detail = _cause(exc)
            self.causes[cause] += 1
            self.examples.setdefault(cause, detail)
        self._unsettled.popleft()
        if self._on_end is not None:
            self._on_end(line, failure)

    def tell(self) -> None:
        """Print what failed, with an example of each cause, and the counts."""
        for cause, count in self.causes.most_common():
            example = " ".join(self.examples[cause].split())
            say(f"failed: {count} x {cause}" + (f", for example: {example}" if example else ""), err=True)
        skipped = f", skipped {self.skipped}" if self.skipped else ""
        say(f"sent {self.sent}, stored {self.stored}, failed {self.failed}{skipped}")

    async def _draw(self) -> None:
        from rich.console import Console  # here, because pipes see no progress

        with Console(stderr=True).status("sending") as status:
            while True:
                status.update(f"sent {self.sent:,}")
                await anyio.sleep(0.2)


def _cause(exc: DeliveryFailed) -> tuple[str, str]:
    """What failures of one origin have in common, and what is this one's own (attempts, a line of the answer)."""
    match exc:
        case RecordRejected():
            return f"rejected ({exc.code})", exc.message
        case NotStored():
            return f"not stored ({exc.reason})", exc.detail
        case _:
            return "unknown whether it is stored", str(exc)
