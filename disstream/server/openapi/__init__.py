"""The description of the API for machines: an OpenAPI 3.1 document, served at /openapi.json.

`document` builds it: paths, methods and path parameters come from the table of routes, refusals and their messages from
the table of errors, names and limits from the constants that the handlers obey, so none of that can be forgotten or go
stale. What is left to say of each call stands beside this module, one module for each resource of the API; the tests
hold it against the structs that decode the bodies, and the fuzzer against a running server.

The document says what is documented and what is answered. The server takes more: keys and query parameters that it does
not know mean nothing to it, numbers may come as text in many places, and an empty value in a query is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson

from ...wire.columns import COLUMNS
from ...wire.errors import ERRORS, ErrorSpec
from ...wire.http import JSON, PROTOBUF
from ...wire.notices import FRAMES
from ...wire.routes import ROUTES, Route
from . import consuming, destinations, dumps, iam, metrics, records, streams, tags
from .parts import PARTITION_ID, STREAM_ID, STREAM_NAME, Answer, Body, Operation, Parameter, Schema, record, ref, text

_MODULES = (streams, records, consuming, dumps, metrics, tags, iam)
_OPERATIONS: dict[str, Operation] = {name: op for module in _MODULES for name, op in module.OPERATIONS.items()}

ALIAS = "_classic"
"""What is put behind the name of an operation for its second route, which old clients use."""

_PATH_PARAMETERS = {
    "project_id": {**STREAM_NAME, "description": "The project. If X-Project-Id is sent, too, it must be the same."},
    "stream_name": {**STREAM_NAME, "description": "The name of the stream, or the id of a shared one."},
    "stream_id": STREAM_ID,
    "partition_id": PARTITION_ID,
    "app_name": consuming.APP_NAME,
    "member_id": text("1 to 200 printable characters, without `/`.", pattern="^[ -.0-~]{1,200}$"),
    "task_name": destinations.TASK_NAME,
    "key": tags.TAG_KEY,
}

_EVERYWHERE = ("DIS.4117", "DIS.4200", "DIS.4305", "DIS.4309")
_WITH_A_BODY = ("DIS.4300",)
_CREDENTIALS = tuple(code for code, spec in ERRORS.items() if spec.status == 401)

_ERROR_KEYS = {
    "error_code": text("As DIS.4301.", pattern=r"^DIS\.[0-9]{4}$"),
    "error_msg": text("For people."),
    "errorCode": text("The same as `error_code`, for older clients."),
    "message": text("The same as `error_msg`, for older clients."),
}

_DESCRIPTION = """\
The API of the Data Ingestion Service of Huawei Cloud, as disstream serves it.

Every answer has an X-Request-Id; every answer that is no refusal names in X-Disstream what the server offers beyond the
API. A path that is not listed here is refused with 404, a method that a path does not have with 405, both with DIS.4200
and the same body as every refusal. Keys and query parameters that are not listed mean nothing. A body may come
compressed: Content-Encoding `lz4` (a raw block, its original size in X-Dis-Lz4-Content-Length), `snappy` (a raw block)
or `zstd`.

Records are also written and read as protobuf and as columns, by media type: of the body, and for pages in columns the
one that Accept names.
"""


@cache
def document() -> bytes:
    """The OpenAPI document as JSON."""
    return orjson.dumps(_document())


def _document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for route in ROUTES:
        alias = route.operation in seen
        seen.add(route.operation)
        # The only type of resource that is answered.
        path = "/" + "/".join(route.path).replace("{resource_type}", "stream")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, alias=alias)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "disstream",
            "version": "2.0.0",
            "summary": "An API compatible with DIS",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        # Either a token, or both headers of a signature; neither where no users are configured.
        "security": [{"token": []}, {"signature": [], "signatureDate": []}, {}],
        "tags": [{"name": name} for name in dict.fromkeys(op.tag for op in _OPERATIONS.values())],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": _header_scheme("X-Auth-Token", "A token of IAM for the project."),
                "signature": _header_scheme("Authorization", "The signature of the request with AK and SK."),
                "signatureDate": _header_scheme("X-Sdk-Date", "The time of the signature."),
            },
            "headers": {
                "RequestId": _header(text("The id of this request.", pattern="^[0-9a-f]{32}$")),
                "Extensions": _header(text("What the server offers beyond the API, separated by commas.")),
            },
            "responses": _REFUSALS,
            "schemas": {
                "Error": record(_ERROR_KEYS),
                **{name: schema for module in _MODULES for name, schema in module.SCHEMAS.items()},
            },
        },
    }


def _operation(route: Route, path: str, *, alias: bool) -> dict[str, Any]:
    told = _OPERATIONS[route.operation]
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return {
        "operationId": route.operation + (ALIAS if alias else ""),
        "tags": [told.tag],
        "summary": told.summary,
        **({"description": told.description} if told.description else {}),
        **({"deprecated": True} if alias else {}),
        **({"security": []} if route.operation in _OPEN else {}),
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]} for name in names),
            *_parameters("query", told.query),
            *_parameters("header", told.headers),
        ],
        **({"requestBody": _body(told.body)} if told.body else {}),
        "responses": {
            **{str(status): _answer(answer) for status, answer in told.answers.items()},
            **_refusals(route.operation, told),
        },
    }


def _parameters(place: str, parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": place,
            "required": parameter.required,
            **({"deprecated": True} if parameter.deprecated else {}),
            "schema": parameter.schema,
        }
        for name, parameter in parameters.items()
    ]


_OPEN = ("create_token", "openapi")
"""Nobody needs to sign in for these."""


_COLUMNS = (
    "An extension: records as columns, in MessagePack. An array of stream_name (text or nil), stream_id (text or nil), "
    "partition keys (an array of text or nil), timestamps (an array of integers or nil; or nil if no record has one), "
    "sizes (an array of integers: the bytes of each payload) and data (binary: all payloads, one behind the other)."
)

_PAGE = (
    "An extension: a page as columns, in MessagePack, for who names this type in Accept. An array of the next cursor "
    "(text), batches (an array) and data (binary: all payloads, one behind the other). A batch is an array of the "
    "first sequence number, the time of the append in ms, and a binary that holds, in MessagePack, an array of keys "
    "(an array of text or nil), sizes (an array of integers: the bytes of each payload) and timestamps (an array of "
    "integers or nil; or nil if no record has one): without one, the time of the append counts."
)


def _body(body: Body) -> dict[str, Any]:
    content: dict[str, Any] = {
        JSON: {
            "schema": ref(body.schema),
            "examples": {name: {"value": value} for name, value in body.examples.items()},
        }
    }
    if body.protobuf:
        content[PROTOBUF] = _protobuf(body.protobuf)
    if body.columns:
        content[COLUMNS] = {"schema": text(_COLUMNS, format="binary")}
    return {"required": body.required, "content": content}


def _answer(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "description": answer.description,
        "headers": {
            "X-Request-Id": {"$ref": "#/components/headers/RequestId"},
            "X-Disstream": {"$ref": "#/components/headers/Extensions"},
            **{name: _header(schema) for name, schema in answer.headers.items()},
        },
    }
    if answer.schema:
        content: dict[str, Any] = {JSON: {"schema": ref(answer.schema)}}
        if answer.example is not None:
            content[JSON]["example"] = answer.example
        if answer.protobuf:
            content[PROTOBUF] = _protobuf(answer.protobuf)
        if answer.columns:
            content[COLUMNS] = {"schema": text(_PAGE, format="binary")}
        told["content"] = content
    if answer.lines:
        told["content"] = {FRAMES: {"schema": text(answer.lines)}}
    return told


def _protobuf(message: str) -> dict[str, Any]:
    return {"schema": text(f"The protobuf message {message}.", format="binary")}


def _header(schema: Schema) -> dict[str, Any]:
    return {"required": True, "schema": schema}


def _header_scheme(name: str, description: str) -> dict[str, Any]:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


# --- refusals ----------------------------------------------------------------------------------------------------


def _refusal(description: str, codes: Sequence[str]) -> dict[str, Any]:
    """One that names one of `codes`. They stand beside the schema: generators would make a class of each list."""
    told = "\n".join(f"- {code}: {_shape(ERRORS[code])}" for code in codes)
    return {
        "description": f"{description}\n\n{told}",
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
        "x-dis-codes": list(codes),
        "content": {JSON: {"schema": ref("Error"), "example": _example(codes[0])}},
    }


def _shape(spec: ErrorSpec) -> str:
    return spec.shape.replace(" %s", "").replace("%s", "")


def _example(code: str) -> dict[str, str]:
    message = _shape(ERRORS[code])
    return {"error_code": code, "error_msg": message, "errorCode": code, "message": message}


_REFUSALS = {
    "Unauthorized": _refusal("The credentials are missing or wrong.", _CREDENTIALS),
    "Forbidden": _refusal("The user may not do this.", ("DIS.4116",)),
    "Late": _refusal("The body did not arrive in time.", ("DIS.4200",)),
    "TooLarge": _refusal("The body, a record, or all records together are too large.", ("DIS.4200",)),
    "Broken": _refusal("The server failed; what was asked for may or may not have been done.", ("DIS.5000",)),
}


def _refusals(operation: str, told: Operation) -> dict[str, Any]:
    if operation == "openapi":
        busy = _refusal("The server is too busy, or refuses the address.", ("DIS.4305", "DIS.4309"))
        return {"400": busy, "500": {"$ref": "#/components/responses/Broken"}}
    found = {
        "400": _refusal("The request cannot be granted.", _codes(told)),
        "401": {"$ref": "#/components/responses/Unauthorized"},
        "403": {"$ref": "#/components/responses/Forbidden"},
        "500": {"$ref": "#/components/responses/Broken"},
    }
    if told.body:
        found["408"] = {"$ref": "#/components/responses/Late"}
        found["413"] = {"$ref": "#/components/responses/TooLarge"}
    return found if told.tag != "IAM" else _of_iam(found)


def _codes(told: Operation) -> list[str]:
    return sorted({*_EVERYWHERE, *(_WITH_A_BODY if told.body else ()), *told.codes})


def _of_iam(found: dict[str, Any]) -> dict[str, Any]:
    """IAM refuses in words of its own; what the server refuses before it looks is told in those of DIS."""
    del found["403"]
    both = {"anyOf": [ref("IamError"), ref("Error")]}
    for status, description in (("400", "The request cannot be read."), ("401", "The credentials are wrong.")):
        found[status] = _refusal(description, ("DIS.4200",))
        found[status] |= {"description": description, "content": {JSON: {"schema": both}}}
    found["429"] = {
        **found["400"],
        "description": "Too many wrong passwords for this user.",
        "headers": {**found["400"]["headers"], "Retry-After": _header(text("Seconds.", pattern="^[0-9]+$"))},
    }
    return found
