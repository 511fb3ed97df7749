"""Apps (API 5.2)."""

from __future__ import annotations

import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from .. import clock
from ..engine import Catalog, Engine, PartitionRef
from ..errors import CatalogConflict
from ..model import AppInfo, PartitionState
from ..wire.apps import decode_create, encode_app, encode_list, encode_states
from ..wire.checkpoints import check_type
from ..wire.errors import api_error
from ..wire.http import Response, json_response
from ..wire.partitioning import partition_id, partition_number
from .call import Call
from .config import ServerConfig
from .directory import Directory
from .documents import (
    app_key,
    apps_of,
    checkpoint_key,
    checkpoints_of,
    dropping_key,
    group_key,
    id_key,
    readers_of,
)
from .groups import Groups
from .progress import all_of, checkpoints_on, scan, streams_read

_ID_LETTERS = string.ascii_letters + string.digits


class AppDoc(msgspec.Struct, frozen=True):
    """An app. `create_time` is ms since the epoch. Never changed: its version is that of its creation."""

    app_id: str
    name: str
    create_time: int


class StoredApp(NamedTuple):
    """An app as the catalog holds it; who writes for it expects `key` at `version`."""

    key: str
    version: int
    doc: AppDoc


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AppDoc).decode


async def find_app(catalog: Catalog, project: str, name: str) -> StoredApp:
    """Raises ApiError DIS.4332."""
    key = app_key(project, name)
    stored = await catalog.get(key) if key else None
    if key is None or stored is None:
        raise api_error("DIS.4332", f"[{name[:80]}]")
    return StoredApp(key, stored.version, _decode(stored.value))


class Apps:
    def __init__(
        self, engine: Engine, directory: Directory, groups: Groups, config: ServerConfig, source: random.Random
    ) -> None:
        self._log = engine.log
        self._catalog = engine.catalog
        self._directory = directory
        self._groups = groups
        self._max_apps = config.max_apps
        self._source = source
        self._quota = anyio.Lock()

    async def create(self, call: Call) -> Response:
        name = decode_create(call.body)
        key = app_key(call.project, name)
        if key is None:
            raise api_error("DIS.4200", f"[app_name={name[:80]!r} is not 1 to 200 of A-Z a-z 0-9 _ -]")
        taken = api_error("DIS.4330", f"[{name}]")
        if await self._catalog.get(key) is not None:
            raise taken
        # As long as the ids of streams.
        app_id = "".join(self._source.choices(_ID_LETTERS, k=19))
        async with self._room_for_one(call.project):
            try:
                await self._catalog.transact({key: 0}, {key: _encode(AppDoc(app_id, name, clock.wall_ms()))})
            except CatalogConflict:
                raise taken from None
        return Response(status=201)

    @asynccontextmanager
    async def _room_for_one(self, project: str) -> AsyncIterator[None]:
        """Nobody else makes an app inside. Raises ApiError DIS.4329 if the project has all it may have."""
        if self._max_apps is None:
            yield
            return
        async with self._quota:
            if len([key async for key, _ in scan(self._catalog, apps_of(project))]) >= self._max_apps:
                raise api_error("DIS.4329", f"[the project has {self._max_apps} apps, all it may have: delete one]")
            yield

    async def delete(self, call: Call) -> Response:
        """The app, its checkpoints and its group go together."""
        project, name = call.project, call.params["app_name"]
        group = group_key(project, name)
        while True:
            app = await find_app(self._catalog, project, name)
            # Read before asking who is there: who joins from now on changes it.
            formed = await self._catalog.get(group)
            if await self._groups.in_use(project, name):
                raise api_error("DIS.4331", f"[{name}: a member of its group is reading]")
            expect, doomed = await all_of(self._catalog, project, name)
            expect |= {app.key: app.version, group: formed.version if formed else 0}
            try:
                await self._catalog.transact(expect, {}, [app.key, group, *doomed])
            except CatalogConflict:
                await anyio.lowlevel.checkpoint()  # somebody committed or joined: look again
            else:
                return Response(status=204)

    async def describe(self, call: Call) -> Response:
        app = await find_app(self._catalog, call.project, call.params["app_name"])
        return json_response(encode_app(await self._info(call.project, app.doc)))

    async def listing(self, call: Call) -> Response:
        limit = call.number("limit", default=10, low=1, high=100)
        stream = call.query.get("stream_name")
        apps = await (self._readers(call, stream) if stream else self._everybody(call.project))
        start = call.query.get("start_app_name", "")
        behind = [app for app in apps if app.name > start]
        page = [await self._info(call.project, app) for app in behind[:limit]]
        return json_response(encode_list(page, total=len(apps), has_more=len(behind) > limit))

    async def _everybody(self, project: str) -> list[AppDoc]:
        return [_decode(stored.value) async for _, stored in scan(self._catalog, apps_of(project))]

    async def _readers(self, call: Call, name: str) -> list[AppDoc]:
        """The apps of the project that have a checkpoint on the stream, ascending by name."""
        stream = await self._directory.find(call.project, name, name, caller=call.caller, action="getRecords")
        stream_id = stream.doc.stream_id
        prefix = f"{readers_of(stream_id)}{call.project}/"
        found: list[AppDoc] = []
        async for mark, _ in scan(self._catalog, prefix):
            key = app_key(call.project, mark.removeprefix(prefix))
            stored = await self._catalog.get(key) if key else None
            if stored is None:
                continue
            app = _decode(stored.value)
            # The mark stays when checkpoints are deleted.
            if await checkpoints_on(self._catalog, checkpoints_of(call.project, app.name, stream_id), app.app_id):
                found.append(app)
        return found

    async def _info(self, project: str, app: AppDoc) -> AppInfo:
        names = [
            await self._name(project, stream_id)
            for stream_id in await streams_read(self._catalog, project, app.name, app.app_id)
        ]
        return AppInfo(
            name=app.name,
            app_id=app.app_id,
            create_time=app.create_time,
            streams=tuple(sorted(filter(None, names))),
        )

    async def _name(self, project: str, stream_id: str) -> str:
        """A stream of another account is known by its id alone; "" for one that is being dropped."""
        key = id_key(project, stream_id)
        known = await self._catalog.get(key) if key else None
        if known is not None:
            return known.value.decode()
        return stream_id if await self._catalog.get(dropping_key(stream_id)) is None else ""

    async def consuming_state(self, call: Call) -> Response:
        limit = call.number("limit", default=100, low=1, high=1000)
        check_type(call.query.get("checkpoint_type"))
        start = call.query.get("start_partition_id")
        behind = partition_number(start) if start else -1
        project, name = call.project, call.params["stream_name"]
        app = (await find_app(self._catalog, project, call.params["app_name"])).doc
        # Clients of a shared stream put its id where the name stands.
        stream = await self._directory.find(
            project, name, call.stream_id or name, caller=call.caller, action="getRecords"
        )
        stream_id = stream.doc.stream_id
        rest = [p for p in stream.doc.partitions if p.number > behind]
        page = rest[:limit]
        keys = [checkpoint_key(project, app.name, stream_id, p.number) for p in page]
        checkpoints = await checkpoints_on(
            self._catalog,
            checkpoints_of(project, app.name, stream_id),
            app.app_id,
            after=checkpoint_key(project, app.name, stream_id, behind) if start else "",
            limit=limit,
        )
        bounds = await self._log.bounds([PartitionRef(stream_id, p.number) for p in page])
        states = [
            PartitionState(
                partition_id=partition_id(p.number),
                checkpoint=document.checkpoint if document else None,
                earliest=bound.oldest if bound else 0,  # nothing is left of an EXPIRED one
                latest=bound.next if bound else 0,
                status=p.status,
                committed_ms=(document.at_ms or None) if document else None,
                committed_by=document.member if document else "",
            )
            for p, document, bound in zip(page, map(checkpoints.get, keys), bounds, strict=True)
        ]
        return json_response(encode_states(app.name, stream.doc.name, states, has_more=len(rest) > limit))
