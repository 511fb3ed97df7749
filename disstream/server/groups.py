"""The group calls: the shell around group.py.

What a group is stands in the catalog; who was heard when is known here. A call looks at both, lets the group decide,
stores its document if that has changed, and only then answers. Calls on one group take turns here, and the catalog's
compare and set refuses whatever came in between from elsewhere: then the call looks again. So nothing is told that was
not stored, and a commit that names the version of the document (`fence`) lands only as long as the document stands.

A stable group is written by nobody: heartbeats and commits change clocks only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import anyio
import anyio.lowlevel
import msgspec
import re2

from ..engine import Engine, PartitionRef, Versioned
from ..errors import AuthError, CatalogConflict, NotFoundError, QuotaError
from ..model import PartitionInfo
from ..wire.errors import api_error
from ..wire.groups import (
    NO_GENERATION,
    HeartbeatState,
    JoinAnswer,
    JoinRequest,
    SyncAnswer,
    decode_join,
    decode_member,
    encode_heartbeat_answer,
    encode_join_answer,
    encode_members,
    encode_sync_answer,
)
from ..wire.http import Response, json_response
from .call import Call
from .config import ServerConfig
from .directory import Directory
from .documents import StreamDoc, app_key, decode_document, group_key
from .group import Group, GroupDoc, StreamView, Subscription, Views

T = TypeVar("T")

logger = logging.getLogger("disstream.server")

MAX_STREAMS = 1_000
"""Streams one member may name."""

MAX_PATTERN_CHARS = 1_000

MAX_DOCUMENT_BYTES = 8 * 1_048_576
"""A group that would be larger takes no more members."""

MAX_LIVE = 10_000
"""Groups in memory. Of more, those not called for longest are forgotten, as in a restart: their members may have died
without a word, and nobody may ever ask for them again."""

DEFAULT_REBALANCE_MS = 20_000
MAX_REBALANCE_MS = 600_000
"""For longer than this no member may keep the others waiting."""

LOOK_INTERVAL_S = 5.0
"""How often it is looked whether a subscription still stands for the same partitions."""

_MEMBER = re.compile(r"(?!\.\.?$)[ -.0-~]{1,200}", re.ASCII)
"""Ids of members: printable, no "/", and nothing that a path would take for a step."""

_PATTERN = re2.Options()
_PATTERN.log_errors = False
_PATTERN.never_capture = True  # to tell what each bracket matched takes a thousand times as long
_PATTERN.max_mem = 131_072  # of one compiled pattern; re2 keeps the last 128

_MATCHED_AT_ONCE = 32
"""Streams looked at for a pattern before others have their turn; the costliest takes half a millisecond each."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(GroupDoc).decode


def _new_group(config: ServerConfig) -> Group:
    return Group(config.session_timeout_s, config.join_delay_s, config.max_group_members)


class _Live:
    """A group in memory while it has members, or calls under way."""

    def __init__(self, config: ServerConfig) -> None:
        self.lock = anyio.Lock()
        self.calls = 0
        self.group = _new_group(config)
        self.version: int | None = 0
        """Of the document in `group`; None: unknown, load it."""
        self.looked: dict[Subscription, float] = {}

    def look(self, subscription: Subscription, now: float) -> None:
        """Note when it was looked up; what no member has any more is forgotten."""
        used = dict(self.group.doc.seen)
        self.looked = {known: at for known, at in self.looked.items() if known in used} | {subscription: now}


class Groups:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig) -> None:
        self._catalog = engine.catalog
        self._directory = directory
        self._config = config
        self._live: dict[str, _Live] = {}

    # --- for the other handlers -----------------------------------------------------------------------------------

    async def fence(
        self, project: str, app: str, member_id: str, generation: int, stream_id: str, partition: int
    ) -> dict[str, int]:
        """What a transaction must expect of the catalog so that a commit of this member lands only while it may.

        Counts as a sign of life. Raises ApiError: DIS.4702 (no member), DIS.4703 (another generation, or the partition
        is not the member's), DIS.4701 (it rejoined already).
        """
        ref = PartitionRef(stream_id, partition)
        async with self._turn(project, app) as live:
            done = await self._carry_out(
                project, app, live, lambda group, now: group.refusal(member_id, generation, ref, now)
            )
            if done is None:
                raise api_error("DIS.4702", f"[{member_id}]")
            refusal, version = done
            if refusal is not None:
                raise refusal
            return {group_key(project, app): version}

    async def in_use(self, project: str, app: str) -> bool:
        """Whether a live member reads for the app."""
        async with self._turn(project, app) as live:
            done = await self._carry_out(project, app, live, lambda group, now: bool(group.doc.members))
            return done is not None and done[0]

    @asynccontextmanager
    async def disbanded(self, project: str, app: str, *, force: bool) -> AsyncIterator[tuple[set[str], dict[str, int]]]:
        """Nobody is a member inside: (who was dropped for it, what a transaction must expect so that it stays true).

        Raises ApiError: DIS.4331 (live members, and no `force`), DIS.4332 (no such app).
        """
        dropped: set[str] = set()

        def disband(group: Group, now: float) -> None:
            if group.doc.members and not force:
                named = ", ".join(sorted(group.doc.members))
                raise api_error("DIS.4331", f"[{app}: members of its group are reading: {named[:500]}]")
            dropped.update(group.doc.members)
            group.disband(now)

        async with self._turn(project, app) as live:
            done = await self._carry_out(project, app, live, disband)
            if done is None:
                raise api_error("DIS.4332", f"[{app[:80]}]")
            if dropped:
                logger.info("group disbanded: project=%s app=%s members=%s", project, app, sorted(dropped))
            yield dropped, {group_key(project, app): done[1]}

    # --- calls ----------------------------------------------------------------------------------------------------

    async def join(self, call: Call) -> Response:
        return json_response(encode_join_answer(await self._join(call, decode_join(call.body))))

    async def _join(self, call: Call, request: JoinRequest) -> JoinAnswer:
        app, member_id = call.params["app_name"], request.client_id or ""
        if not _MEMBER.fullmatch(member_id):
            return JoinAnswer("ERROR", 0.0)
        names, ids = request.interested_stream or (), request.interested_stream_id_list or ()
        if (count := len(names) + len(ids)) > MAX_STREAMS:
            raise api_error("DIS.4200", f"[{count} streams are more than {MAX_STREAMS}: use streamPattern]")
        subscription = Subscription(tuple(sorted(set(names))), tuple(sorted(set(ids))), request.stream_pattern or "")
        async with self._turn(call.project, app) as live:
            if await self._app(call.project, app) is None:
                return JoinAnswer("GROUP_NOT_EXIST", 0.0)
            views, whole = await self._look_up(call, subscription)
            if not whole:
                return JoinAnswer("ERR_SUBSCRIPTION", 0.0)
            rebalance_ms = request.rebalance_timeout_ms or 0
            if rebalance_ms <= 0:
                rebalance_ms = DEFAULT_REBALANCE_MS
            done = await self._carry_out(
                call.project,
                app,
                live,
                lambda group, now: group.join(
                    member_id,
                    subscription,
                    views,
                    now,
                    rebalance_timeout_ms=min(rebalance_ms, MAX_REBALANCE_MS),
                    accelerate=bool(request.accelerate_assign_enabled),
                ),
                grows=True,
            )
        if done is None:
            return JoinAnswer("GROUP_NOT_EXIST", 0.0)
        live.look(subscription, anyio.current_time())
        matched = tuple(views) if subscription.pattern else None
        return JoinAnswer("OK", done[0], matched, self._config.session_timeout_s)

    async def sync(self, call: Call) -> Response:
        return json_response(encode_sync_answer(await self._sync(call)))

    async def _sync(self, call: Call) -> SyncAnswer:
        request = decode_member(call.body)
        app, member_id = call.params["app_name"], call.params["member_id"]
        if request.client_id not in (None, "", member_id):
            return SyncAnswer("ERROR")
        generation = NO_GENERATION if request.generation is None else request.generation
        async with self._turn(call.project, app) as live:
            done = await self._carry_out(
                call.project, app, live, lambda group, now: group.sync(member_id, generation, now)
            )
        return SyncAnswer("GROUP_NOT_EXIST") if done is None else done[0]

    async def heartbeat(self, call: Call) -> Response:
        return json_response(encode_heartbeat_answer(await self._heartbeat(call)))

    async def _heartbeat(self, call: Call) -> HeartbeatState:
        request = decode_member(call.body)
        app, member_id = call.params["app_name"], call.params["member_id"]
        if request.client_id not in (None, "", member_id):
            return "JOINING"  # as for everybody who is no member; the join will be told what is wrong
        generation = NO_GENERATION if request.generation is None else request.generation

        def beat(group: Group, now: float) -> HeartbeatState:
            return group.heartbeat(member_id, generation, now)

        async with self._turn(call.project, app) as live:
            done = await self._carry_out(call.project, app, live, beat)
            if done is None:
                return "GROUP_NOT_EXIST"
            member = live.group.doc.members.get(member_id)
            if member is not None and await self._look_again(call, live, member.subscription):
                done = await self._carry_out(call.project, app, live, beat) or done
            return done[0]

    async def leave(self, call: Call) -> Response:
        app, member_id = call.params["app_name"], call.params["member_id"]
        async with self._turn(call.project, app) as live:
            await self._carry_out(call.project, app, live, lambda group, now: group.leave(member_id, now))
        return Response(status=204)

    async def members(self, call: Call) -> Response:
        """Who reads what: not a call of the official clients."""
        app = call.params["app_name"]
        async with self._turn(call.project, app) as live:
            done = await self._carry_out(call.project, app, live, lambda group, now: group.describe(now))
        if done is None:
            raise api_error("DIS.4332", f"[{app[:200]}]")
        return json_response(encode_members(done[0]))

    # --- turns ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, project: str, app: str) -> AsyncIterator[_Live]:
        """The group for one call alone. A group without members is forgotten with its last call."""
        key = group_key(project, app)
        live = self._live.pop(key) if key in self._live else _Live(self._config)
        self._live[key] = live  # now the last one called
        live.calls += 1
        try:
            async with live.lock:
                yield live
        finally:
            live.calls -= 1
            if not live.calls and not live.group.doc.members:
                del self._live[key]
            while len(self._live) > MAX_LIVE and not self._live[oldest := next(iter(self._live))].calls:
                del self._live[oldest]

    async def _app(self, project: str, app: str) -> Versioned | None:
        key = app_key(project, app)
        return await self._catalog.get(key) if key else None

    async def _carry_out(
        self, project: str, app: str, live: _Live, change: Callable[[Group, float], T], *, grows: bool = False
    ) -> tuple[T, int] | None:
        """Bring the group up to now, do `change`, store what comes of it. (what `change` returned, version stored).

        None: there is no such app. What time has done is stored for itself and first, so that it stands whatever
        `change` raises. `change` runs again if somebody else changed the group meanwhile.
        """
        key, name = group_key(project, app), app_key(project, app)
        while True:
            owner = await self._app(project, app)
            if owner is None or name is None:
                live.group, live.version = _new_group(self._config), 0
                return None
            stored = await self._catalog.get(key)
            version = stored.version if stored else 0
            group, now = live.group, anyio.current_time()
            if live.version != version:
                group.load(_decode(stored.value) if stored else GroupDoc(), now)
            before = group.doc
            live.version = None  # whatever cuts the following short: the group is loaded anew then
            group.advance(now)
            up_to_date = group.doc == before
            if up_to_date:
                result = change(group, now)
                if group.doc == before:
                    live.version = version
                    return result, version
            encoded = _encode(group.doc)
            if grows and up_to_date and len(encoded) > MAX_DOCUMENT_BYTES:
                raise api_error("DIS.4339", f"[the group would take {len(encoded)} bytes: subscribe to fewer streams]")
            try:
                # With the app: a group never outlives it.
                await self._catalog.transact({name: owner.version, key: version}, {key: encoded})
            except CatalogConflict:
                continue
            _tell(project, app, before, group.doc, up_to_date)
            stored = await self._catalog.get(key)
            if stored is None or stored.value != encoded:
                continue
            live.version = stored.version
            if up_to_date:
                return result, stored.version

    # --- subscriptions --------------------------------------------------------------------------------------------

    async def _look_again(self, call: Call, live: _Live, subscription: Subscription) -> bool:
        """See what a member's subscription stands for now, unless that was done a moment ago. True: it was done."""
        now = anyio.current_time()
        if live.group.doc.state == "JOINING" or now - live.looked.get(subscription, -LOOK_INTERVAL_S) < LOOK_INTERVAL_S:
            return False
        live.look(subscription, now)
        views, _ = await self._look_up(call, subscription)
        app = call.params["app_name"]
        try:
            await self._carry_out(
                call.project, app, live, lambda group, at: group.see(subscription, views, at), grows=True
            )
        except QuotaError as error:
            logger.warning("group keeps its old shares: project=%s app=%s: %s", call.project, app, error)
        return True

    async def _look_up(self, call: Call, subscription: Subscription) -> tuple[Views, bool]:
        """(what the subscription stands for, whether it is sound: something named, all of it there to be read)."""
        docs: dict[str, StreamDoc] = {}
        whole = bool(subscription.names or subscription.ids or subscription.pattern)
        for label, name, stream_id in (
            *((name, name, "") for name in subscription.names),
            *((stream_id, "", stream_id) for stream_id in subscription.ids),
        ):
            await anyio.lowlevel.checkpoint()
            try:
                stream = await self._directory.find(
                    call.project, name, stream_id, caller=call.caller, action="getRecords"
                )
            except (NotFoundError, AuthError):  # gone, or its owner shares it no more
                whole = False
            else:
                docs.setdefault(label, stream.doc)
        if subscription.pattern:
            matches = _matcher(subscription.pattern)
            if matches is None:
                return {}, False
            for index, (name, encoded) in enumerate(await self._directory.of_project(call.project)):
                if index % _MATCHED_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
                if matches(name):
                    docs.setdefault(name, decode_document(encoded))
        return _views(docs), whole


def _tell(project: str, app: str, before: GroupDoc, after: GroupDoc, wanted: bool) -> None:
    """Log what became of the group. `wanted`: by a call, not by time."""
    gone = before.members.keys() - after.members.keys()
    if gone and not wanted:
        logger.info("group members dropped: project=%s app=%s members=%s", project, app, sorted(gone))
    if after.generation != before.generation:
        logger.info(
            "group formed: project=%s app=%s generation=%d members=%d",
            project,
            app,
            after.generation,
            len(after.members),
        )


def _views(docs: dict[str, StreamDoc]) -> Views:
    """Each stream once, under the first of its names: no partition may be read twice."""
    views: dict[str, tuple[str, StreamDoc]] = {}
    for label, doc in docs.items():
        views.setdefault(doc.stream_id, (label, doc))
    return {
        label: StreamView(stream_id, tuple(p.number for p in doc.partitions if p.status in PartitionInfo.READABLE))
        for stream_id, (label, doc) in views.items()
    }


def _matcher(pattern: str) -> Callable[[str], object] | None:
    """Whether a whole name matches; None: not a pattern.

    The patterns of strangers run in linear time with RE2. Official clients send Java's: the same but for look-around,
    back references and possessive quantifiers, which RE2 refuses, and for \\Z and the && of character classes.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        return None
    try:
        return cast("Callable[[str], object]", re2.compile(pattern, _PATTERN).fullmatch)
    except re2.error:
        return None
