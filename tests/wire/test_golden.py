"""The examples of the reference: our client sends them and understands them, our server takes and gives them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from golden_cases import CASES
from golden_pairs import PAIRS, PROJECT, Pair, differences, parsed
from golden_worlds import CONFIGS, WORLDS, World

from disstream.client import Client, ClientConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import DisError
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.wire.http import JSON, Request, Response, split_target

each_pair = pytest.mark.parametrize("name", PAIRS)


class Example:
    """A transport that has the example's answer; notes what was asked."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.asked: list[Request] = []

    async def exchange(self, request: Request) -> Response:
        self.asked.append(request)
        answer = self._pair.response
        body = b"" if answer.body is None else json.dumps(answer.body).encode()
        return Response(status=answer.status, headers={"content-type": JSON, **answer.headers}, body=body)

    async def close(self) -> None:
        pass


@each_pair
async def test_the_client(name: str) -> None:
    """It sends the example's request, for the same call, and makes of the example's answer what stands in it."""
    pair, case = PAIRS[name], CASES[name]
    example = Example(pair)
    makes: object
    async with Client(example, PROJECT, ClientConfig(attempts=1), dice=random.Random(1)) as client:
        try:
            makes = await case.ask(client)
        except DisError as error:
            makes = type(error), str(error)
    assert makes == case.makes
    (asked,) = example.asked
    path, query = split_target(pair.target)
    assert (asked.method, split_target(asked.target)) == (pair.request.method, (path, {**query, **pair.client.query}))
    assert parsed(asked.body) == pair.sent()


@each_pair
def test_the_server(name: str) -> None:
    """To the example's request it answers with the example's status, keys, types and, but where it is told, values."""
    pair = PAIRS[name]

    async def main() -> tuple[Response, Any]:
        engine = MemoryEngine()
        await engine.start()
        app = App(engine, ServerConfig(data_dir=None, **CONFIGS.get(name, {})), random.Random(1))
        world = World(app)
        await WORLDS[name](world)
        request = pair.request
        body = b"" if request.body is None else world.real(json.dumps(request.body)).encode()
        answer = await app.handle(
            Request(
                method=request.method, target=world.real(pair.target), headers={"host": "www.example.com"}, body=body
            )
        )
        await engine.close()
        return answer, parsed(world.printed(answer.body.decode()).encode()) or {}

    answer, told = run_simulated(main)
    assert answer.status == (pair.server.status or pair.response.status), answer.body
    assert pair.response.headers.keys() <= answer.headers.keys()
    if pair.server.status is None:  # else it is refused: there is no answer to compare with
        assert differences({} if pair.response.body is None else pair.response.body, told) == pair.server.told()


def test_no_example_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Each pair has its call and its world, and each section of the API its pair. Prints how many."""
    assert CASES.keys() == PAIRS.keys() == WORLDS.keys() >= CONFIGS.keys()
    sections = {name.partition("-")[0] for name in PAIRS}
    chapters = {"5.1": 8, "5.2": 5, "5.3": 3, "5.4": 3, "5.5": 10, "5.6": 2, "5.7": 7}
    assert sections == {"1.3", "1.5", "1.6"} | {f"{c}.{i + 1}" for c, count in chapters.items() for i in range(count)}
    with capsys.disabled():
        print(f"\ngolden pairs: {len(PAIRS)}, of {len(sections)} sections, through client and server")


def test_differences_are_found() -> None:
    """More, less, another value, another type, at any depth."""
    printed = {"a": [{"b": 1, "c": "x"}], "d": True, "e": None}
    assert differences(printed, printed) == {}
    assert differences(printed, {"a": [{"b": "1", "f": 0}, 2], "d": 1, "e": None}) == {
        "type": ["a[0].b", "d"],
        "without": ["a[0].c"],
        "beside": ["a[0].f", "a[1]"],
    }
    assert differences({"a": [1, 2]}, {"a": [3]}) == {"without": ["a[1]"], "other": ["a[0]"]}
