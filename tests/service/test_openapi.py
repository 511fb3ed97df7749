"""The description of the API says what the tables of routes and errors, the bodies and the handlers do."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import msgspec
import pytest
import schemathesis
from accounts import Signer, application
from server_http import Answer, serving

import disstream
from disstream.destinations import DESTINATIONS
from disstream.server.openapi import ALIAS, document
from disstream.wire import apps, checkpoints, dumps, groups, iam, notices, policies, records, streams, tags
from disstream.wire.errors import ERRORS
from disstream.wire.http import JSON
from disstream.wire.routes import ROUTES

DOCUMENT = json.loads(document())
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    told["operationId"]: (method.upper(), path, told)
    for path, item in DOCUMENT["paths"].items()
    for method, told in item.items()
}
OPEN = {"create_token", "list_projects", "openapi"}
"""What a request without credentials may reach; where users are configured, the second refuses in words of its own."""

BODIES: dict[str, type[msgspec.Struct]] = {
    "CreateStreamRequest": streams.CreateStream,
    "UpdateStreamRequest": streams.UpdateStream,
    "UpdatePartitionCountRequest": streams.UpdatePartitionCount,
    "CsvProperties": streams.CsvProperties,
    "Tag": streams.Tag,
    "AddPolicyRequest": policies.AddPolicy,
    "PutRecordsRequest": records.PutRequest,
    "NewRecord": records.SentRecord,
    "CreateAppRequest": apps._Create,
    "CommitCheckpointRequest": checkpoints._Commit,
    "ResetRequest": checkpoints._Reset,
    "JoinRequest": groups.JoinRequest,
    "MemberRequest": groups.MemberRequest,
    "ChangeTasksRequest": dumps._Change,
    "CreateTagRequest": tags._Create,
    "ChangeTagsRequest": tags.TagChange,
    "TagValues": tags.TagValues,
    "FilterRequest": tags.TagQuery,
    "TokenRequest": iam._TokenBody,
    "NoticesRequest": notices.NoticesRequest,
    "WatchedStream": notices.WatchedStream,
}


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for({"components": DOCUMENT["components"], **schema})


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Any = DOCUMENT
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return resolved(found)


def conforms(operation: str, answer: Answer) -> None:
    """Fail unless the answer's status and body are among those of the operation."""
    told = resolved(OPERATIONS[operation][2]["responses"][str(answer.status)])
    if answer.body:
        validator(told["content"][answer.headers["content-type"]]["schema"]).validate(answer.told)


def sources() -> Iterator[ast.Module]:
    """The code that takes requests apart and answers them."""
    package = Path(disstream.__file__).parent
    for path in sorted([*(package / "server").glob("*.py"), *(package / "wire").glob("*.py")]):
        if path.name not in ("errors.py", "routes.py"):
            yield ast.parse(path.read_text())


def test_document_is_valid() -> None:
    """It is an OpenAPI 3.1 document, made once."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    assert document() is document()


def test_every_route_is_described() -> None:
    """Paths, methods and path parameters are those of the routes; each operation stands under its own name."""
    described = {(method, path): name for name, (method, path, _) in OPERATIONS.items()}
    seen: set[str] = set()
    for route in ROUTES:
        path = "/" + "/".join(route.path).replace("{resource_type}", "stream")
        name = route.operation + (ALIAS if route.operation in seen else "")
        seen.add(route.operation)
        assert described.pop((route.method, path)) == name
        parameters = OPERATIONS[name][2]["parameters"]
        assert [p["name"] for p in parameters if p["in"] == "path"] == re.findall(r"\{(\w+)\}", path)
    assert not described


def test_every_query_parameter_is_described() -> None:
    """What the server reads of a query is described, and nothing else is."""
    read = set()
    for tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                of = ast.unparse(node.func)
                name = node.args[0]
                if of in ("call.query.get", "self.query.get", "query.get", "call.number") and isinstance(
                    name, ast.Constant
                ):
                    read.add(name.value)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "_seconds":
                read.add(ast.literal_eval(node.args[1]))
    described = {p["name"] for _, _, told in OPERATIONS.values() for p in told["parameters"] if p["in"] == "query"}
    assert described == read


def test_every_code_is_described() -> None:
    """Each DIS code in the code of the server stands with an operation, and no other does."""
    raised = {
        node.value
        for tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ERRORS
    }
    raised |= {"DIS.4224", "DIS.4301"}  # raised by functions of the table itself
    raised.remove("DIS.4602")  # of paths that are not described, because no resource stands there
    described = set()
    for _, _, told in OPERATIONS.values():
        for status, response in told["responses"].items():
            for code in resolved(response)["x-dis-codes"] if int(status) >= 400 else ():
                described.add(code)
                assert ERRORS[code].status == int(status) or code == "DIS.4200"
    assert described - set(_CREDENTIALS) == raised - set(_CREDENTIALS)
    assert described >= set(_CREDENTIALS)


_CREDENTIALS = [code for code, spec in ERRORS.items() if spec.status == 401]


@pytest.mark.parametrize("name", BODIES)
def test_bodies_have_the_keys_of_their_structs(name: str) -> None:
    """A body is described with the keys that its decoder knows, and needs none that the decoder does not need."""
    _same_keys(DOCUMENT["components"]["schemas"][name], BODIES[name])


def _same_keys(schema: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert set(schema["properties"]) == set(fields)
    assert {name for name, field in fields.items() if field.required} <= set(schema.get("required", ()))
    for name, field in fields.items():
        inner = resolved(schema["properties"][name])
        inner = resolved(inner.get("items", inner))
        for kind in (field.type, *get_args(field.type)):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and "properties" in inner:
                assert set(inner["properties"]) <= {f.encode_name for f in msgspec.structs.fields(kind)}


def test_destinations_have_the_keys_of_their_structs() -> None:
    """The five descriptors of dump tasks are described with the fields of the five destinations."""
    for kind, struct in DESTINATIONS.items():
        schema = DOCUMENT["components"]["schemas"][f"{kind.title()}Destination"]
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        assert set(schema["properties"]) == set(fields)
        assert set(schema["required"]) == {name for name, field in fields.items() if field.required}


def test_every_body_is_compared() -> None:
    """No body of a request escapes the two tests above."""
    bodies = {
        told["requestBody"]["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
        for _, _, told in OPERATIONS.values()
        if "requestBody" in told
    }
    assert bodies - set(BODIES) == {"CreateTaskRequest"}


def test_examples_are_valid() -> None:
    """Each example fits its own schema, and each body and each answer with JSON has one."""
    for name, (_, _, told) in OPERATIONS.items():
        contents = [resolved(response).get("content", {}) for response in told["responses"].values()]
        contents.append(told.get("requestBody", {}).get("content", {}))
        for content in contents:
            if JSON not in content or name == "openapi":
                continue
            values = [example["value"] for example in content[JSON].get("examples", {}).values()]
            values += [content[JSON]["example"]] if "example" in content[JSON] else []
            assert values or told["tags"] == ["IAM"], name
            for value in values:
                validator(content[JSON]["schema"]).validate(value)


async def test_document_is_served_to_everybody() -> None:
    """The document is answered as JSON, with the headers that it promises."""
    async with serving() as http:
        answer = await http.call("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, JSON, document())
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-disstream"]


def request_of(name: str, project: str) -> tuple[str, str, Any]:
    """(method, target, body) of the first example of an operation."""
    method, path, told = OPERATIONS[name]
    target = re.sub(r"\{\w+\}", "x", path.replace("{project_id}", project))
    examples = told.get("requestBody", {}).get("content", {}).get(JSON, {}).get("examples", {})
    return method, target, next(iter(examples.values()))["value"] if examples else None


async def test_refusals_of_strangers_and_of_users_without_rights() -> None:
    """Without credentials every operation answers 401, and without the right to it 403, both as described."""
    async with application() as app:
        stranger, reader = Signer(app, "mallory"), Signer(app, "reader")
        forbidden = set()
        for name in OPERATIONS:
            request = request_of(name, "a1")
            if name not in OPEN:
                answer = await stranger.call(*request)
                assert (answer.status, answer.code) == (401, "DIS.4107"), name
                conforms(name, answer)
            answer = await reader.call(*request)
            conforms(name, answer)
            if answer.status == 403:
                forbidden.add(name)
        assert {"create_stream", "put_records", "create_dump_task", "delete_tag", "group_join"} <= forbidden


async def test_too_large_bodies() -> None:
    """Where a body is too large, the answer is the one that is described."""
    method, target, body = request_of("put_records", "p")
    async with serving(max_body_bytes=20) as http:
        answer = await http.call(method, target, body)
    assert answer.status == 413
    conforms("put_records", answer)


async def test_unknown_paths_and_methods() -> None:
    """What is not described is refused with 404, or 405 and the methods there are, in the words of all refusals."""
    error = validator({"$ref": "#/components/schemas/Error"})
    async with serving() as http:
        for method, target, status in (("GET", "/v2/p/nothing", 404), ("PATCH", "/v2/p/streams", 405)):
            answer = await http.call(method, target)
            assert answer.status == status
            error.validate(answer.told)
        assert answer.headers["allow"] == "POST, GET"
