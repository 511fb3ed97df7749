"""A page in columns means what the same page in JSON means: records, cursors, caps, counts; and client and consumer
read it like any other, whoever answers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from server_http import AppCaller, Caller, serving
from server_logs import simulate

from disstream.client import Client, ClientConfig
from disstream.consumer import Consumer, ConsumerConfig
from disstream.engine.memory import MemoryEngine
from disstream.errors import TransportError
from disstream.model import NewRecord, Page, Record
from disstream.producer import Envelope, Producer, ProducerConfig
from disstream.server import App, ServerConfig
from disstream.server.config import SERVICE_LIMITS
from disstream.testing.clock import run_simulated
from disstream.testing.network import AppTransport
from disstream.wire.columns import COLUMNS, encode_columns
from disstream.wire.cursors import decode_cursor
from disstream.wire.http import JSON, PROTOBUF, Request, Response, media_type
from disstream.wire.pages import ACCEPT, ColumnRecords, decode_page_columns
from disstream.wire.protobuf import decode_page_protobuf
from disstream.wire.records import encode_put, page_decoder

FORMS: dict[str, dict[str, str]] = {
    JSON: {},
    COLUMNS: {"accept": ACCEPT},
    PROTOBUF: {"content-type": PROTOBUF},
}
PLACE = ("s", "shardId-0000000000")
DECODERS: dict[str, Callable[[bytes], tuple[Any, str]]] = {
    JSON: page_decoder(*PLACE),
    COLUMNS: lambda body: decode_page_columns(body, *PLACE),
    PROTOBUF: lambda body: decode_page_protobuf(body, *PLACE),
}


async def page(caller: Caller, cursor: str, form: str, cap: int | None = None) -> tuple[list[Record], str]:
    """One page, which has the form asked for."""
    target = f"/v2/p/records?partition-cursor={cursor}" + (f"&max_fetch_bytes={cap}" if cap else "")
    answer = await caller.call("GET", target, **FORMS[form])
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == form
    records, following = DECODERS[form](answer.body)
    return list(records), following


async def write(caller: Caller, seed: int) -> int:
    """Some hundred records of all kinds, in batches of all sizes, put as JSON and as columns; returns how many."""
    dice = random.Random(seed)
    count = 0
    for turn in range(25):
        records = [
            NewRecord(
                dice.randbytes(dice.choice([0, 1, 20, 300])),
                dice.choice(["k", "key-42", "分区", None]),
                timestamp=dice.randrange(10**12) if turn % 3 == 0 and dice.random() < 0.5 else None,
            )
            for _ in range(dice.choice([1, 2, 50]))
        ]
        count += len(records)
        body = encode_columns("s", records) if turn % 2 else encode_put("s", records)
        headers = {"content-type": COLUMNS if turn % 2 else JSON}
        assert (await caller.call("POST", "/v2/p/records", body, **headers)).status == 200
    return count


@pytest.fixture(params=["memory", "disk"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"data_dir": None if request.param == "memory" else tmp_path / "data"}


@pytest.mark.parametrize("seed", range(3))
async def test_the_same_page_in_all_forms(seed: int, config: dict[str, Any]) -> None:
    """From any number on and under any cap the forms hold the same records and lead on to the same number."""
    dice = random.Random(seed)
    async with serving(**config) as http:
        await http.create("s")
        count = await write(http, seed)
        starts = [0, 1, count - 1, count, *(dice.randrange(count) for _ in range(20))]
        for start in starts:
            cursor = await http.cursor("s", cursor_type="AT_SEQUENCE_NUMBER", starting_sequence_number=start)
            cap = dice.choice([None, 1, 10, 500, 5_000, 100_000])
            found = {form: await page(http, cursor, form, cap) for form in FORMS}
            records, _ = found[JSON]
            assert {form: told for form, (told, _) in found.items()} == dict.fromkeys(FORMS, records)
            for _, following in found.values():
                assert decode_cursor(following).sequence == start + len(records)
            assert [record.sequence_number for record in records] == list(range(start, start + len(records)))
            if cap is not None:
                assert sum(len(record.data) for record in records) <= cap
            else:
                assert start + len(records) == count


@pytest.mark.parametrize("form", FORMS)
async def test_to_the_end_and_on(form: str, config: dict[str, Any]) -> None:
    """Page by page everything is read once; the page at the end is empty, and its cursor goes on from there."""
    async with serving(**config) as http:
        await http.create("s")
        count = await write(http, 7)
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")
        found: list[Record] = []
        while True:
            records, cursor = await page(http, cursor, form, 1_000)
            found += records
            if not records:
                break
        assert [record.sequence_number for record in found] == list(range(count))
        await http.put("s", {"data": "bmV3"})
        records, _ = await page(http, cursor, form)
        assert [(record.data, record.sequence_number) for record in records] == [(b"new", count)]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (ACCEPT, COLUMNS),
        (COLUMNS, COLUMNS),
        (f"application/json, {COLUMNS.upper()};q=0.5", COLUMNS),
        (f"application/json ,  {COLUMNS};v=1", COLUMNS),
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{COLUMNS}-not", JSON),
        (f"x{COLUMNS}", JSON),
        ("", JSON),
    ],
)
async def test_who_is_given_columns(accept: str, form: str) -> None:
    """Who names the type, and nobody else: an official client that takes anything gets JSON."""
    async with serving() as http:
        await http.create("s")
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")
        answer = await http.call("GET", f"/v2/p/records?partition-cursor={cursor}", accept=accept)
        assert answer.headers["content-type"] == form
        assert "pages" in answer.headers["x-disstream"].split(", ")


async def test_refusals_are_json() -> None:
    """A refused get is told in words, whatever was asked for."""
    async with serving() as http:
        await http.create("s")
        answer = await http.call("GET", "/v2/p/records?partition-cursor=none", accept=ACCEPT)
        assert answer.code == "DIS.4217"


def test_counted_and_paced_alike() -> None:
    """The metrics of a read, and the reads that exceed the bandwidth of a partition, are the same in all forms."""
    told = []
    for form in FORMS:

        async def test(caller: AppCaller, form: str = form) -> None:
            await caller.create("s")
            await write(caller, 3)
            cursor = await caller.cursor("s", cursor_type="TRIM_HORIZON")
            target = f"/v2/p/records?partition-cursor={cursor}"
            statuses = [(await caller.call("GET", target, **FORMS[form])).status for _ in range(150)]
            stream_id = (await caller.describe("s"))["stream_id"]
            told.append((statuses, caller.app.meter.unstored(stream_id)))

        simulate(test, **SERVICE_LIMITS)
    assert told[0] == told[1] == told[2]
    assert set(told[0][0]) == {200, 400}  # DIS.4303


# --- our client ---------------------------------------------------------------------------------------------------


class Line(AppTransport):
    """Before one server, which may become an older one, or a broken one, at any time."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.older = False
        self.asked: list[str] = []
        self.given: list[str] = []
        self.change: Callable[[Response], Response] = lambda response: response

    async def exchange(self, request: Request) -> Response:
        if self.older:
            request.headers.pop("accept", None)  # it does not know what it could do with it
        response = await super().exchange(request)
        if self.older and "x-disstream" in response.headers:
            response.headers["x-disstream"] = "bounds, columns, sessions"
        if request.method == "GET" and request.target.split("?")[0].endswith("/records"):
            self.asked.append(request.headers.get("accept", ""))
            response = self.change(response)
            self.given.append(media_type(response.headers))
        return response


def simulated(test: Callable[[Line], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        line = Line(App(engine, ServerConfig(data_dir=None)))
        async with Client(line, "demo") as client:
            await client.streams.create("s", partitions=1)
            batch = [NewRecord(b"%d" % n, f"k{n % 3}") for n in range(100)]
            (await client.records.put("s", batch)).raise_for_failed()
        await test(line)

    run_simulated(main)


@pytest.mark.parametrize("body", ["auto", "json", "protobuf"])
def test_what_a_client_asks_for(body: Any) -> None:
    """Columns only by itself ("auto") and only of a server that offers them; the records are the same."""

    async def test(line: Line) -> None:
        async with Client(line, "demo", ClientConfig(body=body)) as client:
            cursor = await client.cursors.get("s", "0", "TRIM_HORIZON")
            found = await client.records.get(cursor)
            assert [r.data for r in found.records] == [b"%d" % n for n in range(100)]
            assert {(r.stream, r.partition_id) for r in found.records} == {PLACE}
            assert (found.next_cursor.stream, found.next_cursor.partition_id) == PLACE
            assert found.plain
            line.older = True
            again = await client.records.get(cursor)  # still asked for, and not given
            assert again.records == list(found.records)
            last = await client.records.get(again.next_cursor)
            assert list(last.records) == []
        wanted = {"auto": COLUMNS, "json": JSON, "protobuf": PROTOBUF}[body]
        assert line.given == [wanted, *([JSON] * 2 if body == "auto" else [wanted] * 2)]
        assert [COLUMNS in accept for accept in line.asked] == [body == "auto", False, False]

    simulated(test)


def test_a_client_that_was_told_nothing_yet() -> None:
    """The very first call of a client is as anywhere; what its answer offers is used from then on."""

    async def test(line: Line) -> None:
        async with Client(line, "demo") as client, Client(line, "demo") as other:
            cursor = await other.cursors.get("s", "0", "TRIM_HORIZON")
            for _ in range(2):
                assert len((await client.records.get(str(cursor))).records) == 100
        assert line.given == [JSON, COLUMNS]

    simulated(test)


def cut(response: Response) -> Response:
    response.body = response.body[: len(response.body) // 2]
    return response


def emptied(response: Response) -> Response:
    response.body = b""
    return response


def of_another_type(response: Response) -> Response:
    response.headers["content-type"] = {COLUMNS: JSON, JSON: COLUMNS}[media_type(response.headers)]
    return response


@pytest.mark.parametrize("change", [cut, emptied, of_another_type])
def test_what_cannot_be_read(change: Callable[[Response], Response]) -> None:
    """A page that is none is a TransportError of a get; a consumer asks again until it gets one, and misses nothing."""

    async def test(line: Line) -> None:
        async with Client(line, "demo") as client:
            cursor = await client.cursors.get("s", "0", "TRIM_HORIZON")
            line.change = change
            with pytest.raises(TransportError, match="answer is no"):
                await client.records.get(cursor)
            left = [3]

            def some_times(response: Response) -> Response:
                left[0] -= 1
                return change(response) if left[0] >= 0 else response

            line.change = some_times
            async with Consumer(client, "s", rng=random.Random(1)) as consumer:
                found = [record async for record, _ in _some(consumer, 100)]
                assert [record.data for record in found] == [b"%d" % n for n in range(100)]
                assert consumer.stats().retries >= 3

    simulated(test)


async def _some(consumer: Consumer, count: int) -> Any:
    number = 0
    async for record in consumer:
        yield record, number
        number += 1
        if number == count:
            return


@pytest.mark.parametrize("explicit", [False, True])
def test_a_consumer_between_old_and_new(explicit: bool) -> None:
    """While the server changes between old and new under it, a consumer hands out each record once and in order."""

    async def test(line: Line) -> None:
        dice = random.Random(5)
        async with Client(line, "demo") as client:
            settings = ConsumerConfig(finish="explicit" if explicit else "next")
            async with Consumer(client, "s", settings, rng=random.Random(1)) as consumer:
                found: list[Record] = []
                for turn in range(20):
                    line.older = turn % 2 == 1
                    more = [NewRecord(b"%d" % (100 + turn * 10 + n), timestamp=turn) for n in range(10)]
                    await client.records.put("s", more)
                    while len(found) < 110 + turn * 10:
                        if dice.random() < 0.5:
                            found += await consumer.fetch(max_records=dice.choice([1, 7, 500]))
                        else:
                            found.append(await anext(consumer))
                    if explicit:
                        for record in found[-10:]:
                            consumer.record_done(record)
                assert [record.data for record in found] == [b"%d" % n for n in range(300)]
                assert [record.sequence_number for record in found] == list(range(300))
                assert [record.timestamp for record in found[100:]] == [n // 10 for n in range(200)]
                assert consumer.position(found[0].partition) == 300
        assert {JSON, COLUMNS} == set(line.given)

    simulated(test)


def test_large_pages_are_decoded_one_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that come at once are not decoded at once: in between everybody on the loop had a turn."""

    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        async with Client(AppTransport(App(engine, ServerConfig(data_dir=None))), "demo") as client:
            await client.streams.create("s", partitions=1)
            await client.records.put("s", [NewRecord(b"x" * 500_000)])
            cursor = await client.cursors.get("s", "0", "TRIM_HORIZON")
            turns, decoded = [0], []
            make = client.records._page

            async def page(*arguments: Any) -> Page:
                decoded.append(turns[0])
                return await make(*arguments)

            async def get() -> None:
                assert len((await client.records.get(cursor)).records) == 1

            monkeypatch.setattr(client.records, "_page", page)
            async with anyio.create_task_group() as readers:
                for _ in range(4):
                    readers.start_soon(get)
                while len(decoded) < 4:
                    turns[0] += 1
                    await anyio.lowlevel.checkpoint()
            assert len(set(decoded)) == 4

    run_simulated(main)


def test_envelopes_in_columns() -> None:
    """What travels in envelopes is seen in columns too, and taken out a slice at a time; a page without says so."""

    async def test(line: Line) -> None:
        async with Client(line, "demo") as client:
            settings = ProducerConfig(envelope=Envelope())
            async with Producer(client, "s", settings, rng=random.Random(2)) as producer:
                for n in range(100, 5_000):
                    await producer.send(b"%d" % n * 20, key="k")
            cursor = await client.cursors.get("s", "0", "AT_SEQUENCE_NUMBER", sequence_number=100)
            packed = await client.records.get(cursor)
            assert isinstance(packed.records, ColumnRecords)
            assert not packed.plain
            assert len(packed.records) < 1_000
            async with Consumer(client, "s", rng=random.Random(1)) as consumer:
                found: list[Record] = []
                while len(found) < 5_000:
                    found += await consumer.fetch(max_records=333)
                assert [r.data for r in found] == [b"%d" % n * (1 if n < 100 else 20) for n in range(5_000)]

    simulated(test)
