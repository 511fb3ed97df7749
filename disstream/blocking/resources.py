"""The calls of the API, bridged one by one. Types, documentation and arguments are those of the async ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ..client import apps, checkpoints, cursors, dumps, groups, metrics, policies, records, streams, tags
from .portal import Portal

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

_END: Any = object()


class Resource(Generic[S]):
    """The calls of `resource`, made in the loop of `portal`."""

    def __init__(self, portal: Portal, resource: S) -> None:
        self._portal = portal
        self._resource = resource


def _call(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Resource[S], P], R]:
    @wraps(method)
    def call(self: Resource[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._portal.call(method(self._resource, *args, **kwargs))

    return call


def _list(method: Callable[Concatenate[S, P], AsyncIterator[R]]) -> Callable[Concatenate[Resource[S], P], Iterator[R]]:
    @wraps(method)
    def items(self: Resource[S], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        found = method(self._resource, *args, **kwargs)
        while (item := self._portal.call(_next(found))) is not _END:
            yield item

    return items


async def _next(items: AsyncIterator[R]) -> R:
    return await anext(items, _END)


class Streams(Resource[streams.Streams]):
    """`dis.streams`."""

    create = _call(streams.Streams.create)
    describe = _call(streams.Streams.describe)
    list = _list(streams.Streams.list)
    scale = _call(streams.Streams.scale)
    update = _call(streams.Streams.update)
    delete = _call(streams.Streams.delete)
    wait_running = _call(streams.Streams.wait_running)


class Records(Resource[records.Records]):
    """`dis.records`."""

    put = _call(records.Records.put)
    put_encoded = _call(records.Records.put_encoded)
    get = _call(records.Records.get)


class Cursors(Resource[cursors.Cursors]):
    """`dis.cursors`."""

    get = _call(cursors.Cursors.get)


class Apps(Resource[apps.Apps]):
    """`dis.apps`."""

    create = _call(apps.Apps.create)
    describe = _call(apps.Apps.describe)
    list = _list(apps.Apps.list)
    delete = _call(apps.Apps.delete)
    state = _call(apps.Apps.state)


class Checkpoints(Resource[checkpoints.Checkpoints]):
    """`dis.checkpoints`."""

    commit = _call(checkpoints.Checkpoints.commit)
    get = _call(checkpoints.Checkpoints.get)
    delete = _call(checkpoints.Checkpoints.delete)
    reset = _call(checkpoints.Checkpoints.reset)


class Groups(Resource[groups.Groups]):
    """`dis.groups`."""

    join = _call(groups.Groups.join)
    sync = _call(groups.Groups.sync)
    heartbeat = _call(groups.Groups.heartbeat)
    leave = _call(groups.Groups.leave)
    members = _call(groups.Groups.members)


class Policies(Resource[policies.Policies]):
    """`dis.policies`."""

    add = _call(policies.Policies.add)
    list = _call(policies.Policies.list)


class Dumps(Resource[dumps.Dumps]):
    """`dis.dumps`."""

    create = _call(dumps.Dumps.create)
    list = _call(dumps.Dumps.list)
    describe = _call(dumps.Dumps.describe)
    delete = _call(dumps.Dumps.delete)
    start = _call(dumps.Dumps.start)
    stop = _call(dumps.Dumps.stop)


class Metrics(Resource[metrics.Metrics]):
    """`dis.metrics`."""

    STREAM_LABELS = metrics.Metrics.STREAM_LABELS
    PARTITION_LABELS = metrics.Metrics.PARTITION_LABELS

    stream = _call(metrics.Metrics.stream)
    partition = _call(metrics.Metrics.partition)


class Tags(Resource[tags.Tags]):
    """`dis.tags`."""

    add = _call(tags.Tags.add)
    add_many = _call(tags.Tags.add_many)
    remove = _call(tags.Tags.remove)
    remove_many = _call(tags.Tags.remove_many)
    of = _call(tags.Tags.of)
    all = _call(tags.Tags.all)
    find = _list(tags.Tags.find)
    count = _call(tags.Tags.count)
