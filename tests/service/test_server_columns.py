"""A put as columns means what the same put in JSON means: places, answers, refusals and what is stored."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from server_http import Answer, AppCaller, Caller, serving
from server_logs import GatedLog, TrippedLog, check_waiting_copies, log_of, simulate

from disstream.model import NewRecord
from disstream.server.config import SERVICE_LIMITS
from disstream.wire.columns import COLUMNS, encode_columns
from disstream.wire.compression import COMPRESSIONS, compress
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges
from disstream.wire.places import HEADER as ANSWER
from disstream.wire.records import encode_put
from disstream.wire.sessions import GAP, HEADER, MOVED, Session, SessionLane, encode_session

P = "0123456789abcdef" * 2
AS_COLUMNS = {"content-type": COLUMNS}
OWNED_BY_SERVER_MS = 1_000_000
"""Times below this are told by the records of these tests, later ones are those of the appends."""


def columns(records: list[NewRecord], name: str = "s", stream_id: str | None = None) -> bytes:
    body = encode_columns(name, records, stream_id)
    assert body is not None
    return body


async def put(caller: Caller, form: str, records: list[NewRecord], **headers: str) -> Answer:
    if form == "json":
        return await caller.call("POST", "/v2/p/records", encode_put("s", records), **headers)
    return await caller.call("POST", "/v2/p/records", columns(records), **AS_COLUMNS, **headers)


Stored = tuple[int, bytes, str | None, int | None]
"""Sequence number, payload, key, and the time if the record told it."""


async def stored(caller: Caller, partition: int) -> list[Stored]:
    return [
        (
            int(record["sequence_number"]),
            base64.b64decode(record["data"]),
            record.get("partition_key"),
            record["timestamp"] if record["timestamp"] < OWNED_BY_SERVER_MS else None,
        )
        for record in await caller.read("s", str(partition))
    ]


ROUTER = HashRouter(enumerate(hash_ranges(3)))


def owner(record: NewRecord) -> int:
    return ROUTER.owner(hash_key(record.key or "")) or 0


def batches(seed: int, *, keyed: bool = False) -> list[list[NewRecord]]:
    """Puts of all shapes: in any order, partition by partition, and for one partition only."""
    dice = random.Random(seed)
    keys: list[str | None] = ["k1", "k2", "key-42", "分区", "a", "b", "c"]
    puts = []
    for turn in range(12):
        chosen = keys if keyed else [*keys, None, ""]
        records = [
            NewRecord(
                dice.randbytes(dice.choice([0, 1, 5, 300])),
                dice.choice(chosen),
                timestamp=dice.randrange(OWNED_BY_SERVER_MS) if turn % 2 and dice.random() < 0.7 else None,
            )
            for _ in range(dice.choice([1, 2, 30, 200]))
        ]
        if keyed or turn % 3 == 1:
            records.sort(key=owner)
        if turn % 3 == 2:
            records = [msgspec.structs.replace(record, key="only") for record in records]
        puts.append(records)
    return puts


@pytest.fixture(params=["memory", "disk"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Settings of a server with a name, which has a directory of its own."""
    return lambda name: {"data_dir": None if request.param == "memory" else tmp_path / name}


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_put_in_both_forms(seed: int, config: Callable[[str], dict[str, Any]]) -> None:
    """Equal puts get equal answers and store equal records: keys, times, order, and whoever has no key takes turns."""
    answers: dict[str, list[bytes]] = {}
    found: dict[str, list[list[Stored]]] = {}
    for form in ("json", "columns"):
        async with serving(**config(form)) as http:
            await http.create("s", 3)
            told = [await put(http, form, records) for records in batches(seed)]
            assert {answer.code for answer in told} == {""}
            answers[form] = [answer.body for answer in told]
            found[form] = [await stored(http, n) for n in range(3)]
    assert answers["columns"] == answers["json"]
    assert found["columns"] == found["json"]
    assert sum(map(len, found["json"])) == sum(map(len, batches(seed)))
    assert all(key != "" for rows in found["json"] for _, _, key, _ in rows)


async def in_session(http: Caller, form: str, seed: int) -> list[Answer]:
    """Each put is sent twice, and begins with the last records of the one before."""
    numbers = [0, 0, 0]
    request = 0
    tails: dict[int, list[NewRecord]] = {0: [], 1: [], 2: []}
    answers = []
    for records in batches(seed, keyed=True):
        lanes, sent = [], []
        for partition in range(3):
            mine = [record for record in records if owner(record) == partition]
            again = tails[partition]
            if not again and not mine:
                continue
            lanes.append(SessionLane(partition, 0, numbers[partition] - len(again), len(again) + len(mine)))
            sent += [*again, *mine]
            numbers[partition] += len(mine)
            tails[partition] = [*again, *mine][-2:]
        for _ in range(2):
            request += 1
            header = encode_session(Session(P, request, tuple(lanes)))
            answers.append(await put(http, form, sent, **{HEADER: header}))
    return answers


@pytest.mark.parametrize("seed", range(4))
async def test_a_session_in_both_forms(seed: int, config: Callable[[str], dict[str, Any]]) -> None:
    """Repeated whole and in part, records are stored once, with the same places in either form."""
    answers: dict[str, list[bytes]] = {}
    found: dict[str, list[list[Stored]]] = {}
    for form in ("json", "columns"):
        async with serving(**config(form)) as http:
            await http.create("s", 3)
            told = await in_session(http, form, seed)
            assert {answer.code for answer in told} == {""}
            assert {answer.told["failed_record_count"] for answer in told} == {0}
            answers[form] = [answer.body for answer in told]
            found[form] = [await stored(http, n) for n in range(3)]
    assert answers["columns"] == answers["json"]
    assert found["columns"] == found["json"]
    sent = sorted(record.data for records in batches(seed, keyed=True) for record in records)
    assert sorted(row[1] for rows in found["columns"] for row in rows) == sent


async def test_a_session_that_does_not_tell_the_truth() -> None:
    """A gap is told record by record, and a session of another number of records is refused."""
    async with serving() as http:
        await http.create("s")
        sent = [NewRecord(b"%d" % n, "k") for n in range(3)]
        answer = await put(http, "columns", sent, **{HEADER: f"{P}.1; 0=0:5:3"})
        assert [entry["error_code"] for entry in answer.told["records"]] == [GAP] * 3
        answer = await put(http, "columns", sent, **{HEADER: f"{P}.2; 0=0:0:2"})
        assert (answer.status, answer.code) == (400, "DIS.4200")
        assert await stored(http, 0) == []


SMALL = {
    "max_record_bytes": 100,
    "max_request_bytes": 1_000,
    "max_request_records": 50,
    "max_partition_key_bytes": 10,
}


@pytest.mark.parametrize(
    ("records", "status", "code"),
    [
        ([], 400, "DIS.4202"),
        ([NewRecord(b"")] * 50, 200, ""),
        ([NewRecord(b"")] * 51, 400, "DIS.4200"),
        ([NewRecord(b"x" * 100)] * 10, 200, ""),
        ([NewRecord(b"x" * 100)] * 10 + [NewRecord(b"x")], 413, "DIS.4200"),
        ([NewRecord(b"a"), NewRecord(b"x" * 101)], 413, "DIS.4200"),
        ([NewRecord(b"", key="k" * 10)], 200, ""),
        ([NewRecord(b"", key="ok"), NewRecord(b"", key="k" * 11)], 400, "DIS.4200"),
        ([NewRecord(b"", key="ü" * 5)], 200, ""),
        ([NewRecord(b"", key="ü" * 5 + "k")], 400, "DIS.4200"),
        ([NewRecord(b"", timestamp=0)], 200, ""),
        ([NewRecord(b"", timestamp=-1)], 400, "DIS.4200"),
    ],
)
def test_the_same_refusals_in_both_forms(records: list[NewRecord], status: int, code: str) -> None:
    """What cannot be put is refused alike, the first time and the next, and nothing of it is stored."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        told = []
        for form in ("json", "columns", "columns"):
            answer = await put(caller, form, records)
            assert (answer.status, answer.code) == (status, code), form
            told.append(answer.told["message"] if code else "")
        if "-1" not in str(records) and len(records) != 51:  # who refuses these says what he expected
            assert len(set(told)) == 1
        assert await caller.ranges("s") == [f"[0 : {0 if code else 3 * len(records)}]"]

    simulate(test, **SMALL)


async def test_bodies_that_are_no_columns() -> None:
    """Damaged ones, those of another form, and those that name no stream or an unknown one, each with its code."""
    async with serving() as http:
        await http.create("s")
        good = columns([NewRecord(b"x", "k")])

        async def code(body: bytes, kind: str = COLUMNS) -> str:
            answer = await http.call("POST", "/v2/p/records", body, content_type=kind)
            assert answer.status in (400, 404, 200), answer
            return answer.code

        assert await code(good[:-1]) == "DIS.4300"
        assert await code(good + b"\0") == "DIS.4300"
        assert await code(b"") == "DIS.4300"
        assert await code(encode_put("s", [NewRecord(b"x")])) == "DIS.4200"  # its first byte is a number in msgpack
        assert await code(msgspec.msgpack.encode([1])) == "DIS.4200"
        assert await code(msgspec.msgpack.encode(["s", None, ["k"], None, [2], b"x"])) == "DIS.4200"
        assert await code(columns([NewRecord(b"x")], "")) == "DIS.4200"
        assert await code(columns([NewRecord(b"x")], "other")) == "DIS.4301"
        # As an endpoint answers that knows no columns: that is how a client tells.
        assert await code(good, "application/json") == "DIS.4300"
        assert await http.ranges("s") == ["[0 : 0]"]
        assert await code(good, "Application/X-Disstream-Columns; charset=utf-8") == ""
        assert await http.ranges("s") == ["[0 : 1]"]


async def test_by_id() -> None:
    """The stream may be named by its id, in place of the name or beside it."""
    async with serving() as http:
        await http.create("s")
        stream_id = (await http.describe("s"))["stream_id"]
        for name, id_ in (("", stream_id), ("s", stream_id), ("s", None)):
            body = columns([NewRecord(b"x")], name, id_)
            assert (await http.call("POST", "/v2/p/records", body, **AS_COLUMNS)).code == ""
        body = msgspec.msgpack.encode((None, stream_id, [None], None, [1], b"x"))
        assert (await http.call("POST", "/v2/p/records", body, **AS_COLUMNS)).code == ""
        body = columns([NewRecord(b"x")], "", "no-such-id")
        assert (await http.call("POST", "/v2/p/records", body, **AS_COLUMNS)).code == "DIS.4301"
        assert await http.ranges("s") == ["[0 : 4]"]


@pytest.mark.parametrize("kind", COMPRESSIONS)
async def test_compressed(kind: Any) -> None:
    """Columns may be compressed like any body; the answer is JSON, in short where that is asked for."""
    async with serving() as http:
        await http.create("s")
        body, headers = compress(columns([NewRecord(b"x" * 5_000, "k")] * 20), kind)
        assert len(body) < 20_000
        answer = await http.call("POST", "/v2/p/records", body, **AS_COLUMNS, **headers, **{ANSWER: "places"})
        assert answer.told == {"failed_record_count": 0, "places": [[0, 0, 20]]}
        assert (await stored(http, 0))[19] == (19, b"x" * 5_000, "k", None)


async def test_a_get_is_never_columns() -> None:
    """Pages come as JSON whatever the content type of the get says."""
    async with serving() as http:
        await http.create("s")
        await put(http, "columns", [NewRecord(b"x")])
        cursor = await http.cursor("s", cursor_type="TRIM_HORIZON")
        answer = await http.call("GET", f"/v2/p/records?partition-cursor={cursor}", **AS_COLUMNS)
        assert answer.code == ""
        assert len(answer.told["records"]) == 1


def key_in(partitions: int, wanted: int, then: tuple[int, int] | None = None) -> str:
    """A key that belongs to partition `wanted` of so many, and with `then` (partitions, number) also to another one."""
    routers = [(HashRouter(enumerate(hash_ranges(partitions))), wanted)]
    if then is not None:
        routers.append((HashRouter(enumerate(hash_ranges(then[0]))), then[1]))
    return next(k for k in map(str, range(10_000)) if all(r.owner(hash_key(k)) == number for r, number in routers))


@pytest.mark.parametrize(("session", "in_turn"), [(False, True), (False, False), (True, False)])
def test_what_is_refused_is_the_end_of_a_partition(session: bool, in_turn: bool) -> None:
    """With the bandwidth of one partition nearly used up, its first records are stored, the others' all of them."""

    async def run(caller: AppCaller, form: str) -> tuple[bytes, list[list[Stored]]]:
        await caller.create("s", 3)
        keys = [key_in(3, n) for n in range(3)]
        assert (await put(caller, form, [NewRecord(b"before", keys[1])] * 600)).code == ""
        records = [NewRecord(b"%d" % n, keys[n % 3]) for n in range(1800)]
        headers = {}
        if not in_turn:
            records.sort(key=owner)
        if session:
            headers = {HEADER: f"{P}.1; 0=0:0:600, 1=0:0:600, 2=0:0:600"}
        answer = await put(caller, form, records, **headers)
        failed = [i for i, entry in enumerate(answer.told["records"]) if "error_code" in entry]
        mine = [i for i, record in enumerate(records) if record.key == keys[1]]
        assert failed == mine[400:]
        assert {answer.told["records"][i]["error_code"] for i in failed} == {"DIS.4303"}
        again = await put(caller, form, records[:3] if in_turn else [records[0], records[600], records[-1]])
        assert [i for i, entry in enumerate(again.told["records"]) if "error_code" in entry] == [1]
        return answer.body, [await stored(caller, n) for n in range(3)]

    found = []

    for form in ("json", "columns"):

        async def test(caller: AppCaller, form: str = form) -> None:
            found.append(await run(caller, form))

        simulate(test, **SERVICE_LIMITS)
    assert found[0] == found[1]
    assert [len(rows) for rows in found[1][1]] == [601, 1000, 601]


@pytest.mark.parametrize("in_turn", [True, False])
def test_memory_is_bounded_alike(in_turn: bool) -> None:
    """What exceeds the bytes that wait for the log is refused, by the same rule in either form; all is given back."""
    answers = []

    async def test(caller: AppCaller) -> None:
        for form in ("json", "columns"):
            await caller.create("s", 3)
            records = [NewRecord(b"x" * (n % 100), f"{n % 7}") for n in range(60)]
            if not in_turn:
                records.sort(key=owner)
            answer = await put(caller, form, records)
            failed = [entry.get("error_code") for entry in answer.told["records"]]
            assert 0 < failed.count("DIS.4303") < 60
            answers.append((answer.body, [await stored(caller, n) for n in range(3)]))
            assert (await put(caller, form, records[:1])).told["failed_record_count"] == 0
            await caller.call("DELETE", "/v2/p/streams/s")

    simulate(test, max_record_bytes=100, max_partition_key_bytes=10, max_pending_bytes=2_000)
    assert answers[0] == answers[1]


def test_a_put_that_waits_for_its_lane() -> None:
    """Requests that come while another one of their lane is stored wait, and each is stored whole and in order."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s")
        answers: dict[int, Any] = {}

        async def send(request: int) -> None:
            records = [NewRecord(b"%d.%d" % (request, n), "k", timestamp=n + 1) for n in range(10)]
            header = f"{P}.{request}; 0=0:{10 * (request - 1)}:10"
            answers[request] = (await put(caller, "columns", records, **{HEADER: header})).told["records"]

        async with anyio.create_task_group() as tasks:
            for request in (1, 2, 3):
                tasks.start_soon(send, request)
                await anyio.wait_all_tasks_blocked()
            assert (log.appends, answers) == (1, {})
            log.gate.set()
        for request in (1, 2, 3):
            numbers = [int(entry["sequence_number"]) for entry in answers[request]]
            assert numbers == list(range(10 * (request - 1), 10 * request))
        expected = [(b"%d.%d" % (request, n), "k", n + 1) for request in (1, 2, 3) for n in range(10)]
        assert [row[1:] for row in await stored(caller, 0)] == expected

    simulate(test, GatedLog)


def test_what_waits_is_small() -> None:
    """Copies that wait keep their bodies, and no column of them."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        body = columns([NewRecord(b"", None, timestamp=2**40 + n) for n in range(20_000)])
        await check_waiting_copies(caller, body, **AS_COLUMNS, **{HEADER: f"{P}.1; 0=0:0:20000"})

    simulate(test, GatedLog)


async def scale(caller: Caller, target: int) -> None:
    body = {"stream_name": "s", "target_partition_count": target}
    assert (await caller.call("PUT", "/v2/p/streams/s", body)).code == ""


@pytest.mark.parametrize("form", ["json", "columns"])
def test_scaling_under_an_append(form: str) -> None:
    """The layout changes between look-up and append: what moved goes where it belongs by now, in order, whole."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s", 2)
        stays, moves = key_in(2, 0, then=(3, 0)), key_in(2, 1, then=(3, 2))
        log.before_append = lambda: scale(caller, 3)
        records = [NewRecord(b"%d" % n, (stays, moves)[n % 2], timestamp=n) for n in range(10)]
        answer = await put(caller, form, records)
        places = [(entry["partition_id"][-1], entry["sequence_number"]) for entry in answer.told["records"]]
        assert places == [("02"[n % 2], str(n // 2)) for n in range(10)]
        assert await stored(caller, 0) == [(n, b"%d" % (2 * n), stays, 2 * n) for n in range(5)]
        assert await stored(caller, 1) == []
        assert await stored(caller, 2) == [(n, b"%d" % (2 * n + 1), moves, 2 * n + 1) for n in range(5)]
        # One partition alone, and those that take turns.
        log.before_append = lambda: scale(caller, 2)
        answer = await put(caller, form, [NewRecord(b"alone", moves)] * 3)
        assert [entry["partition_id"][-1] for entry in answer.told["records"]] == ["1"] * 3
        assert [row[1] for row in await stored(caller, 1)] == [b"alone"] * 3
        log.before_append = lambda: scale(caller, 3)
        answer = await put(caller, form, [NewRecord(b"turn")] * 12)
        assert answer.told["failed_record_count"] == 0
        assert sum([row[1] == b"turn" for n in range(3) for row in await stored(caller, n)]) == 12

    simulate(test, TrippedLog)


def test_scaling_under_an_append_of_a_session() -> None:
    """What stays is stored, what moved is told so, and the producer sends it again to its new partition."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s", 2)
        stays, moves = key_in(2, 0, then=(3, 0)), key_in(2, 1, then=(3, 2))
        still = key_in(2, 1, then=(3, 1))
        log.before_append = lambda: scale(caller, 3)
        keys = [stays, stays, still, moves, still]
        records = [NewRecord(b"%d" % n, key) for n, key in enumerate(keys)]
        answer = await put(caller, "columns", records, **{HEADER: f"{P}.1; 0=0:0:2, 1=0:0:3"})
        told = [entry.get("error_code") or entry["sequence_number"] for entry in answer.told["records"]]
        assert told == ["0", "1", "0", MOVED, MOVED]
        header = f"{P}.2; 0=0:0:3, 2=0:0:1, 1=0:1:1"
        again = [*records[:2], NewRecord(b"new", stays), records[3], records[4]]
        answer = await put(caller, "columns", again, **{HEADER: header})
        assert [entry["sequence_number"] for entry in answer.told["records"]] == ["0", "1", "2", "0", "1"]
        assert [[row[1] for row in await stored(caller, n)] for n in range(3)] == [
            [b"0", b"1", b"new"],
            [b"2", b"4"],
            [b"3"],
        ]

    simulate(test, TrippedLog)


async def test_the_extension_is_told() -> None:
    """A client finds it in X-Disstream."""
    async with serving() as http:
        answer = await http.call("GET", "/v2/p/streams")
        assert "columns" in [name.strip() for name in answer.headers["x-disstream"].split(",")]


async def test_after_a_restart(tmp_path: Path) -> None:
    """What was put as columns is there when the server comes again, and so is what it knows of the session."""
    records = [NewRecord(b"%d" % n, "k", timestamp=n) for n in range(5)]
    for request in (1, 2):
        async with serving(data_dir=tmp_path) as http:
            if request == 1:
                await http.create("s")
            answer = await put(http, "columns", records, **{HEADER: f"{P}.{request}; 0=0:0:5"})
            assert [int(entry["sequence_number"]) for entry in answer.told["records"]] == list(range(5))
            assert await stored(http, 0) == [(n, b"%d" % n, "k", n) for n in range(5)]
