"""Changes of the number of partitions (API 5.1.5): the shell around reshape.py.

The three steps of a change are taken under the stream's turn in the directory, so one change at a time, and none beside
a deletion. Whoever finds a change that was left half-way (its request was cut, the server died) finishes it: the next
change of the stream, a put that met the fence, or the start of the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from .. import clock
from ..engine import Engine, PartitionRef
from ..errors import CatalogConflict, NotFoundError, QuotaError
from ..wire.errors import api_error
from .config import ServerConfig
from .directory import Directory, Stream
from .documents import (
    LayoutDoc,
    ScalingDoc,
    StreamDoc,
    decode_layout,
    dropping_key,
    encode_document,
    encode_layout,
    layout_key,
    layouts_of,
)
from .reshape import begun, finished, meeting, needless, refusal, remembered, writable_count

logger = logging.getLogger("disstream.server")

MAX_CHANGES = 100
"""Of the layout that are kept for readers while records before them can be read; then no more until some expire."""

MAX_BOUNDS = 20_000
"""That such changes have together, one for each partition: all of them are told with the stream, which should take
neither long nor a megabyte. One change is always possible."""


class Scaler:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig) -> None:
        self._engine = engine
        self._directory = directory
        self._config = config
        self.on_changed: Callable[[str], None] = lambda stream_id: None
        """Told of each stream that has other partitions now."""

    async def scale(
        self, project: str, name: str, stream_id: str, target: int, *, decided_on: StreamDoc | None = None
    ) -> tuple[int, int]:
        """(partitions before, partitions now). Already that many: nothing happens.

        `decided_on`: what automatic scaling saw; nothing happens if its partitions or bounds have changed since. Raises
        ApiError: DIS.4301; DIS.4200 (too soon after others); DIS.4308, which counts as a try. Cancellation: the change
        may still take place, as a whole.
        """
        automatic = decided_on is not None
        stream = await self._directory.find(project, name, stream_id)
        async with self._directory.turn(stream.doc.stream_id):
            stream = await self._finished(await self._again(stream))
            doc = stream.doc
            before = writable_count(doc)
            if target == before:
                return before, target
            if decided_on and (doc.changes, doc.auto_scale) != (decided_on.changes, decided_on.auto_scale):
                return before, before
            self._check_pace(doc)
            try:
                await self._check_size(doc, target)
                async with self._directory.claim(project, doc.stream_type, partitions=target - before):
                    await self._directory.change(
                        project,
                        doc.name,
                        doc.stream_id,
                        lambda doc: begun(doc, target, clock.wall_ms(), automatic=automatic),
                        exact=True,
                    )
            except QuotaError as error:
                if not automatic:  # it is tried every minute, and would be all that is remembered
                    await self._remember(project, doc, target, error)
                raise
            await self._finished(await self._again(stream))
        logger.info(
            "stream scaled: project=%s stream=%s id=%s from=%d to=%d automatic=%s",
            project,
            doc.name,
            doc.stream_id,
            before,
            target,
            automatic,
        )
        return before, target

    def _check_pace(self, doc: StreamDoc) -> None:
        config = self._config
        too_soon = refusal(
            doc.scalings, clock.wall_ms(), per_hour=config.max_scalings_per_hour, pause_s=config.scaling_pause_s
        )
        if too_soon is not None:
            why, left_s = too_soon
            raise api_error("DIS.4200", f"[stream {doc.name} cannot be scaled: {why}; try again in {left_s:.0f} s]")

    async def _check_size(self, doc: StreamDoc, target: int) -> None:
        most = self._config.max_partitions
        if target > most:
            raise api_error(
                "DIS.4308", f"[target_partition_count={target} is more than max_partitions={most} of this server]"
            )
        layouts = await self.layouts(doc.stream_id)
        bounds = sum(len(layout.bounds) for layout in layouts.values()) + max(writable_count(doc), target)
        if layouts and (len(layouts) >= MAX_CHANGES or bounds > MAX_BOUNDS):
            raise api_error(
                "DIS.4308",
                f"[records from before {len(layouts)} changes of its partitions can still be read: "
                "try again once they have expired]",
            )

    async def _remember(self, project: str, doc: StreamDoc, target: int, error: QuotaError) -> None:
        """A change that could not be made is told with the stream, and counts as a try."""
        code = int(error.code.removeprefix("DIS."))
        tried = ScalingDoc(clock.wall_ms(), writable_count(doc), target, result_code=code)
        await self._directory.change(
            project,
            doc.name,
            doc.stream_id,
            lambda doc: msgspec.structs.replace(doc, scalings=remembered(doc, tried)),
            exact=True,
        )

    # --- the way of a change --------------------------------------------------------------------------------------

    async def settled(self, stream: Stream) -> Stream:
        """The stream without a change under way: waits for it, or finishes what was left. Raises ApiError DIS.4301."""
        if not stream.doc.pending:
            return stream
        async with self._directory.turn(stream.doc.stream_id):
            return await self._finished(await self._again(stream))

    async def settle_all(self) -> None:
        """Finish what earlier lives of the server began. Call it before serving."""
        for project, doc in await self._directory.everything():
            if doc.pending:
                await self.settled(await self._directory.find(project, doc.name, doc.stream_id))

    async def _again(self, stream: Stream) -> Stream:
        return await self._directory.find(stream.project, stream.doc.name, stream.doc.stream_id, exact=True)

    async def _finished(self, stream: Stream) -> Stream:
        """Take what steps are left, each of which may have been taken already; the caller has the stream's turn."""
        log, catalog = self._engine.log, self._engine.catalog
        while (doc := stream.doc).pending:
            epochs = {p.number: p.epoch for p in doc.pending}
            refs = [PartitionRef(doc.stream_id, number) for number in meeting(doc)]
            await log.open({ref: epochs[ref.number] for ref in refs})
            # Behind the fence nobody writes: what is told here stays.
            bounds = await log.bounds(refs)
            now_ms = clock.wall_ms()
            layout = LayoutDoc(
                now_ms, {ref.number: found.next for ref, found in zip(refs, bounds, strict=True) if found}
            )
            try:
                await catalog.transact(
                    {stream.key: stream.version},
                    {
                        stream.key: encode_document(finished(doc, now_ms)),
                        layout_key(doc.stream_id, doc.changes + 1): encode_layout(layout),
                    },
                )
            except CatalogConflict:
                try:
                    stream = await self._again(stream)
                except NotFoundError:
                    # Deleted by another server, which may have dropped the partitions before they were opened here.
                    if await catalog.get(dropping_key(doc.stream_id)) is None:
                        await log.drop(doc.stream_id)
                    raise
                continue
            stream = await self._again(stream)
            self.on_changed(stream.doc.stream_id)
            await self.forget_needless(stream.doc)
        return stream

    # --- what readers are told ------------------------------------------------------------------------------------

    async def layouts(self, stream_id: str) -> dict[int, LayoutDoc]:
        """The changes of a stream's layout that are still of use, by number."""
        prefix = layouts_of(stream_id)
        found = await self._engine.catalog.scan(prefix, limit=2 * MAX_CHANGES)
        return {int(key.removeprefix(prefix)): decode_layout(stored.value) for key, stored in found}

    async def forget_needless(self, doc: StreamDoc) -> None:
        """Delete what is told of changes before which no record can be read any more."""
        if not doc.changes:
            return
        layouts = await self.layouts(doc.stream_id)
        refs = list(doc.refs())
        bounds = await self._engine.log.bounds(refs)
        oldest = {ref.number: found.oldest for ref, found in zip(refs, bounds, strict=True) if found}
        if doomed := needless(layouts, oldest):
            await self._engine.catalog.transact({}, {}, [layout_key(doc.stream_id, change) for change in doomed])
