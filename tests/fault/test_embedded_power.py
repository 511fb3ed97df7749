"""Power failure: from the writes and syncs that a real process made, the directory as any disk may have it afterwards.

What was acknowledged is there, nothing by halves, and the engine goes on; and the same check finds the loss if syncs
are ignored.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from recorded_disk import HOW, Disk, Event, recorded

HERE = Path(__file__).parent
PROMISING = [
    "fsync",
    pytest.param(
        "relaxed",
        marks=pytest.mark.skipif(
            find_spec("disstream.engine.embedded.synced") is None,
            reason="relaxed promises nothing about power failures without a way back to the last sync",
        ),
    ),
]
"""Which durabilities promise something about power failures; `Promised` knows what."""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is loaded into a process to record its writes."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: cc builds what records the writes (apt install gcc libc6-dev)")
    library = tmp_path_factory.mktemp("recorder") / "record_writes.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "record_writes.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Run(NamedTuple):
    """What a process wrote and told."""

    data: Path
    told: Path
    events: list[Event]


def record(recorder: Path, directory: Path, config: str, lines: int, seed: int) -> Run:
    run, boot = directory / "run", directory / "boot"
    run.mkdir()
    boot.write_text("before-the-power-failure".ljust(36, "."))
    data, told, log = run / "data", run / "told", directory / "log"
    command = [sys.executable, str(HERE / "appender.py"), str(data), str(seed), config, str(told), str(lines)]
    environment = {
        "LD_PRELOAD": str(recorder),
        "RECORD_BELOW": f"{run}/",
        "RECORD_TO": str(log),
        "RECORD_BOOT_ID": str(boot),
    }
    subprocess.run(command, env=os.environ | environment, check=True)
    events = recorded(log)
    final = {
        path: content for disk in [replayed(events)] for path, content in disk.image(random.Random(0), "everything")
    }
    assert final[data / "data.mdb"] == (data / "data.mdb").read_bytes(), "not all writes were recorded"
    return Run(data, told, events)


def replayed(events: list[Event]) -> Disk:
    disk = Disk()
    for event in events:
        disk.add(event)
    return disk


class Checker:
    """A process that looks at the image in a directory; a new one if an image killed the last."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._start()

    def make(self, files: Iterable[tuple[Path, bytearray]]) -> None:
        """An image of these files, in place of the one before."""
        shutil.rmtree(self._image, ignore_errors=True)
        self._image.mkdir()
        for path, content in files:
            (self._image / path.name).write_bytes(content)

    def _start(self) -> None:
        command = [sys.executable, str(HERE / "image_checker.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def check(self, told: Path, done: int, begun: int) -> str:
        """ "ok", or what is wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"directory": str(self._image), "told": str(told), "done": done, "begun": begun}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().rstrip("\n")
        if answer:
            return answer
        self.close()
        told_of = f"it killed its reader: {self._process.returncode}"
        self._start()
        return told_of

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    # In memory where that can be had: what is looked at here need not be synchronised once more.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        checker = Checker(Path(directory) / "image")
        yield checker
        checker.close()


class Look(NamedTuple):
    """At one disk: the event before which the power failed, what the disk had of how many sectors that it may have."""

    event: int
    how: str
    pending: int
    found: str


class Promised:
    """How many of the lines told a power failure has to leave true: with "relaxed" those before the last sync."""

    def __init__(self, run: Run, config: str) -> None:
        self._run = run
        self._relaxed = config == "relaxed"
        self._begun = self._synced = self._recorded = 0
        self.told = 0

    def add(self, event: Event) -> None:
        match event.path, event.kind:
            case self._run.told, _:
                self.told += event.data.count(b"\n")
            case path, "B" if path.name == "data.mdb":
                self._begun = self.told
            case path, "S" if path.name == "data.mdb":
                self._synced = self._begun
            case path, "S" if path.name == "synced.meta":
                self._recorded = self._synced

    @property
    def kept(self) -> int:
        return self._recorded if self._relaxed else self.told


def fail_power(
    run: Run, checker: Checker, images: int, seed: int, *, config: str = "fsync", honest: bool = True
) -> list[Look]:
    """Let the power fail at so many moments behind the first answer; of each disk that is not as it must be, why."""
    dice = random.Random(seed)
    usual = range(first_acknowledged(run) + 1, len(run.events))
    # Half of the moments are those at which most is open: a sync or the write of a meta page is about to end.
    rich = [n for n in usual if run.events[n].kind in "SD"] or usual
    moments = dice.choices(rich, k=images // 2) + dice.choices(usual, k=images - images // 2)
    disk = Disk(honest=honest)
    looks = list(look_at(run, checker, disk, sorted(moments), dice, Promised(run, config)))
    assert sum(look.pending for look in looks) > images, "hardly anything was open: this proves nothing"
    return [look for look in looks if look.found != "ok"]


def look_at(
    run: Run, checker: Checker, disk: Disk, moments: list[int], dice: random.Random, promised: Promised
) -> Iterator[Look]:
    """What becomes of the directory if the power fails before these events, each time with a disk of another choice."""
    at = 0
    for moment in moments:
        for event in run.events[at:moment]:
            disk.add(event)
            promised.add(event)
        at = moment
        how = dice.choice(HOW)
        files = disk.image(dice, how)
        checker.make((path, content) for path, content in files if path.parent == run.data and path.suffix != ".lock")
        found = checker.check(run.told, promised.kept, promised.told - promised.kept)
        yield Look(moment, how, disk.pending(run.data / "data.mdb"), found)


def first_acknowledged(run: Run) -> int:
    return next(n for n, event in enumerate(run.events) if event.path == run.told and b"raised" in event.data)


@pytest.mark.parametrize("config", PROMISING)
def test_acknowledged_survives_power_failure(recorder: Path, checker: Checker, tmp_path: Path, config: str) -> None:
    """Twenty disks after power failures have all that was promised and nothing by halves, and can be used."""
    run = record(recorder, tmp_path, config, 600, 1)
    assert fail_power(run, checker, 20, 1, config=config) == []


@pytest.mark.long
@pytest.mark.parametrize("config", PROMISING)
@pytest.mark.parametrize("seed", range(10, 13))
def test_acknowledged_survives_power_failure_for_long(
    recorder: Path, checker: Checker, tmp_path: Path, seed: int, config: str
) -> None:
    """The same with 900 disks of six processes, whose pages have been freed and used again many times."""
    run = record(recorder, tmp_path, config, 4_000, seed)
    assert fail_power(run, checker, 150, seed, config=config) == []


def test_lying_disk_is_found_out(recorder: Path, checker: Checker, tmp_path: Path) -> None:
    """Control: if the disk ignores syncs, the same check finds losses, most often."""
    run = record(recorder, tmp_path, "fsync", 600, 1)
    assert len(fail_power(run, checker, 12, 1, honest=False)) > 6


def test_lost_syncs_are_found_out(recorder: Path, checker: Checker, tmp_path: Path) -> None:
    """Control: an engine that hardly ever synchronises does not keep what "fsync" promises: the same check tells."""
    run = record(recorder, tmp_path, "never synced", 600, 1)
    assert len(fail_power(run, checker, 12, 1)) > 6


def test_power_failure_while_the_directory_is_made(recorder: Path, checker: Checker, tmp_path: Path) -> None:
    """Nothing was promised yet: the directory can be used, or is refused with what to do about it."""
    run = record(recorder, tmp_path, "fsync", 20, 1)
    moments = list(range(first_acknowledged(run)))
    for look in look_at(run, checker, Disk(), moments, random.Random(1), Promised(run, "fsync")):
        if look.found != "ok":
            assert look.found.startswith("StorageError")
            assert "restore a copy" in look.found
