"""What figures were measured on, and what they cost."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("aiohttp", "msgspec", "lmdb", *(["uvloop"] if sys.platform != "win32" else []))


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
