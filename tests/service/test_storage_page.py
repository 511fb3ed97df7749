"""docs/storage.md: the bytes it draws are the bytes that are stored, and its commands and its example run."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from disstream.engine.api import Entry, PartitionRef, Row, Writer
from disstream.engine.embedded import EmbeddedConfig, EmbeddedEngine
from disstream.engine.embedded.environment import FORMAT, Environment
from disstream.engine.embedded.visit import TABLES
from disstream.testing.engine import opened

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "storage.md").read_text()
CONFIG = EmbeddedConfig(map_size_bytes=1 << 30)
S1, S2 = PartitionRef("s1", 0), PartitionRef("s2", 0)


def drawn(table: str) -> list[tuple[bytes, bytes]]:
    """Keys and values of a table as the page draws them: hex up to the first two spaces, then words."""
    (block,) = re.findall(rf"^```table {table}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    parts: list[tuple[str, str]] = []
    for line in block.splitlines():
        kind, text = line[:7].strip(), re.split(r" {2,}", line[7:])[0]
        if kind:
            parts.append((kind, text))
        else:
            parts[-1] = (parts[-1][0], parts[-1][1] + text)
    assert [kind for kind, _ in parts] == ["key", "value"] * (len(parts) // 2)
    texts = [bytes.fromhex(text) for _, text in parts]
    return list(zip(texts[::2], texts[1::2], strict=True))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[bytes, bytes]]]:
    """What the engine writes when the steps of the page are done."""
    directory = tmp_path_factory.mktemp("page")

    async def steps() -> None:
        async with opened(EmbeddedEngine(directory, CONFIG)) as engine:
            await engine.log.open({S1: 1})
            await engine.log.open({S2: 1})
            rows = [Row(b"hi", "k"), Row(b"!", None, 7)]
            await engine.log.append([Entry(S1, rows, 1, Writer("0" * 31 + "2", 0, 0, 1))], 1000)
            await engine.log.append([Entry(S1, [Row(b"x")], 1)], 1001)
            await engine.log.trim(S1, 1)
            await engine.catalog.transact({}, {"app/demo/billing": b'{"app_id":"a"}'})

    asyncio.run(steps())
    env = Environment(directory, CONFIG)
    with env.env.begin(write=True) as txn:
        env.drop_states(txn, "s2")  # as `drop` does it; what it leaves is swept at once there
    env.close()
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    with lmdb.Environment(os.fspath(directory), max_dbs=9, readonly=True) as opened_again, opened_again.begin() as txn:
        for name in TABLES:
            table = opened_again.open_db(name.encode(), txn=txn, create=False)
            found[name] = [(bytes(key), bytes(value)) for key, value in txn.cursor(db=table)]
        assert sorted(bytes(name).decode() for name, _ in txn.cursor()) == sorted(TABLES)
    return found


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_are_as_drawn(stored: dict[str, list[tuple[bytes, bytes]]], table: str) -> None:
    """Byte by byte, and nothing beside it."""
    told = [(key.hex(" ", -4), value.hex(" ", -4)) for key, value in stored[table]]
    assert drawn(table) == stored[table], told


def test_the_formats_of_the_page() -> None:
    """There is a row for each, up to the one that is written."""
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert rows == list(range(1, FORMAT + 1))


@pytest.mark.long
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """Backup, check and restore run as written; then the example in Python copies what was restored."""
    program = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}"}

    async def fill() -> None:
        async with opened(EmbeddedEngine(tmp_path / "disstream-data", CONFIG)) as engine:
            await engine.catalog.transact({}, {"unknown/document": b"x"})

    asyncio.run(fill())
    (script,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    script = script.replace("/backup/", f"{tmp_path}/backup/").replace("latest disstream-data", "latest again")
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for command in (["bash", "-euc", script], [sys.executable, "-W", "error", "-c", example]):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str((tmp_path / "copy" / "data.mdb").stat().st_size)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["data.mdb", "disstream.lock"]
