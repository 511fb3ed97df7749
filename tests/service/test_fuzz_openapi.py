"""Generated requests, of every operation in the server's own description, meet only the answers that stand there.

The server runs here, open and in memory, with one stream, app, task and so on: `World`. Values that name nothing would
only be refused, so most names in a generated request are replaced by those of the world. `pytest -s` on this file tells
how many requests each operation got, and how they were answered.

What is generated to be wrong need not be refused: the server is more lenient than its description on purpose (numbers
as text, unknown keys), so only the answers are checked.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NotSet
from schemathesis.engine.events import NonFatalError, ScenarioFinished

from disstream.model import NewRecord
from disstream.server import Server, ServerConfig
from disstream.wire.columns import COLUMNS, encode_columns
from disstream.wire.http import PROTOBUF
from disstream.wire.protobuf import encode_put_protobuf
from disstream.wire.sessions import HEADER, Session, SessionLane, encode_session


class World:
    """A project in which there is one of everything, and the names of it all."""

    def __init__(self, url: str, session: requests.Session) -> None:
        self.url = url
        self.session = session
        self.answers: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/v2/p{path}", json=body, params=query, timeout=10)
        return answer.json() if answer.content else None

    def make(self) -> None:
        """What is there already is refused, and stays."""
        self.call("POST", "/streams", {"stream_name": "s", "partition_count": 2})
        for app in ("a", "b"):  # of which a group reads for the first
            self.call("POST", "/apps", {"app_name": app})
        self.stream_id = self.call("GET", "/streams/s")["stream_id"]
        self.call("POST", f"/stream/{self.stream_id}/tags", {"tag": {"key": "k", "value": "v"}})
        self.call("POST", "/records", {"stream_name": "s", "records": [{"data": "aGk=", "partition_id": "0"}] * 5})
        self.call(
            "POST",
            "/checkpoints",
            {"app_name": "a", "stream_name": "s", "partition_id": "0", "sequence_number": "1"},
        )
        task = {"task_name": "t", "agency_name": "agency", "obs_bucket_path": "bucket"}
        tasks = "/streams/s/transfer-tasks"
        self.call("POST", tasks, {"destination_type": "OBS", "obs_destination_descriptor": task})
        self.task_id = self.call("GET", f"{tasks}/t")["task_id"]
        self.call("POST", "/apps/a/consumers", {"clientId": "m", "interestedStream": ["s"]})
        cursor = {"stream-name": "s", "partition-id": "0", "cursor-type": "TRIM_HORIZON"}
        self.cursor = self.call("GET", "/cursors", **cursor)["partition_cursor"]

    def names(self) -> dict[str, list[Any]]:
        """Name of a parameter or key -> what it may be."""
        now = int(time.time())
        partitions = ["0", "shardId-0000000001"]
        sequences = ["0", "4"]
        return {
            "project_id": ["p"],
            "stream_name": ["s"],
            "stream-name": ["s"],
            "stream_id": [self.stream_id],
            "stream-id": [self.stream_id],
            "app_name": ["a"],
            "partition_id": partitions,
            "partition-id": partitions,
            "partition-cursor": [self.cursor],
            "sequence_number": sequences,
            "starting-sequence-number": sequences,
            "member_id": ["m"],
            "clientId": ["m"],
            "interestedStream": [["s"]],
            "task_name": ["t"],
            "tasks": [[{"id": self.task_id}]],
            "key": ["k"],
            "start_time": [now - 3600],
            "end_time": [now],
            "partition_count": [1, 2],
            "target_partition_count": [1, 2, 3],
            "auto_scale_min_partition_count": [1, 2],
            "auto_scale_max_partition_count": [2, 3],
            "data_schema": ['{"type":"string"}'],
        }

    def answered(self, case: schemathesis.Case[Any], response: schemathesis.Response) -> None:
        self.answers[operation_of(case)][response.status_code] += 1
        if case.method == "DELETE" and response.status_code == 204:
            self.make()

    def place(self, case: schemathesis.Case[Any]) -> None:
        """Put names of the world into the case; the same ones whenever the same case comes again."""
        body = None if isinstance(case.body, NotSet) else case.body
        chance = random.Random(repr((operation_of(case), case.path_parameters, case.query, body)))
        names = {name: chance.choice(values) for name, values in self.names().items()}
        if operation_of(case) == "delete_app":
            names["app_name"] = "b"  # a group reads for the other
        new = {"create_stream": "stream_name", "create_app": "app_name"}.get(operation_of(case))

        def placed(value: Any, name: str = "") -> Any:
            if name in names and name != new and chance.random() < 0.9:
                return names[name]
            if isinstance(value, dict):
                return {key: placed(inner, key) for key, inner in value.items()}
            return [placed(inner) for inner in value] if isinstance(value, list) else value

        case.path_parameters = placed(case.path_parameters)
        if case.query:
            case.query = placed(case.query)
        if case.media_type == PROTOBUF and chance.random() < 0.7:
            record = NewRecord(b"hi", partition_id=names["partition_id"])
            case.body = encode_put_protobuf("s", [record] * chance.randrange(1, 4))
        elif case.media_type == COLUMNS and chance.random() < 0.7:
            case.body = encode_columns("s", [NewRecord(b"hi", "k")] * chance.randrange(1, 4))
        else:
            case.body = placed(case.body)
        if operation_of(case) == "put_records" and HEADER in case.headers:
            kind = chance.random()
            if kind < 0.5:
                del case.headers[HEADER]  # or hardly a put would be without one
            elif kind < 0.9:
                # One that fits the body, if it has one record.
                lane = SessionLane(chance.randrange(3), chance.randrange(2), chance.randrange(3), 1)
                case.headers[HEADER] = encode_session(Session("0" * 32, chance.randrange(100), (lane,)))
        if operation_of(case) == "notices" and isinstance(case.body, dict):
            case.body["longest_ms"] = chance.choice((0, 5))  # or each would be answered for a minute
        if operation_of(case) == "get_records" and chance.random() < 0.3:
            case.headers["Content-Type"] = PROTOBUF


def operation_of(case: schemathesis.Case[Any]) -> str:
    return str(case.operation.definition.raw["operationId"])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # What works in the background meets whatever was asked for.
    for room in ("autoscaling", "metrics"):
        monkeypatch.setattr(f"disstream.server.{room}.INTERVAL_S", 2.0)
    server = Server(ServerConfig(data_dir=None, port=0, retention_interval_s=2.0))
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(server),
        requests.Session() as session,
    ):
        world = World(server.url, session)
        world.make()
        yield world
        for operation, answers in world.answers.items():
            told = ", ".join(f"{status}: {count}" for status, count in sorted(answers.items()))
            print(f"\n{operation:34}{answers.total():6}  ({told})", end="")
        print(f"\n{'together':34}{sum(answers.total() for answers in world.answers.values()):6}")


def described(url: str) -> dict[str, Any]:
    """The server's description, made strict: no answer has a key, and no refusal a code, that is not described."""
    document: dict[str, Any] = requests.get(f"{url}/openapi.json", timeout=10).json()
    for name, schema in document["components"]["schemas"].items():
        if not name.endswith(("Request", "Document")):
            _close(schema)
    _bind_codes(document)
    return document


def _bind_codes(part: Any) -> None:
    if isinstance(part, dict):
        if codes := part.get("x-dis-codes"):
            for content in part["content"].values():
                content["schema"] = {"allOf": [content["schema"], {"properties": {"error_code": {"enum": codes}}}]}
        for inner in part.values():
            _bind_codes(inner)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for inner in schema.values():
            _close(inner)


def run(world: World, config: dict[str, Any], *, aliases: bool) -> list[str]:
    """Every failure that was found."""
    schema = schemathesis.openapi.from_dict(
        described(world.url), config=SchemathesisConfig.from_dict({**COMMON, **config})
    )
    schemathesis.hook("before_call")(lambda context, case, kwargs: world.place(case))
    schemathesis.hook("after_call")(lambda context, case, response: world.answered(case, response))
    found = []
    try:
        for event in engine.from_schema(schema if aliases else schema.exclude(deprecated=True)).execute():
            if isinstance(event, NonFatalError):
                found.append(f"{event.label}: {event.info.format()}")
            elif isinstance(event, ScenarioFinished):
                for checks in event.recorder.checks.values():
                    for made in checks:
                        if made.failure_info is not None:
                            found.append(f"{event.label}: {made.failure_info.failure}\n{made.failure_info.code_sample}")
    finally:
        schemathesis.hooks.unregister_all()
    return found


COMMON: dict[str, Any] = {
    "seed": 1,
    "workers": 1,
    "generation": {"deterministic": True},
    "suppress-health-check": ["all"],
    "checks": {
        # Leniency is no failure (see above); and where names are put in, valid requests become refusable ones.
        "negative_data_rejection": {"enabled": False},
        "positive_data_acceptance": {"enabled": False},
        # Nobody has to sign in.
        "ignored_auth": {"enabled": False},
        # What was deleted is put back.
        "use_after_free": {"enabled": False},
    },
}
# What is /tags/action to POST is a tag named action to DELETE; so with dump tasks.
ACTIONS = {"include-path-regex": "/action$", "checks": {"allow_header_conformance": {"enabled": False}}}


@pytest.mark.parametrize("mode", ["positive", pytest.param("all", marks=pytest.mark.long)])
def test_answers(world: World, mode: str) -> None:
    """Whatever is asked, no answer is a failure of the server, and none is missing from its description.

    Each operation is granted something, too: it was not refusals alone that were looked at. In the mode "positive" what
    breaks the description is left to chance.
    """
    # Half of all requests otherwise, to many fields that are read by the same code.
    many_fields = {
        "include-operation-id": ["create_dump_task", "filter_by_tags"],
        "phases": {"coverage": {"generation": {"mode": "positive"}}},
    }
    # Nothing is learned from answers: they hold ids and times, and what is asked would differ from run to run.
    config = {
        "base-url": world.url,
        "phases": {
            "coverage": {"extra-data-sources": {"responses": False}, "generation": {"mode": mode}},
            "fuzzing": {
                "generation": {"max-examples": 3},
                "extra-data-sources": {"responses": False},
                "error-feedback": {"enabled": False},
            },
            "stateful": {"enabled": False},
        },
        "operations": [ACTIONS, many_fields],
    }
    found = run(world, config, aliases=False)
    assert not found, "\n\n".join(found)
    for operation, answers in world.answers.items():
        assert any(status < 300 for status in answers), operation


@pytest.mark.long
def test_answers_to_many_requests(world: World) -> None:
    """As above, with many more requests, and sequences of requests in which answers are used."""
    config = {
        "base-url": world.url,
        "phases": {
            "fuzzing": {"generation": {"max-examples": 100}},
            "stateful": {"generation": {"max-examples": 50}},
        },
        "operations": [ACTIONS],
    }
    found = run(world, config, aliases=True)
    assert not found, "\n\n".join(found)
