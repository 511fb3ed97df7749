"""A disk that is really full, of a few MiB and mounted for the test: puts are refused and nothing else is, what was
acknowledged stays, what frees room works, and storing goes on by itself once there is some."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import disstream
from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.embedded.merging import Merging
from disstream.errors import StorageFull
from disstream.testing.engine import opened

A, B = PartitionRef("a", 0), PartitionRef("b", 0)
MIB = 1024**2
ROW = 60_000


@pytest.fixture(params=["tmpfs", pytest.param("ext4", marks=pytest.mark.long)])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Some 9 MiB of room."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small disk that this fills")
    place, image = tmp_path / "disk", tmp_path / "image"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=9m", "none", str(place)]
    else:
        maker = f"mkfs.{request.param}"
        if shutil.which(maker) is None:
            pytest.skip(f"needs {maker} (apt-get install e2fsprogs)")
        with image.open("wb") as file:
            file.truncate(12 * MIB)
        subprocess.run([maker, "-q", "-F", "-m", "0", image], check=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount the small disk that this fills: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def row(number: int) -> Row:
    return Row(number.to_bytes(8, "big") + random.Random(number).randbytes(ROW))


async def fill(engine: EmbeddedEngine, ref: PartitionRef) -> int:
    """Append until there is no room; how many were stored."""
    (bounds,) = await engine.log.bounds([ref])
    assert bounds is not None
    for number in count(bounds.next):
        try:
            assert await engine.log.append([Entry(ref, [row(number)], 1)], 1) == [number]
        except StorageFull:
            return number - bounds.next
    raise AssertionError


async def fill_all(engine: EmbeddedEngine, refs: list[PartitionRef], at_once: int) -> int:
    """Append small batches, `at_once` in each transaction, until nothing fits any more; how many transactions did."""
    dice = random.Random(1)
    for number in count():
        rows = [Row(bytes(dice.choice([100, 3_000] if at_once > 1 else [100])))]
        try:
            await engine.log.append([Entry(ref, rows, 1) for ref in dice.sample(refs, at_once)], 1)
        except StorageFull:
            return number
    raise AssertionError


async def check_rows(engine: EmbeddedEngine, ref: PartitionRef, end: int) -> None:
    """All up to `end` are there, each as it was appended, and nothing behind them."""
    (bounds,) = await engine.log.bounds([ref])
    assert bounds is not None
    assert bounds.next == end
    number = bounds.oldest
    while number < end:
        for batch in await engine.log.read(ref, number, MIB):
            for each in batch.rows:
                assert each.data == row(number).data
                number += 1


async def sweep(engine: EmbeddedEngine) -> None:
    """Each transaction frees a piece of what was forgotten, and the second one behind it may use that."""
    for number in range(12):
        await engine.catalog.transact({}, {"checkpoint": b"%d" % number})


def settings(durability: str, ballast: int = MIB) -> EmbeddedConfig:
    return EmbeddedConfig(
        durability="relaxed" if durability == "relaxed" else "fsync",
        sync_interval_s=3600,
        map_size_bytes=1 << 30,
        ballast_bytes=ballast,
    )


@pytest.mark.parametrize("durability", ["fsync", "relaxed"])
async def test_trimming_frees_a_full_disk(disk: Path, durability: str) -> None:
    """Again and again: full, reading and the catalog go on, a trim makes room for about what it trimmed, and the
    ballast that let it through is back. The rows survive a restart on the full disk."""
    async with opened(EmbeddedEngine(disk / "data", settings(durability))) as engine:
        await engine.log.open({A: 1})
        stored = await fill(engine, A)
        assert stored * ROW > 5 * MIB
        for round_ in range(4):
            assert engine.stats().refusing
            await check_rows(engine, A, stored)
            await engine.catalog.transact({}, {"checkpoint": b"%d" % round_})
            (bounds,) = await engine.log.bounds([A])
            assert bounds is not None
            await engine.log.trim(A, bounds.oldest + 30)
            await sweep(engine)
            more = await fill(engine, A) + await fill(engine, A)  # with relaxed, the first refusal makes room
            assert more > 8, round_
            stored += more
        assert (disk / "data" / "ballast").stat().st_size >= MIB // 2
    async with opened(EmbeddedEngine(disk / "data", settings(durability))) as engine:
        await check_rows(engine, A, stored)
        assert await fill(engine, A) < 5
        await engine.log.drop("a")
        await engine.log.open({B: 1})
        await sweep(engine)
        assert (await fill(engine, B) + await fill(engine, B)) * ROW > 5 * MIB


@pytest.mark.parametrize("ballast", [MIB, 0])
async def test_the_ballast_lets_everything_be_trimmed(
    disk: Path, ballast: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention that trims 1,600 partitions of a full disk at once needs more pages than are free: it finds them in the
    place of the ballast, which is back afterwards. Without one they are refused: that is what it is for."""
    monkeypatch.setattr(Merging, "stored", lambda *_: None)  # which would leave free pages
    refs = [PartitionRef(f"{number:040d}", 0) for number in range(1_600)]
    async with opened(EmbeddedEngine(disk / "data", settings("fsync", ballast))) as engine:
        await engine.log.open(dict.fromkeys(refs, 1))
        await fill_all(engine, refs, 20)
        await fill_all(engine, refs, 1)
        bounds = await engine.log.bounds(refs)
        trims = [
            asyncio.ensure_future(engine.log.trim(ref, known.next))
            for ref, known in zip(refs, bounds, strict=True)
            if known is not None
        ]
        results = await asyncio.gather(*trims, return_exceptions=True)
        if not ballast:
            refused = [number for number, result in enumerate(results) if result is not None]
            assert refused  # a few of them, if they came by themselves, may have found room
            assert {type(results[number]) for number in refused} == {StorageFull}
            assert "free some, or forget old rows" in str(results[refused[0]])
            after = await engine.log.bounds(refs)
            assert all(after[number] == bounds[number] for number in refused)
            return
        assert set(results) == {None}
        await sweep(engine)
        assert (disk / "data" / "ballast").stat().st_size >= ballast // 2
        assert await fill_all(engine, refs, 20) > 0


@pytest.mark.parametrize("disk", ["ext2"], indirect=True)
async def test_a_disk_that_cannot_reserve(disk: Path) -> None:
    """There the ballast is written, and frees the disk as elsewhere."""
    async with opened(EmbeddedEngine(disk / "data", settings("fsync"))) as engine:
        await engine.log.open({A: 1})
        assert engine.stats().ballast_bytes == MIB
        stored = await fill(engine, A)
        await engine.log.trim(A, stored)
        await sweep(engine)
        assert await fill(engine, A) > 20
        assert engine.stats().ballast_bytes == MIB


async def test_room_from_outside_helps_at_once(disk: Path) -> None:
    """When somebody else gives room back, the next append is stored, without a restart."""
    other = disk / "other"
    other.write_bytes(bytes(MIB))
    async with opened(EmbeddedEngine(disk / "data", settings("fsync"))) as engine:
        await engine.log.open({A: 1})
        stored = await fill(engine, A)
        assert await fill(engine, A) == 0
        await check_rows(engine, A, stored)
        other.unlink()
        assert await engine.log.append([Entry(A, [row(stored)], 1)], 1) == [stored]
        assert not engine.stats().refusing
        await check_rows(engine, A, stored + 1)


async def test_a_nearly_full_disk_is_told_once(
    disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is full the log warns, once until there is room again; so it is with the refusals, which have a line
    when they begin and one when they end."""
    monkeypatch.setattr("disstream.engine.embedded.watch.LOOK_INTERVAL_S", 0)
    caplog.set_level(logging.INFO, "disstream.engine")
    other = disk / "other"
    other.write_bytes(bytes(MIB))
    async with opened(EmbeddedEngine(disk / "data", settings("fsync"))) as engine:
        await engine.log.open({A: 1})
        await fill(engine, A)
        await fill(engine, A)
        told = [record.getMessage() for record in caplog.records]
        assert [("nearly full" in text, "are refused" in text) for text in told] == [(True, False), (False, True)]
        other.unlink()
        await engine.log.trim(A, 1)
        await engine.log.append([Entry(A, [Row(b"fits")], 1)], 1)
        told = [record.getMessage() for record in caplog.records][2:]
        assert [("has room again" in text, "find room again" in text) for text in told] == [
            (True, False),
            (False, True),
        ]


async def test_a_disk_that_is_full_from_the_start(disk: Path) -> None:
    """A directory that cannot be made for want of room is refused with that, leaves nothing that looks like one, and
    is made once there is room."""
    other = disk / "other"
    with other.open("wb", buffering=0) as file:
        for _ in range(3):  # ext4 finds some more once it has written
            with contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            os.fsync(file.fileno())
    with pytest.raises(disstream.StorageError, match="free space"):
        await EmbeddedEngine(disk / "data", settings("fsync")).start()
    assert not (disk / "data" / "data.mdb").exists()
    other.unlink()
    async with opened(EmbeddedEngine(disk / "data", settings("fsync"))) as engine:
        await engine.log.open({A: 1})
        assert await fill(engine, A) > 70


class Told(logging.Handler):
    """An event for a line of the log."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part
        self._loop = asyncio.get_running_loop()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._part in record.getMessage():
            self._loop.call_soon_threadsafe(self.event.set)


async def test_a_producer_waits_for_room(disk: Path) -> None:
    """Through the whole service: records that find no room wait in the producer, a consumer reads on and commits, and
    deleting another stream lets them all be stored, once each. A plain put is answered DIS.4303."""
    config = disstream.ServerConfig(data_dir=disk / "data", port=0, ballast_bytes=MIB)
    refused = Told("are refused")
    logging.getLogger("disstream.engine").addHandler(refused)
    try:
        async with (
            disstream.serve(config) as server,
            disstream.connect(server.url, project_id="demo") as dis,
        ):
            for stream in ("old", "new"):
                await dis.streams.create(stream, partitions=1)
            payload = random.Random(1).randbytes(ROW)
            async with dis.producer("old", disstream.ProducerConfig(max_in_flight=1)) as producer:
                for _ in range(4 * MIB // ROW):
                    await producer.send(payload)
            async with (
                dis.producer("new", disstream.ProducerConfig(max_in_flight=1, delivery_timeout_s=60)) as producer,
                dis.consumer("old", app="billing") as consumer,
            ):
                sending = [await producer.send(b"%d " % number + payload, key="k") for number in range(100)]
                await refused.event.wait()
                assert len(await consumer.fetch(max_records=10)) == 10
                await consumer.fetch(max_records=10)
                assert set((await consumer.commit()).values()) == {10}
                big = [disstream.NewRecord(bytes(MIB), key="other")]
                with pytest.raises(disstream.ThrottledError, match=r"DIS.4303.*no room"):
                    await dis.records.put("new", big * 4)
                assert server.stats().engine.refusing
                await dis.streams.delete("old")
                receipts = [await delivery for delivery in sending]
                assert producer.stats().stored == 100
            numbers = [receipt.sequence_number for receipt in receipts]
            assert numbers == sorted(set(numbers))
            found: list[int] = []
            async with dis.consumer("new") as reader:
                while len(found) < 100:
                    found += [
                        int(record.data.split(b" ", 1)[0]) for record in await reader.fetch() if record.key == "k"
                    ]
            assert found == list(range(100))
    finally:
        logging.getLogger("disstream.engine").removeHandler(refused)
