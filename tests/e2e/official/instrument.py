"""Calls the official SDK and compares its parsed answers, field by field, with what must be there.

Runs under the interpreter that has the SDK, never under disstream's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compare import Findings, Key, World, beginning, request_id
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkdis import v2

WAYS = ("sync", "async")
"""Every method is there as `m(request)`, and in another client as `m_async(request).result()`."""


class Sdk(Findings):
    """The SDK's client in one project, called in one way: `sdk.show_stream(stream_name="s")` calls that method with
    such a request. Counts what it compares, keeps what differs.
    """

    def __init__(self, world: World, project: str, way: str, user: str = "owner") -> None:
        super().__init__()
        self._world = world
        self._way = way
        self.project = project
        self._client = self._made(world.keys[user], v2.DisAsyncClient if way == "async" else v2.DisClient)

    def _made(self, key: Key, kind: Any) -> Any:
        credentials = BasicCredentials(key.ak, key.sk, self.project)
        if key.security_token:
            credentials.with_security_token(key.security_token)
        return kind.new_builder().with_credentials(credentials).with_endpoint(self._world.url).build()

    def other(self, user: str, project: str) -> Sdk:
        """Somebody else's client, or of another project; what it finds wrong is kept here."""
        found = Sdk(self._world, project, self._way, user)
        found.failures = self.failures
        return found

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(**fields: Any) -> Any:
            request = _model(method, "Request")(**fields)
            if self._way == "async":
                answer = getattr(self._client, f"{method}_async")(request).result()
            else:
                answer = getattr(self._client, method)(request)
            self.answered.add(method)
            self.equal(f"type of {method}", type(answer).__name__, _model(method, "Response").__name__)
            return answer

        return call

    def raw(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """A call that the SDK has no method for, signed by it all the same. The answer has no fields, only a body."""
        client = self._made(self._world.keys["owner"], v2.DisClient)
        kind = "CreateAppResponse"  # any type without fields: the SDK cannot do with none
        return client.call_api(f"/v2/{{project_id}}/{path}", method, body=body, response_type=kind)

    def done(self, what: str, answer: Any, status: int) -> None:
        """The answer to a change: this status, no body."""
        self.equal(what, (answer.status_code, answer.raw_content), (status, b""))

    def told(self, what: str, answer: Any, wanted: dict[str, Any]) -> None:
        """The answer to a question: 200 with exactly these fields; those `wanted` does not name are None."""
        self.equal(f"status of {what}", answer.status_code, 200)
        self.equal(what, attributes(answer), wanted)

    def refused(
        self, method: str, code: str, message: str, status: int = 400, *, tries: int = 1, **fields: Any
    ) -> None:
        """Raises what the SDK raises for a refusal with this code, at the last of `tries`. `message`: all of it, or its
        beginning and "...".
        """
        try:
            for _ in range(tries):
                answer = getattr(self, method)(**fields)
        except ServiceResponseException as error:
            found = {
                "type": type(error).__name__,
                "status_code": error.status_code,
                "error_code": error.error_code,
                "error_msg": error.error_msg,
                "request_id": error.request_id,
            }
            wanted = {
                "type": "ServerResponseException" if status >= 500 else "ClientRequestException",
                "status_code": status,
                "error_code": code,
                "error_msg": beginning(message[:-3]) if message.endswith("...") else message,
                "request_id": request_id,
            }
            self.equal(f"refusal of {method}", found, wanted)
        else:
            self.failures.append(f"{method} answered {answer} instead of {code}")


def attributes(value: Any) -> Any:
    """A parsed answer as dicts and lists of its attributes."""
    if isinstance(value, list):
        return [attributes(item) for item in value]
    if hasattr(value, "openapi_types"):
        return {name: attributes(getattr(value, name)) for name in value.openapi_types}
    return value


def _model(method: str, suffix: str) -> Any:
    """show_stream, "Request" -> ShowStreamRequest."""
    return getattr(v2, "".join(word.capitalize() for word in method.split("_")) + suffix)


# --- the exercises ---

Exercise = Callable[[Sdk], None]
METHODS: dict[str, Exercise] = {}
"""An exercise per method of the SDK, which must have succeeded at least once in it."""
CASES: dict[str, Exercise] = {}
"""What concerns no method in particular."""


def exercise(function: Exercise) -> Exercise:
    METHODS[function.__name__] = function
    return function


def case(function: Exercise) -> Exercise:
    CASES[function.__name__] = function
    return function
