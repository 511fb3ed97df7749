"""A data directory that is not what it was: refused with its path and what to do, or read as far as it is sound; the
process that opens it lives."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import lmdb
import pytest

from disstream.engine.api import Entry, PartitionRef, Row
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.embedded.backup import compact
from disstream.engine.embedded.header import META_BYTES, Meta, latest
from disstream.errors import StorageError
from disstream.testing.engine import opened

A = PartitionRef("s", 0)
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30, ballast_bytes=0)
PAGE = 4096

OPENS = """
import asyncio, sys
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.api import PartitionRef
from disstream.errors import StorageError

async def read(directory):
    engine = EmbeddedEngine(directory, EmbeddedConfig(map_size_bytes=1 << 30, ballast_bytes=0))
    try:
        await engine.start()
        (bounds,) = await engine.log.bounds([PartitionRef("s", 0)])
        found = await engine.log.read(PartitionRef("s", 0), 0, 1 << 20)
        return f"opened {bounds.next} {sum(len(batch.rows) for batch in found)}"
    except StorageError as exc:
        return f"StorageError {exc}"
    finally:
        await engine.close()

for line in sys.stdin:
    print(asyncio.run(read(line.strip())), flush=True)
"""


async def make(data: Path) -> bytes:
    async with opened(EmbeddedEngine(data, CONFIG)) as engine:
        await engine.log.open({A: 1})
        for number in range(40):
            await engine.log.append([Entry(A, [Row(bytes(number * 300))], 1)], 1)
            await engine.catalog.transact({}, {"key": bytes(number)})
    return (data / "data.mdb").read_bytes()


async def test_damaged_first_pages(tmp_path: Path) -> None:
    """Whatever byte of both first pages is another one: refused with the file's name and a remedy, or opened; the
    process does not die of it, neither then nor in reading."""
    sound = await make(tmp_path / "sound")
    dice = random.Random(3)
    told: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", OPENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        # All bytes of the pages that mean something, and those of the newer page alone.
        places = [(at, at + PAGE) for at in range(10, 144)] + [
            (at + slot * PAGE,) for at in range(152) for slot in (0, 1)
        ]
        for at in dice.sample(places, 150):
            content = bytearray(sound)
            for place in at:
                content[place] ^= dice.choice([1, 128, 255])
            data = tmp_path / f"damaged {len(told)}"
            data.mkdir()
            (data / "data.mdb").write_bytes(content)
            child.stdin.write(f"{data}\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            assert answer, (at, child.wait())
            if answer.startswith("StorageError"):
                assert str(data) in answer
                assert "restore a copy" in answer or "another" in answer, answer
            told.append(answer.split()[0])
            (data / "data.mdb").unlink()
        child.stdin.close()
        assert child.wait(30) == 0
    assert {"opened", "StorageError"} == set(told)


def test_what_is_wrong_with_a_header() -> None:
    """Each field that leads nowhere is named; of two pages the later one counts."""
    tree = [4096, 8, 1, 0, 1, 0, 5, 7]  # size of a page, flags, depth, branches, leaves, overflow, entries, root
    fields = {"free": list(tree), "tables": [0, 0, 2, 1, 3, 2, 9, 8], "last": 20, "txnid": 6}

    def page(**changed: object) -> bytes:
        now = {**fields, **changed}
        return (
            struct.pack("=QHHI", 0, 0, 8, 0)
            + struct.pack("=IIQQ", 0xBEEFC0DE, 1, 0, 1 << 30)
            + b"".join(struct.pack("=IHHQQQQQ", *now[name]) for name in ("free", "tables"))  # type: ignore[misc]
            + struct.pack("=QQ", now["last"], now["txnid"])
        )

    def fault(**changed: object) -> str | None:
        meta = Meta.parse(page(**changed))
        assert meta is not None
        return meta.fault()

    assert len(page()) == META_BYTES
    assert fault() is None
    assert "4095 bytes" in str(fault(free=[4095, *tree[1:]]))
    assert "flags 9" in str(fault(free=[4096, 9, *tree[2:]]))
    assert "page 21 as the root of the tables" in str(fault(tables=[0, 0, 2, 1, 3, 2, 9, 21]))
    assert "depth of 33" in str(fault(tables=[0, 0, 33, 1, 3, 2, 9, 8]))
    assert "depth of 0" in str(fault(tables=[0, 0, 0, 1, 3, 2, 9, 8]))
    assert "30 pages of tables" in str(fault(tables=[0, 0, 2, 1, 3, 26, 9, 8]))
    assert fault(tables=[0, 0, 0, 0, 0, 0, 0, 2**64 - 1]) is None
    newest = latest(page().ljust(PAGE, b"\0") + page(txnid=7))
    assert newest is not None
    assert newest.txnid == 7
    assert latest(page(txnid=7).ljust(PAGE, b"\0") + page()) == newest
    lonely = latest(page().ljust(PAGE, b"\0"))
    assert lonely is not None
    assert "second" in str(lonely.fault())
    assert Meta.parse(b"no such thing" * 20) is None


async def test_a_damaged_table(tmp_path: Path) -> None:
    """A key of a wrong size in the tables is a StorageError where it is met, not an error of Python."""
    await make(tmp_path)
    with lmdb.Environment(str(tmp_path), max_dbs=6) as env, env.begin(write=True) as txn:
        txn.put((1).to_bytes(8, "big") + b"\xff", b"", db=env.open_db(b"batches", txn=txn))
    with pytest.raises(StorageError, match=rf"{tmp_path} is damaged.*restore a copy"):
        await EmbeddedEngine(tmp_path, CONFIG).start()


@pytest.mark.parametrize("stored", [b"\0\5zz\0\0\0\0", b"\0\1\xff\0\0\0\0", b"\0"], ids=["length", "text", "short"])
async def test_a_damaged_partition(tmp_path: Path, stored: bytes) -> None:
    """Likewise a key that names no partition, at which a start ends."""
    await make(tmp_path)
    with lmdb.Environment(str(tmp_path), max_dbs=6) as env, env.begin(write=True) as txn:
        txn.put(stored, bytes(40), db=env.open_db(b"partitions", txn=txn))
    for _ in range(2):  # twice: the first refusal has released the directory
        with pytest.raises(StorageError, match=rf"{tmp_path} is damaged.*restore a copy"):
            await EmbeddedEngine(tmp_path, CONFIG).start()


async def test_an_empty_file_is_no_new_directory(tmp_path: Path) -> None:
    """A data.mdb of no bytes is what is left of one: beginning anew would hand out old sequence numbers again."""
    await make(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"")
    for _ in range(2):  # twice: the first refusal has released the directory
        with pytest.raises(StorageError, match=rf"{tmp_path}/data.mdb is empty: restore.*or remove"):
            await EmbeddedEngine(tmp_path, CONFIG).start()
    (tmp_path / "data.mdb").unlink()
    async with opened(EmbeddedEngine(tmp_path, CONFIG)) as engine:
        assert await engine.log.bounds([A]) == [None]


async def test_a_parent_that_may_only_be_passed() -> None:
    """The server's user need not be able to list what its directory stands in."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o711)
        data = Path(made, "data")
        data.mkdir()
        os.chown(data, 65534, 65534)
        os.seteuid(65534)
        try:
            await make(data)
            assert compact(str(data), lambda *told: None).target_bytes
        finally:
            os.seteuid(0)


async def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory on a disk that is mounted for reading is refused with its path and the remedy."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk for reading")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        await make(disk / "data")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StorageError, match=rf"{disk}/data: Read-only.*name a directory that can be written"):
            await EmbeddedEngine(disk / "data", CONFIG).start()
        with pytest.raises(StorageError, match=rf"{disk}/new: Read-only.*name a directory that can be written"):
            await EmbeddedEngine(disk / "new", CONFIG).start()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
