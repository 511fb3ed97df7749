"""Tags of streams (API 5.7). They ride along with the stream's document; tagging.py has the rules.

A stream is named by its id, and only one of the caller's own project. Changing tags leaves its `last_modified_time`:
that tells of the stream, not of what somebody calls it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio.lowlevel
import msgspec

from ..errors import NotFoundError
from ..model import TaggedStream
from ..wire.errors import api_error
from ..wire.http import Response, json_response
from ..wire.tags import (
    RESOURCE_TYPE,
    decode_create_tag,
    decode_tag_change,
    decode_tag_query,
    encode_all_tags,
    encode_resources,
    encode_tags,
    encode_total,
)
from .call import Call
from .config import ServerConfig
from .directory import Directory
from .documents import StreamDoc
from .tagging import checked_tags, filter_of, keys_to_delete, page_of, with_tags, without_keys, without_tag

_LOOKED_AT_ONCE = 50
"""Streams before others have their turn."""

MAX_BODY_BYTES = 262_144
"""Of a request: twice what the largest list of conditions takes. Reading ten megabytes of tags stops the loop."""

_NO_STREAM = "DIS.4301"


class _Tagged(msgspec.Struct):
    """What of a stream's document matters here: one with a thousand partitions takes long to decode as a whole."""

    stream_id: str
    name: str
    tags: dict[str, str] = {}


_decode_tagged = msgspec.json.Decoder(_Tagged).decode


class Tags:
    def __init__(self, directory: Directory, config: ServerConfig) -> None:
        self._directory = directory
        self._config = config

    async def create(self, call: Call) -> Response:
        more = checked_tags([decode_create_tag(_body(call))], self._config.max_tags)
        await self._edit(call, lambda tags: with_tags(tags, more, self._config.max_tags))
        return Response(status=204)

    async def delete(self, call: Call) -> Response:
        _check_type(call)
        await self._edit(call, lambda tags: without_tag(tags, call.params["key"]))
        return Response(status=204)

    async def change(self, call: Call) -> Response:
        change = decode_tag_change(_body(call))
        if change.action not in ("create", "delete"):
            raise api_error("DIS.4605", f"[{change.action[:80]!r} is neither create nor delete]")
        if change.tags is None:
            raise api_error("DIS.4200", "[tags is missing]")
        if change.action == "create":
            more = checked_tags(change.tags, self._config.max_tags)
            await self._edit(call, lambda tags: with_tags(tags, more, self._config.max_tags))
        else:
            keys = keys_to_delete(change.tags)
            await self._edit(call, lambda tags: without_keys(tags, keys))
        return Response(status=204)

    async def _edit(self, call: Call, edit: Callable[[dict[str, str]], dict[str, str]]) -> None:
        def edit_document(doc: StreamDoc) -> StreamDoc:
            tags = edit(doc.tags)
            return doc if tags == doc.tags else msgspec.structs.replace(doc, tags=tags)

        try:
            await self._directory.change(call.project, "", call.params["stream_id"], edit_document)
        except NotFoundError as error:
            raise _told_of_tags(error, call) from None

    async def of_stream(self, call: Call) -> Response:
        _check_type(call)
        try:
            stream = await self._directory.find(call.project, "", call.params["stream_id"])
        except NotFoundError as error:
            raise _told_of_tags(error, call) from None
        return json_response(encode_tags(stream.doc.tags))

    async def everything(self, call: Call) -> Response:
        """Every key of the project with every value it has anywhere, ascending."""
        _check_type(call)
        found: dict[str, set[str]] = {}
        async for doc in self._streams(call.project):
            for key, value in doc.tags.items():
                found.setdefault(key, set()).add(value)
        return json_response(encode_all_tags({key: sorted(values) for key, values in sorted(found.items())}))

    async def filter(self, call: Call) -> Response:
        """The streams that are meant, ascending by name, or how many they are."""
        query = decode_tag_query(_body(call))
        if query.action not in ("filter", "count"):
            raise api_error("DIS.4605", f"[{query.action[:80]!r} is neither filter nor count]")
        wanted = filter_of(query)
        counting = query.action == "count"
        offset, limit = (0, 0) if counting else page_of(query)
        total = 0
        page: list[TaggedStream] = []
        async for doc in self._streams(call.project):
            if wanted.means(doc.name, doc.tags):
                if offset <= total < offset + limit:
                    page.append(TaggedStream(name=doc.name, stream_id=doc.stream_id, tags=doc.tags))
                total += 1
        return json_response(encode_total(total) if counting else encode_resources(page, total))

    async def _streams(self, project: str) -> AsyncIterator[_Tagged]:
        for index, (_, encoded) in enumerate(await self._directory.of_project(project)):
            if index % _LOOKED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            yield _decode_tagged(encoded)


def _check_type(call: Call) -> None:
    kind = call.params["resource_type"]
    if kind != RESOURCE_TYPE:
        raise api_error("DIS.4602", f"[{kind[:80]!r} is not {RESOURCE_TYPE}]")


def _body(call: Call) -> bytes:
    """Raises ApiError: DIS.4602, 413."""
    _check_type(call)
    if len(call.body) > MAX_BODY_BYTES:
        told = f"[the body has {len(call.body)} bytes, more than the {MAX_BODY_BYTES} of a request about tags]"
        raise api_error("DIS.4200", told, status=413)
    return call.body


def _told_of_tags(error: NotFoundError, call: Call) -> Exception:
    """What is not there is a resource to these calls."""
    return api_error("DIS.4603", f"[{call.params['stream_id'][:80]}]") if error.code == _NO_STREAM else error
