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
from pathlib import Path
from typing import NamedTuple

import pytest
from recorded_disk import HOW, Disk, Event, recorded

HERE = Path(__file__).parent
PROMISING = ["fsync", "relaxed"]
"""Which durabilities promise something about power failures; `Promised` knows what."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is loaded into a process to record its writes."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler: cc builds what records the writes (apt install gcc libc6-dev)")
    library = tmp_path_factory.mktemp("recorder") / "record_writes.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "record_writes.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Run(NamedTuple):
    """What a process wrote and told. `before`: the files that it found."""

    data: Path
    told: Path
    events: list[Event]
    before: dict[Path, bytes]

    @property
    def first_acknowledged(self) -> int:
        """The event that told the first answer."""
        return next(n for n, event in enumerate(self.events) if event.path == self.told and b"ed " in event.data)


class Recorder:
    """Runs processes whose writes are recorded, each after the system went down once more."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._library = library
        self._directory = directory
        self._runs = 0

    def run(self, config: str, lines: int, seed: int = 1, after: Image | None = None) -> Run:
        self._runs += 1
        here = self._directory / str(self._runs)
        data, told, log, boot = here / "data", here / "told", self._directory / "log", self._directory / "boot"
        data.mkdir(parents=True)
        boot.write_text(f"before-failure-{self._runs}".ljust(36, "."))
        before: dict[Path, bytes] = {}
        if after is not None:
            before = {data / name: bytes(content) for name, content in after.files.items()}
            told.write_text("".join(line + "\n" for line in after.told))
        for path, content in before.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        command = [sys.executable, str(HERE / "appender.py"), str(data), str(seed), config, str(told), str(lines)]
        environment = {
            "LD_PRELOAD": str(self._library),
            "RECORD_BELOW": f"{here}/",
            "RECORD_TO": str(log),
            "RECORD_BOOT_ID": str(boot),
        }
        subprocess.run(command, env=os.environ | environment, check=True)
        run = Run(data, told, recorded(log), before)
        disk = Disk(before)
        for event in run.events:
            disk.add(event)
        left = dict(disk.image(random.Random(0), "everything"))
        assert left[data / "data.mdb"] == (data / "data.mdb").read_bytes(), "not all writes were recorded"
        return run


@pytest.fixture
def recorder(library: Path, tmp_path: Path) -> Recorder:
    return Recorder(library, tmp_path)


class Image(NamedTuple):
    """What a disk has of the directory, and what was told by then: lines that must be true, and lines that may."""

    files: dict[str, bytearray]
    told: list[str]
    kept: int


class Checker:
    """A process that looks at images; a new one if an image killed the last."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self._told = directory / "told"
        self._start()

    def _start(self) -> None:
        command = [sys.executable, str(HERE / "image_checker.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def check(self, image: Image) -> str:
        """ "ok", or what is wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        shutil.rmtree(self._image, ignore_errors=True)
        self._image.mkdir()
        for name, content in image.files.items():
            (self._image / name).parent.mkdir(exist_ok=True)
            (self._image / name).write_bytes(content)
        self._told.write_text("\n".join(image.told))
        asked = {"directory": str(self._image), "told": str(self._told), "kept": image.kept}
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
        checker = Checker(Path(directory))
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
        self._lines = 0
        self._text = bytearray()

    def add(self, event: Event) -> None:
        match event.path, event.kind:
            case self._run.told, _:
                self._text += event.data
                self._lines += event.data.count(b"\n")
            case path, "B" if path.name == "data.mdb":
                self._begun = self._lines
            case path, "S" if path.name == "data.mdb":
                self._synced = self._begun
            case path, "S" if path.name == "synced.meta":
                self._recorded = self._synced

    @property
    def told(self) -> list[str]:
        return self._text.decode().splitlines()

    @property
    def kept(self) -> int:
        return self._recorded if self._relaxed else self._lines


def images(
    run: Run, moments: Iterable[int], dice: random.Random, *, config: str = "fsync", honest: bool = True
) -> Iterator[tuple[int, str, int, Image]]:
    """What is there if the power fails before these events, each time with a disk of another choice."""
    disk, promised = Disk(run.before, honest=honest), Promised(run, config)
    at = 0
    for moment in moments:
        for event in run.events[at:moment]:
            disk.add(event)
            promised.add(event)
        at = moment
        how = dice.choice(HOW)
        files = {
            str(path.relative_to(run.data)): content
            for path, content in disk.image(dice, how)
            if run.data in path.parents and path.suffix != ".lock"
        }
        yield moment, how, disk.pending(run.data / "data.mdb"), Image(files, promised.told, promised.kept)


def rich_moments(run: Run, count: int, dice: random.Random) -> list[int]:
    """Moments behind the first answer. At half of them most is open: a sync or the write of a meta page is to end."""
    usual = range(run.first_acknowledged + 1, len(run.events))
    rich = [n for n in usual if run.events[n].kind in "SD"] or usual
    return sorted(dice.choices(rich, k=count // 2) + dice.choices(usual, k=count - count // 2))


def fail_power(
    run: Run, checker: Checker, count: int, seed: int, *, config: str = "fsync", honest: bool = True
) -> list[Look]:
    """Let the power fail so many times; of each disk that is not as it must be, why."""
    dice = random.Random(seed)
    found = images(run, rich_moments(run, count, dice), dice, config=config, honest=honest)
    looks = [Look(moment, how, pending, checker.check(image)) for moment, how, pending, image in found]
    assert sum(look.pending for look in looks) > count, "hardly anything was open: this proves nothing"
    return [look for look in looks if look.found != "ok"]


@pytest.mark.parametrize("config", PROMISING)
def test_acknowledged_survives_power_failure(recorder: Recorder, checker: Checker, config: str) -> None:
    """Twenty disks after power failures have all that was promised and nothing by halves, and can be used."""
    assert fail_power(recorder.run(config, 600), checker, 20, 1, config=config) == []


@pytest.mark.long
@pytest.mark.parametrize("config", PROMISING)
@pytest.mark.parametrize("seed", range(10, 13))
def test_acknowledged_survives_power_failure_for_long(
    recorder: Recorder, checker: Checker, seed: int, config: str
) -> None:
    """The same with 600 disks of six processes, whose pages have been freed and used again many times."""
    assert fail_power(recorder.run(config, 4_000, seed), checker, 100, seed, config=config) == []


def fail_twice(recorder: Recorder, checker: Checker, config: str, first: int, second: int, seed: int) -> None:
    dice = random.Random(seed)
    run = recorder.run(config, 300, seed)
    for _, _, _, image in images(run, rich_moments(run, first, dice), dice, config=config):
        again = recorder.run(config, 6, seed + 1, after=image)
        moments = sorted(dice.sample(range(1, len(again.events)), second))
        for moment, how, _, twice in images(again, moments, dice, config=config):
            known = Image(twice.files, image.told + twice.told, image.kept)
            found = checker.check(known)
            assert found == "ok", f"{how} before event {moment}: {found}"


@pytest.mark.parametrize("config", PROMISING)
def test_second_power_failure_while_it_comes_back(recorder: Recorder, checker: Checker, config: str) -> None:
    """The power fails again while the engine opens what the first failure left: nothing more is lost."""
    fail_twice(recorder, checker, config, 1, 8, 1)


@pytest.mark.long
@pytest.mark.parametrize("config", PROMISING)
def test_second_power_failure_while_it_comes_back_for_long(recorder: Recorder, checker: Checker, config: str) -> None:
    """The same with 100 disks of five processes."""
    fail_twice(recorder, checker, config, 5, 20, 2)


def test_lying_disk_is_found_out(recorder: Recorder, checker: Checker) -> None:
    """Control: if the disk ignores syncs, the same check finds losses."""
    assert len(fail_power(recorder.run("fsync", 600), checker, 12, 1, honest=False)) > 2


def test_lost_syncs_are_found_out(recorder: Recorder, checker: Checker) -> None:
    """Control: an engine that hardly ever synchronises does not keep what "fsync" promises: the same check tells."""
    assert len(fail_power(recorder.run("never synced", 600), checker, 12, 1)) > 2


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 12), marks=pytest.mark.long)], ids=["few", "many"])
def test_power_failure_while_the_directory_is_made(recorder: Recorder, checker: Checker, seeds: range) -> None:
    """Whatever the disk has of it by then, the directory can be used: it is whole, or made again."""
    run = recorder.run("fsync", 20)
    for seed in seeds:
        for moment, how, _, image in images(run, range(run.first_acknowledged), random.Random(seed)):
            assert checker.check(image) == "ok", (moment, how)
