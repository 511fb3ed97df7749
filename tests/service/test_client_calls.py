"""Proves what the client asks, what it repeats, how it pages, and how it ends; under virtual time, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import pytest

from disstream.client import Client, ClientConfig
from disstream.client.records import _DECODERS
from disstream.door import DisClient, connect
from disstream.errors import (
    ApiError,
    ClosedError,
    ConfigError,
    DisError,
    NotFoundError,
    ServerFault,
    ThrottledError,
    TransportError,
    WaitTimeout,
)
from disstream.model import Cursor, NewRecord, StreamSummary
from disstream.testing.clock import run_simulated
from disstream.wire.cursors import CursorState, encode_cursor
from disstream.wire.errors import api_error, refusal
from disstream.wire.http import Request, Response, split_target

Answer = Response | Exception | Callable[[Request], Response]

UNSENT = TransportError("refused", outcome_unknown=False)
CUT = TransportError("cut", outcome_unknown=True)
THROTTLED = refusal(api_error("DIS.4303"), "r")
FAULT = refusal(api_error("DIS.5000"), "r")
GONE = refusal(api_error("DIS.4301", "[s][p]"), "r")
DONE = Response(status=204)
STORED = Response(status=200, body=b'{"failed_record_count":0,"records":[{"partition_id":"p","sequence_number":"7"}]}')


def ok(body: Any) -> Response:
    return Response(status=200, body=msgspec.json.encode(body))


class Script:
    """A transport that answers as told, one answer a request; notes what was asked, and when."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[Request] = []
        self.times: list[float] = []
        self.closed = 0

    async def exchange(self, request: Request) -> Response:
        self.asked.append(request)
        self.times.append(anyio.current_time())
        await anyio.sleep(1)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Response) else answer(request)

    async def close(self) -> None:
        self.closed += 1

    def queries(self) -> list[dict[str, str]]:
        return [split_target(request.target)[1] for request in self.asked]


@asynccontextmanager
async def client_on(script: Script, config: ClientConfig | None = None) -> AsyncIterator[Client]:
    async with Client(script, "p", config, dice=random.Random(1)) as client:
        yield client


Call = Callable[[Client], Coroutine[Any, Any, object]]
CALLS: dict[str, Call] = {
    "describe": lambda c: c.streams.describe("s"),
    "delete": lambda c: c.streams.delete("s"),
    "create": lambda c: c.streams.create("s", partitions=1),
    "put": lambda c: c.records.put("s", [NewRecord(b"x")]),
    "put_encoded": lambda c: c.records.put_encoded(b"{}"),
    "get": lambda c: c.records.get("cursor"),
    "cursor": lambda c: c.cursors.get("s", "0", "LATEST"),
}
FINAL: dict[str, Response] = {
    "describe": ok({"stream_name": "s"}),
    "delete": DONE,
    "create": Response(status=201),
    "put": STORED,
    "put_encoded": STORED,
    "get": ok({"records": [], "next_partition_cursor": "n"}),
    "cursor": ok({"partition_cursor": "c"}),
}


@pytest.mark.parametrize(
    ("failure", "repeating"),
    [
        (UNSENT, {"describe", "delete", "create", "put", "get", "cursor"}),
        (CUT, {"describe", "delete", "get", "cursor"}),
        (FAULT, {"describe", "delete", "get", "cursor"}),
        (Response(status=408), {"describe", "delete", "get", "cursor"}),
        (Response(status=429), {"describe", "delete", "get", "cursor"}),
        (THROTTLED, {"describe", "delete", "create", "get", "cursor"}),
        (refusal(api_error("DIS.4200", "[x]"), "r"), set()),
        (GONE, set()),
    ],
    ids=["unsent", "cut", "fault", "408", "429", "throttled", "invalid", "not found"],
)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_repeated(name: str, failure: Answer, repeating: set[str]) -> None:
    """Per call and failure: repeated until it succeeds, or asked exactly once; a put only if nothing had left."""

    async def main() -> None:
        script = Script(failure, failure, FINAL[name])
        async with client_on(script) as client:
            if name in repeating:
                await CALLS[name](client)
                assert len(script.asked) == 3
                assert client.stats().retries == 2
                assert script.times[1] - script.times[0] <= 1.1  # the exchange takes 1 s, the first pause up to 0.1 s
            else:
                with pytest.raises((ApiError, TransportError)):
                    await CALLS[name](client)
                assert len(script.asked) == 1

    run_simulated(main)


def test_attempts_end() -> None:
    """After the configured number of attempts the last failure is raised, as it is."""

    async def main() -> None:
        script = Script(*[FAULT] * 9)
        async with client_on(script, ClientConfig(attempts=3)) as client:
            with pytest.raises(ServerFault, match=r"DIS\.5000"):
                await client.streams.describe("s")
        assert len(script.asked) == 3
        assert len({id(request.headers) for request in script.asked}) == 3  # each attempt has headers of its own

    run_simulated(main)


class Failing:
    """Fails in one way, `times` times, then answers; keeps nothing of what it was asked."""

    def __init__(self, way: str, times: int) -> None:
        self._way = way
        self._left = times

    async def exchange(self, request: Request) -> Response:
        await anyio.sleep(1)
        if not self._left:
            return FINAL["put"]
        self._left -= 1
        if self._way == "answered":
            return THROTTLED
        try:
            raise ConnectionError(f"no way for {len(request.body)} bytes")
        except ConnectionError as exc:
            raise TransportError("refused", outcome_unknown=False) from exc

    async def close(self) -> None: ...


@pytest.mark.parametrize("way", ["raised", "answered"])
@pytest.mark.parametrize(("attempts", "times"), [(1, 1), (3, 3), (3, 2)])
def test_a_call_that_failed_is_let_go_of_at_once(way: str, attempts: int, times: int) -> None:
    """Its request, and the body, do not wait for the garbage collector, whether it was repeated, and in vain or not."""

    async def main() -> None:
        async with Client(Failing(way, times), "let-go", ClientConfig(attempts=attempts)) as client:
            gc.collect()
            gc.disable()
            try:
                with contextlib.suppress(ThrottledError, TransportError):
                    await client.call("put_records", body=b"{}")
                repeated = min(attempts, times + 1)  # not what flow control refused: that is the producer's to know
                assert client.stats().requests == (repeated if way == "raised" else 1)
                assert not [it for it in gc.get_objects() if isinstance(it, Request) and "let-go" in it.target]
            finally:
                gc.enable()

    run_simulated(main)


def test_the_budget_ends_attempts() -> None:
    """No attempt starts later than the budget allows, however many are left."""

    async def main() -> None:
        script = Script(*[CUT] * 1000)
        config = ClientConfig(attempts=1000, retry_base_s=5.0, retry_max_s=5.0, retry_budget_s=60.0)
        async with client_on(script, config) as client:
            with pytest.raises(TransportError):
                await client.streams.describe("s")
        assert 50 < script.times[-1] - script.times[0] <= 60

    run_simulated(main)


def test_retry_after_is_honoured() -> None:
    """The next attempt waits at least as long as the service asked, for 429 and 503; beyond the budget nobody waits."""

    async def main() -> None:
        for status in (429, 503):
            script = Script(Response(status=status, headers={"retry-after": "7"}), FINAL["describe"])
            async with client_on(script) as client:
                await client.streams.describe("s")
            assert 8.0 <= script.times[1] - script.times[0] <= 8.1
        script = Script(Response(status=429, headers={"retry-after": "600"}))
        async with client_on(script) as client:
            with pytest.raises(ThrottledError) as caught:
                await client.streams.describe("s")
        assert caught.value.retry_after_s == 600

    run_simulated(main)


def test_a_repeated_delete_that_finds_nothing_has_succeeded() -> None:
    """After a lost answer DIS.4301 means done; after a known failure it is what it says."""

    async def main() -> None:
        for lost in (CUT, FAULT):
            async with client_on(Script(lost, THROTTLED, GONE)) as client:
                await client.streams.delete("s")
        for known in (UNSENT, THROTTLED):
            async with client_on(Script(known, GONE)) as client:
                with pytest.raises(NotFoundError):
                    await client.streams.delete("s")
        async with client_on(Script(CUT, GONE)) as client:
            with pytest.raises(NotFoundError):
                await client.streams.describe("s")

    run_simulated(main)


def test_headers_and_time_outs() -> None:
    """Every request names type, client and project; a call's own time-out goes to the transport, else the default."""

    async def main() -> None:
        script = Script(FINAL["describe"], STORED, STORED)
        async with client_on(script) as client:
            await client.streams.describe("s")
            await client.records.put("s", [NewRecord(b"x")], timeout_s=3)
            await client.records.put_encoded(b"{}", timeout_s=0.5)
        headers = script.asked[0].headers
        assert headers["content-type"] == headers["accept"] == "application/json"
        assert headers["x-project-id"] == "p"
        assert headers["user-agent"].startswith("disstream/")
        assert [request.timeout_s for request in script.asked] == [30.0, 3, 0.5]

    run_simulated(main)


def test_extensions_are_learnt_from_answers() -> None:
    """What the endpoint offers is what its latest answer that is no refusal names; one that names nothing, nothing."""

    async def main() -> None:
        named = Response(status=200, headers={"x-disstream": "bounds, sessions"}, body=STORED.body)
        script = Script(named, GONE, STORED)
        async with client_on(script) as client:
            assert client.extensions == frozenset()
            await client.records.put_encoded(b"{}", headers={"x-disstream-session": "s"})
            assert client.extensions == {"bounds", "sessions"}
            with pytest.raises(NotFoundError):
                await client.records.put_encoded(b"{}")
            assert client.extensions == {"bounds", "sessions"}, "a refusal may come from somewhere on the way"
            await client.records.put_encoded(b"{}")
            assert client.extensions == frozenset()
        assert [request.headers.get("x-disstream-session") for request in script.asked] == ["s", None, None]

    run_simulated(main)


def test_a_redirect_names_the_address() -> None:
    """An endpoint that redirects is a mistake in the endpoint: the message says where it points."""

    async def main() -> None:
        async with client_on(Script(Response(status=301, headers={"location": "https://x"}))) as client:
            with pytest.raises(ApiError, match="'https://x'"):
                await client.streams.describe("s")

    run_simulated(main)


# --- streams ------------------------------------------------------------------------------------------------------


def test_list_pages_by_itself() -> None:
    """All pages in order, each asked for behind the last name, and only when it is needed."""

    async def main() -> None:
        pages = [["a", "b"], ["c", "d"], ["e"]]
        script = Script(*[ok({"stream_names": p, "has_more_streams": p != ["e"]}) for p in pages])
        async with client_on(script) as client:
            streams = client.streams.list(page_size=2)
            assert [await anext(streams), await anext(streams)] == [StreamSummary(name="a"), StreamSummary(name="b")]
            assert len(script.asked) == 1
            assert [s.name async for s in streams] == ["c", "d", "e"]
        assert [q.get("start_stream_name") for q in script.queries()] == [None, "b", "d"]
        assert all(q["limit"] == "2" for q in script.queries())

    run_simulated(main)


@pytest.mark.parametrize("names", [[], ["a"]])
def test_a_list_that_does_not_go_on(names: list[str]) -> None:
    """A service that promises more and gives the same is not asked for ever."""

    async def main() -> None:
        async with client_on(Script(*[ok({"stream_names": names, "has_more_streams": True})] * 3)) as client:
            with pytest.raises(TransportError, match="does not go on"):
                async for _ in client.streams.list():
                    pass

    run_simulated(main)


def test_describe_pages_through_all_partitions() -> None:
    """2,500 partitions come in three requests of 1,000, asked for in both spellings, and keep their order."""

    async def main() -> None:
        ids = [f"shardId-{n:010d}" for n in range(2500)]

        def page(request: Request) -> Response:
            query = split_target(request.target)[1]
            assert query.get("start_partition_id") == query.get("start_partitionId")
            start = ids.index(query["start_partition_id"]) + 1 if "start_partition_id" in query else 0
            chosen = ids[start : start + int(query["limit_partitions"])]
            more = start + len(chosen) < len(ids)
            partitions = [{"partition_id": i, "status": "ACTIVE"} for i in chosen]
            return ok({"stream_name": "s", "stream_id": "x", "partitions": partitions, "has_more_partitions": more})

        script = Script(page, page, page)
        async with client_on(script) as client:
            info = await client.streams.describe("s", stream_id="x")
        assert [p.partition_id for p in info.partitions] == ids
        assert all(q["stream_id"] == "x" for q in script.queries())

    run_simulated(main)


def test_a_description_that_does_not_go_on() -> None:
    """A service that repeats its page and promises more is not asked for ever."""

    async def main() -> None:
        page = ok({"stream_name": "s", "partitions": [{"partition_id": "0"}], "has_more_partitions": True})
        async with client_on(Script(page, page, page)) as client:
            with pytest.raises(TransportError, match="do not go on"):
                await client.streams.describe("s")

    run_simulated(main)


def test_create_sends_what_it_is_told() -> None:
    """The body of a create, with and without the optional parts; nonsense is refused before it is sent."""

    async def main() -> None:
        script = Script(Response(status=201), Response(status=201))
        async with client_on(script) as client:
            await client.streams.create("s", partitions=3)
            await client.streams.create(
                "t", partitions=1, retention_h=72, data_type="CSV", csv_delimiter=";", tags={"team": "a"}
            )
            with pytest.raises(ConfigError, match="partitions=0"):
                await client.streams.create("s", partitions=0)
            with pytest.raises(ConfigError, match="name"):
                await client.streams.create("", partitions=1)
        plain, rich = (msgspec.json.decode(request.body) for request in script.asked)
        assert plain == {
            "stream_name": "s",
            "partition_count": 3,
            "stream_type": "COMMON",
            "data_type": "BLOB",
            "data_duration": 24,
        }
        assert rich["data_duration"] == 72
        assert rich["csv_properties"] == {"delimiter": ";"}
        assert rich["tags"] == [{"key": "team", "value": "a"}]

    run_simulated(main)


def test_wait_running() -> None:
    """A stream not yet found, then created, then running is waited for."""

    async def main() -> None:
        script = Script(GONE, *[ok({"stream_name": "s", "status": status}) for status in ("CREATING", "RUNNING")])
        async with client_on(script) as client:
            assert (await client.streams.wait_running("s")).status == "RUNNING"
        assert len(script.asked) == 3

    run_simulated(main)


def test_wait_running_ends() -> None:
    """At the deadline the last status is told, as a TimeoutError; a stream on its way out is not waited for."""

    async def main() -> None:
        script = Script(*[ok({"stream_name": "s", "status": "CREATING"})] * 100)
        async with client_on(script) as client:
            with pytest.raises(WaitTimeout, match=r"'s' is not ready after 60 s; last status: CREATING"):
                await client.streams.wait_running("s")
            assert script.times[-1] - script.times[0] < 60
            assert 20 <= len(script.asked) <= 40  # pauses grow to 2 s
        async with client_on(Script(*[GONE] * 100)) as client:
            with pytest.raises(TimeoutError, match="last status: not found"):
                await client.streams.wait_running("s", timeout_s=5)
        async with client_on(Script(ok({"stream_name": "s", "status": "TERMINATING"}))) as client:
            with pytest.raises(DisError, match="is TERMINATING"):
                await client.streams.wait_running("s")

    run_simulated(main)


# --- records and cursors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "records", "told"),
    [
        ("s", [], "at least one record"),
        ("", [NewRecord(b"x")], "name of a stream"),
        ("s", [NewRecord(b"x"), NewRecord("text")], "record 1 has str as data: encode it"),  # type: ignore[arg-type]
        ("s", [NewRecord(5)], "record 0 has int as data"),  # type: ignore[arg-type]
        ("s", [NewRecord(b"x", key="")], "record 0 has key=''.*say None"),
        ("s", [NewRecord(b"x", key=5)], "record 0 has key=5"),  # type: ignore[arg-type]
        ("s", [NewRecord(b"x", explicit_hash_key=9)], "explicit_hash_key=9"),  # type: ignore[arg-type]
        ("s", [b"x"], "record 0 is a bytes: wrap it"),
        ("s", [NewRecord(b"x", key="\ud800")], "cannot be written as JSON"),
        ("s", [NewRecord(b"x", timestamp=object())], "cannot be written as JSON"),  # type: ignore[arg-type]
    ],
)
def test_records_that_cannot_be_put(stream: str, records: list[Any], told: str) -> None:
    """Mistakes are told before anything is sent, with the record and the remedy."""

    async def main() -> None:
        script = Script()
        async with client_on(script) as client:
            with pytest.raises(ConfigError, match=told):
                await client.records.put(stream, records)
        assert not script.asked

    run_simulated(main)


def test_put_answers_per_record() -> None:
    """Failed records are data, not an exception."""

    async def main() -> None:
        answer = ok({"records": [{"partition_id": "p", "sequence_number": "7"}, {"error_code": "DIS.4303"}]})
        async with client_on(Script(answer)) as client:
            results = await client.records.put("s", [NewRecord(b"x"), NewRecord(b"y")])
        assert [r.sequence_number for r in results] == [7, None]
        assert [index for index, _ in results.failed] == [1]

    run_simulated(main)


def test_an_answer_that_is_none() -> None:
    """A 2xx that is not JSON is not taken for success: the records may have been written."""

    async def main() -> None:
        async with client_on(Script(Response(status=200, body=b"<html>"))) as client:
            with pytest.raises(TransportError, match="<html>") as caught:
                await client.records.put("s", [NewRecord(b"x")])
        assert caught.value.outcome_unknown

    run_simulated(main)


def test_pages_know_where_they_come_from() -> None:
    """Records carry stream and partition: from a Cursor, from a token that tells, and none from one that does not."""

    async def main() -> None:
        page = ok(
            {
                "records": [{"sequence_number": "5", "data": "eA==", "timestamp": 9, "partition_key": "k"}],
                "next_partition_cursor": "next",
            }
        )
        token = encode_cursor(CursorState("told", "id", 3, 0, 0))
        cursors = [Cursor("opaque", "s", "shardId-0000000001"), token, "opaque"]
        script = Script(page, page, page)
        async with client_on(script) as client:
            pages = [await client.records.get(cursor, max_bytes=100) for cursor in cursors]
        places = [("s", "shardId-0000000001"), ("told", "shardId-0000000003"), ("", "")]
        assert [(p.records[0].stream, p.records[0].partition_id) for p in pages] == places
        assert [(p.next_cursor.stream, p.next_cursor.partition_id) for p in pages] == places
        assert all((p.records[0].data, p.records[0].key, p.next_cursor) == (b"x", "k", "next") for p in pages)
        assert script.queries()[0] == {"partition-cursor": "opaque", "max_fetch_bytes": "100"}

    run_simulated(main)


def test_decoders_are_kept_but_not_for_ever() -> None:
    """One decoder per partition, made once; the number kept is bounded whatever cursors come along."""

    async def main() -> None:
        client = Client(Script(), "p")
        assert client.records._decoder("s", "1") is client.records._decoder("s", "1")
        info = client.records._decoder.cache_info()
        assert (info.maxsize, info.currsize) == (_DECODERS, 1)

    run_simulated(main)


def test_cursors_are_asked_for_as_documented() -> None:
    """The query of each type; datetimes become milliseconds; either spelling of a partition becomes the long one."""

    async def main() -> None:
        script = Script(*[ok({"partition_cursor": "c"})] * 4)
        async with client_on(script) as client:
            cursor = await client.cursors.get("s", "3", sequence_number=10)
            await client.cursors.get("s", "shardId-0000000003", "TRIM_HORIZON", stream_id="x")
            await client.cursors.get("s", "3", "AT_TIMESTAMP", timestamp=datetime(2026, 1, 2, tzinfo=UTC))
            await client.cursors.get("s", "3", "AFTER_SEQUENCE_NUMBER", sequence_number=0)
        assert (cursor, cursor.stream, cursor.partition_id) == ("c", "s", "shardId-0000000003")
        common = {"stream-name": "s", "partition-id": "shardId-0000000003"}
        assert script.queries() == [
            {**common, "cursor-type": "AT_SEQUENCE_NUMBER", "starting-sequence-number": "10"},
            {**common, "cursor-type": "TRIM_HORIZON", "stream-id": "x"},
            {**common, "cursor-type": "AT_TIMESTAMP", "timestamp": "1767312000000"},
            {**common, "cursor-type": "AFTER_SEQUENCE_NUMBER", "starting-sequence-number": "0"},
        ]

    run_simulated(main)


@pytest.mark.parametrize(
    ("partition", "kind", "position", "told"),
    [
        ("0", "AT_SEQUENCE_NUMBER", {}, "AT_SEQUENCE_NUMBER needs sequence_number"),
        ("0", "LATEST", {"sequence_number": 1}, "LATEST takes no sequence_number"),
        ("0", "AT_TIMESTAMP", {}, "AT_TIMESTAMP needs timestamp"),
        ("0", "LATEST", {"timestamp": 1}, "LATEST takes no timestamp"),
        ("0", "AT_TIMESTAMP", {"timestamp": datetime(2026, 1, 1)}, "no time zone"),
        ("0", "AT_TIMESTAMP", {"timestamp": -1}, "before 1970"),
        ("0", "AT_SEQUENCE_NUMBER", {"sequence_number": -1}, "sequence_number=-1"),
        ("0", "AT_SEQUENCE_NUMBER", {"sequence_number": 2**63}, "sequence_number=9223372036854775808"),
        ("0", "NEWEST", {}, "'NEWEST' is none of"),
        ("shard-1", "LATEST", {}, "partition_id 'shard-1'"),
    ],
)
def test_positions_that_are_none(partition: str, kind: Any, position: dict[str, Any], told: str) -> None:
    """A position that does not fit its cursor type is refused before anything is sent."""

    async def main() -> None:
        script = Script()
        async with client_on(script) as client:
            with pytest.raises(ConfigError, match=told):
                await client.cursors.get("s", partition, kind, **position)
        assert not script.asked

    run_simulated(main)


# --- life ---------------------------------------------------------------------------------------------------------


def test_calls_outside_of_its_life() -> None:
    """A client that was not started, or was closed, says so; its transport is closed exactly once."""

    async def main() -> None:
        script = Script()
        client = Client(script, "p")
        with pytest.raises(ClosedError, match="not started"):
            await client.streams.describe("s")
        assert await client.start() is client
        await client.close()
        await client.close()
        with pytest.raises(ClosedError, match="closed"):
            await client.streams.describe("s")
        assert script.closed == 1

    run_simulated(main)


def test_close_lets_running_calls_finish() -> None:
    """close waits for the answer that is on its way, and refuses new calls meanwhile."""

    async def main() -> None:
        script = Script(STORED)
        client = await Client(script, "p").start()
        put = asyncio.create_task(client.records.put("s", [NewRecord(b"x")]))
        await anyio.sleep(0.5)
        closing = asyncio.create_task(client.close())
        await anyio.sleep(0.1)
        with pytest.raises(ClosedError):
            await client.streams.describe("s")
        await closing
        assert (await put)[0].sequence_number == 7
        assert anyio.current_time() == pytest.approx(1.0)

    run_simulated(main)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_calls_that_do_not_finish_are_cut(end: str) -> None:
    """A call that outlives close_timeout_s, or is aborted, raises TransportError with an unknown outcome."""

    async def main() -> None:
        class Silent(Script):
            async def exchange(self, request: Request) -> Response:
                await anyio.sleep_forever()
                raise AssertionError

        script = Silent()
        client = await Client(script, "p", ClientConfig(close_timeout_s=5)).start()
        put = asyncio.create_task(client.records.put("s", [NewRecord(b"x")]))
        await anyio.sleep(1)
        await (client.close() if end == "close" else client.abort())
        assert anyio.current_time() == pytest.approx(6.0 if end == "close" else 1.0)
        with pytest.raises(TransportError, match="closed before the answer came") as caught:
            await put
        assert caught.value.outcome_unknown
        assert script.closed == 1
        assert client.stats().running == 0

    run_simulated(main)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("when", [0.0, 0.5, 1.0, 1.05, 2.0, 2.5])
def test_cancelled_at_every_await(name: str, when: float) -> None:
    """A call cancelled while it is sent, waits or pauses ends at once and leaves a client that works."""

    async def main() -> None:
        script = Script(UNSENT, UNSENT, FINAL[name], *[FINAL["describe"]] * 2)
        async with client_on(script, ClientConfig(retry_base_s=0.5)) as client:
            call = asyncio.create_task(CALLS[name](client))
            await anyio.sleep(when)
            call.cancel()
            await asyncio.wait({call})
            assert client.stats().running == 0
            script._answers = [FINAL["describe"]]
            assert (await client.streams.describe("s")).name == "s"
        assert script.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_simulated(main)


def test_many_tasks_share_a_client() -> None:
    """Calls of many tasks run at once and end on their own."""

    async def main() -> None:
        script = Script(*[FINAL["describe"]] * 50)
        async with client_on(script) as client, anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(client.streams.describe, "s")
        assert anyio.current_time() == pytest.approx(1.0)

    run_simulated(main)


# --- the door -----------------------------------------------------------------------------------------------------


def test_connect_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint and project come from the call, else from the environment, else the error names both ways."""
    monkeypatch.delenv("DISSTREAM_ENDPOINT", raising=False)
    monkeypatch.delenv("DISSTREAM_PROJECT_ID", raising=False)
    with pytest.raises(ConfigError, match=r"connect\(project_id=.*DISSTREAM_PROJECT_ID"):
        connect("http://h")
    with pytest.raises(ConfigError, match=r"connect\('http.*DISSTREAM_ENDPOINT"):
        connect(project_id="p")
    monkeypatch.setenv("DISSTREAM_ENDPOINT", "http://env:1")
    monkeypatch.setenv("DISSTREAM_PROJECT_ID", "env")
    assert (connect().project_id, _endpoint(connect())) == ("env", "http://env:1")
    given = connect("http://arg:2", project_id="arg")
    assert (given.project_id, _endpoint(given)) == ("arg", "http://arg:2")
    script = Script()
    assert connect(transport=script).transport is script
    with pytest.raises(ConfigError, match="both"):
        connect("http://h", transport=script)
    monkeypatch.setenv("DISSTREAM_PROJECT_ID", "a b")
    with pytest.raises(ConfigError, match="'a b'"):
        connect()


def _endpoint(client: DisClient) -> str:
    return getattr(client.transport, "endpoint", "")
