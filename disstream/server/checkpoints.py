"""Checkpoints (API 5.3). The server keeps numbers; what they mean is between the clients of an app."""

from __future__ import annotations

import anyio.lowlevel

from .. import clock
from ..engine import Engine, PartitionRef
from ..errors import CatalogConflict
from ..model import PartitionInfo
from ..wire.checkpoints import (
    NOT_COMMITTED,
    decode_commit,
    decode_reset,
    encode_checkpoint,
    encode_dropped,
    parse_checkpoint_query,
)
from ..wire.errors import api_error, sequence_out_of_range, stream_not_found
from ..wire.http import Response, json_response
from ..wire.partitioning import partition_id
from .apps import find_app
from .call import Call
from .directory import Directory, Stream
from .documents import checkpoint_key, checkpoints_of, reader_key
from .groups import Groups
from .progress import CheckpointDoc, checkpoint_at, checkpoints_on, encode_checkpoint_doc


class Checkpoints:
    def __init__(self, engine: Engine, directory: Directory, groups: Groups) -> None:
        self._log = engine.log
        self._catalog = engine.catalog
        self._directory = directory
        self._groups = groups

    async def commit(self, call: Call) -> Response:
        """Lands only while app and stream are the ones that were looked at, and the member is still the owner."""
        wanted = decode_commit(call.body)
        project, name, number = call.project, wanted.app, wanted.partition
        while True:
            app = await find_app(self._catalog, project, name)
            stream = await self._find(call, wanted.stream_name, wanted.stream_id)
            stream_id = stream.doc.stream_id
            _check_partition(stream, number)
            expect = {app.key: app.version, stream.key: stream.version}
            if wanted.generation is not None:
                expect |= await self._groups.fence(
                    project, name, wanted.member_id, wanted.generation, stream_id, number
                )
            (bounds,) = await self._log.bounds([PartitionRef(stream_id, number)])
            if bounds is None:  # being deleted this moment
                raise stream_not_found(stream.doc.name, project)
            if wanted.sequence > bounds.next:
                raise sequence_out_of_range(wanted.sequence, bounds.oldest, bounds.next)
            member = wanted.member_id if wanted.generation is not None else ""
            document = encode_checkpoint_doc(
                CheckpointDoc(app.doc.app_id, wanted.sequence, wanted.metadata, clock.wall_ms(), member)
            )
            put = {
                checkpoint_key(project, name, stream_id, number): document,
                reader_key(stream_id, project, name): b"",
            }
            try:
                await self._catalog.transact(expect, put)
            except CatalogConflict:
                await anyio.lowlevel.checkpoint()  # others made progress, so this ends: look again
            else:
                return Response(status=201)

    async def reset(self, call: Call) -> Response:
        """Set checkpoints on one stream while nobody is a member of the app's group; with force, by dropping them all.

        The checkpoints expect the group as it was left without members. So no commit of a member that was dropped lands
        behind them, and who joins again begins at them.
        """
        wanted = decode_reset(call.body)
        project, name = call.project, call.params["app_name"]
        dropped: set[str] = set()
        while True:
            app = await find_app(self._catalog, project, name)
            stream = await self._find(call, call.params["stream_name"], wanted.stream_id)
            stream_id = stream.doc.stream_id
            for number in wanted.checkpoints:
                _check_partition(stream, number, readable=True)
            refs = [PartitionRef(stream_id, number) for number in wanted.checkpoints]
            found = await self._log.bounds(refs)
            for bounds, checkpoint in zip(found, wanted.checkpoints.values(), strict=True):
                if bounds is None:  # being deleted this moment
                    raise stream_not_found(stream.doc.name, project)
                if checkpoint.sequence_number > bounds.next:
                    raise sequence_out_of_range(checkpoint.sequence_number, bounds.oldest, bounds.next)
            now_ms = clock.wall_ms()
            put = {
                checkpoint_key(project, name, stream_id, number): encode_checkpoint_doc(
                    CheckpointDoc(app.doc.app_id, each.sequence_number, each.metadata, now_ms)
                )
                for number, each in wanted.checkpoints.items()
            }
            put[reader_key(stream_id, project, name)] = b""
            async with self._groups.disbanded(project, name, force=wanted.force) as (members, expect):
                dropped |= members
                try:
                    await self._catalog.transact(expect | {app.key: app.version, stream.key: stream.version}, put)
                except CatalogConflict:
                    pass
                else:
                    return json_response(encode_dropped(dropped))
            await anyio.lowlevel.checkpoint()  # app, stream or group changed: look again

    async def get(self, call: Call) -> Response:
        wanted = parse_checkpoint_query(call.query)
        if wanted.partition is None:
            raise api_error("DIS.4200", "[partition_id is missing]")
        app = await find_app(self._catalog, call.project, wanted.app)
        stream = await self._find(call, wanted.stream_name, wanted.stream_id)
        _check_partition(stream, wanted.partition)
        key = checkpoint_key(call.project, wanted.app, stream.doc.stream_id, wanted.partition)
        found = await checkpoint_at(self._catalog, key, app.doc.app_id)
        return json_response(encode_checkpoint(found))

    async def delete(self, call: Call) -> Response:
        """Without a fence, whoever reads: it is how an operator sends an app back to its start."""
        wanted = parse_checkpoint_query(call.query)
        app = await find_app(self._catalog, call.project, wanted.app)
        stream = await self._find(call, wanted.stream_name, wanted.stream_id)
        stream_id, app_id = stream.doc.stream_id, app.doc.app_id
        if wanted.partition is None:
            doomed = [*await checkpoints_on(self._catalog, checkpoints_of(call.project, wanted.app, stream_id), app_id)]
        else:
            _check_partition(stream, wanted.partition)
            key = checkpoint_key(call.project, wanted.app, stream_id, wanted.partition)
            doomed = [key] if await checkpoint_at(self._catalog, key, app_id) else []
        if not doomed:
            raise api_error(NOT_COMMITTED, f"[{wanted.app}][{stream.doc.name}]")
        await self._catalog.transact({}, {}, doomed)
        return Response(status=204)

    async def _find(self, call: Call, name: str, stream_id: str) -> Stream:
        """With an id that stream alone: a checkpoint must not reach the one that took a deleted one's name."""
        # Clients of a shared stream may put its id where the name stands.
        return await self._directory.find(
            call.project,
            name,
            stream_id or name,
            caller=call.caller,
            action="getRecords",
            exact=bool(stream_id),
        )


def _check_partition(stream: Stream, number: int, *, readable: bool = False) -> None:
    partition = stream.doc.partition(number)
    if partition is None:
        raise api_error("DIS.4302", f"[{partition_id(number)}]")
    if readable and partition.status not in PartitionInfo.READABLE:
        raise api_error("DIS.4319", f"[{partition_id(number)}]")
