"""One table of DIS errors (API chapter 7): code -> HTTP status, exception class, message shape.

The server raises `api_error(code, detail)` and encodes it; the client decodes an answer into the same class. Message
shapes that official clients parse with regular expressions are kept to the letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from ..errors import (
    ApiError,
    AuthError,
    ConflictError,
    CursorExpired,
    NotFoundError,
    QuotaError,
    SequenceOutOfRange,
    ServerFault,
    StaleGeneration,
    ThrottledError,
)
from .http import JSON, Response


class ErrorSpec(NamedTuple):
    """`shape` is the message; `%s` stands for the detail, if the code takes one."""

    status: int
    kind: type[ApiError]
    shape: str


ERRORS: dict[str, ErrorSpec] = {
    "DIS.4100": ErrorSpec(401, AuthError, "Authorization error. %s"),
    "DIS.4101": ErrorSpec(401, AuthError, "Authorization header is empty. %s"),
    "DIS.4102": ErrorSpec(401, AuthError, "Authorization header cannot be parsed. %s"),
    "DIS.4103": ErrorSpec(401, AuthError, "X-Sdk-Date is empty. %s"),
    "DIS.4104": ErrorSpec(401, AuthError, "X-Sdk-Date cannot be parsed. %s"),
    "DIS.4105": ErrorSpec(401, AuthError, "X-Sdk-Date is invalid. %s"),
    "DIS.4106": ErrorSpec(401, AuthError, "The access key is empty. %s"),
    "DIS.4107": ErrorSpec(401, AuthError, "The access key is invalid. %s"),
    "DIS.4108": ErrorSpec(401, AuthError, "The service name of the credential is empty. %s"),
    "DIS.4109": ErrorSpec(401, AuthError, "The authorization header lacks a part. %s"),
    "DIS.4110": ErrorSpec(401, AuthError, "The signature is empty. %s"),
    "DIS.4111": ErrorSpec(401, AuthError, "The region is invalid. %s"),
    "DIS.4112": ErrorSpec(401, AuthError, "The signature does not match. %s"),
    "DIS.4113": ErrorSpec(401, AuthError, "X-Auth-Token is empty. %s"),
    "DIS.4114": ErrorSpec(401, AuthError, "X-Auth-Token is invalid. %s"),
    "DIS.4116": ErrorSpec(403, AuthError, "Invalid RBAC. %s"),
    "DIS.4117": ErrorSpec(400, ApiError, "Invalid Project Id. %s"),
    "DIS.4200": ErrorSpec(400, ApiError, "Invalid request. %s"),
    "DIS.4201": ErrorSpec(400, ApiError, "Invalid partition_id. %s"),
    "DIS.4202": ErrorSpec(400, ApiError, "Empty request."),
    "DIS.4203": ErrorSpec(400, ApiError, "Invalid monitoring period. %s"),
    "DIS.4204": ErrorSpec(400, ApiError, "The monitoring period cannot be longer than 7 days."),
    "DIS.4205": ErrorSpec(400, ConflictError, "Stream is not running."),
    "DIS.4208": ErrorSpec(400, ApiError, "Mrs cluster is invalid. %s"),
    "DIS.4209": ErrorSpec(400, ApiError, "Invalid metrics label. %s"),
    "DIS.4215": ErrorSpec(400, ApiError, "Invalid cursor type. %s"),
    "DIS.4216": ErrorSpec(400, ApiError, "Invalid sequence_number. %s"),
    "DIS.4217": ErrorSpec(400, CursorExpired, "Invalid partition cursor. %s"),
    "DIS.4224": ErrorSpec(400, SequenceOutOfRange, "Sequence_number out of range. %s"),
    "DIS.4225": ErrorSpec(400, CursorExpired, "Expired partition cursor. %s"),
    "DIS.4226": ErrorSpec(
        400,
        SequenceOutOfRange,
        "A partition iterator error occurred or a record to which the SN corresponds has expired. "
        "Try to obtain the partition iterator again.",
    ),
    "DIS.4300": ErrorSpec(400, ApiError, "Request error. %s"),
    "DIS.4301": ErrorSpec(400, NotFoundError, "Stream does not exist. %s"),
    "DIS.4302": ErrorSpec(400, NotFoundError, "Partition does not exist. %s"),
    "DIS.4303": ErrorSpec(400, ThrottledError, "Exceeded traffic control limit."),
    "DIS.4305": ErrorSpec(400, ThrottledError, "Too many stream requests."),
    "DIS.4306": ErrorSpec(400, NotFoundError, "Bucket does not exist. %s"),
    "DIS.4307": ErrorSpec(400, ConflictError, "The stream already exists. %s"),
    "DIS.4308": ErrorSpec(400, QuotaError, "Insufficient quota. %s"),
    "DIS.4309": ErrorSpec(400, ThrottledError, "Too many request failures. Please try again later."),
    "DIS.4310": ErrorSpec(400, AuthError, "OBS access error."),
    "DIS.4319": ErrorSpec(400, NotFoundError, "Partition is expired. %s"),
    "DIS.4329": ErrorSpec(400, QuotaError, "app quota exceeded. %s"),
    "DIS.4330": ErrorSpec(400, ConflictError, "app already exist. %s"),
    "DIS.4331": ErrorSpec(400, ConflictError, "app is using. %s"),
    "DIS.4332": ErrorSpec(400, NotFoundError, "app not found. %s"),
    "DIS.4335": ErrorSpec(400, ApiError, "Invalid IAM agency. %s"),
    "DIS.4336": ErrorSpec(400, ApiError, "Invalid HDFS path. %s"),
    "DIS.4337": ErrorSpec(400, NotFoundError, "The DLI database does not exist."),
    "DIS.4338": ErrorSpec(400, NotFoundError, "The DLI table does not exist."),
    "DIS.4339": ErrorSpec(400, QuotaError, "Consumer quota exceeded. %s"),
    "DIS.4341": ErrorSpec(400, NotFoundError, "The CloudTable cluster does not exist."),
    "DIS.4342": ErrorSpec(400, NotFoundError, "The CloudTable table does not exist"),
    "DIS.4343": ErrorSpec(400, NotFoundError, "The CloudTable table family does not exist."),
    "DIS.4345": ErrorSpec(400, ApiError, "Invalid CloudTable schema. %s"),
    "DIS.4348": ErrorSpec(400, ApiError, "Invalid CloudTable openTSDB schema. %s"),
    "DIS.4350": ErrorSpec(400, ApiError, "Invalid DWS cluster. %s"),
    "DIS.4351": ErrorSpec(400, ApiError, "Invalid KMS userKey. %s"),
    "DIS.4354": ErrorSpec(400, NotFoundError, "The transfer task does not exist. %s"),
    "DIS.4355": ErrorSpec(400, ConflictError, "The transfer task already exists. %s"),
    "DIS.4357": ErrorSpec(400, QuotaError, "Exceeded transfer task quota. %s"),
    "DIS.4358": ErrorSpec(400, ApiError, "The dump type does not suit the data type of the stream. %s"),
    "DIS.4360": ErrorSpec(400, ApiError, "Invalid data schema. %s"),
    "DIS.4375": ErrorSpec(400, NotFoundError, "The app does not commit checkpoint. %s"),
    "DIS.4601": ErrorSpec(400, QuotaError, "The number of resource tags has reached the maximum."),
    "DIS.4602": ErrorSpec(400, ApiError, "Invalid resource type. %s"),
    "DIS.4603": ErrorSpec(400, NotFoundError, "The resource does not exist. %s"),
    "DIS.4604": ErrorSpec(400, NotFoundError, "The key does not exist. %s"),
    "DIS.4605": ErrorSpec(400, ApiError, "The action is not supported. %s"),
    "DIS.4701": ErrorSpec(400, StaleGeneration, "Rebalance in progress. %s"),
    "DIS.4702": ErrorSpec(400, StaleGeneration, "Member does not exist. %s"),
    "DIS.4703": ErrorSpec(400, StaleGeneration, "Illegal generation. %s"),
    "DIS.5000": ErrorSpec(500, ServerFault, "System error."),
}

RETRYABLE_RECORD_CODES = ("DIS.4303", "DIS.5")
"""A record refused with a code that starts so may be stored on the next try (the Java SDK's default list)."""


def api_error(code: str, detail: str = "", *, status: int | None = None) -> ApiError:
    """The exception for `code`, as the server raises it. `status` overrides the table's (413 for a large body)."""
    spec = ERRORS[code]
    message = (spec.shape % detail).rstrip() if "%s" in spec.shape else spec.shape
    return spec.kind(message, status=status or spec.status, code=code)


def stream_not_found(name: str, project_id: str) -> ApiError:
    """DIS.4301 in the shape `Stream does not exist. [name][project id]` that java-classic parses."""
    return api_error("DIS.4301", f"[{name}][{project_id}]")


def sequence_out_of_range(sequence: int, start: int, end: int) -> ApiError:
    """DIS.4224 in the shape `[n][ should be within ][start][ ][end]` that java-classic parses."""
    return api_error("DIS.4224", f"[{sequence}][ should be within ][{start}][ ][{end}]")


def encode_error(error: ApiError) -> bytes:
    """The body with both pairs of keys: one for the current SDKs, one for the classic ones (API 1.6)."""
    return orjson.dumps(
        {
            "error_code": error.code,
            "error_msg": error.message,
            "errorCode": error.code,
            "message": error.message,
        }
    )


_CODE_KEYS = ("error_code", "errorCode", "code")
_MESSAGE_KEYS = ("error_msg", "errorMsg", "message", "error_message")


def decode_error(response: Response) -> ApiError:
    """The exception for an answer that is not 2xx, whatever spelling its body has, JSON or not."""
    code, message = "", ""
    try:
        body: Any = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        code = _first_text(body, _CODE_KEYS)
        message = _first_text(body, _MESSAGE_KEYS)
    if not message:
        text = " ".join(response.body[:300].decode("utf-8", "replace").split())
        message = f"the answer is not one of DIS, is the endpoint right? {text}".rstrip()
    kind = _kind(code, response.status)
    request_id = response.headers.get("x-request-id", "")
    if issubclass(kind, ThrottledError):
        return kind(
            message,
            status=response.status,
            code=code,
            request_id=request_id,
            retry_after_s=retry_after_seconds(response.headers),
        )
    return kind(message, status=response.status, code=code, request_id=request_id)


def _kind(code: str, status: int) -> type[ApiError]:
    if (spec := ERRORS.get(code)) is not None:
        return spec.kind
    if status in (401, 403, 441):
        return AuthError
    if status in (404, 410):
        return NotFoundError
    if status == 409:
        return ConflictError
    if status == 429:
        return ThrottledError
    if status >= 500 or code.startswith("DIS.5"):
        return ServerFault
    return ApiError


def _first_text(body: dict[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = body.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for; None if it is absent, a date, or not within a day."""
    text = headers.get("retry-after")
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 86_400 else None


def refusal(error: ApiError, request_id: str) -> Response:
    """The answer that carries `error`."""
    headers = {"content-type": JSON, "x-request-id": request_id}
    if isinstance(error, ThrottledError) and error.retry_after_s is not None:
        headers["retry-after"] = f"{error.retry_after_s:.0f}"
    return Response(status=error.status, headers=headers, body=encode_error(error))
