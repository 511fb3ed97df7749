"""Decoding of JSON bodies with the errors each side owes: a refusal on the server, a fault report on the client."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from ..errors import TransportError
from .errors import api_error

T = TypeVar("T")

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer in an answer. JSON has some with thousands of digits, with which no float and no time can be reckoned:
what answers so is no DIS, and that is told here and not where somebody computes with it."""

_syntax = msgspec.json.Decoder(msgspec.Raw)


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A request body on the server. Raises ApiError: DIS.4300 (not JSON), DIS.4200 (wrong type, missing field)."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:  # must stand first: it is a DecodeError too
        # Raised at the first wrong type, before anybody looked whether the rest is JSON at all. Looked at, not built:
        # 12 MB of empty lists would become 300 MB.
        try:
            body.decode()
            _syntax.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise api_error("DIS.4300", f"[the body is not JSON: {fault}]") from fault
        raise api_error("DIS.4200", f"[{exc}]") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise api_error("DIS.4300", f"[the body is not JSON: {exc}]") from exc


def decode_answer(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A 2xx answer on the client. Raises TransportError: the request took effect, its answer is not to be read."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        text = body[:200].decode("utf-8", "replace")
        raise TransportError(
            f"the endpoint's answer is not what DIS answers ({exc}): {text!r}", outcome_unknown=True
        ) from exc
