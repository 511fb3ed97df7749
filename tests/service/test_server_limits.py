"""The bandwidth of a partition, the patience with an address and the size of a body, as callers meet them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
import pytest
from server_http import Answer, AppCaller, data, serving

from disstream.engine.memory import MemoryEngine
from disstream.server import App, ServerConfig
from disstream.server.config import MIB, SERVICE_LIMITS
from disstream.server.settings import LIMITS
from disstream.testing.clock import run_simulated
from disstream.wire.errors import ERRORS
from disstream.wire.http import Request
from disstream.wire.routes import ROUTES

SERVICE = ServerConfig(data_dir=None, **SERVICE_LIMITS)  # type: ignore[arg-type]
THROTTLED = {"error_code": "DIS.4303", "error_message": "Exceeded traffic control limit."}


def simulate(test: Callable[[AppCaller], Awaitable[None]], config: ServerConfig = SERVICE) -> None:
    async def main() -> None:
        engine = MemoryEngine()
        await engine.start()
        await test(AppCaller(App(engine, config)))
        await engine.close()

    run_simulated(main)


def to(partition: int, size: int = 1) -> dict[str, Any]:
    return {"data": data(b"x" * size), "partition_id": str(partition)}


def failed(answer: Answer) -> list[int]:
    """The indexes of the records that were not stored; each was refused by flow control."""
    assert answer.status == 200, answer
    found = [i for i, entry in enumerate(answer.told["records"]) if "sequence_number" not in entry]
    assert answer.told["failed_record_count"] == len(found)
    assert all(answer.told["records"][i] == THROTTLED for i in found)
    return found


@pytest.mark.parametrize(
    ("stream_type", "size", "count"),
    [("COMMON", 10, 1000), ("COMMON", MIB // 4, 4), ("ADVANCED", 10, 2000), ("ADVANCED", 500_000, 10)],
)
def test_writing_faster_than_a_partition_takes(stream_type: str, size: int, count: int) -> None:
    """A second's worth is stored, the rest refused in a 200; when nothing passes, the request; then it flows again."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s", stream_type=stream_type)
        extra = 3
        sent = 0
        refused: list[int] = []
        while not refused:
            batch = [to(0, size)] * min(count + extra - sent, 4 * MIB // size)
            refused = failed(await caller.put("s", *batch))
            sent += len(batch)
        stored = sent - len(refused)
        assert count <= stored <= count + 1  # the last one may take too much
        assert refused == list(range(len(batch) - len(refused), len(batch)))
        answer = await caller.put("s", to(0, size), to(0, size))
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (400, "DIS.4303", "1")
        await anyio.sleep(1.0 + 2 * size / MIB)
        assert failed(await caller.put("s", to(0, size))) == []
        assert await caller.ranges("s") == [f"[0 : {stored + 1}]"]

    simulate(test)


def test_each_partition_has_its_own() -> None:
    """What is refused of one partition is the end of its records in the request; the others are stored whole."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s", 3)
        await caller.put("s", *[to(1)] * 600)
        records = [to(i % 3) for i in range(1800)]
        assert failed(await caller.put("s", *records)) == [i for i in range(1800) if i % 3 == 1 and i // 3 >= 400]
        assert failed(await caller.put("s", to(0), to(1), to(2))) == [1]

    simulate(test)


def test_what_was_not_stored_costs_nothing() -> None:
    """Records refused for want of memory are not charged to their partition's bandwidth."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        assert len(failed(await caller.put("s", *[to(0, MIB // 16)] * 32))) == 31
        for _ in range(15):
            assert failed(await caller.put("s", to(0, MIB // 16))) == []

    heaviest = MIB // 16 + 1000
    simulate(
        test,
        ServerConfig(
            data_dir=None,
            common_in_bytes_per_s=MIB,
            max_record_bytes=MIB // 16,
            max_partition_key_bytes=100,
            max_pending_bytes=heaviest,
        ),
    )


def test_reading_faster_than_a_partition_gives() -> None:
    """2 MiB a second leave a COMMON partition; then a get is refused as a whole until the page is paid for."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s", 2)
        for _ in range(6):
            for partition in (0, 1):
                assert failed(await caller.put("s", to(partition, MIB))) == []
            await anyio.sleep(1)
        cursor = await caller.cursor("s", cursor_type="TRIM_HORIZON")
        pages = 0
        while True:
            answer = await caller.get(cursor)
            if answer.status != 200:
                break
            pages += 1
            assert len(answer.told["records"]) == 2
            cursor = answer.told["next_partition_cursor"]
        assert (answer.status, answer.code, answer.headers["retry-after"], pages) == (400, "DIS.4303", "1", 1)
        assert (await caller.get(await caller.cursor("s", "1", cursor_type="TRIM_HORIZON"))).status == 200
        await anyio.sleep(0.5)
        both = await asyncio.gather(caller.get(cursor), caller.get(cursor))
        assert sorted(page.status for page in both) == [200, 400]

    simulate(test)


def test_an_idle_reader_is_not_refused() -> None:
    """Asking for what is not there yet costs nothing, however often."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        cursor = await caller.cursor("s", cursor_type="LATEST")
        for _ in range(50):
            assert (await caller.get(cursor)).told["records"] == []

    simulate(test, ServerConfig(data_dir=None, common_out_bytes_per_s=1))


def test_open_refuses_nothing() -> None:
    """Without limits a partition takes and gives what the machine bears."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        for _ in range(3):
            assert failed(await caller.put("s", *[to(0)] * 5000)) == []
            assert failed(await caller.put("s", *[to(0, MIB)] * 5)) == []
        assert len(await caller.read("s")) == 15_015

    simulate(test, ServerConfig(data_dir=None))


async def test_who_fails_too_often() -> None:
    """DIS.4309 for everything an address asks, once more of its requests than allowed have failed in a minute."""
    async with serving(max_failures_per_minute=2) as caller:
        await caller.create("s")
        assert (await caller.call("GET", "/v2/p/streams/none")).code == "DIS.4301"
        assert (await caller.call("GET", "/nowhere")).status == 404
        assert (await caller.call("GET", "/v2/p/streams/s")).status == 200
        assert (await caller.call("POST", "/v2/p/streams", b"x" * 13 * MIB)).status == 413
        answer = await caller.call("GET", "/v2/p/streams/s")
        assert (answer.status, answer.code) == (400, "DIS.4309")
        assert answer.told["message"] == ERRORS["DIS.4309"].shape


def test_an_address_is_heard_again() -> None:
    """When the minute of its failures is over; others are heard all the time, and throttling is no failure."""

    async def test(caller: AppCaller) -> None:
        async def ask(peer: str, target: str = "/v2/p/streams/none") -> Answer:
            answer = await caller.app.handle(Request(method="GET", target=target, peer=peer))
            return Answer(answer.status, answer.headers, answer.body)

        await caller.create("s")
        for _ in range(9):
            await caller.put("s", to(0, MIB))
        codes = [(await ask("1.2.3.4")).code for _ in range(5)]
        assert codes == ["DIS.4301"] * 3 + ["DIS.4309"] * 2
        assert (await ask("1.2.3.4", "/v2/p/streams")).code == "DIS.4309"
        assert (await ask("1.2.3.5", "/v2/p/streams")).code == ""
        assert (await ask("", "/v2/p/streams")).code == ""  # the address of those who were throttled
        await anyio.sleep(60)
        assert (await ask("1.2.3.4", "/v2/p/streams")).code == ""

    simulate(test, ServerConfig(data_dir=None, max_failures_per_minute=2, common_in_records_per_s=1))


async def test_no_call_takes_a_larger_body() -> None:
    """413 from every route, before anything of the body is looked at."""
    async with serving(max_body_bytes=1000, max_request_bytes=1000) as caller:
        for route in ROUTES:
            target = "/" + "/".join("x" if part[0] == "{" else part for part in route.path)
            answer = await caller.call(route.method, target, b"[" * 1001)
            assert (answer.status, answer.code) == (413, "DIS.4200"), route


PAGE = Path(__file__).parent.parent.parent / "docs" / "limits.md"


def table() -> dict[str, tuple[str, str, str]]:
    """The page's rows: setting -> (open, service, how it is told)."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: (opened.strip(), service.strip(), told.strip()) for name, opened, service, told in rows}


def written(value: float | None) -> str:
    """As the page writes numbers."""
    if value is None:
        return "none"
    return f"{value / MIB:g} MiB" if value >= MIB and value % MIB == 0 else f"{value:,g}"


def test_the_page_of_limits() -> None:
    """docs/limits.md names every limit once, with what it is in both profiles, and only codes that exist."""
    defaults = {field.name: field.default for field in fields(ServerConfig)}
    names = [*LIMITS, "session_timeout_s", "join_delay_s", "token_lifetime_s"]
    assert sorted(table()) == sorted(names)
    for name, (opened, service, told) in table().items():
        assert opened == written(defaults[name]), name  # type: ignore[arg-type]
        assert service == written(SERVICE_LIMITS.get(name, defaults[name])), name  # type: ignore[arg-type]
        assert set(re.findall(r"DIS\.\d+", told)) <= set(ERRORS), name
