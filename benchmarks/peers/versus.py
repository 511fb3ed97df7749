"""disstream beside other clients of other services, and beside the best that could be written by hand, in one run.

Everybody writes the same: 100 random bytes, 97 keys in turn, 4 partitions, and counts what was acknowledged; the
service is then asked how much it holds. All services stay up during the whole run, and the contenders take turns, each
in a process of its own, so that a machine that drifts slows all of them. The lap of each takes about the same time.
Medians of the rounds; a ratio is the median of the ratios within each round.

    python benchmarks/peers/versus.py [--rounds 5] [--seconds 2] [--json FILE]

Predicted: send_many 0.85 and send 0.6 of the ceiling; 8 times the official SDK, 10 times nats-py, 8 times redis-py, 6
times aiokafka; as fast as librdkafka.

Contenders, and what their acknowledgement means:

- disstream: written to the disk and synced (fsync shared by the requests that wait).
- huaweicloudsdkdis: the same server, 500 records a request.
- nats-py: in the operating system's memory; JetStream syncs every two minutes unless told otherwise.
- redis-py: `everysec` as nats-py, but synced every second; `always`: synced, shared as in ours.
- aiokafka, confluent-kafka: in the memory of librdkafka's mock cluster, which is written in C and writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import anyio
import msgspec
from services import HERE, Missing, Served, Service, Tools, durable_disstream, jetstream, kafka_mock, redis_streams

from disstream.bench.machine import Origin
from disstream.bench.processes import Child, child
from disstream.errors import DisError

CHECKOUT = HERE.parents[1]
SIZING_RECORDS = 20_000
"""Of the first lap, which tells how many records make a lap of the length asked for."""
ROUND_TO = 10_000


class Contender(msgspec.Struct, frozen=True):
    name: str
    script: str
    way: str
    venv: str | None
    """None: the environment that runs this."""
    service: str


class Lap(msgspec.Struct, frozen=True):
    """A line of a contender."""

    acknowledged: int
    stored: int
    seconds: float
    cpu_s: float


class Turn(msgspec.Struct, frozen=True):
    """A lap that counts."""

    records: int
    rate: float
    client_us: float
    """Processor time of the client per record."""
    server_us: float


SERVICES: dict[str, Service] = {
    "disstream": durable_disstream,
    "jetstream": jetstream,
    "redis everysec": redis_streams("everysec"),
    "redis always": redis_streams("always"),
    "kafka mock": kafka_mock,
}
CONTENDERS = [
    *(Contender(way, "with_disstream.py", way, None, "disstream") for way in ("ceiling", "send", "send_many")),
    Contender("huaweicloudsdkdis", "with_sdk.py", "1 thread", "official", "disstream"),
    Contender("huaweicloudsdkdis, 4 threads", "with_sdk.py", "4 threads", "official", "disstream"),
    Contender("nats-py", "with_nats.py", "publish_async", "peers", "jetstream"),
    *(
        Contender(f"redis-py {way}, {policy}", "with_redis.py", way, "peers", f"redis {policy}")
        for policy in ("everysec", "always")
        for way in ("blocking", "asyncio")
    ),
    Contender("aiokafka", "with_aiokafka.py", "send", "peers", "kafka mock"),
    Contender("aiokafka send_batch", "with_aiokafka.py", "send_batch", "peers", "kafka mock"),
    Contender("confluent-kafka", "with_confluent.py", "produce", "peers", "kafka mock"),
]
OURS = ("send", "send_many")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    origin: Origin
    services: dict[str, str]
    """Name -> version."""
    size_bytes: int
    turns: dict[str, list[Turn]]
    """Contender -> its laps; lap i of all of them followed each other."""
    skipped: dict[str, str]
    """Who could not take part -> why, and how to get it."""
    failed: dict[str, str]
    """Who ended, or did not have everything acknowledged and there, in the first lap."""

    def ratio(self, ours: str, theirs: str) -> float:
        pairs = zip(self.turns[ours], self.turns[theirs], strict=True)
        return statistics.median(our.rate / their.rate for our, their in pairs)


class Competition:
    """The processes of one run."""

    def __init__(self, tools: Tools, size: int, directory: Path) -> None:
        self._tools = tools
        self._size = size
        self._directory = directory
        self._workers: dict[str, Child] = {}
        self.services: dict[str, Served] = {}
        self.skipped: dict[str, str] = {}

    async def enter(self, contender: Contender, stack: contextlib.AsyncExitStack) -> bool:
        """Start what it needs, unless it runs. False: it cannot take part."""
        try:
            python = self._tools.python(contender.venv)
            if contender.service not in self.services:
                directory = self._directory / contender.service.replace(" ", "-")
                directory.mkdir(exist_ok=True)
                entered = SERVICES[contender.service](directory, self._tools)
                self.services[contender.service] = await stack.enter_async_context(entered)
        except Missing as exc:
            self.skipped[contender.name] = str(exc)
            return False
        directory = self._directory / contender.name.replace(" ", "-")
        directory.mkdir()
        environment = {
            "HOME": str(directory),  # the SDK writes logs there
            "NO_PROXY": "127.0.0.1",  # and would go through a proxy
            "PYTHONPATH": "" if contender.venv else os.pathsep.join((str(CHECKOUT), str(HERE.parent))),
        }
        worker = child("worker", [python, str(HERE / contender.script)], directory, environment=environment)
        self._workers[contender.name] = await stack.enter_async_context(worker)
        return True

    async def lap(self, contender: Contender, records: int) -> Turn:
        """Raises DisError if it ended, or not everything was acknowledged, or is not there."""
        served, worker = self.services[contender.service], self._workers[contender.name]
        os.sync()  # nobody pays for what another one left to be written
        used = served.process.cpu_s() or 0.0
        order = {
            "address": served.address,
            "way": contender.way,
            "name": f"lap{token_hex(4)}",
            "size": self._size,
            "records": records,
        }
        await worker.write(order)
        lap = await worker.read(Lap)
        if not lap.acknowledged == lap.stored == records:
            raise DisError(f"{records} records sent, {lap}")
        used = (served.process.cpu_s() or 0.0) - used
        return Turn(records, records / lap.seconds, lap.cpu_s / records * 1e6, used / records * 1e6)


async def measure(arguments: argparse.Namespace, origin: Origin) -> Result:
    wanted = [c for c in CONTENDERS if not arguments.only or c.name.startswith(tuple(arguments.only))]
    tools = Tools(arguments.venvs, arguments.nats_server, arguments.redis_server)
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.data_dir)))
        competition = Competition(tools, arguments.size, directory)
        present = [contender for contender in wanted if await competition.enter(contender, stack)]
        records, failed = {}, {}
        for contender in present:
            try:
                sizing = await competition.lap(contender, SIZING_RECORDS)
            except DisError as exc:
                failed[contender.name] = str(exc)
                continue
            records[contender.name] = max(round(sizing.rate * arguments.seconds / ROUND_TO), 1) * ROUND_TO
        present = [contender for contender in present if contender.name in records]
        turns: dict[str, list[Turn]] = {contender.name: [] for contender in present}
        for number in range(arguments.rounds + 1):
            for contender in present:
                turn = await competition.lap(contender, records[contender.name])
                print(f"{number}/{arguments.rounds} {contender.name:30} {turn.rate:12,.0f} records/s", file=sys.stderr)
                if number:  # the first round warms up
                    turns[contender.name].append(turn)
    return Result(
        origin=origin,
        services={name: served.version for name, served in competition.services.items()},
        size_bytes=arguments.size,
        turns=turns,
        skipped=competition.skipped,
        failed=failed,
    )


def table(result: Result) -> Iterator[str]:
    """Markdown."""
    services = "; ".join(f"{name} {version}" for name, version in result.services.items())
    yield f"{result.origin.machine}; commit {result.origin.commit}; {services}; {result.size_bytes} bytes\n"
    ours = [name for name in OURS if name in result.turns]
    yield "| | records/s | lowest - highest | client us | server us | " + " | ".join(f"{o} / it" for o in ours) + " |"
    yield "|---|" + "---:|" * (4 + len(ours))
    for name, turns in result.turns.items():
        rates, client_us, server_us = zip(*((turn.rate, turn.client_us, turn.server_us) for turn in turns), strict=True)
        cells = [
            name,
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f} - {max(rates):,.0f}",
            f"{statistics.median(client_us):.2f}",
            f"{statistics.median(server_us):.2f}",
            *(f"{result.ratio(our, name):.2f}" for our in ours),
        ]
        yield "| " + " | ".join(cells) + " |"
    for name, reason in result.skipped.items():
        yield f"\n{name} took no part: {reason}"
    for name, reason in result.failed.items():
        yield f"\n{name} FAILED: {reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100, help="payload bytes (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a lap takes (default: 2)")
    parser.add_argument("--only", nargs="*", help="those whose names begin like this (default: all)")
    parser.add_argument("--json", type=Path, help="also write every lap to this file")
    parser.add_argument("--data-dir", type=Path, help="where all services keep data (default: a temporary directory)")
    parser.add_argument("--venvs", type=Path, default=CHECKOUT / ".venv", help="holds official/ and peers/")
    parser.add_argument("--nats-server", default="nats-server", help="the program (default: found in PATH)")
    parser.add_argument("--redis-server", default="redis-server", help="the program (default: found in PATH)")
    arguments = parser.parse_args()
    origin = Origin.here(" ".join(["python", *sys.argv]), "each in its own process, on this machine")
    result = anyio.run(measure, arguments, origin, backend_options={"use_uvloop": True})
    for line in table(result):
        print(line)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    if result.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
