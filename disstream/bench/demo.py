"""The main job, with proof: a file goes through a durable server and is compared with what comes out.

    this process --send--> server process (fsync before each answer) --fetch--> reader process: checks every record

The reader runs while the records are written. When all of them have their end, it is told where each partition ends,
reads up to there and reports. It knows from this process, not from the service, which key and bytes each record was
sent with. Every figure of the report is counted, none is assumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import anyio
import msgspec

from ..door import DisClient, connect
from ..errors import DeliveryFailed, DisError, Undelivered
from ..producer import Delivery, Producer, ProducerConfig, ProducerStats
from .check import Findings, Sent
from .flights import Row
from .processes import PYTHON, child, server
from .reader import Ends, Job, Status

PROJECT = "demo"
SAMPLE_EVERY = 100
"""One delivery in so many is timed, each by a task that awaits it: few enough to cost nothing that shows."""
BUFFER_BYTES = 2_097_152
"""Of the producer: enough to keep every lane busy. A larger buffer fills just as well at full speed, and then the time
from send to receipt is mostly time spent in it."""
READ_TIMEOUT_S = 60.0
"""How long the reader may take for what is left once everything is written."""


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. Times in seconds, bytes of payload."""

    sent: int
    acknowledged: int
    failures: dict[str, int]
    """Cause -> how many records ended otherwise."""
    findings: Findings
    bytes_sent: int
    write_s: float
    bytes_read: int
    read_s: float
    latencies_s: list[float]
    """From the send call to the receipt, sorted; of one record in `sample_every`."""
    partitions: dict[str, int]
    keys: int
    keyed: int
    """How many records have a key."""
    sample_every: int = SAMPLE_EVERY

    @property
    def good(self) -> bool:
        return self.acknowledged == self.sent and self.findings.good


class Demo:
    """One run. A display may look at `stats()` and `status` while it lasts."""

    def __init__(self, rows: Sequence[Row], *, partitions: int = 4, data_dir: Path | None = None) -> None:
        self._rows = rows
        self._partitions = partitions
        self._data_dir = data_dir
        self._producer: Producer | None = None
        self._latencies: list[float] = []
        self.status: Status | None = None
        """The reader's latest word."""

    @property
    def total(self) -> int:
        return len(self._rows)

    def stats(self) -> ProducerStats | None:
        """The producer's; None before it exists."""
        return self._producer.stats() if self._producer is not None else None

    async def run(self) -> DemoReport:
        """Do it all. Raises DisError if a process ends too early; whatever happens, no process or file is left."""
        with TemporaryDirectory(prefix="disstream-demo-") as scratch:
            directory = Path(scratch)
            async with (
                server(self._data_dir or directory / "data", directory) as (url, serving),
                connect(url, project_id=PROJECT, credentials=None) as dis,
                child("reader", [*PYTHON, "disstream.bench.reader"], directory) as reading,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(serving.watch, name="watch-server")
                stream = await self._create_stream(dis)
                sent = directory / "sent.json"
                sent.write_bytes(msgspec.json.encode(Sent.of(self._rows)))
                await reading.write(Job(url, PROJECT, stream, str(sent)))
                self.status = await reading.read(Status)
                finished = anyio.Event()

                async def follow() -> None:
                    while not (status := await reading.read(Status)).done:
                        self.status = status
                    self.status = status
                    finished.set()

                tasks.start_soon(follow, name="follow-reader")
                write_s, failures = await self._write(dis, stream)
                info = await dis.streams.describe(stream)
                ends = {p.partition_id: p.sequence_range.end for p in info.partitions if p.sequence_range}
                await reading.write(Ends(ends))
                with anyio.move_on_after(READ_TIMEOUT_S):
                    await finished.wait()
                tasks.cancel_scope.cancel()
        return self._report(write_s, failures)

    async def _create_stream(self, dis: DisClient) -> str:
        # A name of its own: a data directory that is kept may hold earlier runs.
        name = f"flights-{token_hex(3)}"
        await dis.streams.create(name, partitions=self._partitions)
        await dis.streams.wait_running(name)
        return name

    async def _write(self, dis: DisClient, stream: str) -> tuple[float, dict[str, int]]:
        """Send everything and wait until all of it has its end. Seconds it took, and causes of failure."""
        begun = ended = anyio.current_time()
        try:
            async with (
                dis.producer(stream, ProducerConfig(buffer_bytes=BUFFER_BYTES)) as producer,
                anyio.create_task_group() as tasks,
            ):
                self._producer = producer
                begun = anyio.current_time()
                send = producer.send
                for number, (data, key) in enumerate(self._rows):
                    sent_at = 0.0 if number % SAMPLE_EVERY else anyio.current_time()
                    delivery = await send(data, key=key)
                    if sent_at:
                        tasks.start_soon(self._time, delivery, sent_at)
                await producer.flush()
                ended = anyio.current_time()
        except Undelivered as exc:
            return ended - begun, exc.report
        return ended - begun, {}

    async def _time(self, delivery: Delivery, sent_at: float) -> None:
        with contextlib.suppress(DeliveryFailed):  # counted by the producer
            await delivery
            self._latencies.append(anyio.current_time() - sent_at)

    def _report(self, write_s: float, failures: dict[str, int]) -> DemoReport:
        stats, status = self.stats(), self.status
        if stats is None or status is None:
            raise DisError("the run ended before it began")
        return DemoReport(
            sent=self.total,
            acknowledged=stats.stored,
            failures=failures,
            findings=status.findings,
            bytes_sent=sum(len(row.data) for row in self._rows),
            write_s=write_s,
            bytes_read=status.bytes,
            read_s=status.seconds,
            latencies_s=sorted(self._latencies),
            partitions=status.partitions,
            keys=len({row.key for row in self._rows if row.key is not None}),
            keyed=sum(row.key is not None for row in self._rows),
        )
