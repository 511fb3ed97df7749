"""Opens directories and compares them with what was told: `python image_checker.py`.

A process of its own, as LMDB may kill the one that opens what is damaged. Each line on stdin is a JSON object:
directory; told, the path of a file; done, how many of its lines must be true; begun, how many more may be. For each a
line on stdout: "ok", or what is wrong.
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


async def check(directory: Path, told: list[str], done: int) -> None:
    ledger = Ledger()
    for line in told[:done]:
        ledger.add(line)
    for line in told[done:]:
        ledger.add_possible(line)
    async with opened(EmbeddedEngine(directory, CONFIGS["never synced"])) as engine:
        await ledger.verify(engine)
        await use(engine)
    async with opened(EmbeddedEngine(directory, CONFIGS["never synced"])) as engine:
        await verify_used(engine)


def main() -> None:
    files: dict[str, list[str]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        told = files.setdefault(asked["told"], Path(asked["told"]).read_text().splitlines())
        try:
            asyncio.run(check(Path(asked["directory"]), told[: asked["done"] + asked["begun"]], asked["done"]))
        except (AssertionError, DisError) as exc:
            print(f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}", flush=True)
        else:
            print("ok", flush=True)


if __name__ == "__main__":
    main()
