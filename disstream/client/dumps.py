"""Dump tasks (API 5.5): a stream copied into a store by the service."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from ..destinations import Dump, DumpTask, DumpTaskInfo
from ..errors import ConfigError, DisError
from ..wire.dumps import START, STOP, decode_detail, decode_list, encode_change, encode_create

if TYPE_CHECKING:
    from .client import Client


class Dumps:
    """`client.dumps`. Tasks go by their `task_name`, which is unique in a stream.

    disstream's own server keeps tasks and does not run them yet: they are ABNORMAL or PAUSED, and `state_reason` says
    why.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, stream: str, destination: Dump) -> None:
        """Create a dump task: `ObsDump`, `DwsDump`, `MrsDump`, `DliDump` or `CloudTableDump`. It starts by itself.

        API 5.5.1, 5.5.7 to 5.5.10. The service checks the fields. Raises ConflictError (the stream has a task of that
        name), QuotaError, NotFoundError (stream, bucket, cluster, table), ApiError (DIS.4200 names a wrong field).
        Not repeated once it may have been received: after TransportError or ServerFault the task may exist.
        """
        given: object = destination
        if not isinstance(given, Dump):
            raise ConfigError(f"{given!r:.80} is no destination: give an ObsDump, a DwsDump or another Dump")
        try:
            body = encode_create(destination)
        except UnicodeEncodeError as exc:
            raise ConfigError("the destination cannot be sent: a field of it has lone surrogates") from exc
        await self._client.call("create_dump_task", {"stream_name": stream}, body=body)

    async def list(self, stream: str) -> list[DumpTask]:
        """All tasks of a stream, in the service's order. API 5.5.2. Raises NotFoundError."""
        return decode_list((await self._client.call("list_dump_tasks", {"stream_name": stream})).body)

    async def describe(self, stream: str, task: str) -> DumpTaskInfo:
        """A task with its destination and how far it is. API 5.5.4. Raises NotFoundError (stream or task)."""
        return decode_detail((await self._client.call("describe_dump_task", _path(stream, task))).body)

    async def delete(self, stream: str, task: str) -> None:
        """Delete a task; what it copied stays where it is.

        API 5.5.3. Raises NotFoundError, except after an attempt whose answer was lost: then it is gone as asked.
        """
        await self._client.call("delete_dump_task", _path(stream, task))

    async def start(self, stream: str, *tasks: str | DumpTask) -> None:
        """Start paused tasks where they stopped; one that runs goes on.

        API 5.5.5. `tasks`: names, or what `list` or `describe` returned. The API wants ids, so names cost a request
        that asks for them, and a task deleted and created again meanwhile is not found. One request starts all; whether
        it is all or none where one is not found is up to the service (disstream's own: none).
        Raises NotFoundError.
        """
        await self._change(START, stream, tasks)

    async def stop(self, stream: str, *tasks: str | DumpTask) -> None:
        """Pause tasks: they keep their positions. API 5.5.6. Otherwise as `start`."""
        await self._change(STOP, stream, tasks)

    async def _change(self, action: str, stream: str, tasks: tuple[str | DumpTask, ...]) -> None:
        if not tasks:
            raise ConfigError(f"{action}: name one task at least")
        for task in tasks:
            given: object = task
            if not isinstance(given, str | DumpTask):
                raise ConfigError(f"{action}: {given!r:.80} is neither the name of a task nor a DumpTask")
        ids = await self._ids(stream, tasks)
        await self._client.call("change_dump_tasks", {"stream_name": stream}, body=encode_change(action, ids))

    async def _ids(self, stream: str, tasks: tuple[str | DumpTask, ...]) -> builtins.list[str]:
        known = {task.name: task.task_id for task in tasks if isinstance(task, DumpTask)}
        names = [task.name if isinstance(task, DumpTask) else task for task in tasks]
        if not all(known.get(name) for name in names):
            known = {task.name: task.task_id for task in await self.list(stream)} | known
        for name in names:
            # A service that leaves the id out of the list may tell it here; for a task that is not there it says so.
            if not known.get(name):
                known[name] = (await self.describe(stream, name)).task_id
            if not known[name]:
                raise DisError(f"the service does not tell the id of dump task {name!r}: give one as DumpTask.task_id")
        return [known[name] for name in names]


def _path(stream: str, task: str) -> dict[str, str]:
    if not task:
        raise ConfigError("a dump task needs a name")
    return {"stream_name": stream, "task_name": task}
