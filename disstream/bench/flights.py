"""Rows of a CSV file (also gzipped) as numbered records: JSON objects, keyed by a column."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import ConfigError

ROW_FIELD = "row"
"""The field that carries the record's number."""

SHIPPED = Path(__file__).parents[2] / "examples" / "data" / "flights-2013.csv.gz"
"""In a checkout of the repository; the installed package comes without it."""


class Row(NamedTuple):
    data: bytes
    key: str | None


class RowNumber(msgspec.Struct):
    """The part of a record that the checker needs."""

    row: int


def read_rows(path: Path, key_column: str) -> list[Row]:
    """Every row, in file order. Whole numbers become JSON numbers, empty fields null; an empty key field is no key.

    Raises ConfigError for a file that is no such table, has no rows, or would lose a column.
    """
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", newline="", encoding="utf-8-sig") as text:
            rows = list(_rows(csv.reader(text), key_column, path))
    except FileNotFoundError as exc:
        raise ConfigError(f"there is no file {path}") from exc
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{path} cannot be read as CSV: {exc}") from exc
    if not rows:
        raise ConfigError(f"{path} has a header and no rows: there is nothing to send")
    return rows


def _rows(table: Iterator[Sequence[str]], key_column: str, path: Path) -> Iterator[Row]:
    header = next(table, None) or []
    if key_column not in header:
        raise ConfigError(f"{path} has no column {key_column!r} to take the key from; it has: {', '.join(header)}")
    for name, count in Counter([*header, ROW_FIELD]).items():
        if count > 1:
            taken = "is taken by the record's number" if name == ROW_FIELD else "occurs more than once"
            raise ConfigError(f"{path}: column {name!r} {taken}: rename it in the header, or it is lost")
    key_at = header.index(key_column)
    encode = msgspec.json.Encoder().encode
    for number, fields in enumerate(table):
        if len(fields) != len(header):
            raise ConfigError(f"{path}: row {number + 1} has {len(fields)} fields, the header has {len(header)}")
        row = dict(zip(header, map(_value, fields), strict=True))
        row[ROW_FIELD] = number
        yield Row(encode(row), fields[key_at] or None)


def _value(text: str) -> str | int | None:
    if not text:
        return None
    digits = text.removeprefix("-")
    if digits.isdigit() and digits.isascii() and len(digits) < 16 and (digits[0] != "0" or text == "0"):
        return int(text)
    return text
