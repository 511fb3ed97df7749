"""Exercises every method of both clients of the official Python SDK on a DIS endpoint; tells what came of it as JSON
lines.

    python exercise_all.py < world.json     {"url": "http://...", "keys": {"owner": ["AK", "SK"], ...}}

The first line names the version of the SDK, the methods it has, and the exercises there are; then follows a line for
each exercise and way. Every one works in a project of its own, `{exercise}-{way}`, so that lists and totals are exact.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import traceback

from compare import Key, World
from huaweicloudsdkdis import v2
from instrument import CASES, METHODS, WAYS, Exercise, Sdk

for _module in ("stream", "record", "app", "task", "metric", "tag"):
    importlib.import_module(f"{_module}_methods")
importlib.import_module("sign_in_cases")


def tell(**line: object) -> None:
    print(json.dumps(line), flush=True)


def run(world: World, name: str, function: Exercise, way: str) -> None:
    sdk = Sdk(world, f"{name}-{way}", way)
    try:
        function(sdk)
    except Exception:  # whatever it is, it concerns this exercise alone
        sdk.failures.append(traceback.format_exc(limit=-4))
    if name in METHODS and name not in sdk.answered:
        sdk.failures.append(f"{name} never answered")
    tell(name=name, way=way, compared=sdk.compared, failures=sdk.failures)


def main() -> None:
    given = json.load(sys.stdin)
    world = World(given["url"], {user: Key(*key) for user, key in given["keys"].items()})
    methods = [name for name in dir(v2.DisClient) if hasattr(v2.DisClient, f"{name}_invoker")]
    version = importlib.metadata.version("huaweicloudsdkdis")
    tell(version=version, methods=methods, exercised=sorted(METHODS), cases=sorted(CASES))
    for name, function in (METHODS | CASES).items():
        for way in WAYS:
            run(world, name, function, way)


if __name__ == "__main__":
    main()
