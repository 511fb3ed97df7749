"""The public names are those of the checked-in list: adding or removing one is a visible change."""

from __future__ import annotations

import importlib
from pathlib import Path

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
