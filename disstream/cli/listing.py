"""Rows for people and for pipes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .running import say

MIN_ELASTIC = 8
"""Cells that an elastic column keeps, however narrow the terminal."""


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], *, elastic: Sequence[str], title: str = "") -> None:
    """A table on a terminal; in a pipe one line a row, its fields separated by tabs, and no header.

    The `elastic` columns wrap where the terminal is too narrow. The others are never cut: where not even they fit, the
    table is wider than the terminal.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        for row in rows:
            say("\t".join(row))
        return
    # Here, because scripts call these commands by the hundred, and see no table.
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    needed = 2 * (len(columns) - 1)  # between them
    for i, column in enumerate(columns):
        widest = max(cell_len(text) for text in (column, *(row[i] for row in rows)))
        may_wrap = column in elastic
        needed += min(widest, MIN_ELASTIC) if may_wrap else widest
        table.add_column(column, no_wrap=not may_wrap, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    console.width = max(console.width, needed)
    if title:
        console.print(Text(title), soft_wrap=True)
    console.print(table)
