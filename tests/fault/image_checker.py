"""Opens directories and compares them with what was told: `python image_checker.py`.

A process of its own, as LMDB may kill the one that opens what is damaged. Each line on stdin is a JSON object:
directory; told, the path of a file; kept, how many of its lines must be true, where the others may be. For each a line
on stdout: "ok", or what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from appender import CONFIGS
from ledger import Ledger, use, verify_used

from disstream.engine.embedded import EmbeddedEngine
from disstream.errors import DisError
from disstream.testing.engine import opened


async def check(directory: Path, told: list[str], kept: int) -> None:
    ledger = Ledger()
    for line in told[:kept]:
        ledger.add(line)
    for line in told[kept:]:
        ledger.add_possible(line)
    async with opened(EmbeddedEngine(directory, CONFIGS["never synced"])) as engine:
        await ledger.verify(engine)
        await use(engine)
    async with opened(EmbeddedEngine(directory, CONFIGS["never synced"])) as engine:
        await verify_used(engine)


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        told = Path(asked["told"]).read_text().splitlines()
        try:
            asyncio.run(check(Path(asked["directory"]), told, asked["kept"]))
        except (AssertionError, DisError) as exc:
            print(f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}", flush=True)
        else:
            print("ok", flush=True)


if __name__ == "__main__":
    main()
