"""A job on a data directory in a process of its own: what kills the reader of a damaged file does not kill us.

    parent  one line of JSON to the child's standard input: which function, and its arguments
    child   lines of JSON: how far it is, over and over; last its result, or the error

The child ends itself when nobody reads its lines any more, and cleans up then as it does on SIGTERM. It never waits for
somebody to read how far it is: it may hold a snapshot, and a parent that was stopped (Ctrl-Z) must not prolong that.
The parent does not wait for the end of a child that has told its result, and cannot end because its disk hangs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ...errors import DisError, StorageError
from .visit import Tell

T = TypeVar("T")

TELL_INTERVAL_S = 0.05

END_S = 10.0
"""How long a child may take to end, once it has told its result."""


class Killed(StorageError):
    """The child was killed by a signal, as LMDB is when the file is not what it believes."""

    def __init__(self, number: int, doing: str) -> None:
        self.signal = signal.Signals(number).name
        self.doing = doing
        super().__init__(
            f"killed by {self.signal} while {doing or 'starting'}: if nobody sent that, the file is damaged: restore a "
            "backup"
        )


class _Request(msgspec.Struct):
    job: str
    arguments: dict[str, Any]


class _Line(msgspec.Struct, omit_defaults=True):
    """Exactly one of them is there."""

    progress: tuple[str, int, int] | None = None
    error: str | None = None
    result: msgspec.Raw = msgspec.Raw()


_line = msgspec.json.Decoder(_Line)


def _silent(doing: str, done: int, total: int) -> None:
    return None


def apart(job: Callable[..., T], kind: type[T], tell: Tell = _silent, **arguments: Any) -> T:
    """Call `job(tell=..., **arguments)`, a function of a module, in a child, and wait for its result, a `kind`.

    Arguments and result travel as JSON. Raises StorageError as the job does, and Killed.
    """
    request = _Request(f"{job.__module__}:{job.__qualname__}", arguments)
    # Our own path: what the child imports shall be what we have imported, wherever it is started.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    doing = ""
    end: _Line | None = None
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended at once: its exit code tells
                process.stdin.write(msgspec.json.encode(request) + b"\n")
                process.stdin.close()
            for text in process.stdout:
                if not text.endswith(b"\n"):
                    break  # it was killed in the middle of a line
                line = _line.decode(text)
                if line.progress is None:
                    end = line
                    break
                doing = line.progress[0]
                tell(*line.progress)
            code_of_end = _wait(process) if end is not None else process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code_of_end < 0:
        raise Killed(-code_of_end, doing)
    if end is None or code_of_end:
        raise StorageError(f"the process that was {doing or 'starting'} ended with exit code {code_of_end}")
    if end.error is not None:
        raise StorageError(end.error)
    return msgspec.json.decode(end.result, type=kind)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code of one that has told its result; 0 if it does not end, and had to be left."""
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # the system cannot end it before its disk answers
        process.wait(END_S)
    return 0


def main() -> None:
    """The child."""
    signal.signal(signal.SIGTERM, _end)
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Request)
    module, _, name = request.job.partition(":")
    told_at, told = 0.0, ""

    def tell(doing: str, done: int, total: int) -> None:
        nonlocal told_at, told
        now = time.monotonic()
        if doing != told or now - told_at >= TELL_INTERVAL_S or done == total:
            if not select.select([], [1], [], 0)[1]:  # the pipe is full; where there is room, a line goes at once
                return
            told_at, told = now, doing
            _write(_Line(progress=(doing, done, total)))

    try:
        result = getattr(importlib.import_module(module), name)(tell=tell, **request.arguments)
    except BrokenPipeError:
        sys.exit(1)
    except DisError as exc:
        _write(_Line(error=str(exc)))
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        _write(_Line(error=f"{exc.strerror or exc}{where}; check the disk and its permissions"))
    else:
        _write(_Line(result=msgspec.Raw(msgspec.json.encode(result))))


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _write(line: _Line) -> None:
    text = msgspec.json.encode(line) + b"\n"
    while text:
        text = text[os.write(1, text) :]
