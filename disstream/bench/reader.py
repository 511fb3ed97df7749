"""The reading process of the demo: `python -m disstream.bench.reader`.

Reads the whole stream while it is written, and checks every record. Talks in lines of JSON:

    in    Job      first: what to read, and the file that tells what was sent
    out   Status   at once, then every REPORT_INTERVAL_S
    in    Ends     when everything was sent: where each partition ends
    out   Status   done=True, once everything up to there was read; then it exits

When its standard input closes, whoever started it is gone, and it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from ..consumer import Consumer, ConsumerConfig, Static
from ..door import DisClient, connect
from ..model import Partition
from .check import Checker, Findings, Sent
from .flights import RowNumber

REPORT_INTERVAL_S = 0.1
FETCH_RECORDS = 2000


class Job(msgspec.Struct):
    endpoint: str
    project: str
    stream: str
    sent: str
    """Path of a file that holds a `Sent` as JSON."""


class Ends(msgspec.Struct):
    """Partition id -> the first sequence number behind what was sent."""

    ends: dict[str, int]


class Status(msgspec.Struct):
    """`bytes` is payload; `seconds` run from the first record to the last; `partitions` counts records in each."""

    findings: Findings
    bytes: int = 0
    seconds: float = 0.0
    partitions: dict[str, int] = {}
    done: bool = False


class _Reading:
    def __init__(self, job: Job, commands: io.FileIO) -> None:
        self._job = job
        self._commands = commands
        self._ends: dict[str, int] | None = None
        self._checker = Checker(msgspec.json.decode(Path(job.sent).read_bytes(), type=Sent))
        self._bytes = 0
        self._partitions: dict[str, int] = {}
        self._first_at = self._last_at = 0.0

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            loop = asyncio.get_running_loop()

            def told(message: Ends | None) -> None:
                if message is None:
                    tasks.cancel_scope.cancel()
                else:
                    self._ends = message.ends

            threading.Thread(target=_listen, args=(self._commands, loop, told), name="stdin", daemon=True).start()
            async with connect(self._job.endpoint, project_id=self._job.project) as dis:
                await self._read(dis)
            tasks.cancel_scope.cancel()

    async def _read(self, dis: DisClient) -> None:
        stream = self._job.stream
        async with dis.consumer(stream, ConsumerConfig(coordination=Static())) as consumer:
            report_at = anyio.current_time()
            while True:
                now = anyio.current_time()
                if self._ends is not None and reached(consumer, stream, self._ends):
                    self._report(done=True)
                    return
                if now >= report_at:
                    self._report(done=False)
                    report_at = now + REPORT_INTERVAL_S
                batch = await consumer.fetch(max_records=FETCH_RECORDS, timeout_s=REPORT_INTERVAL_S)
                if batch:
                    self._last_at = anyio.current_time()
                    self._first_at = self._first_at or self._last_at
                for record in batch:
                    self._checker.add(row_number(record.data), record.key, record.data)
                    self._bytes += len(record.data)
                    self._partitions[record.partition_id] = self._partitions.get(record.partition_id, 0) + 1

    def _report(self, *, done: bool) -> None:
        status = Status(
            self._checker.findings(), self._bytes, self._last_at - self._first_at, dict(self._partitions), done
        )
        sys.stdout.buffer.write(msgspec.json.encode(status) + b"\n")
        sys.stdout.buffer.flush()


def reached(consumer: Consumer, stream: str, ends: dict[str, int]) -> bool:
    """Whether everything in front of `ends` (partition id -> sequence number) was handed out."""
    return all((consumer.position(Partition(stream, p)) or 0) >= end for p, end in ends.items())


_number = msgspec.json.Decoder(RowNumber)


def row_number(data: bytes) -> int | None:
    """The number a record bears; None if it bears none."""
    try:
        return _number.decode(data).row
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _listen(commands: io.FileIO, loop: asyncio.AbstractEventLoop, told: Callable[[Ends | None], None]) -> None:
    line = commands.readline()
    message = msgspec.json.decode(line, type=Ends) if line else None
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are done anyway
        loop.call_soon_threadsafe(told, message)
    if message is not None:
        _listen(commands, loop, told)


def main() -> None:
    # Unbuffered: the listening thread may still block in a read when the interpreter ends, and then must hold no lock.
    commands = io.FileIO(0, closefd=False)
    job = msgspec.json.decode(commands.readline(), type=Job)
    anyio.run(_Reading(job, commands).run, backend_options={"use_uvloop": sys.platform != "win32"})


if __name__ == "__main__":
    main()
