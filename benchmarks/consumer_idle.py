"""What a consumer costs while nothing is written: processor time of its process and of the server, in % of a core.

    python benchmarks/consumer_idle.py [--seconds 20] [--partitions 1,50,1000] [--group] [--wait-only]

A server of its own and this process; one consumer of one stream, whose partitions are all empty. In turn for each
number of partitions: with notices, and without (`wait=False`). `--group`: as a member of an app, with heartbeats and
commits. Afterwards one record is written to each of ten partitions, and how long it takes to come is told, so that
nobody praises a consumer that is idle because it is deaf.

Predicted with notices: a frame every five seconds and some safety polls, well below 0.5 % on either side.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import anyio

import disstream
from disstream.bench.machine import Origin, exact_now
from disstream.bench.processes import Child, server
from disstream.consumer import ConsumerConfig, ServiceGroup, Static

SETTLE_S = 8.0
"""After the start: cursors are there, notices are live, the pauses of polling have grown."""
MAX_PARTITIONS = 1_000
"""Of one stream by default."""


class Idle(NamedTuple):
    client: float  # shares of a core
    server: float
    arrival_s: float


async def measure(
    dis: disstream.DisClient, process: Child, partitions: int, seconds: float, *, wait: bool, group: bool
) -> Idle:
    name = f"idle-{partitions}-{'wait' if wait else 'poll'}"
    await dis.streams.create(name, partitions=partitions)
    await dis.streams.wait_running(name)
    coordination = ServiceGroup(accelerate=True) if group else Static()
    config = ConsumerConfig(wait=wait, coordination=coordination)
    async with dis.consumer(name, config, app=name if group else None) as consumer:
        with anyio.fail_after(60):
            while len(consumer.assignment()) < partitions:
                await consumer.fetch(timeout_s=0.1)
        await consumer.fetch(timeout_s=SETTLE_S)
        used, on_server, began = _own_cpu_s(), process.cpu_s() or 0.0, exact_now()
        assert await consumer.fetch(timeout_s=seconds) == []
        took = exact_now() - began
        client, on_server = (_own_cpu_s() - used) / took, ((process.cpu_s() or 0.0) - on_server) / took
        arrivals = []
        for number in range(10):
            record = disstream.NewRecord(b"x", partition_id=str(number * partitions // 10))
            (await dis.records.put(name, [record])).raise_for_failed()
            written = exact_now()
            assert len(await consumer.fetch(timeout_s=10)) == 1
            arrivals.append(exact_now() - written)
    await dis.streams.delete(name)
    return Idle(client, on_server, statistics.median(arrivals))


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main(seconds: float, counts: list[int], ways: list[bool], *, group: bool) -> None:
    origin = Origin.here(" ".join(["python", *sys.argv]), "a server of its own, fsync")
    print(f"command   {origin.command}\nmachine   {origin.machine}\ndisstream {origin.commit}; {origin.began_at}\n")
    print(f"{'partitions':>10}  {'how':<8}{'client, % of a core':>20}{'server, % of a core':>21}{'arrival, ms':>13}")
    with TemporaryDirectory(prefix="disstream-idle-") as directory:
        async with (
            server(Path(directory) / "data", Path(directory)) as (url, process),
            disstream.connect(url, project_id="bench", credentials=None) as dis,
        ):
            for partitions in counts:
                for wait in ways:
                    idle = await measure(dis, process, partitions, seconds, wait=wait, group=group)
                    print(
                        f"{partitions:>10}  {'notices' if wait else 'polling':<8}{idle.client:>20.2%}"
                        f"{idle.server:>21.2%}{idle.arrival_s * 1000:>13.1f}"
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--partitions", default=f"1,50,{MAX_PARTITIONS}", metavar="N,N,...")
    parser.add_argument("--group", action="store_true", help="as a member of an app")
    parser.add_argument("--wait-only", action="store_true", help="only with notices")
    given = parser.parse_args()
    chosen = [int(word) for word in given.partitions.split(",")]
    ways = [True] if given.wait_only else [True, False]
    anyio.run(
        partial(main, given.seconds, chosen, ways, group=given.group),
        backend_options={"use_uvloop": True},
    )
