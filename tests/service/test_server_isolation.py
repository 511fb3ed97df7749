"""What belongs to another project does not exist: for every route the same answer, after the same look-ups."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
from accounts import Signer, application
from dump_samples import SAMPLES
from server_http import Answer, data

from disstream import clock
from disstream.engine import Batch, PartitionRef
from disstream.engine.memory import MemoryCatalog, MemoryEngine, MemoryLog
from disstream.wire.cursors import CursorState, decode_cursor, encode_cursor
from disstream.wire.routes import ROUTES, build


class Things(NamedTuple):
    """Names a request may hold: of what another project has, or of what nobody has."""

    stream: str
    stream_id: str
    app: str
    member: str
    cursor: str


class Watched(MemoryEngine):
    """Notes each call to catalog and log while `calls` is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[object, ...]] | None = None
        self._catalog = WatchedCatalog(self)
        self._log = WatchedLog(self)

    def watch(self) -> list[tuple[object, ...]]:
        self.calls = []
        return self.calls

    def note(self, *call: object) -> None:
        if self.calls is not None:
            self.calls.append(call)


class WatchedCatalog(MemoryCatalog):
    def __init__(self, engine: Watched) -> None:
        super().__init__(engine._life)
        self._engine = engine

    async def get(self, key: str) -> Any:
        self._engine.note("get", key)
        return await super().get(key)

    async def scan(self, prefix: str, after: str = "", limit: int = 1000) -> Any:
        self._engine.note("scan", prefix, after, limit)
        return await super().scan(prefix, after, limit)

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        self._engine.note("transact", sorted(expect), sorted(put), sorted(delete))
        await super().transact(expect, put, delete)


class WatchedLog(MemoryLog):
    def __init__(self, engine: Watched) -> None:
        super().__init__(engine._life)
        self._engine = engine

    async def bounds(self, partitions: Sequence[PartitionRef]) -> Any:
        self._engine.note("bounds", list(partitions))
        return await super().bounds(partitions)

    async def read(self, partition: PartitionRef, from_sequence: int, max_bytes: int) -> list[Batch]:
        self._engine.note("read", partition)
        return await super().read(partition, from_sequence, max_bytes)

    async def append(self, entries: Any, now_ms: int) -> Any:
        self._engine.note("append", [entry[0] for entry in entries])
        return await super().append(entries, now_ms)


@asynccontextmanager
async def two_projects() -> AsyncIterator[tuple[Signer, Signer, Watched, Things]]:
    """Alice with everything there can be in "a1"; bob with an app and a stream in "b1", and what alice has by name."""
    engine = Watched()
    async with application(engine, join_delay_s=0.0) as app:
        alice, bob = Signer(app, "alice"), Signer(app, "bob")
        await alice.create("secret", project="a1")
        stream_id = (await alice.describe("secret", project="a1"))["stream_id"]
        assert (await alice.put("secret", {"data": data(b"x")}, project="a1")).code == ""
        for caller, project, name in ((alice, "a1", "hidden"), (bob, "b1", "mine")):
            assert (await caller.call("POST", f"/v2/{project}/apps", {"app_name": name})).status == 201
        body = {"app_name": "hidden", "stream_name": "secret", "partition_id": "0", "sequence_number": "1"}
        commit = await alice.call("POST", "/v2/a1/checkpoints", {**body, "checkpoint_type": "LAST_READ"})
        assert commit.status == 201, commit
        join = {"groupId": "hidden", "clientId": "member", "interestedStream": ["secret"]}
        assert (await alice.call("POST", "/v2/a1/apps/hidden/consumers", join)).told["state"] == "OK"
        await bob.create("own", project="b1")
        cursor = (await alice.ask_cursor("secret", project="a1", cursor_type="TRIM_HORIZON")).told["partition_cursor"]
        yield alice, bob, engine, Things("secret", stream_id, "hidden", "member", cursor)


def absent(real: Things) -> Things:
    """As long as the real ones, and belonging to nobody."""
    stream_id = real.stream_id[::-1]
    cursor = decode_cursor(real.cursor)._replace(stream_name="sekret", stream_id=stream_id)
    return Things("sekret", stream_id, "hidder", "nobody", encode_cursor(cursor))


class Ask(msgspec.Struct, frozen=True):
    """A request in terms of `Things`."""

    params: dict[str, str] = {}
    query: dict[str, str] = {}
    body: dict[str, Any] | None = None


COMMIT = {"partition_id": "0", "sequence_number": "0", "checkpoint_type": "LAST_READ"}
CURSOR = {"partition-id": "0", "cursor-type": "TRIM_HORIZON"}
MARK = {"partition_id": "0", "checkpoint_type": "LAST_READ"}
RECORDS = [{"data": data(b"x")}]


def streams(**more: str) -> list[Ask]:
    """A stream in the path: by name, by id in its place, by id in the query."""
    return [
        Ask({"stream_name": "{stream}", **more}),
        Ask({"stream_name": "{stream_id}", **more}),
        Ask({"stream_name": "{stream}", **more}, {"stream_id": "{stream_id}"}),
        Ask({"stream_name": "no", **more}, {"stream-id": "{stream_id}"}),
    ]


def join(app: str, **wanted: Any) -> Ask:
    return Ask({"app_name": app}, {}, {"groupId": app, "clientId": "b", **wanted})


def changed(**body: object) -> list[Ask]:
    """A stream in the path, and perhaps in the body."""
    return [
        *(msgspec.structs.replace(ask, body=body) for ask in streams()),
        Ask({"stream_name": "{stream}"}, {}, {"stream_name": "{stream}", **body}),
    ]


def with_query(label: str, **more: str) -> list[Ask]:
    """A stream in the path, and a period for metrics."""
    now = int(clock.wall())
    period = {"label": label, "start_time": str(now - 60), "end_time": str(now)}
    return [msgspec.structs.replace(ask, query={**ask.query, **period}) for ask in streams(**more)]


def tagged(body: dict[str, Any] | None = None, **more: str) -> list[Ask]:
    """A stream in the path of a tag call: by its id, and by what is none."""
    return [
        Ask({"resource_type": "stream", "stream_id": named, **more}, {}, body) for named in ("{stream_id}", "{stream}")
    ]


TAG = {"key": "k", "value": "v"}

CASES: dict[str, list[Ask]] = {
    "create_stream": [Ask(body={"stream_name": "{stream}", "partition_count": 1})],
    "list_streams": [Ask(), Ask(query={"start_stream_name": "{stream}"})],
    "delete_stream": streams(),
    "describe_stream": streams(),
    "update_partition_count": changed(target_partition_count=3),
    "update_stream": changed(data_duration=48),
    "update_stream_v2": changed(data_type="JSON"),
    "put_records": [
        Ask(body={"stream_name": "{stream}", "records": RECORDS}),
        Ask(body={"stream_name": "", "stream_id": "{stream_id}", "records": RECORDS}),
        Ask(body={"stream_name": "{stream}", "stream_id": "{stream_id}", "records": RECORDS}),
        Ask(body={"stream_name": "{stream_id}", "records": RECORDS}),
    ],
    "get_records": [Ask(query={"partition-cursor": "{cursor}"})],
    "get_cursor": [
        Ask(query={"stream-name": "{stream}", **CURSOR}),
        Ask(query={"stream-name": "x", "stream-id": "{stream_id}", **CURSOR}),
        Ask(query={"stream-id": "{stream_id}", **CURSOR}),
        Ask(query={"stream_id": "{stream_id}", "stream-name": "{stream}", **CURSOR}),
    ],
    "notices": [
        Ask(body={"streams": [{"stream_name": "{stream}", "partitions": [0, 0]}]}),
        Ask(body={"streams": [{"stream_id": "{stream_id}", "partitions": [0, 0]}]}),
        Ask(body={"streams": [{"stream_name": "{stream}", "stream_id": "{stream_id}", "partitions": [0, 0]}]}),
    ],
    "add_policy": [
        Ask(
            {"stream_name": name},
            {},
            {"stream_id": given, "principal_name": "other.*", "action_type": "getRecords", "effect": "accept"},
        )
        for name, given in (("{stream}", "{stream_id}"), ("{stream_id}", ""), ("own", "{stream_id}"))
    ],
    "list_policies": streams(),
    "create_app": [Ask(body={"app_name": "{app}"})],
    "list_apps": [Ask(), Ask(query={"stream_name": "{stream}"}), Ask(query={"stream_name": "{stream_id}"})],
    "delete_app": [Ask({"app_name": "{app}"})],
    "describe_app": [Ask({"app_name": "{app}"})],
    "consuming_state": [*streams(app_name="{app}"), *streams(app_name="mine")],
    "commit_checkpoint": [
        Ask(body={"app_name": "{app}", "stream_name": "{stream}", **COMMIT}),
        Ask(body={"app_name": "mine", "stream_name": "{stream}", **COMMIT}),
        Ask(body={"app_name": "mine", "stream_name": "{stream}", "stream_id": "{stream_id}", **COMMIT}),
        Ask(body={"app_name": "{app}", "stream_name": "own", "client_id": "{member}", "generation_id": 1, **COMMIT}),
    ],
    **{
        operation: [
            Ask(query={"app_name": "{app}", "stream_name": "{stream}", **MARK}),
            Ask(query={"app_name": "mine", "stream_name": "{stream}", **MARK}),
            Ask(query={"app_name": "mine", "stream_name": "no", "stream_id": "{stream_id}", **MARK}),
        ]
        for operation in ("get_checkpoint", "delete_checkpoint")
    },
    "reset_checkpoints": [
        msgspec.structs.replace(ask, body={"force": True, "checkpoints": [COMMIT]})
        for ask in (*streams(app_name="{app}"), *streams(app_name="mine"))
    ],
    "group_join": [
        join("{app}", interestedStream=["own"]),
        join("mine", interestedStream=["{stream}"]),
        join("mine", interestedStreamIdList=["{stream_id}"]),
        join("mine", streamPattern="{stream}"),
    ],
    **{
        operation: [Ask({"app_name": app, "member_id": "{member}"}) for app in ("{app}", "mine")]
        for operation in ("group_sync", "group_heartbeat", "group_leave")
    },
    "group_members": [Ask({"app_name": "{app}"})],
    "create_dump_task": [msgspec.structs.replace(ask, body=SAMPLES["obs text"].body) for ask in streams()],
    "list_dump_tasks": streams(),
    "describe_dump_task": streams(task_name="t"),
    "delete_dump_task": streams(task_name="t"),
    "change_dump_tasks": [
        msgspec.structs.replace(ask, body={"action": "start", "tasks": [{"id": "{stream_id}"}]}) for ask in streams()
    ],
    "stream_metrics": with_query("total_put_bytes_per_stream"),
    "partition_metrics": with_query("total_put_bytes_per_partition", partition_id="0"),
    "create_tag": tagged({"tag": TAG}),
    "stream_tags": tagged(),
    "delete_tag": tagged(key="k"),
    "change_tags": [ask for action in ("create", "delete") for ask in tagged({"action": action, "tags": [TAG]})],
    "list_tags": [Ask({"resource_type": "stream"})],
    "filter_by_tags": [
        Ask({"resource_type": "stream"}, {}, {"action": action, "matches": [{"key": "resource_name", "value": name}]})
        for action in ("filter", "count")
        for name in ("", "{stream}")
    ],
}


def filled(value: Any, things: Things) -> Any:
    if isinstance(value, dict):
        return {key: filled(inner, things) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, things) for inner in value]
    return value.format(**things._asdict()) if isinstance(value, str) else value


def plain(value: object, things: Things) -> str:
    """Without what the two requests differ in: names, and ids and times made on the way."""
    text = repr(value)
    for kind, name in things._asdict().items():
        text = text.replace(name, f"<{kind}>")
    text = re.sub(r"\b[A-Za-z0-9]{19}\b", "<drawn>", text)
    return re.sub(r"\b1[0-9]{12}\b", "<time>", text)


async def asked(operation: str, index: int, *, real: bool) -> tuple[int, str, str, bool]:
    """Status, body and calls of one case, in a world of its own; and whether alice's things are as they were."""
    async with two_projects() as (alice, bob, engine, theirs):
        things = theirs if real else absent(theirs)
        before = await seen(alice)
        ask = CASES[operation][index]
        params = {"project_id": "b1", **filled(ask.params, things)}
        method, target = build(operation, params, filled(ask.query, things))
        calls = engine.watch()
        answer = await bob.call(method, target, filled(ask.body, things))
        engine.calls = None
        assert answer.code != "DIS.5000"
        return answer.status, plain(answer.body, things), plain(calls, things), await seen(alice) == before


async def seen(caller: Signer) -> list[bytes]:
    """All that alice sees of her things."""
    cursor = (await caller.ask_cursor("secret", project="a1", cursor_type="TRIM_HORIZON")).told["partition_cursor"]
    answers: list[Answer] = [
        await caller.call("GET", f"/v2/a1/{path}")
        for path in (
            "streams",
            "streams/secret",
            "streams/secret/policies",
            "apps",
            "apps/hidden",
            "apps/hidden/streams/secret",
            "checkpoints?app_name=hidden&stream_name=secret&partition_id=0&checkpoint_type=LAST_READ",
        )
    ]
    page = (await caller.get(cursor, project="a1")).told["records"]
    members = (await caller.call("GET", "/v2/a1/apps/hidden/consumers")).told["members"]
    return [*(answer.body for answer in answers), repr(page).encode(), repr([m["memberId"] for m in members]).encode()]


@pytest.mark.parametrize(
    ("operation", "index"), [(operation, index) for operation, cases in CASES.items() for index in range(len(cases))]
)
async def test_it_does_not_exist(operation: str, index: int) -> None:
    """From one's own project, what another has is what nobody has: status, body, and every look into the engine."""
    real, fake = await asked(operation, index, real=True), await asked(operation, index, real=False)
    assert real[:2] == fake[:2]
    assert real[2] == fake[2]
    assert real[3]


@pytest.mark.parametrize("operation", [route.operation for route in ROUTES if "{project_id}" in route.path])
async def test_nobody_enters_another_project(operation: str) -> None:
    """Under another project's path every operation is DIS.4117, as for a project that is not; nothing is looked up."""
    async with two_projects() as (_, bob, engine, things):
        for ask in CASES[operation]:
            messages = []
            for project in ("a1", "zz"):
                method, target = build(operation, {"project_id": project, **filled(ask.params, things)})
                calls = engine.watch()
                answer = await bob.call(method, target, filled(ask.body, things))
                engine.calls = None
                assert (answer.status, answer.code, calls) == (400, "DIS.4117", [])
                messages.append(answer.told["message"].replace(project, "?"))
            assert messages[0] == messages[1]


async def test_a_foreign_cursor_does_not_reach_a_stream_of_the_same_name() -> None:
    """Nor does one whose name was changed to that of a stream of one's own."""
    async with two_projects() as (_, bob, _, things):
        await bob.create("secret", project="b1")
        state = decode_cursor(things.cursor)
        for name in ("secret", "own"):
            cursor = encode_cursor(CursorState(name, state.stream_id, 0, 0, state.issued_ms))
            assert (await bob.get(cursor, project="b1")).code == "DIS.4301"


def test_every_route_has_its_case() -> None:
    """A new operation needs a row above."""
    assert set(CASES) == {route.operation for route in ROUTES if "{project_id}" in route.path}
