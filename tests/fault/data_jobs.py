"""Jobs on data directories, each in a fork of one process that has imported all of it: `python data_jobs.py`.

Each line on stdin is a job as JSON: {"job": "check", "arguments": [...], "line": n}. With `line`, the fork kills itself
before it runs the n-th line of the modules that look after directories, counted as they come, each line once. One line
on stdout tells how it ended: {"signal": n}, {"error": text} or {"result": ...}.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from disstream.engine.embedded import backup, check, copying, visit
from disstream.errors import StorageError

JOBS: dict[str, Callable[..., Any]] = {
    "check": check.check,
    "backup": backup.backup,
    "restore": backup.restore,
    "compact": backup.compact,
}
TRACED = {backup.__file__, copying.__file__, visit.__file__}


class Jobs:
    """The other side: a process that runs jobs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, job: str, *arguments: str, line: int | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"job": job, "arguments": arguments, "line": line}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextlib.contextmanager
def jobs() -> Iterator[Jobs]:
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Jobs(process)
        finally:
            process.kill()


def wait_for_ever(marker: str, tell: visit.Tell) -> None:
    """Tells that it began; tells in `marker` that it was ended in order."""
    try:
        tell("waiting", 0, 1)
        signal.pause()
    finally:
        Path(marker).touch()


def tell_for_ever(marker: str, tell: visit.Tell) -> None:
    """Likewise, until nobody listens."""
    try:
        for doing in itertools.cycle(("this", "that")):
            tell(doing, 0, 1)
    finally:
        Path(marker).touch()


def lingers(tell: visit.Tell) -> int:
    """It says what went wrong, and then does not end."""
    threading.Thread(target=signal.pause, name="lingers").start()
    raise StorageError("it hung")


def tells_much(marker: str, tell: visit.Tell) -> None:
    """More lines than a pipe holds; then it opens the FIFO `marker`."""
    for number in range(3_000):
        tell(f"{number} " + "x" * 100, 0, 1)
    Path(marker).write_text("done")


def dies(tell: visit.Tell) -> None:
    """Of a signal, after it told what it does."""
    tell("dying", 0, 1)
    os.kill(os.getpid(), signal.SIGSEGV)


def dies_telling(tell: visit.Tell) -> None:
    """In the middle of a long line."""
    tell("telling", 0, 1)
    os.write(1, b'{"result": [1, 2')
    os.kill(os.getpid(), signal.SIGKILL)


def fails(tell: visit.Tell) -> None:
    """Of a bug."""
    tell("failing", 0, 1)
    os._exit(3)


def refuses(tell: visit.Tell) -> None:
    """For a reason that the system gave."""
    (Path("/proc") / "nothing").touch()


def _killed_at(number: int) -> Callable[[FrameType, str, Any], Any]:
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) > number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def _work(request: dict[str, Any]) -> dict[str, Any]:
    if request["line"] is not None:
        sys.settrace(_killed_at(request["line"]))
    try:
        result = JOBS[request["job"]](*request["arguments"], lambda *told: None)
    except StorageError as exc:
        return {"error": str(exc)}
    return {"result": msgspec.to_builtins(result)}


def _main() -> None:
    for line in sys.stdin:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(theirs, json.dumps(_work(json.loads(line))).encode())
            os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        print(told.decode() if ended == 0 else json.dumps({"signal": -ended}), flush=True)


if __name__ == "__main__":
    _main()
