"""The streams of all projects: found, made, deleted, listed.

A stream is found anew on every call, with one read of the catalog, unless nothing at all has changed there since it was
found last. What is kept is only the decoded document, which is right as long as its version is. So there is nothing to
invalidate, and a deleted stream is gone at once.

Making opens the partitions first, then writes the catalog: a stream that is found can be written. Deleting takes the
stream out of the catalog first, then drops the records. While partitions exist of which no stream tells, a tombstone
does, and survives a crash (documents.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

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
    belongings_of,
    decode_document,
    dropping_key,
    encode_document,
    grants_of,
    id_key,
    is_id,
    stream_key,
    streams_of,
)
from .layout import KeyRoom, Layout
from .progress import forget_stream
from .quotas import check_quotas, has_quotas, writable_partitions
from .recent import Recent

logger = logging.getLogger("disstream.server")

MAX_PARTITIONS = 20_000
"""Of streams whose documents are kept as objects, some 20 MB; a stream counts as one more."""

MAX_COUNTED = 1_000
"""Projects of which is known how many streams they have."""


class Stream:
    """A stream as it stood at one version of its document.

    `revision`: of the catalog, at which this was the stream.
    """

    __slots__ = ("doc", "key", "layout", "revision", "version")

    def __init__(self, key: str, versioned: Versioned, config: ServerConfig, keys: KeyRoom) -> None:
        self.key = key
        self.revision = -1
        self.version = versioned.version
        self.doc = decode_document(versioned.value)
        self.layout = Layout(self.doc.partitions, config, keys)

    @property
    def project(self) -> str:
        """Whose it is."""
        return self.key.removeprefix(STREAMS).partition("/")[0]


class Directory:
    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine = engine
        self._config = config
        self._keys = KeyRoom()
        self._decoded = Recent[Stream](MAX_PARTITIONS)
        self._counts: dict[str, int] = {}
        self._begun = self._changing = 0  # makings and deletions: how many have begun, and how many are under way
        self._turns: dict[str, tuple[anyio.Lock, int]] = {}
        self._claims = anyio.Lock()

    @asynccontextmanager
    async def turn(self, stream_id: str) -> AsyncIterator[None]:
        """One at a time per stream: for what changes its partitions in several steps, and its deletion."""
        lock, holders = self._turns.get(stream_id, (anyio.Lock(), 0))
        self._turns[stream_id] = lock, holders + 1
        try:
            async with lock:
                yield
        finally:
            lock, holders = self._turns[stream_id]
            if holders == 1:
                del self._turns[stream_id]
            else:
                self._turns[stream_id] = lock, holders - 1

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
        if key is None:
            return None
        catalog = self._engine.catalog
        revision = catalog.revision  # before reading: what changes meanwhile is read the next time
        if self._keys.full:
            self._forget_keys()
        known = self._decoded.get(key)
        if known is not None and known.revision == revision:
            return known
        versioned = await catalog.get(key)
        if versioned is None:
            return None
        known = self._decoded.get(key)
        if known is None or known.version != versioned.version:
            known = Stream(key, versioned, self._config, self._keys)
            self._decoded.put(key, known, 1 + len(known.doc.partitions))
        known.revision = revision
        return known

    def _forget_keys(self) -> None:
        """All that layouts have learned: it comes back with the next records."""
        for stream in self._decoded:
            stream.layout.forget()
        self._keys.learned = 0

    async def create(self, project: str, doc: StreamDoc) -> None:
        """Make it; usable when this returns. Raises ApiError DIS.4307 or DIS.4308."""
        name, by_id = stream_key(project, doc.name), id_key(project, doc.stream_id)
        assert name is not None
        assert by_id is not None
        if await self._engine.catalog.get(name) is not None:
            raise api_error("DIS.4307", f"[{doc.name}]")
        tombstone = dropping_key(doc.stream_id)
        async with self.claim(project, doc.stream_type, streams=1, partitions=writable_partitions(doc)):
            await self._engine.catalog.transact({}, {tombstone: b""})
            await self._engine.log.open(doc.refs())
            try:
                async with self._recounted(project, +1):
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

    @asynccontextmanager
    async def claim(self, project: str, stream_type: str, *, partitions: int, streams: int = 0) -> AsyncIterator[None]:
        """What is written inside may take so many more of the project's quotas: nobody else takes of them meanwhile.

        Raises ApiError DIS.4308 if there are not so many left.
        """
        if partitions <= 0 >= streams or not has_quotas(self._config):
            yield
            return
        async with self._claims:
            docs = []
            for index, (_, value) in enumerate(await self.of_project(project)):
                docs.append(decode_document(value))
                if index % 50 == 49:
                    await anyio.lowlevel.checkpoint()  # a project may have thousands
            check_quotas(self._config, docs, stream_type, partitions=partitions, streams=streams)
            yield

    async def change(
        self, project: str, name: str, stream_id: str, edit: Callable[[StreamDoc], StreamDoc], *, exact: bool = False
    ) -> StreamDoc:
        """Replace the document of a stream, found as `find` does, by what `edit` makes of it; returns that.

        `edit` is asked again if somebody else changed the stream meanwhile, and changes nothing by returning what it
        was given. Whatever it raises, nothing has changed. Raises ApiError DIS.4301.
        """
        while True:
            stream = await self.find(project, name, stream_id, exact=exact)
            doc = edit(stream.doc)
            if doc is stream.doc:
                return doc
            try:
                await self._engine.catalog.transact({stream.key: stream.version}, {stream.key: encode_document(doc)})
            except CatalogConflict:
                continue
            return doc

    async def delete(self, project: str, name: str, stream_id: str = "") -> None:
        """Raises ApiError DIS.4301. It is gone once the catalog says so; its records follow before this returns."""
        while True:
            stream = await self.find(project, name, stream_id)
            doc = stream.doc
            by_id = id_key(project, doc.stream_id)
            assert by_id is not None
            async with self.turn(doc.stream_id):
                try:
                    async with self._recounted(project, -1):
                        await self._engine.catalog.transact(
                            {stream.key: stream.version}, {dropping_key(doc.stream_id): b""}, [stream.key, by_id]
                        )
                except CatalogConflict:
                    continue  # somebody changed it since: look again
                self._decoded.pop(stream.key)
                logger.info("stream deleted: project=%s stream=%s id=%s", project, doc.name, doc.stream_id)
                await self._drop(doc.stream_id)
                return

    async def _drop(self, stream_id: str) -> None:
        await self._engine.log.drop(stream_id)
        await forget_stream(self._engine, stream_id)
        for prefix in belongings_of(stream_id):
            while page := await self._engine.catalog.scan(prefix):
                await self._engine.catalog.transact({}, {}, [key for key, _ in page])
        await self._engine.catalog.transact({}, {}, [dropping_key(stream_id)])

    async def drop_remains(self) -> None:
        """Drop what earlier lives had deleted but not dropped, or begun to make. Call it before serving."""
        for key, _ in await self._scan(DROPPING):
            await self._drop(key.removeprefix(DROPPING))

    async def of_project(self, project: str) -> list[tuple[str, bytes]]:
        """(name, encoded document) of all streams of a project, ascending by name's code points."""
        prefix = streams_of(project)
        return [(key.removeprefix(prefix), versioned.value) for key, versioned in await self._scan(prefix)]

    async def page(self, project: str, after: str, limit: int) -> tuple[list[StreamDoc], bool]:
        """Streams of a project behind that name, ascending, so many at most; and whether there are more."""
        prefix = streams_of(project)
        found: list[tuple[str, Versioned]] = []
        while len(found) <= limit:
            start = found[-1][0] if found else prefix + after
            more = await self._engine.catalog.scan(prefix, start, limit + 1 - len(found))
            if not more:
                break
            found += more
        return [decode_document(versioned.value) for _, versioned in found[:limit]], len(found) > limit

    async def count(self, project: str) -> int:
        """How many streams a project has. Counted once, then kept right by what makes and deletes them."""
        known = self._counts.get(project)
        if known is not None:
            return known
        still, begun = not self._changing, self._begun
        count = len(await self._scan(streams_of(project)))
        if still and begun == self._begun:  # else it may have seen a change that is added later, or not
            if len(self._counts) >= MAX_COUNTED:
                self._counts.clear()
            self._counts[project] = count
        return count

    @asynccontextmanager
    async def _recounted(self, project: str, difference: int) -> AsyncIterator[None]:
        """Inside, a project gets so many more streams, or does not, which CatalogConflict tells."""
        self._begun += 1
        self._changing += 1
        try:
            yield
        except CatalogConflict:
            raise
        except BaseException:
            self._counts.pop(project, None)  # nobody knows
            raise
        else:
            if project in self._counts:
                self._counts[project] += difference
        finally:
            self._changing -= 1

    async def everything(self) -> Iterator[tuple[str, StreamDoc]]:
        """(project, stream) of all there are, decoded one by one."""
        return (
            (key.removeprefix(STREAMS).partition("/")[0], decode_document(versioned.value))
            for key, versioned in await self._scan(STREAMS)
        )

    async def _scan(self, prefix: str) -> list[tuple[str, Versioned]]:
        found: list[tuple[str, Versioned]] = []
        while True:
            page = await self._engine.catalog.scan(prefix, found[-1][0] if found else "")
            if not page:
                return found
            found += page
