"""What an HTTP exchange is to us: two plain values. aiohttp lives behind `Transport` and behind the server's edge."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from urllib.parse import quote, unquote_plus

import msgspec

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
EXTENSIONS_HEADER = "x-disstream"
"""In every answer of ours that is no refusal: what is offered beyond the API, names between commas."""


def media_type(headers: Mapping[str, str]) -> str:
    """The content type in lower case, without its parameters; "" if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def accepts(headers: Mapping[str, str], kind: str) -> bool:
    """Whether an answer of this media type is asked for by its name."""
    accepted = headers.get("accept", "").lower()
    return kind in accepted and kind in [part.partition(";")[0].strip() for part in accepted.split(",")]


class Request(msgspec.Struct, kw_only=True):
    """`target` is path and query exactly as sent (a signature covers it); header names are lower case.

    `timeout_s` bounds the whole exchange; None: the transport's own default. `peer` is the address it came from, where
    a server received it.
    """

    method: str
    target: str
    headers: dict[str, str] = {}
    body: bytes = b""
    timeout_s: float | None = None
    peer: str = ""

    def __repr__(self) -> str:  # without the token, the signature or the password in it
        return f"Request({self.method} {self.target}, headers={sorted(self.headers)}, {len(self.body)} bytes)"


class Response(msgspec.Struct, kw_only=True):
    """Header names are lower case.

    `pieces`: the body comes bit by bit, in the place of `body`. Whoever gets such an answer closes it (`aclose`), also
    if he reads none of it.
    """

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""
    pieces: AsyncGenerator[bytes, None] | None = None

    def __repr__(self) -> str:  # without the token that IAM sends
        return f"Response({self.status}, headers={sorted(self.headers)}, {len(self.body)} bytes)"


def json_response(body: bytes) -> Response:
    """A granted request's answer."""
    return Response(status=200, headers={"content-type": JSON}, body=body)


def split_target(target: str) -> tuple[list[str], dict[str, str]]:
    """Decoded path segments (without a trailing slash) and decoded query.

    As lenient as official clients need: a trailing `&`, unencoded values and parameters without a
    value are fine; an empty value counts as absent; the first non-empty value of a repeated key wins.
    """
    path, _, text = target.partition("?")
    segments = [_unquote(s) for s in path.split("/")[1:]]
    while segments and not segments[-1]:
        segments.pop()
    query: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        key, _, value = pair.partition("=")
        if value and key not in query:
            query[_unquote(key)] = unquote_plus(value) if "%" in value or "+" in value else value
    return segments, query


def _unquote(text: str) -> str:
    return unquote_plus(text.replace("+", "%2B")) if "%" in text else text


def build_target(segments: tuple[str, ...], query: dict[str, str]) -> str:
    """The encoded path and query; absent values are the caller's to leave out."""
    path = "/" + "/".join(quote(s, safe="") for s in segments)
    if not query:
        return path
    return path + "?" + "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in query.items())
