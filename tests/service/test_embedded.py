"""The library inside other programs: several producers on one loop, web handlers under load, a loop in each thread."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
from aiohttp import web
from blocking_world import Gate

import disstream
from disstream.door import DisClient
from disstream.server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"


async def read(dis: DisClient, stream: str) -> list[str]:
    """All that a stream holds, in the order of each key."""
    found: list[str] = []
    async with dis.consumer(stream) as consumer:
        lag = sum((await consumer.lag()).values())
        while len(found) < lag:
            found += [record.text() for record in await consumer.fetch()]
    return found


async def test_several_producers_on_one_loop(disstream_client: DisClient) -> None:
    """Two producers of one stream and one of another send at the same time: each keeps its order and its counts."""
    dis = disstream_client
    for stream in ("a", "b"):
        await dis.streams.create(stream, partitions=3)

    async def work(stream: str, name: str, config: disstream.ProducerConfig) -> disstream.ProducerStats:
        async with dis.producer(stream, config) as producer:
            for i in range(600):
                if i % 3:
                    await producer.send(f"{name} {i}", key=name)
                else:
                    await producer.send_many([(f"{name} {i}", name)])
        return producer.stats()

    one, two = disstream.ProducerConfig(max_batch_records=50), disstream.ProducerConfig(order="strict", linger_s=0.001)
    stats = await asyncio.gather(work("a", "one", one), work("a", "two", two), work("b", "three", one))
    assert [s.stored for s in stats] == [600] * 3
    for stream, names in (("a", ("one", "two")), ("b", ("three",))):
        found = await read(dis, stream)
        for name in names:
            assert [text for text in found if text.startswith(name)] == [f"{name} {i}" for i in range(600)]


async def test_one_record_of_many(disstream_client: DisClient) -> None:
    """batch[i] is the delivery of record i of a send_many, and the receipt is the same."""
    await disstream_client.streams.create("a", partitions=3)
    async with disstream_client.producer("a") as producer:
        batch = await producer.send_many([(b"x", f"key {i % 5}") for i in range(20)])
        last = await batch[-1]
        assert [await batch[i] for i in range(len(batch))] == list(await batch)
        assert last == (await batch)[19]
        with pytest.raises(IndexError):
            batch[20]


async def test_a_stream_that_stands_still_holds_up_no_other(disstream_server: Server) -> None:
    """While all puts of one client hang, with its buffer full, the producer of another one on the same loop goes on."""
    gate = Gate(disstream_server.url)
    small = disstream.ProducerConfig(buffer_bytes=10_000, max_batch_bytes=10_000, send_timeout_s=30)
    async with (
        disstream.connect(disstream_server.url, project_id="demo") as dis,
        disstream.connect(transport=gate, project_id="demo") as stuck,
    ):
        await dis.streams.create("orders", partitions=1)
        async with stuck.producer("orders", small) as held, dis.producer("orders", small) as free:
            with gate.closed():
                waiting = [asyncio.create_task(held.send(bytes(100), key="k")) for _ in range(100)]
                for _ in range(10):
                    await asyncio.gather(*(free.send_and_wait(bytes(100), key="k") for _ in range(20)))
                assert held.stats().stored == 0
                assert not all(task.done() for task in waiting)
            await asyncio.gather(*waiting)
        assert (held.stats().stored, free.stats().stored) == (100, 200)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_web_handlers_under_load(
    disstream_server: Server, disstream_client: DisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example's service: clients that go away in the middle break nothing, every order that was answered is stored
    where the answer says, in few requests, and the end of the service sends what is left."""
    monkeypatch.setenv("DISSTREAM_ENDPOINT", disstream_server.url)
    monkeypatch.setenv("DISSTREAM_PROJECT_ID", "demo")
    await disstream_client.streams.create("orders", partitions=4)
    module = example("web")
    app: web.Application = module.application()
    runner = web.AppRunner(app, handler_cancellation=True)  # the harder way: a handler is cancelled with its client
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    dice = random.Random(1)
    answered: Counter[str] = Counter()
    places: set[tuple[str, int]] = set()

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        for i in range(20):
            text = f"{number} {i}"
            posting = asyncio.create_task(session.post(f"/orders/customer-{number}", data=text))
            if dice.random() < 0.3:
                for _ in range(dice.randrange(12)):  # let it get anywhere
                    await asyncio.sleep(0)
                posting.cancel()
                await asyncio.wait({posting})
                if posting.cancelled():
                    continue
            async with await posting as answer:
                assert answer.status == 201
                place = await answer.json()
                answered[text] += 1
                places.add((place["partition_id"], place["sequence_number"]))

    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{runner.addresses[0][1]}", connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        await asyncio.gather(*(client(session, number) for number in range(40)))
    producer = app[module.PRODUCER]
    await runner.cleanup()
    stats = producer.stats()
    assert stats.stored == stats.accepted >= len(answered) > 300
    assert stats.requests < stats.stored / 2
    stored = Counter(await read(disstream_client, "orders"))
    assert set(stored.values()) == {1}
    assert not answered - stored
    assert len(places) == len(answered)


async def test_the_web_example_says_what_it_does_not_know(
    disstream_server: Server, disstream_client: DisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service is gone, the example's handler answers 504 for the order that was sent, 503 for those that had
    no room."""
    await disstream_client.streams.create("orders", partitions=1)
    module = example("web")
    app: web.Application = module.application()
    gate = Gate(disstream_server.url)
    config = disstream.ProducerConfig(
        delivery_timeout_s=0.2, request_timeout_s=0.1, buffer_bytes=300, max_batch_bytes=300, send_timeout_s=0.01
    )
    async with disstream.connect(transport=gate, project_id="demo") as dis, dis.producer("orders", config) as producer:
        app.cleanup_ctx.clear()
        app[module.PRODUCER] = producer
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/orders/k"
        gate.shut()
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(*(session.post(url, data="x") for _ in range(3)))
            assert sorted(answer.status for answer in answers) == [503, 503, 504]
            for answer in answers:
                answer.release()
        await runner.cleanup()


def test_a_loop_in_each_thread(disstream_server: Server) -> None:
    """Two threads with a loop, a client, a producer and a consumer each do not meet."""
    problems: list[BaseException] = []
    meet = threading.Barrier(2, timeout=20)

    async def work(name: str) -> None:
        async with disstream.connect(disstream_server.url, project_id="demo") as dis:
            await dis.streams.create(name, partitions=2)
            await asyncio.to_thread(meet.wait)
            async with dis.producer(name) as producer:
                for i in range(500):
                    await producer.send(f"{i}", key="k")
            assert await read(dis, name) == [f"{i}" for i in range(500)]

    def thread(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            problems.append(error)
            meet.abort()

    threads = [threading.Thread(target=thread, args=(name,)) for name in ("a", "b")]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert not problems


def test_the_script_runs_as_written(disstream_server: Server) -> None:
    """examples/script.py sends its input, counts it, and ends without a warning."""
    environment = {**os.environ, "DISSTREAM_ENDPOINT": disstream_server.url, "DISSTREAM_PROJECT_ID": "demo"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "script.py")],
        input="".join(f"{i}\n" for i in range(1_000)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["1000 lines"]
