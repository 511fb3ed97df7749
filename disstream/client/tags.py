"""Tags of streams (API 5.7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec

from ..errors import ConfigError, TransportError
from ..model import TaggedStream
from ..wire.http import Response
from ..wire.tags import (
    RESOURCE_NAME,
    RESOURCE_TYPE,
    Match,
    TagQuery,
    TagValues,
    decode_all_tags,
    decode_resources,
    decode_tags,
    encode_create_tag,
    encode_tag_change,
    encode_tag_query,
)

if TYPE_CHECKING:
    from .client import Client

P = ParamSpec("P")

MAX_PAGE = 1000  # the most the service gives at once

Wanted = Mapping[str, Sequence[str]]
"""Conditions: key -> values, of which one is enough; without values any will do. `*x`: every value that holds x."""


class Tags:
    """`client.tags`: keys with values that streams carry. A key has one value on a stream.

    The service knows a stream by its id here: without `stream_id` it is asked for first, with one the name may be "".
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(self, stream: str, key: str, value: str = "", *, stream_id: str | None = None) -> None:
        """Set a tag; a key that is there gets the new value.

        API 5.7.1. `key`: 1 to 36 letters, digits, - or _; `value`: at most 43, also with a point. Raises QuotaError,
        NotFoundError.
        """
        params = await self._params(stream, stream_id)
        await self._client.call("create_tag", params, body=_sent(encode_create_tag, key, value))

    async def add_many(self, stream: str, tags: Mapping[str, str], *, stream_id: str | None = None) -> None:
        """Set tags, all or none; keys that are there get the new values. API 5.7.4. Raises as `add`."""
        params = await self._params(stream, stream_id)
        await self._client.call("change_tags", params, body=_sent(encode_tag_change, "create", tags))

    async def remove(self, stream: str, key: str, *, stream_id: str | None = None) -> None:
        """API 5.7.3. Raises NotFoundError (stream or key), except after an attempt whose answer was lost."""
        params = await self._params(stream, stream_id)
        await self._client.call("delete_tag", {**params, "key": key})

    async def remove_many(self, stream: str, keys: Iterable[str], *, stream_id: str | None = None) -> None:
        """Remove what is there of these keys, whatever their values. API 5.7.7. Raises NotFoundError (stream)."""
        if isinstance(keys, str):
            raise ConfigError(f"keys={keys!r} is text, whose letters are hardly meant: give a list of keys")
        params = await self._params(stream, stream_id)
        await self._client.call("change_tags", params, body=_sent(encode_tag_change, "delete", dict.fromkeys(keys, "")))

    async def of(self, stream: str, *, stream_id: str | None = None) -> dict[str, str]:
        """The tags of a stream. API 5.7.2. Raises NotFoundError."""
        params = await self._params(stream, stream_id)
        return decode_tags((await self._client.call("stream_tags", params)).body)

    async def all(self) -> dict[str, list[str]]:
        """Every key in use in the project, with all its values. API 5.7.5."""
        return decode_all_tags((await self._client.call("list_tags", {"resource_type": RESOURCE_TYPE})).body)

    async def find(
        self,
        *,
        tags: Wanted | None = None,
        tags_any: Wanted | None = None,
        not_tags: Wanted | None = None,
        not_tags_any: Wanted | None = None,
        name: str = "",
        page_size: int = MAX_PAGE,
    ) -> AsyncIterator[TaggedStream]:
        """The streams of the project of which all that is given is true, `page_size` (1 to 1000) a request.

        API 5.7.6. `tags`: every condition holds; `tags_any`: at least one; `not_tags`: not every one; `not_tags_any`:
        none. `name`: a part of the stream's name. At most 10 keys of 10 values each. Streams that get or lose tags
        meanwhile may be missed, or come twice.
        """
        if not 1 <= page_size <= MAX_PAGE:
            raise ConfigError(f"page_size={page_size!r} must be within 1 and {MAX_PAGE}")
        query = _query("filter", tags, tags_any, not_tags, not_tags_any, name)
        query.limit = str(page_size)
        offset = 0
        while True:
            query.offset = str(offset)
            page = decode_resources((await self._ask(query)).body)
            for stream in page.streams:
                yield stream
            offset += len(page.streams)
            if not page.streams or (page.total is not None and offset >= page.total):
                return

    async def count(
        self,
        *,
        tags: Wanted | None = None,
        tags_any: Wanted | None = None,
        not_tags: Wanted | None = None,
        not_tags_any: Wanted | None = None,
        name: str = "",
    ) -> int:
        """How many streams `find` would give. API 5.7.6."""
        answer = await self._ask(_query("count", tags, tags_any, not_tags, not_tags_any, name))
        total = decode_resources(answer.body).total
        if total is None:
            raise TransportError("the endpoint's answer does not tell how many streams there are", outcome_unknown=True)
        return total

    async def _ask(self, query: TagQuery) -> Response:
        body = _sent(encode_tag_query, query)
        return await self._client.call("filter_by_tags", {"resource_type": RESOURCE_TYPE}, body=body)

    async def _params(self, stream: str, stream_id: str | None) -> dict[str, str]:
        if stream_id is None:
            stream_id = (await self._client.streams.describe(stream)).stream_id
        return {"resource_type": RESOURCE_TYPE, "stream_id": stream_id}


def _query(
    action: str,
    tags: Wanted | None,
    tags_any: Wanted | None,
    not_tags: Wanted | None,
    not_tags_any: Wanted | None,
    name: str,
) -> TagQuery:
    return TagQuery(
        action=action,
        tags=_conditions(tags),
        tags_any=_conditions(tags_any),
        not_tags=_conditions(not_tags),
        not_tags_any=_conditions(not_tags_any),
        matches=[Match(RESOURCE_NAME, name)] if name else None,
    )


def _conditions(wanted: Wanted | None) -> list[TagValues] | None:
    for key, values in (wanted or {}).items():
        if isinstance(values, str):
            raise ConfigError(f"the values of {key!r} are the text {values!r}: give a list of values")
    return [TagValues(key, [*values]) for key, values in wanted.items()] if wanted else None


def _sent(encode: Callable[P, bytes], *args: P.args, **more: P.kwargs) -> bytes:
    try:
        return encode(*args, **more)
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{exc.object!r:.80} cannot be sent: a tag is text without lone surrogates") from exc
