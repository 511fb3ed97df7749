"""A file of dead letters: what was written is there, whatever cut the rest; one worker at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from disstream.errors import ClosedError, ConfigError, StorageError
from disstream.model import Record
from disstream.worker.deadletters import FileLetters
from disstream.worker.letters import Letter, letter_line, read_line
from disstream.worker.reading import FileBox


def letter(number: int) -> Letter:
    record = Record(b"%d" % number, number, 1000, "k", "orders", "shardId-0000000000")
    return Letter.of(record, app="a", member_id="m", error=ValueError("no"), attempts=1, at_ms=5)


async def write(path: Path, *letters: Letter) -> None:
    store = FileLetters(str(path))
    await store.start()
    await store.write(letters)
    await store.close()
    await store.close()


def numbers(path: Path) -> list[int]:
    found = [read_line(line) for line in path.read_bytes().splitlines()]
    return [one.sequence_number for one in found if isinstance(one, Letter)]


async def test_letters_are_appended_for_their_owner_only(tmp_path: Path) -> None:
    """Line after line, over restarts; nobody else may read them."""
    path = tmp_path / "letters"
    await write(path, letter(1), letter(2))
    await write(path, letter(3))
    assert numbers(path) == [1, 2, 3]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_cut_anywhere_the_whole_letters_are_there(tmp_path: Path) -> None:
    """A crash leaves any beginning of what was being written: the next start removes the torn letter, no other."""
    path = tmp_path / "letters"
    whole = letter_line(letter(1))
    torn = letter_line(letter(2))
    for cut in range(0, len(torn), 7):
        for before in (b"", whole):
            path.write_bytes(before + torn[:cut])
            await write(path, letter(3))
            assert numbers(path) == ([1, 3] if before else [3])


async def test_one_worker_at_a_time(tmp_path: Path) -> None:
    """A second one is told what to do; when the first has closed, it may write."""
    path = tmp_path / "letters"
    first, second = FileLetters(str(path)), FileLetters(str(path))
    await first.start()
    with pytest.raises(ConfigError, match="in use by another process; several workers need a file each, or a stream"):
        await second.start()
    await first.close()
    await second.start()
    await second.write([letter(1)])
    await second.close()
    with pytest.raises(ClosedError):
        await second.write([letter(1)])


async def test_who_sends_back_locks_out_others_and_not_the_worker(tmp_path: Path) -> None:
    """Marks have a file of their own."""
    path = tmp_path / "letters"
    await write(path, letter(1))
    first, second = FileBox(str(path)), FileBox(str(path))
    await first.open(settles=True)
    with pytest.raises(ConfigError, match="in use"):
        await second.open(settles=True)
    await write(path, letter(2))
    await first.look()
    await first.settle([letter(1).identity], discarded=False)
    await first.close()
    await second.open(settles=True)
    await second.close()


@pytest.mark.parametrize("content", [b"order;customer", b"order;customer\n1;2\n", b"{}\n"])
async def test_files_of_others_are_left_alone(tmp_path: Path, content: bytes) -> None:
    """A mistyped path costs nobody a file."""
    path = tmp_path / "orders.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="holds something else"):
        await FileLetters(str(path)).start()
    assert path.read_bytes() == content


async def test_places_that_are_no_files(tmp_path: Path) -> None:
    """A directory, a pipe, and a path that leads nowhere."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "no" / "such"):
        with pytest.raises(ConfigError, match=r"cannot be written|is no file"):
            await FileLetters(str(path)).start()


async def test_a_full_disk_leaves_whole_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a letter is taken back and the error told; with room again the same letter is written."""
    path = tmp_path / "letters"
    store = FileLetters(str(path))
    await store.start()
    await store.write([letter(1)])
    pwrite = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data[:-10], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left on device"):
        await store.write([letter(2)])
    assert numbers(path) == [1]
    monkeypatch.setattr(os, "pwrite", pwrite)
    await store.write([letter(2)])
    await store.close()
    assert numbers(path) == [1, 2]
