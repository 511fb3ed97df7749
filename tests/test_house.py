"""The house stands: imports only go down, rooms of one floor do not know each other, and what decides does no IO."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "disstream"

# Room -> what it may import besides itself. What is not named here is the roof and may import anything.
WORDS = {"model", "errors", "clock", "destinations", "__version__"}
BELOW_EDGES = WORDS | {"wire", "lifecycle"}
MAY_IMPORT = {
    "model": WORDS,
    "errors": WORDS,
    "clock": WORDS,
    "destinations": WORDS,
    "wire": WORDS,
    "lifecycle": WORDS,
    "client": BELOW_EDGES,
    "engine": BELOW_EDGES,
    "leases": BELOW_EDGES,
    "producer": BELOW_EDGES | {"client"},
    "consumer": BELOW_EDGES | {"client", "leases"},
    "server": BELOW_EDGES | {"engine"},
}
FOREIGN = {  # rooms that keep to few dependencies: what they may import besides the standard library
    "model": {"msgspec"},
    "errors": set[str](),
    "clock": set[str](),
    "destinations": {"msgspec"},
    "wire": {"google", "lz4", "msgspec", "orjson", "snappy", "zstandard"},
    "lifecycle": {"anyio"},
}
# Modules that decide and do nothing else, beside all of wire/.
PURE = [
    "bench/check.py",
    "bench/ledger.py",
    "bench/timing.py",
    "cli/findings.py",
    "cli/formats.py",
    "client/retry.py",
    "engine/columns.py",
    "engine/embedded/batch.py",
    "engine/embedded/heat.py",
    "engine/embedded/merging.py",
    "engine/embedded/header.py",
    "engine/embedded/seeking.py",
    "engine/rules.py",
    "engine/surplus.py",
    "engine/writers.py",
    "consumer/assignment.py",
    "monitoring/names.py",
    "consumer/claims.py",
    "consumer/cursor.py",
    "consumer/hints.py",
    "consumer/layouts.py",
    "consumer/lease.py",
    "consumer/outage.py",
    "consumer/prefetch.py",
    "consumer/progress.py",
    "consumer/rows.py",
    "consumer/watching.py",
    "leases/api.py",
    "leases/rules.py",
    "producer/accumulator.py",
    "producer/bodies.py",
    "producer/answers.py",
    "producer/ends.py",
    "producer/lanes.py",
    "producer/layout.py",
    "producer/numbers.py",
    "producer/outcome.py",
    "producer/pacing.py",
    "producer/payload.py",
    "producer/picking.py",
    "producer/shares.py",
    "producer/shipment.py",
    "producer/sketch.py",
    "producer/traffic.py",
    "server/admission.py",
    "server/audit.py",
    "server/autoscale.py",
    "server/blacklist.py",
    "server/call.py",
    "server/creation.py",
    "server/destinations.py",
    "server/documents.py",
    "server/flow.py",
    "server/frames.py",
    "server/dumping.py",
    "server/group.py",
    "server/heartbeat.py",
    "server/layout.py",
    "server/recent.py",
    "server/meter.py",
    "server/quotas.py",
    "server/relay.py",
    "server/reshape.py",
    "server/rights.py",
    "server/schemas.py",
    "server/sessions.py",
    "server/tagging.py",
    "server/tokens.py",
    "server/toml.py",
    "server/users.py",
    "worker/held.py",
    "worker/lanes.py",
    "worker/outbox.py",
    "worker/queues.py",
    "worker/stats.py",
    "worker/letters.py",
    "worker/parking.py",
    "worker/plan.py",
    *(f"wire/{path.name}" for path in sorted((PACKAGE / "wire").glob("*.py"))),
]
IMPURE = {"asyncio", "anyio", "time", "os", "logging", "aiohttp", "threading", "socket"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Absolute dotted names that a module imports, wherever in it; `from x import y` gives x.y."""
    here = ("disstream", *path.relative_to(PACKAGE).parts)[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = here[: len(here) - node.level + 1] if node.level else ()
            base = ".".join((*parent, node.module) if node.module else parent)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """A module imports only from its own room and from the floors its room stands on."""
    allowed = MAY_IMPORT.get(room(path))
    for name in imports(path):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top == "disstream" and allowed is not None:
            assert target in allowed | {room(path)}, f"{room(path)} must not know {name}"
        elif top != "disstream" and room(path) in FOREIGN:
            known = sys.stdlib_module_names | FOREIGN[room(path)]
            assert top in known, f"{room(path)} must do without {top}"


@pytest.mark.parametrize("name", PURE)
def test_what_decides_does_no_io(name: str) -> None:
    """The pure modules exist and import nothing that waits, sends, reads a clock or logs."""
    found = {imported.partition(".")[0] for imported in imports(PACKAGE / name)}
    assert not found & IMPURE


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda p: p.parent.name)
def test_the_map_of_a_room_is_complete(path: Path) -> None:
    """A package's docstring names every module in it: where a stranger looks first."""
    told = set(re.findall(r"\w+", ast.get_docstring(ast.parse(path.read_text())) or ""))
    modules = {module.stem for module in path.parent.glob("*.py")} | {
        p.parent.name for p in path.parent.glob("*/__init__.py")
    }
    assert not modules - {"__init__"} - told


def test_every_room_has_a_map() -> None:
    """Each package tells in its docstring what lives in it, and no module is left without one."""
    for path in SOURCES:
        if path.stat().st_size or path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_checks_see_something() -> None:
    """The walk above finds the sources and resolves relative imports, so that silence means order."""
    assert len(SOURCES) > 20
    assert "disstream.errors.ConfigError" in set(imports(PACKAGE / "wire" / "routes.py"))
    assert "disstream.wire.body.decode_answer" in set(imports(PACKAGE / "wire" / "records.py"))
