"""Puts with a session: each record is stored once, whatever is repeated, late, doubled, scaled or restarted."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from accounts import Signer, application
from server_http import Answer, AppCaller, Caller, data, serving
from server_logs import GatedLog, TrippedLog, check_waiting_copies, log_of, simulate

from disstream import clock
from disstream.errors import StorageFull
from disstream.model import NewRecord
from disstream.server.config import SERVICE_LIMITS
from disstream.wire.compression import compress
from disstream.wire.http import PROTOBUF, Request
from disstream.wire.partitioning import HashRouter, hash_key, hash_ranges
from disstream.wire.protobuf import decode_put_answer_protobuf, encode_put_protobuf
from disstream.wire.sessions import FENCED, GAP, HEADER, MOVED, Session, SessionLane, encode_session

P = "0123456789abcdef" * 2
THROTTLED = "DIS.4303"

Place = tuple[int, int]
"""Partition and sequence number."""


def text_of(lane: SessionLane, index: int) -> bytes:
    return b"%d.%d.%d" % (lane.partition, lane.epoch, lane.number + index)


class Sender:
    """A producer of which every attempt is written by hand."""

    def __init__(self, caller: Caller, producer: str = P) -> None:
        self.caller = caller
        self.producer = producer

    async def put(
        self, request: int, *lanes: tuple[int, int, int, int], keys: Sequence[str] | None = None
    ) -> list[Place | str]:
        """Lanes are partition, epoch, number, records. The places of the records, or why they were not stored.

        By key if there are `keys`, one for each record; else to the lane's partition by its name.
        """
        session = Session(self.producer, request, tuple(SessionLane(*lane) for lane in lanes))
        texts = [(lane, text_of(lane, i)) for lane in session.lanes for i in range(lane.records)]
        records: list[dict[str, Any]] = [{"data": data(text), "partition_id": str(lane[0])} for lane, text in texts]
        if keys is not None:
            records = [{"data": data(t), "partition_key": k} for (_, t), k in zip(texts, keys, strict=True)]
        return found(await self.call({"stream_name": "s", "records": records}, encode_session(session)))

    async def call(self, body: Any, header: str, **headers: str) -> Answer:
        return await self.caller.call("POST", "/v2/p/records", body, **{HEADER: header}, **headers)


def found(answer: Answer) -> list[Place | str]:
    assert answer.code == "", answer
    entries = answer.told["records"]
    assert answer.told["failed_record_count"] == sum("error_code" in entry for entry in entries)
    return [
        entry.get("error_code") or (int(entry["partition_id"][-10:]), int(entry["sequence_number"]))
        for entry in entries
    ]


async def texts(caller: Caller, partition: int) -> list[str]:
    return [base64.b64decode(record["data"]).decode() for record in await caller.read("s", str(partition))]


def key_in(partitions: int, owner: int, then: tuple[int, int] | None = None) -> str:
    """A key that belongs to partition `owner` of so many, and with `then` (partitions, owner) also to another one."""
    routers = [(HashRouter(enumerate(hash_ranges(partitions))), owner)]
    if then is not None:
        routers.append((HashRouter(enumerate(hash_ranges(then[0]))), then[1]))
    return next(k for k in map(str, range(10_000)) if all(r.owner(hash_key(k)) == owned for r, owned in routers))


@pytest.fixture(params=["memory", "disk"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"data_dir": None if request.param == "memory" else tmp_path / "d"}


# --- repetitions ----------------------------------------------------------------------------------------------------


async def test_a_repeated_put_is_stored_once(config: dict[str, Any]) -> None:
    """Whatever attempt asks, the same records have the same places; what is new goes behind them."""
    async with serving(**config) as http:
        await http.create("s", 2)
        sender = Sender(http)
        first = await sender.put(1, (1, 0, 0, 3), (0, 0, 0, 2))
        assert first == [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1)]
        for request in (1, 2, 9):
            assert await sender.put(request, (1, 0, 0, 3), (0, 0, 0, 2)) == first
        await http.put("s", {"data": data(b"other"), "partition_id": "1"})
        assert await sender.put(10, (0, 0, 0, 2), (1, 0, 1, 4)) == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 4), (1, 5)]
        assert await texts(http, 0) == ["0.0.0", "0.0.1"]
        assert await texts(http, 1) == ["1.0.0", "1.0.1", "1.0.2", "other", "1.0.3", "1.0.4"]


async def test_late_copies_store_nothing() -> None:
    """A copy of an attempt that comes after the next one, or after the lane began anew, leaves no trace."""
    async with serving() as http:
        await http.create("s", 2)
        sender = Sender(http)
        assert await sender.put(2, (0, 0, 0, 2)) == [(0, 0), (0, 1)]
        assert await sender.put(1, (0, 0, 0, 4)) == [(0, 0), (0, 1), FENCED, FENCED]
        assert await sender.put(3, (0, 0, 3, 1), (1, 0, 0, 1)) == [GAP, (1, 0)]
        assert await sender.put(4, (0, 1, 0, 1)) == [(0, 2)]
        assert await sender.put(5, (0, 0, 2, 1), (1, 0, 1, 1)) == [FENCED, (1, 1)]
        assert await Sender(http, "f" * 32).put(1, (0, 0, 7, 2)) == [GAP, GAP]
        assert await texts(http, 0) == ["0.0.0", "0.0.1", "0.1.0"]


async def test_what_was_refused_stays_refused() -> None:
    """Of an attempt that met a gap no copy is stored once the gap is closed; the next attempt is."""
    async with serving() as http:
        await http.create("s")
        sender = Sender(http)
        assert await sender.put(5, (0, 0, 2, 2)) == [GAP, GAP]
        assert await sender.put(4, (0, 0, 0, 2)) == [FENCED, FENCED]  # it was sent before the answer to 5
        assert await sender.put(6, (0, 0, 0, 2)) == [(0, 0), (0, 1)]
        assert await sender.put(5, (0, 0, 2, 2)) == [FENCED, FENCED]
        assert await sender.put(7, (0, 0, 2, 2)) == [(0, 2), (0, 3)]


async def test_copies_at_the_same_time(config: dict[str, Any]) -> None:
    """Five copies of the same request at once: one is stored, all get the same places."""
    async with serving(**config) as http:
        await http.create("s", 3)
        sender = Sender(http)
        for turn in range(20):
            lanes = [(p, 0, 10 * turn, 10) for p in range(3)]
            answers = await asyncio.gather(*(sender.put(turn, *lanes) for _ in range(5)))
            assert answers == [[(p, 10 * turn + n) for p in range(3) for n in range(10)]] * 5
        assert await texts(http, 1) == [f"1.0.{n}" for n in range(200)]


async def test_a_thousand_records_over_many_lanes(config: dict[str, Any]) -> None:
    """Large puts by key, repeated and extended."""
    async with serving(**config) as http:
        await http.create("s", 4)
        sender = Sender(http)
        own = [key_in(4, p) for p in range(4)]
        lanes = [(p, 0, 0, 250) for p in (2, 0, 3, 1)]
        keys = [own[p] for p, *_ in lanes for _ in range(250)]
        expected = [(p, n) for p, *_ in lanes for n in range(250)]
        assert await sender.put(1, *lanes, keys=keys) == expected
        assert await sender.put(2, *lanes, keys=keys) == expected
        lanes[2] = (3, 0, 200, 300)
        keys = [own[p] for p, _, _, count in lanes for _ in range(count)]
        again = await sender.put(3, *lanes, keys=keys)
        assert again == expected[:500] + [(3, n) for n in range(200, 500)] + expected[750:]
        assert [len(await texts(http, p)) for p in range(4)] == [250, 250, 250, 500]


async def test_protobuf() -> None:
    """The header goes with either form of the body."""
    async with serving() as http:
        await http.create("s", 2)
        body = encode_put_protobuf("s", [NewRecord(b"%d" % n, partition_id=str(n // 2)) for n in range(4)])
        for request, lanes in ((1, "0=0:0:2, 1=0:0:2"), (2, "0=0:0:2, 1=0:0:2"), (3, "0=0:1:2, 1=0:5:2")):
            answer = await Sender(http).call(body, f"{P}.{request}; {lanes}", content_type=PROTOBUF)
            told = [r.sequence_number if r.ok else r.error_code for r in decode_put_answer_protobuf(answer.body)]
            assert told == ([0, 1, 0, 1] if request < 3 else [1, 2, GAP, GAP])


async def test_after_a_restart(tmp_path: Path) -> None:
    """The effect survived the server, so does what it knows of the producer."""
    async with serving(data_dir=tmp_path) as http:
        await http.create("s", 2)
        assert await Sender(http).put(7, (0, 3, 0, 2), (1, 0, 0, 1)) == [(0, 0), (0, 1), (1, 0)]
    async with serving(data_dir=tmp_path) as http:
        sender = Sender(http)
        assert await sender.put(7, (0, 3, 0, 3), (1, 0, 0, 1)) == [(0, 0), (0, 1), FENCED, (1, 0)]
        assert await sender.put(8, (0, 3, 0, 3), (1, 0, 0, 2)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
        assert await sender.put(9, (0, 2, 0, 1)) == [FENCED]


async def test_places_that_are_not_known_any_more() -> None:
    """A repetition of something very old is told to be stored, with no number."""
    async with serving() as http:
        await http.create("s")
        sender = Sender(http)
        for n in range(20):
            await sender.put(n, (0, 0, n, 1))
            await http.put("s", {"data": "", "partition_id": "0"})
        assert await sender.put(99, (0, 0, 2, 4)) == [(0, -1), (0, -1), (0, 8), (0, 10)]


async def test_a_stream_made_anew_knows_nobody() -> None:
    """Another stream of the same name is another log."""
    async with serving() as http:
        await http.create("s")
        await Sender(http).put(1, (0, 0, 0, 2))
        await http.call("DELETE", "/v2/p/streams/s")
        await http.create("s")
        assert await Sender(http).put(2, (0, 0, 2, 1)) == [GAP]
        assert await Sender(http).put(3, (0, 0, 0, 1)) == [(0, 0)]


async def test_only_what_is_new_is_counted() -> None:
    """Repetitions are no traffic."""
    async with serving() as http:
        await http.create("s")
        sender = Sender(http)
        for request, records in ((1, 3), (2, 3), (3, 5)):
            await sender.put(request, (0, 0, 0, records))
        await http.server.app.metrics.flush()
        end = clock.wall_ms() // 1000
        query = f"label=total_put_records_per_stream&start_time={end - 300}&end_time={end + 60}"
        told = (await http.call("GET", f"/v2/p/streams/s/metrics?{query}")).told
        assert sum(point["value"] for point in told["metrics"]["dataPoints"]) == 5


# --- what is no session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        f"{P}.1",
        f"{P}.1; 0=0:0:2",
        f"{P}.1; 0=0:0:1, 0=0:1:0",
        f"{P}.1; 0=0:0:1, 1=0:0:1",
        f"{P}.-1; 0=0:0:1",
        f"{P.upper()}.1; 0=0:0:1",
    ],
)
async def test_a_header_that_is_no_session(header: str) -> None:
    """Refused with DIS.4200 before anything is stored; so is one that tells of another number of records."""
    async with serving() as http:
        await http.create("s", 2)
        body = {"stream_name": "s", "records": [{"data": "", "partition_id": "0"}]}
        answer = await Sender(http).call(body, header)
        assert (answer.status, answer.code) == (400, "DIS.4200")
        assert "session" in answer.told["error_msg"]
        assert await http.ranges("s") == ["[0 : 0]", "[0 : 0]"]


async def test_requests_that_are_refused_as_a_whole() -> None:
    """What is wrong with a request whatever its session is told as ever; the next request may put it right."""
    async with serving() as http:
        await http.create("s")
        record = {"data": "", "partition_id": "none"}
        sender = Sender(http)
        for body, code in (
            ({"stream_name": "t", "records": [record]}, "DIS.4301"),
            ({"stream_name": "s", "records": [record]}, "DIS.4201"),
            ({"stream_name": "s", "records": [{"data": data(bytes(1_048_577))}]}, "DIS.4200"),
        ):
            assert (await sender.call(body, f"{P}.1; 0=0:0:1")).code == code
        assert await sender.put(2, (0, 0, 0, 1)) == [(0, 0)]


def test_what_was_refused_as_a_whole_stays_refused() -> None:
    """A copy of a request that was told "too busy" or "no such stream" stores nothing when there is room, or a stream.

    What an attempt before or after it stored is told with its places, and another project's producer does not matter.
    """

    async def test(caller: AppCaller) -> None:
        body = b'{"stream_name":"s","records":[{"data":""},{"data":""}]}'
        packed, told = compress(body, "zstd")

        async def put(request: int, project: str = "p") -> Answer:
            headers = {HEADER: f"{P}.{request}; 0=0:0:2", **told}
            return await caller.call("POST", f"/v2/{project}/records", packed, **headers)

        assert (await put(1)).code == "DIS.4301"
        await caller.create("s")
        await caller.create("s", project="q")
        assert found(await put(1)) == [FENCED] * 2
        caller.app._unpacking.held_bytes += 10**12
        assert (await put(3)).code == "DIS.4305"
        caller.app._unpacking.held_bytes -= 10**12
        assert found(await put(3)) == [FENCED] * 2
        assert found(await put(3, "q")) == [(0, 0), (0, 1)]
        assert found(await put(2)) == [FENCED] * 2, "the copy was refused by its lane, as whatever came before it is"
        assert found(await put(4)) == [(0, 0), (0, 1)]
        for request in (1, 3):
            assert found(await put(request)) == [(0, 0), (0, 1)]

    simulate(test)


async def test_a_stranger_refuses_nothing() -> None:
    """A request that was refused because of who sent it does not shut out the producer whose id it bears."""
    async with application() as app:
        signer = Signer(app, "alice")
        body = {"stream_name": "s", "records": [{"data": ""}]}
        await signer.create("s", project="a1")
        stranger = await AppCaller(app).call("POST", "/v2/a1/records", body, **{HEADER: f"{P}.1; 0=0:0:1"})
        assert stranger.status == 401
        answer = await signer.call("POST", "/v2/a1/records", body, **{HEADER: f"{P}.1; 0=0:0:1"})
        assert found(answer) == [(0, 0)]


async def test_numbers_beyond_all_bounds() -> None:
    """The largest header there is stores nothing and breaks nothing; partitions may be invented."""
    async with serving() as http:
        await http.create("s")
        huge = 10**18 - 1
        sender = Sender(http)
        assert await sender.put(huge, (0, huge, huge, 1)) == [GAP]
        record = {"data": "", "partition_id": "0"}
        answer = await sender.call({"stream_name": "s", "records": [record]}, f"{P}.1; {huge}=0:0:1")
        assert found(answer) == [MOVED]
        keyless = [{"data": ""}] * 4
        answer = await sender.call({"stream_name": "s", "records": keyless}, f"{P}.2; 7=0:0:2, 8=0:3:2")
        assert found(answer) == [MOVED] * 4
        assert await http.ranges("s") == ["[0 : 0]"]


# --- bandwidth, memory -----------------------------------------------------------------------------------------------


def test_whoever_repeats_is_not_throttled() -> None:
    """With the bandwidth used up, what is stored is told with its places; what is not fails as throttled, in a 200."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s", 2)
        sender = Sender(caller)
        places: list[Place | str] = [(0, n) for n in range(1000)]
        assert await sender.put(1, (0, 0, 0, 1000)) == places
        assert await sender.put(2, (0, 0, 0, 1000)) == places
        assert await sender.put(3, (0, 0, 990, 20), (1, 0, 0, 1)) == [*places[990:], *[THROTTLED] * 10, (1, 0)]
        assert await sender.put(4, (0, 0, 1000, 10)) == [THROTTLED] * 10
        await anyio.sleep(1)
        # A copy of the attempt that was throttled does not slip in behind.
        assert await sender.put(3, (0, 0, 990, 20), (1, 0, 0, 1)) == [*places[990:], *[FENCED] * 10, (1, 0)]
        assert await sender.put(5, (0, 0, 1000, 10)) == [(0, n) for n in range(1000, 1010)]
        assert await sender.put(6, (0, 0, 1010, 1005), (1, 0, 1, 1010)) == [
            *[(0, n) for n in range(1010, 2000)],
            *[THROTTLED] * 15,
            *[(1, n) for n in range(1, 1001)],
            *[THROTTLED] * 10,
        ]

    simulate(test, **SERVICE_LIMITS)


def test_a_copy_waits_for_the_first() -> None:
    """While a request is being stored its copy is neither throttled nor refused: it waits, though the first is cut."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s")
        sender = Sender(caller)
        answers: list[list[Place | str]] = []

        async def copy() -> None:
            answers.append(await sender.put(1, (0, 0, 0, 1001)))

        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def cut() -> None:
                with first:
                    await copy()

            tasks.start_soon(cut)
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):
                tasks.start_soon(copy)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            meanwhile = log.appends, list(answers)
            log.gate.set()
        assert meanwhile == (1, [])
        places: list[Place | str] = [(0, n) for n in range(1000)]
        assert answers == [[*places, THROTTLED], *[[*places, FENCED]] * 3]
        assert log.appends == 1

    simulate(test, GatedLog, **SERVICE_LIMITS)


def test_waiting_copies_are_small() -> None:
    """Copies that wait for the first keep their bodies, not ten times that as records; all are told the same places."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        body = b'{"stream_name":"s","records":[%s]}' % b",".join([b'{"data":""}'] * 20_000)
        await check_waiting_copies(caller, body, **{HEADER: f"{P}.1; 0=0:0:20000"})

    simulate(test, GatedLog)


# --- scaling ---------------------------------------------------------------------------------------------------------


async def scale(caller: Caller, target: int) -> None:
    body = {"stream_name": "s", "target_partition_count": target}
    assert (await caller.call("PUT", "/v2/p/streams/s", body)).code == ""


async def test_scaling_between_attempt_and_repetition(config: dict[str, Any]) -> None:
    """What was stored under the old layout is found there; what was not is told to have moved, from there on."""
    async with serving(**config) as http:
        await http.create("s", 2)
        sender = Sender(http)
        stays, moves = key_in(2, 0, then=(3, 0)), key_in(2, 1, then=(3, 2))
        first = await sender.put(1, (0, 0, 0, 2), (1, 0, 0, 2), keys=[stays] * 2 + [moves] * 2)
        assert first == [(0, 0), (0, 1), (1, 0), (1, 1)]
        await scale(http, 3)
        again = await sender.put(2, (0, 0, 0, 3), (1, 0, 0, 3), keys=[stays] * 3 + [moves] * 3)
        assert again == [*first[:2], (0, 2), *first[2:], MOVED]
        # Behind one that moved, those that did not are told the same: they follow it.
        still = key_in(2, 1, then=(3, 1))
        keys = [moves, still]
        assert await sender.put(3, (1, 0, 2, 2), keys=keys) == [MOVED, MOVED]
        assert await sender.put(4, (1, 0, 2, 2), keys=keys[::-1]) == [(1, 2), MOVED]
        assert await sender.put(5, (2, 0, 0, 1), keys=[moves]) == [(2, 0)]


async def test_there_and_back_again(config: dict[str, Any]) -> None:
    """An attempt that moved is not stored when its layout comes back, and a DELETED partition tells what it has."""
    async with serving(**config) as http:
        await http.create("s", 2)
        sender = Sender(http)
        moves = key_in(2, 1, then=(3, 2))
        await scale(http, 3)
        assert await sender.put(2, (1, 0, 0, 1), keys=[moves]) == [MOVED]
        assert await sender.put(3, (2, 0, 0, 1), keys=[moves]) == [(2, 0)]
        await scale(http, 2)
        assert await sender.put(1, (1, 0, 0, 1), keys=[moves]) == [FENCED]
        assert await sender.put(4, (2, 0, 0, 2), keys=[moves] * 2) == [(2, 0), MOVED]
        # Named by its number, which the stream does not write any more.
        assert await sender.put(5, (2, 0, 0, 2), (0, 0, 0, 1)) == [(2, 0), MOVED, (0, 0)]
        assert await sender.put(6, (1, 0, 0, 1), keys=[moves]) == [(1, 0)]
        assert [len(await texts(http, p)) for p in range(3)] == [1, 1, 1]


def test_scaling_under_an_append() -> None:
    """The layout changes between look-up and append: what stays is stored, what moved is told so, none is rerouted."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s", 2)
        sender = Sender(caller)
        stays, moves = key_in(2, 0, then=(3, 0)), key_in(2, 1, then=(3, 2))
        log.before_append = lambda: scale(caller, 3)
        told = await sender.put(1, (0, 0, 0, 2), (1, 0, 0, 2), keys=[stays] * 2 + [moves] * 2)
        assert told == [(0, 0), (0, 1), MOVED, MOVED]
        log.before_append = lambda: scale(caller, 2)
        assert await sender.put(2, (2, 0, 0, 1), (0, 0, 2, 1), keys=[moves, stays]) == [MOVED, (0, 2)]
        assert await caller.ranges("s") == ["[0 : 3]", "[0 : 0]", "[0 : 0]"]

        async def twice() -> None:
            await scale(caller, 3)
            log.before_append = lambda: scale(caller, 2)

        log.before_append = twice
        assert await sender.put(3, (0, 0, 3, 1), keys=[stays]) == [THROTTLED]
        assert await sender.put(4, (0, 0, 3, 1), keys=[stays]) == [(0, 3)]

    simulate(test, TrippedLog)


@pytest.mark.parametrize("keyed", [True, False])
def test_no_room_behind_what_was_stored(keyed: bool) -> None:
    """The disk is full when the rest of a put is tried under the new layout: what was stored before is told."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s", 2)
        sender = Sender(caller)
        stays, moves = key_in(2, 0, then=(3, 0)), key_in(2, 1, then=(3, 1))
        keys = [stays] * 2 + [moves] * 2 if keyed else None

        async def full() -> None:
            raise StorageFull("nothing was stored: the disk is full")

        async def closed() -> None:
            """As long as a change of the layout goes on a partition may have an epoch that nobody knows yet."""
            await log.open({ref: 9 for ref in log._partitions if ref.number == 1})
            log.before_append = full

        log.before_append = closed
        told = await sender.put(1, (0, 0, 0, 2), (1, 0, 0, 2), keys=keys)
        assert told == [(0, 0), (0, 1), THROTTLED, THROTTLED]
        assert await sender.put(1, (0, 0, 0, 2), (1, 0, 0, 2), keys=keys) == [(0, 0), (0, 1), FENCED, FENCED]

        log.before_append = full
        session = encode_session(Session(P, 2, (SessionLane(0, 0, 2, 1),)))
        body = {"stream_name": "s", "records": [{"data": data(b"x"), "partition_id": "0"}]}
        assert (await sender.call(body, session)).code == THROTTLED
        assert await sender.put(3, (0, 0, 0, 3)) == [(0, 0), (0, 1), (0, 2)]

    simulate(test, TrippedLog)


def test_deleted_under_an_append() -> None:
    """The stream is gone when the append comes: each record fails with DIS.4301."""

    async def test(caller: AppCaller) -> None:
        log = log_of(caller)
        await caller.create("s")

        async def delete() -> None:
            await caller.call("DELETE", "/v2/p/streams/s")

        log.before_append = delete
        assert await Sender(caller).put(1, (0, 0, 0, 2)) == ["DIS.4301"] * 2

    simulate(test, TrippedLog)


async def test_the_extension_is_told() -> None:
    """A client finds it in X-Disstream."""
    async with serving() as http:
        answer = await http.call("GET", "/v2/p/streams")
        assert "sessions" in [name.strip() for name in answer.headers["x-disstream"].split(",")]


def test_the_request_is_a_plain_one() -> None:
    """The application takes the header in lower case, as the edge gives it."""

    async def test(caller: AppCaller) -> None:
        await caller.create("s")
        request = Request(
            method="POST",
            target="/v2/p/records",
            headers={HEADER: f"{P}.1; 0=0:5:1"},
            body=b'{"stream_name":"s","records":[{"data":""}]}',
        )
        assert b"SESSION_GAP" in (await caller.app.handle(request)).body

    simulate(test)
