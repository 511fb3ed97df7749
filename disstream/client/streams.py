"""Streams (API 5.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec

from ..errors import ConfigError, DisError, NotFoundError, TransportError, WaitTimeout
from ..model import AutoScale, PartitionInfo, StreamInfo, StreamSummary
from ..wire.caps import decode_caps
from ..wire.layouts import decode_changes
from ..wire.streams import (
    RETENTION,
    CreateStream,
    CsvProperties,
    Tag,
    UpdateStream,
    decode_describe,
    decode_list,
    encode_create,
    encode_partition_count,
    encode_update,
)

if TYPE_CHECKING:
    from .client import Client

_PARTITION_PAGE = 1000  # the most the service gives at once
_FIRST_POLL_S = 0.05
_LAST_POLL_S = 2.0
_DOOMED = frozenset({"TERMINATING", "TERMINATED", "FROZEN"})


class Streams:
    """`client.streams`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        *,
        partitions: int,
        retention_h: int = 24,
        retention_bytes: int | None = None,
        stream_type: str = "COMMON",
        data_type: str = "BLOB",
        data_schema: str | None = None,
        csv_delimiter: str | None = None,
        compression_format: str | None = None,
        auto_scale: AutoScale | None = None,
        tags: Mapping[str, str] | None = None,
        sys_tags: Mapping[str, str] | None = None,
    ) -> None:
        """Create a stream. It may still be CREATING when this returns: `wait_running` waits for it.

        API 5.1.1. `retention_h`: hours a record can be read. `retention_bytes`: payload and keys of all records that
        the stream may hold, beyond which the oldest go; only disstream's server offers it, elsewhere it is a
        ConfigError. `data_schema`: an Avro schema as JSON text.
        `auto_scale`: the service changes the number of partitions by itself within these bounds.
        Raises ConflictError (exists), QuotaError, ApiError with DIS.4360 (the schema).
        Not repeated once it may have been received: after TransportError or ServerFault the stream may exist.
        """
        if not name:
            raise ConfigError("a stream needs a name")
        _check_partitions(partitions)
        await self._check_retention_bytes(retention_bytes)
        request = CreateStream(
            stream_name=name,
            partition_count=partitions,
            stream_type=stream_type,
            data_type=data_type,
            data_duration=retention_h,
            retention_bytes=retention_bytes,
            data_schema=data_schema,
            csv_properties=CsvProperties(csv_delimiter) if csv_delimiter is not None else None,
            compression_format=compression_format,
            **_auto_scale(auto_scale),
            tags=_tags(tags),
            sys_tags=_tags(sys_tags),
        )
        await self._client.call("create_stream", body=encode_create(request))

    async def describe(self, name: str, *, stream_id: str | None = None) -> StreamInfo:
        """A stream with all its partitions, asked for page by page.

        API 5.1.4. `stream_id`: needed for a stream that another account shares. Raises NotFoundError.
        """
        query = {"limit_partitions": str(_PARTITION_PAGE)}
        if stream_id:
            query["stream_id"] = stream_id
        params = {"stream_name": name or stream_id or ""}
        answer = await self._client.call("describe_stream", params, query)
        info, more = decode_describe(answer.body)
        partitions = {p.partition_id: p for p in info.partitions}
        while more:
            last = next(reversed(partitions), "")
            # The documented spelling and the one the official clients send.
            page = {**query, "start_partition_id": last, "start_partitionId": last}
            part, more = decode_describe((await self._client.call("describe_stream", params, page)).body)
            partitions = _joined(name, partitions, part.partitions, more)
        return msgspec.structs.replace(
            info,
            partitions=tuple(partitions.values()),
            caps=decode_caps(answer.headers),
            changes=decode_changes(answer.headers),  # of the first page: later ones may tell of more, not of fewer
        )

    async def list(self, *, page_size: int = 100) -> AsyncIterator[StreamSummary]:
        """All streams of the project in the service's order, `page_size` (1 to 100) a request.

        API 5.1.2. Streams created or deleted meanwhile may or may not appear.
        """
        if not 1 <= page_size <= 100:
            raise ConfigError(f"page_size={page_size!r} must be within 1 and 100")
        query = {"limit": str(page_size)}
        while True:
            page = decode_list((await self._client.call("list_streams", query=query)).body)
            for stream in page.streams:
                yield stream
            if not page.has_more:
                return
            last = page.streams[-1].name if page.streams else ""
            if not last or last == query.get("start_stream_name"):
                raise TransportError(f"the list of streams does not go on behind {last!r}", outcome_unknown=False)
            query["start_stream_name"] = last

    async def scale(self, name: str, partitions: int) -> None:
        """Change the number of writable partitions. `wait_running(name, partitions=...)` waits until it is so.

        API 5.1.5. Partitions that are taken away can still be read until their records expire. Keys move to other
        partitions, also between those that stay. The service allows five changes of a stream in an hour, and none
        within an hour of one that succeeded. Raises NotFoundError, QuotaError, ApiError (too soon).
        Not repeated once it may have been received: after TransportError or ServerFault look with `describe`.
        """
        _check_partitions(partitions)
        body = encode_partition_count(name, partitions)
        await self._client.call("update_partition_count", {"stream_name": name}, body=body)

    async def update(
        self,
        name: str,
        *,
        retention_h: int | None = None,
        retention_bytes: int | None = None,
        data_type: str | None = None,
        data_schema: str | None = None,
        auto_scale: AutoScale | Literal[False] | None = None,
    ) -> None:
        """Change what is given and leave the rest.

        API 5.1.6. A shorter retention, as fewer `retention_bytes` (see `create`; 0: no bound of the stream's own), lets
        records expire that were readable; `auto_scale=False` switches automatic scaling off. Raises NotFoundError,
        ApiError with DIS.4200 (a value) or DIS.4360 (the schema).
        """
        if all(given is None for given in (retention_h, retention_bytes, data_type, data_schema, auto_scale)):
            raise ConfigError(
                "nothing to update: give retention_h, retention_bytes, data_type, data_schema or auto_scale"
            )
        await self._check_retention_bytes(retention_bytes)
        request = UpdateStream(
            stream_name=name,
            data_duration=retention_h,
            retention_bytes=retention_bytes,
            data_type=data_type,
            data_schema=data_schema,
            **_auto_scale(auto_scale),
        )
        await self._client.call("update_stream", {"stream_name": name}, body=encode_update(request))

    async def _check_retention_bytes(self, value: int | None) -> None:
        """Raise ConfigError for what is no number, and where nobody would keep to it: it would be ignored silently."""
        if value is None:
            return
        if type(value) is not int or value < 0:
            raise ConfigError(f"retention_bytes={value!r}: give bytes, as a whole number")
        if RETENTION not in self._client.extensions:  # or there was no answer so far that could have told
            await self._client.call("list_streams", query={"limit": "1"})
        if RETENTION not in self._client.extensions:
            raise ConfigError(
                f"retention_bytes={value}: this endpoint keeps records by time only; leave it out, or use a "
                "server that names 'retention' in X-Disstream"
            )

    async def delete(self, name: str) -> None:
        """Delete a stream and all its records.

        API 5.1.3. Raises NotFoundError, except after an attempt whose answer was lost: then it is gone as asked.
        """
        await self._client.call("delete_stream", {"stream_name": name})

    async def wait_running(self, name: str, *, partitions: int | None = None, timeout_s: float = 60.0) -> StreamInfo:
        """Wait until the stream is RUNNING, with that many writable `partitions` if given; return its description.

        A stream that cannot be found yet is waited for too: creation may show late. Raises WaitTimeout, which names the
        last status; DisError if the stream is being deleted or frozen.
        """
        status = "not asked yet"
        pause = _FIRST_POLL_S
        with anyio.move_on_after(timeout_s):
            while True:
                try:
                    info = await self.describe(name)
                except NotFoundError:
                    status = "not found"
                else:
                    status = info.status
                    if status == "RUNNING":
                        if partitions is None or info.writable_partition_count == partitions:
                            return info
                        status = f"RUNNING with {info.writable_partition_count} of {partitions} partitions"
                    if status in _DOOMED:
                        raise DisError(f"stream {name!r} is {status}: it will not run")
                await anyio.sleep(pause)
                pause = min(pause * 1.5, _LAST_POLL_S)
        raise WaitTimeout(f"stream {name!r} is not ready after {timeout_s:g} s; last status: {status}")


def _check_partitions(count: object) -> None:
    if type(count) is not int or count < 1:
        raise ConfigError(f"partitions={count!r}: a stream has 1 partition or more, as a whole number")


def _auto_scale(bounds: AutoScale | Literal[False] | None) -> dict[str, Any]:
    if bounds is None:
        return {}
    if bounds is False:
        return {"auto_scale_enabled": False}
    if not isinstance(bounds, tuple) or len(bounds) != 2 or not 1 <= bounds[0] <= bounds[1]:
        raise ConfigError(f"auto_scale={bounds!r}: give AutoScale(min, max) with 1 <= min <= max")
    low, high = bounds
    return {
        "auto_scale_enabled": True,
        "auto_scale_min_partition_count": low,
        "auto_scale_max_partition_count": high,
    }


def _tags(tags: Mapping[str, str] | None) -> list[Tag] | None:
    return [Tag(key, value) for key, value in tags.items()] if tags else None


def _joined(
    name: str, partitions: dict[str, PartitionInfo], page: tuple[PartitionInfo, ...], more: bool
) -> dict[str, PartitionInfo]:
    """The partitions so far and those of the next page. A page that brings nothing new would be asked for for ever."""
    joined = {**partitions, **{p.partition_id: p for p in page}}
    if more and len(joined) == len(partitions):
        raise TransportError(f"the partitions of stream {name!r} do not go on", outcome_unknown=False)
    return joined
