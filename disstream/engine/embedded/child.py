"""A job on a data directory in a process of its own: what kills the reader of a damaged file does not kill us.

    parent  one line of JSON to the child's standard input: which function, and its arguments
    child   lines of JSON: how far it is, over and over; last its result, or the error

The child ends itself when nobody reads its lines any more, and cleans up then as it does on SIGTERM.
"""

from __future__ import annotations

import contextlib
import importlib
import os
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
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
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
                else:
                    doing = line.progress[0]
                    tell(*line.progress)
        except BaseException:
            process.terminate()
            process.wait()  # the block would not wait for long after a Ctrl-C
            raise
    if process.returncode < 0:
        raise Killed(-process.returncode, doing)
    if end is None or process.returncode:
        raise StorageError(f"the process that was {doing or 'starting'} ended with exit code {process.returncode}")
    if end.error is not None:
        raise StorageError(end.error)
    return msgspec.json.decode(end.result, type=kind)


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
