"""docs/compatibility.md is whole: every call, every number, and no test that does not exist."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from disstream.client import Client
from disstream.engine.memory import MemoryEngine
from disstream.server import App, ServerConfig
from disstream.wire.http import Request, Response
from disstream.wire.routes import ROUTES

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "compatibility.md").read_text()
CITED = re.compile(r"(?:\w+/)*test_\w+\.py::test_\w+")

NUMBERS = [*range(1, 19), *range(20, 33), *range(40, 68), *range(70, 74), *range(80, 100)]
"""Of the rows of disagreements."""

OF_IAM = {"create_token", "list_projects"}
NOT_A_METHOD = {
    "create_token": "the library asks for tokens by itself, wherever IAM is",
    "list_projects": "nobody needs it who knows the project",
    "update_stream_v2": "another path of update_stream",
    "openapi": "for machines",
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table rows of a section, its subsections included, without the heads."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


CALLS = [row for row in rows("Calls") if row[0].startswith("`")]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


class Nowhere:
    async def exchange(self, request: Request) -> Response:
        raise AssertionError("nothing is asked here")

    async def close(self) -> None:
        pass


def functions(path: Path) -> set[str]:
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("path", sorted({cited.partition("::")[0] for cited in CITED.findall(PAGE)}))
def test_cited_tests_exist(path: str) -> None:
    """Every test that the page names is one."""
    named = {name for cited, _, name in (found.partition("::") for found in CITED.findall(PAGE)) if cited == path}
    assert named <= functions(TESTS / path)


def test_whatever_looks_like_a_test_is_checked() -> None:
    """No name of a test escapes the search for its form."""
    assert Counter(re.findall(r"[\w/]+\.py::\w+", PAGE)) == Counter(CITED.findall(PAGE))
    assert len(set(CITED.findall(PAGE))) > 100


def test_every_disagreement_has_its_row() -> None:
    """Each number once, in order, with both sides and a test."""
    found = [row for row in rows("Where the documents disagree") if re.fullmatch(r"D\d\d", row[0])]
    assert [int(row[0][1:]) for row in found] == NUMBERS
    for number, documents, server, library, tests in found:
        assert all((documents, server, library)), number
        assert CITED.search(tests), number


def test_every_quirk_has_a_test() -> None:
    """What is done for official clients is shown."""
    found = rows("Quirks of official clients")[1:]
    assert len(found) >= 10
    assert all(CITED.search(tests) for _, tests in found)


def test_every_call_has_its_row() -> None:
    """The table of calls is the table of routes, in no other words; each row has a test."""
    documented = Counter(code(row[0])[0] for row in CALLS)
    assert documented == Counter(f"{route.method} /{'/'.join(route.path)}" for route in ROUTES)
    assert all(CITED.search(row[3]) for row in CALLS)


def test_every_section_has_its_call() -> None:
    """All 38 sections of chapters 5.1 to 5.7, over 32 calls, and IAM's two."""
    found: set[str] = set()
    own = [row for row in CALLS if re.match(r"[1-5]\.[0-9.]+(, | to |$)", row[1])]
    for row in [r for r in own if "path" not in r[1] and "classic" not in r[1]]:
        for first, last in re.findall(r"(\d\.[\d.]+)(?: to (\d\.[\d.]+))?", row[1]):
            chapter, _, low = first.rpartition(".")
            high = last.rpartition(".")[2] or low
            found |= {f"{chapter}.{n}" for n in range(int(low), int(high) + 1)}
    chapters = {"5.1": 8, "5.2": 5, "5.3": 3, "5.4": 3, "5.5": 10, "5.6": 2, "5.7": 7}
    assert found == {f"{c}.{n + 1}" for c, count in chapters.items() for n in range(count)} | {"1.3", "1.5"}
    assert sum(chapters.values()) == 38
    assert sum(row[1].startswith("5.") and "path" not in row[1] and "classic" not in row[1] for row in CALLS) == 32


async def test_every_call_has_a_handler() -> None:
    """The server answers each route itself, but IAM's and its own description."""
    engine = MemoryEngine()
    await engine.start()
    app = App(engine, ServerConfig(data_dir=None))
    assert {route.operation for route in ROUTES} == app._handlers.keys() | OF_IAM | {"openapi"}
    await engine.close()


def test_every_call_has_a_method() -> None:
    """The client asks for each operation somewhere, but for those that need no method; the methods named are there."""
    folder = TESTS.parent / "disstream" / "client"
    modules = [path for path in folder.glob("*.py") if path.name != "retry.py"]
    texts = {
        node.value
        for path in modules
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    operations = {route.operation for route in ROUTES}
    assert operations - texts == NOT_A_METHOD.keys()
    client = Client(Nowhere(), "p")
    named = [method for row in CALLS for method in code(row[2])]
    for method in named:
        resource, _, name = method.partition(".")
        assert callable(getattr(getattr(client, resource), name))
    without = {code(row[0])[0] for row in CALLS if row[2] == "-"}
    aliases = {path for path in without if "/stream/{stream_name}/" in path}
    assert len(without - aliases) == len(NOT_A_METHOD)
    resources = (
        "streams",
        "records",
        "cursors",
        "apps",
        "checkpoints",
        "groups",
        "policies",
        "dumps",
        "metrics",
        "tags",
        "notices",
    )
    public = {
        f"{resource}.{name}"
        for resource in resources
        for name, member in vars(type(getattr(client, resource))).items()
        if name[0] != "_" and callable(member)
    }
    assert public - {"records.put_encoded"} == set(named)  # the producer's


def test_every_method_of_the_official_clients_has_its_row() -> None:
    """The 33 and the 23 that the tests of the official clients call, each once."""
    source = (TESTS / "e2e" / "test_official_sdk.py").read_text()
    (methods,) = re.findall(r"^METHODS = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    current = [name for row in CALLS for name in code(row[4])]
    assert sorted(current) == sorted(re.findall(r'"(\w+)"', methods))
    assert len(current) == 33
    classic = [name for row in CALLS for name in code(row[5])]
    source = (TESTS / "e2e" / "official" / "classic.py").read_text()
    assert len(set(classic)) == len(classic) == 23
    assert all(f'"{name}"' in source for name in classic)
