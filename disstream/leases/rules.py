"""What every lease store refuses before it asks anybody, and the states all of them go through.

new -> starting -> open -> closed        starting -> new when the start failed; any -> closed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import ClosedError, ConfigError
from .api import MAX_KEY_BYTES, MAX_KEY_CHARS, MAX_TEXT_CHARS, Swap

DEFAULT_TIMEOUT_S = 5.0
"""Below a third of the usual session (30 s), so that a renewal that failed can be tried again before its lease ends."""


class Life:
    """Where a store is in its life; `name` tells it in messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = "new"

    @property
    def closed(self) -> bool:
        return self._state == "closed"

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around what opens the store. Raises ClosedError if it may not be started, or was closed meanwhile."""
        if self._state != "new":
            raise ClosedError(f"{self._name} was started already: make a new one, or take a twin()")
        self._state = "starting"
        try:
            yield
        except BaseException:
            if not self.closed:
                self._state = "new"
            raise
        self.check_wanted()
        self._state = "open"

    def check_wanted(self) -> None:
        """Raise ClosedError if it was closed meanwhile: then what was opened is to be let go of."""
        if self.closed:
            raise ClosedError(f"{self._name} was closed while it was started")

    def check(self) -> None:
        """Raise ClosedError unless it is open."""
        if self._state == "open":
            return
        if self.closed:
            raise ClosedError(f"{self._name} is closed")
        raise ClosedError(f"{self._name} is not started: await its start()")

    def close(self) -> None:
        self._state = "closed"


def check_timeout(timeout_s: float) -> None:
    # Written so that NaN is refused too.
    if not 0 < timeout_s <= 3600:
        raise ConfigError(f"timeout_s={timeout_s!r}: give the seconds that a call may take, more than 0, up to 3600")


def check_read(app: str, prefix: str) -> None:
    _check_name("the app", app)
    if prefix:
        _check_name("the prefix", prefix)


def check_swaps(app: str, swaps: Sequence[Swap]) -> None:
    _check_name("the app", app)
    seen = set()
    for key, expected, text in swaps:
        _check_name("the key", key)
        if key in seen:
            raise ConfigError(
                f"the key {key!r:.80} is changed twice in one call: ask for one change of a row at a time"
            )
        seen.add(key)
        if text is not None:
            _check_text(f"the text of {key!r:.80}", text, 0, MAX_TEXT_CHARS)
        elif expected is None:
            raise ConfigError(f"the row {key!r:.80} is expected not to be there and to be deleted: leave it out")
        if expected is not None and not 0 <= expected < 2**63:
            raise ConfigError(f"version {expected!r} of {key!r:.80} was never given: expect one that was read")


def _check_name(what: str, value: str) -> None:
    size = _check_text(what, value, 1, MAX_KEY_CHARS)
    if size > MAX_KEY_BYTES:
        raise ConfigError(f"{what}, {value!r:.80}, takes {size} bytes as UTF-8: it may take {MAX_KEY_BYTES}")


def _check_text(what: str, value: str, least: int, most: int) -> int:
    """How many bytes it takes."""
    if not least <= len(value) <= most:
        raise ConfigError(f"{what}, {value!r:.80}, has {len(value)} characters: it may have {least} to {most}")
    if "\0" in value:
        raise ConfigError(f"{what}, {value!r:.80}, holds a NUL, which not every store keeps: leave it out")
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{what}, {value!r:.80}, holds half of a surrogate pair: it is no text") from None
