"""Which row is the first one at or after a time, by looking at few batches. Pure.

Append times never decrease, and a batch that is looked at answers for all its rows: where they have different times,
for that of the last one, and what is found is the batch that holds the row.

Bisecting takes as many looks as the number of rows has binary digits, each at a page that nobody has read for long: of
ten gigabytes some twenty, which cost ten times what they do of ten megabytes. Records mostly come evenly, so the place
is guessed from the time instead: three or four looks. Every third look bisects all the same: however records came,
there are at most three times as many.

    low     rows below are before the time; `low_ms` is when the last of them was appended
    high    rows from here on are at or after it; `high_ms` is when the first of them was appended, or the last of all
"""

from __future__ import annotations


class Search:
    """Ask `probe` which row to look at and tell `told` of its batch, until there is none; then it is `found`."""

    def __init__(self, oldest: int, following: int, last_ms: int, time_ms: int) -> None:
        """Rows from `oldest` to before `following`, none of which is later than `last_ms`."""
        self._time_ms = time_ms
        self._low = following if time_ms > last_ms else oldest
        self._high = following
        self._low_ms: int | None = None
        self._high_ms = last_ms
        self._probes = 0

    @property
    def found(self) -> int:
        """`following` if there is no such row."""
        assert self._low == self._high, (self._low, self._high)
        return self._low

    def probe(self) -> int | None:
        """The sequence number whose batch has to be looked at; None: none."""
        if self._low >= self._high:
            return None
        self._probes += 1
        if self._low_ms is None:
            return self._low  # the oldest first: retention asks for it again and again
        middle = (self._low + self._high) // 2
        span_ms = self._high_ms - self._low_ms
        if self._probes % 3 == 0 or span_ms <= 0:
            return middle
        guess = self._low + (self._high - self._low) * (self._time_ms - self._low_ms) // span_ms
        return min(guess, self._high - 1)

    def told(self, probe: int, first: int, last: int, append_ms: int) -> None:
        """The batch that holds that row, or the next one if it is gone, goes from `first` to `last`."""
        if append_ms >= self._time_ms:
            self._high, self._high_ms = min(probe, max(first, self._low)), append_ms
        else:
            self._low, self._low_ms = min(last + 1, self._high), append_ms

    def check(self) -> None:
        """Assert that it can go on."""
        assert self._low <= self._high
        if self._low_ms is not None:
            assert self._low_ms < self._time_ms, (self._low_ms, self._time_ms)
        if self._low < self._high:
            assert self._time_ms <= self._high_ms, (self._time_ms, self._high_ms)
