"""What figures were measured on, and what they cost."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import msgspec

from .. import __version__, clock

LIBRARIES = ("aiohttp", "msgspec", "lmdb", *(["uvloop"] if sys.platform != "win32" else []))

CHECKOUT = Path(__file__).parents[2]
FSYNC_BYTES = 4_096
"""What a small commit writes at least: a page."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where figures come from: without it they are worth nothing a week later."""

    command: str
    machine: str
    versions: dict[str, str]
    commit: str | None
    """Of the checkout that ran, with "+" if it was changed since; None: an installed package."""
    began_at: str
    """UTC."""
    service: str

    @classmethod
    def here(cls, command: str, service: str) -> Origin:
        return cls(
            command=command,
            machine=describe(),
            versions={"disstream": __version__, **{name: version(name) for name in LIBRARIES}},
            commit=commit(),
            began_at=datetime.datetime.fromtimestamp(clock.wall(), datetime.UTC).isoformat(timespec="seconds"),
            service=service,
        )


def exact_now() -> float:
    """Seconds of the clock that event loops use. A loop may tell its own time in milliseconds, as of its last turn:
    good for deadlines, not for measuring."""
    return time.monotonic()


def commit() -> str | None:
    """Of the git checkout this runs from, with "+" if it was changed since; None if it is none."""
    if not (CHECKOUT / ".git").exists():
        return None
    git = ("git", "-C", str(CHECKOUT))
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "")


def fsync_times(directory: Path, size_bytes: int, count: int) -> list[float]:
    """How long it takes to append so many bytes (a page at least) to a file there and sync it, each time; seconds."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "fsync.probe"
    data = os.urandom(max(size_bytes, FSYNC_BYTES))
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            began = exact_now()
            file.write(data)
            os.fsync(file.fileno())
            times.append(exact_now() - began)
    path.unlink()
    return times


def describe() -> str:
    """Processor, cores we may use, Python and the libraries that matter, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    libraries = ", ".join(
        f"{name} {version(name)}" for name in LIBRARIES if name != "uvloop" or sys.platform != "win32"
    )
    return f"{_processor()}, {cores} core(s), {platform.system()}; Python {platform.python_version()}, {libraries}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_s(pid: int) -> float | None:
    """Processor time a process has used so far, in seconds; None where /proc does not tell."""
    try:
        # The name, in parentheses, may hold spaces: count from behind it (proc(5): utime is field 14, stime 15).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def private_bytes(pid: int) -> int | None:
    """Memory of a process that is not backed by files, in bytes; None where /proc does not tell.

    Pages of a mapped database count as resident too: the system's cache, given up when somebody needs it.
    """
    return _memory(pid, "RssAnon")


def resident_bytes(pid: int) -> int | None:
    """All memory of a process that is not swapped out, files that it maps included, in bytes; None likewise."""
    return _memory(pid, "VmRSS")


def _memory(pid: int, field: str) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
