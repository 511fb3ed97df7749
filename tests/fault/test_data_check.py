"""`check` of a data directory: whatever was damaged is found, told with its place, and nothing else is."""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path

import lmdb
import msgspec
import pytest
from data_jobs import jobs
from data_worlds import LARGE, ROWS_A, ROWS_B, P, appending, edited, fill, quiet

from disstream.engine.api import Row
from disstream.engine.embedded import batch
from disstream.engine.embedded.backup import backup
from disstream.engine.embedded.check import CheckReport, Finding, check
from disstream.engine.embedded.child import Killed, apart
from disstream.engine.embedded.environment import FORMAT
from disstream.engine.embedded.figures import figures
from disstream.engine.embedded.partitions import parse_state
from disstream.engine.embedded.visit import claimed
from disstream.errors import StorageError


def report(directory: Path) -> CheckReport:
    return check(str(directory), quiet)


def findings(directory: Path) -> list[Finding]:
    found = report(directory)
    assert found.pages == "sound"
    return found.findings


def value(first: int, rows: int, append_ms: int = 1003) -> bytes:
    return bytes(batch.encode([Row(b"forged") for _ in range(rows)]).value(first, append_ms))


async def test_what_the_engine_wrote_is_clean(tmp_path: Path) -> None:
    """Nothing is found, all is counted, and looking leaves no trace."""
    await fill(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = report(tmp_path)
    assert (found.findings, found.pages, found.format, found.server) == ([], "sound", FORMAT, None)
    assert (found.partitions, found.writers, found.documents) == (2, 1, 20)
    assert found.rows == ROWS_A - 12 + ROWS_B
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after["data.mdb"] == before["data.mdb"]


async def test_damaged_rows(tmp_path: Path) -> None:
    """A flipped bit in a payload is told with partition and rows, and with the command that reads on behind them."""
    await fill(tmp_path)
    path = tmp_path / "data.mdb"
    content = bytearray(path.read_bytes())
    at = 0
    while (at := content.find(bytes([4]) * LARGE, at + 1)) > 0:
        content[at + 7] ^= 1
    path.write_bytes(content)
    (finding,) = findings(tmp_path)
    assert "checksum" in finding.what
    assert (finding.stream_id, finding.partition, finding.first, finding.last) == ("s", 1, 12, 14)
    assert "--partition 1 --to 15" in finding.remedy


async def test_batches_that_are_not_where_they_belong(tmp_path: Path) -> None:
    """Missing rows in the middle, in front and at the end, rows twice, a wrong key, foreign slots, times that fall."""
    await fill(tmp_path)
    with edited(tmp_path) as (txn, tables):
        slot_a, slot_b = (parse_state(found).slot for _, found in txn.cursor(db=tables["partitions"]))
        batches = tables["batches"]
        txn.delete(batch.key(slot_a, 14), db=batches)  # in front: 12 is the oldest row
        txn.delete(batch.key(slot_a, 24), db=batches)
        txn.put(batch.key(slot_a, 41), value(38, 4, 2000), db=batches)  # 38 and 39 are there
        txn.put(batch.key(slot_a, 44), value(40, 3, 1), db=batches)  # is 42 to 44 by its key
        txn.put(batch.key(99, 0), value(0, 1), db=batches)
        txn.put(batch.key(99, 1), value(1, 1), db=batches)
        txn.put(b"short", b"", db=batches)
        txn.delete(batch.key(slot_b, 29), db=batches)
    found = [(f.partition, f.first, f.last, f.what) for f in findings(tmp_path)]
    told = [(partition, first, last) for partition, first, last, _ in found]
    assert told == [
        (0, 12, 14),
        (0, 20, 24),
        (0, 38, 39),
        (0, 42, 44),
        (0, 42, 44),
        (None, None, None),
        (None, None, None),
        (1, 27, 29),
    ]
    texts = [what for *_, what in found]
    for text, expected in zip(
        texts,
        ("missing", "missing", "twice", "tells of rows 40 to 42", "times only grow", "slot 99", "none", "not there"),
        strict=True,
    ):
        assert expected in text


async def test_times_within_a_batch(tmp_path: Path) -> None:
    """Rows of several appends in one batch: their times, too, only grow."""
    await fill(tmp_path)
    rows = [Row(b"forged") for _ in range(3)]
    for times, clean in (((2000, 2001, 2002), True), ((2000, 1999, 2002), False), ((5, 2001, 2002), False)):
        values = [bytes(batch.encode([row]).value(40 + n, times[n])) for n, row in enumerate(rows)]
        with edited(tmp_path) as (txn, tables):
            slot = struct.unpack(">Q", bytes(next(iter(txn.cursor(db=tables["partitions"])))[1][:8]))[0]
            txn.put(batch.key(slot, 42), bytes(batch.merge(values)), db=tables["batches"])
        told = findings(tmp_path)
        assert [(f.first, f.last) for f in told] == ([] if clean else [(40, 42)])
        assert all("times only grow" in f.what for f in told)


async def test_a_record_that_counts_wrongly(tmp_path: Path) -> None:
    """What retention by bytes goes by is what the batches weigh."""
    await fill(tmp_path)
    with edited(tmp_path) as (txn, tables):
        ((key, found), _) = txn.cursor(db=tables["partitions"])
        txn.put(key, found[:40] + struct.pack(">Q", 7), db=tables["partitions"])
    (finding,) = findings(tmp_path)
    assert "counts 7 bytes" in finding.what
    assert finding.partition == 0


async def test_partitions_that_cannot_be(tmp_path: Path) -> None:
    """Records that cannot be read, bounds the wrong way round, slots used twice, dropped or never given out."""
    await fill(tmp_path)
    with edited(tmp_path) as (txn, tables):
        partitions = tables["partitions"]
        (key_a, found_a), (key_b, found_b) = txn.cursor(db=partitions)
        slot_a, following = parse_state(found_a).slot, parse_state(found_a).next
        txn.put(key_a, found_a[:16] + struct.pack(">Q", following + 1) + found_a[24:], db=partitions)
        txn.put(b"\0\1t\0\0\0\0", found_b, db=partitions)
        txn.put(b"\0\1u\0\0\0\0", struct.pack(">Q", 1234) + found_b[8:], db=partitions)
        txn.put(b"\0\5t\0\0\0\0", found_b, db=partitions)
        txn.put(b"\0\1v\0\0\0\0", b"short", db=partitions)
        txn.put(struct.pack(">Q", slot_a), b"", db=tables["dropped"])
        assert key_b[-1] == 1
    told = [f.what for f in findings(tmp_path)]
    for text in (
        "oldest row",
        "has the slot",
        "1234 was never given out",
        "stream id of 5 bytes",
        "bytes",
        "to be swept",
    ):
        assert any(text in what for what in told), text


async def test_producers_and_documents(tmp_path: Path) -> None:
    """What is remembered of a producer is readable and true; documents have keys, and versions that were given out."""
    await fill(tmp_path)
    with edited(tmp_path) as (txn, tables):
        writers, catalog = tables["writers"], tables["catalog"]
        ((key, found),) = txn.cursor(db=writers)
        txn.put(key[:-1] + b"\1", b"\xc1", db=writers)
        txn.put(b"\0" * 7 + b"\x63" + key[8:], found, db=writers)
        txn.put(b"short", found, db=writers)
        txn.delete(batch.key(struct.unpack_from(">Q", key)[0], 29), db=tables["batches"])
        txn.put(b"\xff\xfe", (1).to_bytes(8, "big"), db=catalog)
        txn.put(b"future", (999).to_bytes(8, "big"), db=catalog)
        txn.put(b"none", b"", db=catalog)
    told = [f.what for f in findings(tmp_path)]
    assert len(told) == 7
    for text in ("damaged", "slot 99", "key 73686f7274", "rows that are not there", "no text", "'future'", "'none'"):
        assert any(text in what for what in told), text
    assert any(f.what.startswith(f"producer {P} stored") and (f.first, f.last) == (27, 29) for f in findings(tmp_path))


async def test_a_thousand_findings_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is counted."""
    monkeypatch.setattr("disstream.engine.embedded.check.MAX_FINDINGS", 3)
    await fill(tmp_path)
    with edited(tmp_path) as (txn, tables):
        for slot in range(90, 100):
            txn.put(batch.key(slot, 0), value(0, 1), db=tables["batches"])
    found = report(tmp_path)
    assert (len(found.findings), found.more) == (3, 7)


async def test_damaged_pages_are_not_given_to_lmdb(tmp_path: Path) -> None:
    """Whatever is written over a page that is in use, the check says so, in this very process, which lives on."""
    await fill(tmp_path)
    path = tmp_path / "data.mdb"
    content = path.read_bytes()
    noticed = 0
    for page in range(2, len(content) // 4096):
        path.write_bytes(content[: 4096 * page] + b"\xa5" * 4096 + content[4096 * (page + 1) :])
        found = report(tmp_path)
        noticed += not found.clean
        if found.pages == "damaged":
            assert all("page" in finding.what for finding in found.findings)
            assert found.rows == 0
    path.write_bytes(content)
    assert report(tmp_path).clean
    assert noticed >= figures(str(tmp_path), quiet).live_pages - 2  # the two first ones are left as they are


@pytest.mark.long
async def test_no_byte_is_wrong_unnoticed(tmp_path: Path) -> None:
    """A byte changed or a tail cut, anywhere: the check ends with findings, or counts all that there was.

    Only the two first pages, one of which counts, have no other that vouches for them: there a bit can bring back the
    state before the last transaction, whole.
    """
    await fill(tmp_path)
    path = tmp_path / "data.mdb"
    content = path.read_bytes()
    expected = msgspec.to_builtins(report(tmp_path))
    dice = random.Random(1)
    noticed = 0
    with jobs() as checker:
        for case in range(300):
            damaged = bytearray(content)
            if case % 5 == 0:
                del damaged[dice.randrange(len(content)) :]
            elif case % 5 == 1:
                damaged[dice.randrange(2 * 4096)] ^= 1 << dice.randrange(8)
            else:
                damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            path.write_bytes(damaged)
            told = checker.run("check", str(tmp_path))
            assert "signal" not in told, case
            noticed += "error" in told or bool(told["result"]["findings"])
            if "error" not in told and not told["result"]["findings"] and case % 5 != 1:
                assert told["result"] == expected, case
    assert noticed > 100


@pytest.mark.long
def test_beside_a_server(tmp_path: Path) -> None:
    """While a process appends as fast as it can, a check is clean, names the process, and says what it left out."""
    with appending(tmp_path) as writer:
        for _ in range(3):
            writer.wait(50)
            found = apart(check, CheckReport, data_dir=str(tmp_path))
            assert (found.findings, found.server, found.pages) == ([], writer.pid, "not checked")
            assert found.rows > 0
    assert report(tmp_path).clean


def test_what_kills_the_reader_is_a_report(tmp_path: Path) -> None:
    """Beside a server, where the pages are not looked at first, a file cut off kills the child, and not us."""
    with appending(tmp_path) as writer:
        writer.stop()  # it must not meet what follows itself
        os.truncate(tmp_path / "data.mdb", 3 * 4096)
        with pytest.raises(Killed, match=r"killed by SIG(BUS|SEGV) while") as caught:
            apart(check, CheckReport, data_dir=str(tmp_path))
        assert caught.value.signal in ("SIGBUS", "SIGSEGV")


def test_what_is_no_data(tmp_path: Path) -> None:
    """Clear words for an empty directory, a file, an empty file and somebody else's; nothing is made there."""
    for told, content in {
        "no data.mdb in it": None,
        "data.mdb is empty": b"",
        "not an LMDB data file": b"no such thing " * 1000,
    }.items():
        directory = tmp_path / told.replace(" ", "-")
        directory.mkdir()
        if content is not None:
            (directory / "data.mdb").write_bytes(content)
        before = sorted(directory.iterdir())
        if told.startswith("not"):  # who reads pages does not have to raise
            assert told in report(directory).findings[0].what
        else:
            with pytest.raises(StorageError, match=re.escape(told)):
                report(directory)
        assert sorted(directory.iterdir()) == before
    with pytest.raises(StorageError, match="cannot look into"):
        report(tmp_path / "no-data.mdb-in-it" / ".." / "data.mdb-is-empty" / "data.mdb")
    with pytest.raises(StorageError, match=r"no data\.mdb in it"):
        report(tmp_path / "nowhere")


async def test_an_lmdb_file_of_somebody_else(tmp_path: Path) -> None:
    """It is not taken for a damaged one of ours."""
    with lmdb.Environment(str(tmp_path), max_dbs=3) as env, env.begin(write=True) as txn:
        txn.put(b"k", b"v", db=env.open_db(b"theirs", txn=txn))
    with pytest.raises(StorageError, match="did not write"):
        report(tmp_path)


async def test_a_visitor_keeps_others_out(tmp_path: Path) -> None:
    """Two checks of a directory without a server: the second is told who is there and what it does."""
    await fill(tmp_path / "d")
    with claimed(tmp_path / "d", "checking"):
        with pytest.raises(StorageError, match=rf"in use by process {os.getpid()} \(checking\)"):
            report(tmp_path / "d")
        with pytest.raises(StorageError, match=rf"process {os.getpid()} \(checking\)"):
            backup(str(tmp_path / "d"), str(tmp_path / "b"), quiet)
        with pytest.raises(StorageError, match=rf"process {os.getpid()} \(checking\)"):
            await fill(tmp_path / "d")
    assert report(tmp_path / "d").clean


async def test_a_server_that_starts_where_there_was_no_lock(tmp_path: Path) -> None:
    """Nobody locks a backup. Should a server begin to use it meanwhile, what was read is not told as the truth."""
    await fill(tmp_path)
    (tmp_path / "disstream.lock").unlink()
    (tmp_path / "lock.mdb").unlink()
    there = sorted(tmp_path.iterdir())
    assert report(tmp_path).clean
    assert sorted(tmp_path.iterdir()) == there
    with pytest.raises(StorageError, match="started"), claimed(tmp_path, "checking"):
        (tmp_path / "disstream.lock").touch()
