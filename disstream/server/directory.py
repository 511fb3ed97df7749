"""The streams of all projects: found, made, deleted, listed.

A stream is found anew on every call, with one read of the catalog; what is kept is only the decoded document, which is
right as long as its version is. So there is nothing to invalidate, and a deleted stream is gone at once.

Making opens the partitions first, then writes the catalog: a stream that is found can be written. Deleting takes the
stream out of the catalog first, then drops the records. While partitions exist of which no stream tells, a tombstone
does, and survives a crash (documents.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ..engine import Engine, Versioned
from ..errors import CatalogConflict
from ..wire.errors import api_error, stream_not_found
from ..wire.policies import ACTION_TYPES
from .call import ANYONE, Caller
from .config import ServerConfig
from .documents import (
    DROPPING,
    STREAMS,
    StreamDoc,
    decode_document,
    dropping_key,
    encode_document,
    grants_of,
    id_key,
    is_id,
    stream_key,
    streams_of,
)
from .layout import Layout
from .progress import forget_stream

logger = logging.getLogger("disstream.server")

MAX_DECODED = 64
"""Streams whose documents and known partition keys are kept; with the bound of known keys this bounds their memory."""


class Stream:
    """A stream as it stood at one version of its document."""

    __slots__ = ("doc", "key", "layout", "version")

    def __init__(self, key: str, versioned: Versioned, config: ServerConfig) -> None:
        self.key = key
        self.version = versioned.version
        self.doc = decode_document(versioned.value)
        self.layout = Layout(self.doc.partitions, config)


class Directory:
    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine = engine
        self._config = config
        self._decoded: dict[str, Stream] = {}

    async def find(
        self,
        project: str,
        name: str,
        stream_id: str = "",
        *,
        caller: Caller = ANYONE,
        action: str = "",
        exact: bool = False,
    ) -> Stream:
        """By name; if there is none of that name, by id. `exact`: never one with another id. Raises ApiError DIS.4301.

        With an `action` (putRecords, getRecords, getStreamInfo), also a stream of another account by its id, if a
        policy of it lets `caller` do that; DIS.4116 if its policies let `caller` do only something else. To everybody
        else it does not exist: what is looked up, and what is answered, is the same. Clients of a shared stream may put
        its id where the name stands.
        """
        if action:
            stream_id = stream_id or name
        stream = await self._by_name(project, name)
        if stream is not None and exact and stream.doc.stream_id != stream_id:
            stream = None
        if stream is None and stream_id and (key := id_key(project, stream_id)):
            known = await self._engine.catalog.get(key)
            if known is not None:
                stream = await self._by_name(project, known.value.decode())
        if stream is None and action and caller.domain and is_id(stream_id):
            stream = await self._shared(stream_id, caller, action)
        if stream is None:
            raise stream_not_found((name or stream_id)[:80], project)
        return stream

    async def _shared(self, stream_id: str, caller: Caller, action: str) -> Stream | None:
        held: dict[str, bytes] = {}
        for user in (caller.user, "*"):
            prefix = grants_of(stream_id, caller.domain, user)
            for key, versioned in await self._engine.catalog.scan(prefix, limit=len(ACTION_TYPES)):
                held[key.removeprefix(prefix)] = versioned.value
        if not held:
            return None
        project, name = next(iter(held.values())).decode().split("/")
        stream = await self._by_name(project, name)
        if stream is None or stream.doc.stream_id != stream_id:
            return None  # deleted; its grants follow
        if action not in held:
            raise api_error("DIS.4116", f"[no policy of stream {stream_id} allows {action}]")
        return stream

    async def _by_name(self, project: str, name: str) -> Stream | None:
        key = stream_key(project, name)
        versioned = await self._engine.catalog.get(key) if key else None
        if key is None or versioned is None:
            return None
        known = self._decoded.get(key)
        if known is None or known.version != versioned.version:
            known = Stream(key, versioned, self._config)
            if key not in self._decoded and len(self._decoded) >= MAX_DECODED:
                del self._decoded[next(iter(self._decoded))]
            self._decoded[key] = known
        return known

    async def create(self, project: str, doc: StreamDoc) -> None:
        """Make it; usable when this returns. Raises ApiError DIS.4307."""
        name, by_id = stream_key(project, doc.name), id_key(project, doc.stream_id)
        assert name is not None
        assert by_id is not None
        if await self._engine.catalog.get(name) is not None:
            raise api_error("DIS.4307", f"[{doc.name}]")
        tombstone = dropping_key(doc.stream_id)
        await self._engine.catalog.transact({}, {tombstone: b""})
        await self._engine.log.open(doc.refs())
        try:
            await self._engine.catalog.transact(
                {name: 0, by_id: 0}, {name: encode_document(doc), by_id: doc.name.encode()}, [tombstone]
            )
        except CatalogConflict:
            await self._drop(doc.stream_id)
            raise api_error("DIS.4307", f"[{doc.name}]") from None
        logger.info(
            "stream created: project=%s stream=%s id=%s partitions=%d",
            project,
            doc.name,
            doc.stream_id,
            len(doc.partitions),
        )

    async def delete(self, project: str, name: str, stream_id: str = "") -> None:
        """Raises ApiError DIS.4301. It is gone once the catalog says so; its records follow before this returns."""
        while True:
            stream = await self.find(project, name, stream_id)
            doc = stream.doc
            by_id = id_key(project, doc.stream_id)
            assert by_id is not None
            try:
                await self._engine.catalog.transact(
                    {stream.key: stream.version}, {dropping_key(doc.stream_id): b""}, [stream.key, by_id]
                )
                break
            except CatalogConflict:
                continue  # somebody changed it since: look again
        self._decoded.pop(stream.key, None)
        logger.info("stream deleted: project=%s stream=%s id=%s", project, doc.name, doc.stream_id)
        await self._drop(doc.stream_id)

    async def _drop(self, stream_id: str) -> None:
        await self._engine.log.drop(stream_id)
        await forget_stream(self._engine, stream_id)
        # Nobody can add to these any more: that takes the stream's document.
        grants = [key for key, _ in await self._scan(grants_of(stream_id))]
        await self._engine.catalog.transact({}, {}, [*grants, dropping_key(stream_id)])

    async def drop_remains(self) -> None:
        """Drop what earlier lives had deleted but not dropped, or begun to make. Call it before serving."""
        for key, _ in await self._scan(DROPPING):
            await self._drop(key.removeprefix(DROPPING))

    async def of_project(self, project: str) -> list[tuple[str, bytes]]:
        """(name, encoded document) of all streams of a project, ascending by name's code points."""
        prefix = streams_of(project)
        return [(key.removeprefix(prefix), versioned.value) for key, versioned in await self._scan(prefix)]

    async def everything(self) -> Iterator[StreamDoc]:
        """Every stream of every project, decoded one by one."""
        return (decode_document(versioned.value) for _, versioned in await self._scan(STREAMS))

    async def _scan(self, prefix: str) -> list[tuple[str, Versioned]]:
        found: list[tuple[str, Versioned]] = []
        while True:
            page = await self._engine.catalog.scan(prefix, found[-1][0] if found else "")
            if not page:
                return found
            found += page
