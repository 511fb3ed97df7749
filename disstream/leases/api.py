"""What a lease store must be able to do: keep small texts, and change each only if nobody else did.

The consumers of an app agree through such a store who reads which partition (`consumer.Leases`). A store knows nothing
of that: it keeps *rows*, each with a key, a text and a version, and has one way to change them, the compare-and-set
`swap`. The version is the fence: whoever was overtaken holds an old one, and what it writes is refused.

`disstream.testing.check_lease_store` decides whether a store keeps this contract; write your own and run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

MAX_KEY_CHARS = 500
"""Of a key, and of the name of an app. They have one at least."""

MAX_KEY_BYTES = 1_000
"""Of the same as UTF-8: what PostgreSQL can index of the two together."""

MAX_TEXT_CHARS = 16_384
"""Of the text of a row. No text, key or name holds a NUL or half of a surrogate pair: not every store can keep them."""


class Row(NamedTuple):
    version: int
    """Grows with each change of the row, and never comes back: not when it is deleted and made anew, not after a
    restart of the store."""
    text: str


class Swap(NamedTuple):
    """A change that is made only if the row is still as it was seen."""

    key: str
    expected: int | None
    """The version that was seen; None: there was no such row."""
    text: str | None
    """What it is to say; None: it is to be deleted."""


class LeaseStore(Protocol):
    """Rows of apps. Apps do not see each other's.

    Every method raises StoreUnavailable (a StorageError that is retryable) while the store cannot be reached, within a
    bounded time; of a `swap` that raised, each change may have been made or not, or is made a little later, unless its
    row is changed before. Cancelled, the same. It raises a StorageError that is not retryable once it finds that the
    store is not the one that was opened: emptied, replaced, gone. `read` and `swap` raise ClosedError before the start
    and after the close, and ConfigError for what no store keeps. A store belongs to the event loop that started it;
    there, any number of tasks may call it at once.
    """

    async def start(self) -> None:
        """Open it, and make what it keeps rows in unless that exists; several processes may do so at once.

        Raises ConfigError for what will not heal: a wrong address, no right to write. After a StoreUnavailable, or
        cancelled, it may be called again; ClosedError the second time otherwise.
        """

    async def close(self) -> None:
        """Let go of connections and files. Closing twice, or before a start, is fine."""

    async def read(self, app: str, prefix: str = "") -> dict[str, Row]:
        """The rows of `app` whose keys begin with `prefix`. Sees every change that was answered before it was asked."""

    async def swap(self, app: str, swaps: Sequence[Swap]) -> list[int | None]:
        """Try each change, for itself: its row's new version, or None if the row was not as expected.

        Keys are distinct, and nobody asks to delete what he expects not to be there: ConfigError. A deletion that was
        made answers with any number. What was answered survives the process,
        and with stores on disk a power loss.
        """

    def twin(self) -> LeaseStore | None:
        """The same store for another event loop, not started; None: it cannot be used from another."""
