"""How far apps have read: checkpoints in the catalog.

    checkpoint/{project}/{app}/{stream id}/{partition}   written by every commit
    reader/{stream id}/{project}/{app}                   written with it: the way from a stream to its checkpoints

A commit expects the versions of the app's and the stream's keys, so none lands once one of them is deleted. Deleting an
app expects the marks it found: a commit that comes between looking and deleting touches one of them. Only a commit on a
stream that the app had not read before slips through; its checkpoint carries the id of the app that is gone, which no
other app has, so nobody sees it, and it goes with its stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from ..engine import Catalog, Engine, Versioned
from ..model import Checkpoint
from .documents import checkpoints_of, reader_key, readers_of

_BEHIND = "~"
"""Sorts behind every character of a partition in a key."""


class CheckpointDoc(msgspec.Struct, frozen=True, omit_defaults=True):
    """`app_id`: of the app that committed it. One of its name that is created later has nothing to do with it.

    `at_ms`: when, since the epoch (0: by a server that did not keep it); `member`: as which member of the app's group.
    """

    app_id: str
    sequence: int
    metadata: str = ""
    at_ms: int = 0
    member: str = ""

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.sequence, self.metadata)


encode_checkpoint_doc = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CheckpointDoc).decode


async def checkpoint_at(catalog: Catalog, key: str, app_id: str) -> Checkpoint | None:
    stored = await catalog.get(key)
    found = _decode(stored.value) if stored else None
    return found.checkpoint if found is not None and found.app_id == app_id else None


async def checkpoints_on(
    catalog: Catalog, prefix: str, app_id: str, *, after: str = "", limit: int | None = None
) -> dict[str, CheckpointDoc]:
    """Key -> checkpoint of an app on one stream (`prefix`) behind the key `after`, at most about `limit`."""
    found = {}
    async for key, stored in scan(catalog, prefix, after=after, limit=limit):
        document = _decode(stored.value)
        if document.app_id == app_id:
            found[key] = document
    return found


async def streams_read(catalog: Catalog, project: str, app: str, app_id: str | None) -> list[str]:
    """The ids of the streams an app has checkpoints on, with a look at each. `app_id` None: whosever they are."""
    prefix = checkpoints_of(project, app)
    found: list[str] = []
    after = ""
    while page := await catalog.scan(prefix, after, 1):
        ((key, stored),) = page
        stream_id = key.removeprefix(prefix).partition("/")[0]
        if app_id is None or _decode(stored.value).app_id == app_id:
            found.append(stream_id)
            after = checkpoints_of(project, app, stream_id) + _BEHIND
        else:
            after = key
    return found


async def scan(
    catalog: Catalog, prefix: str, *, after: str = "", limit: int | None = None
) -> AsyncIterator[tuple[str, Versioned]]:
    """Keys that start with `prefix` and stand behind `after`, page by page; `limit` None: all of them."""
    while page := await catalog.scan(prefix, after, 1000 if limit is None else limit):
        for found in page:
            yield found
        if limit is not None:
            return
        after = page[-1][0]


async def forget_stream(engine: Engine, stream_id: str) -> None:
    """Delete the checkpoints of all apps on a stream that is in the catalog no more.

    Broken off or called again, it goes on where it was: a mark falls with the checkpoints it leads to.
    """
    catalog = engine.catalog
    prefix = readers_of(stream_id)
    async for mark, _ in scan(catalog, prefix):
        project, _, app = mark.removeprefix(prefix).partition("/")
        doomed = [key async for key, _ in scan(catalog, checkpoints_of(project, app, stream_id))]
        await catalog.transact({}, {}, [*doomed, mark])


async def all_of(catalog: Catalog, project: str, app: str) -> tuple[dict[str, int], list[str]]:
    """What a transaction must expect, and what it deletes, to take away all that an app has left."""
    expect: dict[str, int] = {}
    doomed: list[str] = []
    for stream_id in await streams_read(catalog, project, app, None):
        mark = reader_key(stream_id, project, app)
        stored = await catalog.get(mark)  # before the keys: a commit in between changes it
        expect[mark] = stored.version if stored else 0
        doomed += [mark, *[key async for key, _ in scan(catalog, checkpoints_of(project, app, stream_id))]]
    return expect, doomed
