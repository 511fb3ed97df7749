"""A job in a process of its own: its result, its errors and its death reach whoever asked; it never outlives him."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import data_jobs
import msgspec
import pytest
from data_worlds import fill, quiet

from disstream.engine.embedded.check import CheckReport, check
from disstream.engine.embedded.child import Killed, apart
from disstream.errors import StorageError


async def test_result_and_progress(tmp_path: Path) -> None:
    """What a job returns here it returns there; how far it is comes in order, and ends with all."""
    await fill(tmp_path)
    told: list[tuple[str, int, int]] = []
    there = apart(check, CheckReport, lambda *more: told.append(more), data_dir=str(tmp_path))
    assert there == check(str(tmp_path), quiet)
    assert ("checking the catalog", 20, 20) in told
    assert list(dict.fromkeys(doing for doing, *_ in told))[:2] == ["reading the pages", "checking the batches"]


def test_errors() -> None:
    """A refusal is raised with its words; a signal is named with what was done; so is an end without a result."""
    with pytest.raises(StorageError, match=r"no data\.mdb in it"):
        apart(check, CheckReport, data_dir="/")
    with pytest.raises(StorageError, match=r"\(/proc/nothing\); check the disk"):
        apart(data_jobs.refuses, type(None))
    with pytest.raises(Killed, match="killed by SIGSEGV while dying"):
        apart(data_jobs.dies, type(None))
    with pytest.raises(Killed, match="killed by SIGKILL while telling"):
        apart(data_jobs.dies_telling, type(None))
    with pytest.raises(StorageError, match="failing ended with exit code 3"):
        apart(data_jobs.fails, type(None))


def test_whoever_is_interrupted_ends_the_child(tmp_path: Path) -> None:
    """Ctrl-C while it works: the child cleans up and has ended when the call returns."""

    def interrupted(*told: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apart(data_jobs.wait_for_ever, type(None), interrupted, marker=str(tmp_path / "ended"))
    assert (tmp_path / "ended").exists()


def test_a_child_whose_parent_was_killed(tmp_path: Path) -> None:
    """Nobody reads its lines any more: it cleans up and ends."""
    request = {"job": "data_jobs:tell_for_ever", "arguments": {"marker": str(tmp_path / "ended")}}
    code = f"import sys; sys.path[:] = {sys.path!r}; from disstream.engine.embedded.child import main; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(request) + b"\n")
        child.stdin.flush()
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(60) == 1
    assert (tmp_path / "ended").exists()
