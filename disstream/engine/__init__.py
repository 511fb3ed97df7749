"""Engines: where records and resources are kept.

api        the two protocols (`Log` for records, `Catalog` for everything else) and their value types
columns    rows as columns, which is how they travel and are stored (pure)
memory     both in plain containers; forgets everything; the oracle of the contract tests
embedded   both in one LMDB environment, durable, with group commit
rules      what every engine refuses before it touches its storage, and the sizes all of them keep to (pure)
writers    what a partition remembers of a producer, so that it stores each of its rows once (pure)
surplus    which rows have to go for partitions to hold no more than so many bytes (pure)
waiters    who wants to know when a partition grows: tasks that wait, and watches

The server's handlers call them; an engine knows nothing of HTTP, names, apps or tags. `disstream.testing.check_engine`
tells whether an engine keeps the contract.
"""

from .api import (
    AppendRefused,
    Batch,
    Bounds,
    Catalog,
    Engine,
    EngineStats,
    Entry,
    Known,
    Log,
    PartitionRef,
    Replayed,
    Row,
    Span,
    Surplus,
    Versioned,
    Writer,
)
from .columns import Columns, sizes_of

__all__ = [
    "AppendRefused",
    "Batch",
    "Bounds",
    "Catalog",
    "Columns",
    "Engine",
    "EngineStats",
    "Entry",
    "Known",
    "Log",
    "PartitionRef",
    "Replayed",
    "Row",
    "Span",
    "Surplus",
    "Versioned",
    "Writer",
    "sizes_of",
]
