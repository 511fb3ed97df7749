"""Rows for people and for pipes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on a terminal; in a pipe one line a row, its fields separated by tabs, and no header."""
    if sys.stdout is None or not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
