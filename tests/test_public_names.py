"""The public names are those of the checked-in list: adding or removing one is a visible change."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import disstream

LIST = Path(__file__).with_name("public_names.txt")
MODULES = (
    "disstream",
    "disstream.blocking",
    "disstream.client",
    "disstream.consumer",
    "disstream.engine",
    "disstream.leases",
    "disstream.monitoring",
    "disstream.producer",
    "disstream.server",
    "disstream.testing",
)


def test_exports_are_the_listed_names() -> None:
    """`__all__` of public modules is sorted and resolves; together they are tests/public_names.txt, line for line."""
    found = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        names = list(module.__all__)
        assert names == sorted(names), f"{module_name}.__all__ is not sorted"
        assert len(names) == len(set(names))
        for name in names:
            getattr(module, name)
        found += [f"{module_name}.{name}" for name in names]
    listed = LIST.read_text().split()
    assert found == listed, f"not listed: {set(found) - set(listed)}; gone: {set(listed) - set(found)}"


def test_what_runs_is_what_type_checkers_see() -> None:
    """`disstream` fetches each public name from the room that its imports for type checkers name, and no other name."""
    assert disstream.__file__ is not None
    seen: dict[str, str | None] = {}
    for node in ast.walk(ast.parse(Path(disstream.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            seen |= {alias.name: node.module for alias in node.names}
    assert seen == disstream._ROOM_OF
    assert set(disstream.__all__) == {*seen, "__version__"}
    assert set(dir(disstream)) >= set(disstream.__all__)
    for name, room in disstream._ROOM_OF.items():
        assert getattr(disstream, name) is getattr(importlib.import_module(f"disstream.{room}"), name)
    assert disstream.engine is importlib.import_module("disstream.engine")
    with pytest.raises(ImportError, match="cannot import name 'Consumers' from 'disstream'"):
        exec("from disstream import Consumers")
