"""Compares what a client understood with what must be there, leaf by leaf.

Runs under the interpreter that has the official clients, never under disstream's own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

MAX_HASH_KEY = 2**63 - 1
STARTED_MS = int(time.time() * 1000)


class Key(NamedTuple):
    ak: str
    sk: str
    security_token: str | None = None


class World(NamedTuple):
    """Where the server is, and who may do what on it."""

    url: str
    keys: dict[str, Key]


class Findings:
    """Counts what was compared, keeps what differs and which methods of the client answered."""

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.compared = 0
        self.failures: list[str] = []

    def equal(self, what: str, found: Any, wanted: Any) -> None:
        """Compares to the last leaf; types count. A function in `wanted` tells whether the value is right."""
        leaves = list(_leaves(found, wanted, what))
        self.compared += len(leaves)
        self.failures += [leaf for leaf in leaves if leaf]


def _leaves(found: Any, wanted: Any, where: str) -> Iterator[str]:
    """A line for each leaf: empty if it is right."""
    if callable(wanted):
        yield "" if wanted(found) else f"{where} is {found!r}, not {wanted.__doc__}"
    elif isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from _leaves(found.get(key), wanted.get(key), f"{where}: {key}")
    elif isinstance(found, list | tuple) and isinstance(wanted, list | tuple) and len(found) == len(wanted):
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _leaves(one, other, f"{where}[{index}]")
    elif type(found) is type(wanted) and found == wanted:
        yield ""
    else:
        yield f"{where} is {found!r}, not {wanted!r}"


# --- what is not known to the letter ---


def recent_ms(value: Any) -> bool:
    """a time since these tests began, in ms"""
    return type(value) is int and STARTED_MS <= value <= time.time() * 1000 + 1


def matching(pattern: str, what: str) -> Callable[[Any], bool]:
    def matches(value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(pattern, value) is not None

    matches.__doc__ = what
    return matches


identifier = matching(r"[A-Za-z0-9]{19}", "an id of 19 letters and digits")
request_id = matching(r"[0-9a-f]{32}", "a request id")
a_cursor = matching(r"[A-Za-z0-9_=-]{1,512}", "a cursor of at most 512 characters that need no escaping")


def beginning(text: str) -> Callable[[Any], bool]:
    def begins(value: Any) -> bool:
        return isinstance(value, str) and value.startswith(text)

    begins.__doc__ = f"beginning with {text!r}"
    return begins


def shard(number: int) -> str:
    return f"shardId-{number:010d}"


def partition(number: int, count: int, written: int = 0) -> dict[str, Any]:
    """One of `count` equal partitions into which `written` records went, as the SDK shows it."""
    share = MAX_HASH_KEY // count
    last = MAX_HASH_KEY if number == count - 1 else (number + 1) * share - 1
    return {
        "partition_id": shard(number),
        "status": "ACTIVE",
        "hash_range": f"[{number * share} : {last}]",
        "sequence_number_range": f"[0 : {written}]",
    }
