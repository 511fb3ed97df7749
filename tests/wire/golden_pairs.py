"""The pairs in golden/: a request and an answer as the reference prints them, and where we differ from its print.

    request, response   the example; `{project_id}` in the target stands for a project
    client              what our client sends beside (`query`, `body`; also instead), and what it does not (`without`)
    server              `status`, if it is another; the places in the answer where ours has more (`beside`), nothing
                        (`without`), another value (`other`) or another type of value (`type`) than the example

A pair of one section has its name; what others print there follows behind a point.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent / "golden"
PROJECT = "p"


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    method: str
    target: str
    body: Any = None


class _Response(msgspec.Struct, forbid_unknown_fields=True):
    status: int
    headers: dict[str, str] = {}
    body: Any = None


class _Client(msgspec.Struct, forbid_unknown_fields=True):
    query: dict[str, str] = {}
    body: dict[str, Any] = {}
    without: list[str] = []


class _Server(msgspec.Struct, forbid_unknown_fields=True):
    status: int | None = None
    beside: list[str] = []
    without: list[str] = []
    other: list[str] = []
    type: list[str] = []

    def told(self) -> dict[str, list[str]]:
        """As `differences` tells it."""
        kinds = {"beside": self.beside, "without": self.without, "other": self.other, "type": self.type}
        return {kind: sorted(places) for kind, places in kinds.items() if places}


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    request: _Request
    response: _Response
    client: _Client = msgspec.field(default_factory=_Client)
    server: _Server = msgspec.field(default_factory=_Server)
    about: str = ""

    @property
    def target(self) -> str:
        return self.request.target.replace("{project_id}", PROJECT)

    def sent(self) -> Any:
        """The body that our client sends; None for none."""
        if self.request.body is None:
            return None
        body = _joined(copy.deepcopy(self.request.body), self.client.body)
        for place in self.client.without:
            *way, last = place.split(".")
            held = body
            for key in way:
                held = held[key]
            del held[last]
        return body


PAIRS = {path.stem: msgspec.json.decode(path.read_bytes(), type=Pair) for path in sorted(FOLDER.glob("*.json"))}


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: _joined(one.get(key), value) for key, value in other.items()}}
    return other


def differences(printed: Any, ours: Any) -> dict[str, list[str]]:
    """Kind -> places, in order, like {"beside": ["tags[0].value"]}."""
    found: dict[str, list[str]] = defaultdict(list)
    for kind, place in _differences(printed, ours, ""):
        found[kind].append(place)
    return {kind: sorted(places) for kind, places in found.items()}


def _differences(printed: Any, ours: Any, place: str) -> Iterator[tuple[str, str]]:
    if type(printed) is not type(ours):
        yield "type", place
    elif isinstance(printed, dict):
        inner = f"{place}." if place else ""
        yield from (("without", f"{inner}{key}") for key in printed.keys() - ours.keys())
        yield from (("beside", f"{inner}{key}") for key in ours.keys() - printed.keys())
        for key in printed.keys() & ours.keys():
            yield from _differences(printed[key], ours[key], f"{inner}{key}")
    elif isinstance(printed, list):
        yield from (("without", f"{place}[{i}]") for i in range(len(ours), len(printed)))
        yield from (("beside", f"{place}[{i}]") for i in range(len(printed), len(ours)))
        for i, (one, other) in enumerate(zip(printed, ours, strict=False)):
            yield from _differences(one, other, f"{place}[{i}]")
    elif printed != ours:
        yield "other", place


def parsed(body: bytes) -> Any:
    """None for no body."""
    return json.loads(body) if body else None
