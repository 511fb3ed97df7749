"""A member of an app's group: joins, takes what it is assigned, hands it over, leaves.

    joining   join -> wait as told -> sync until the generation is formed
    holding   the assignment is opened, records are handed out, heartbeats renew the lease
    handing   the service asks to join again: nothing is handed out, what is under way may finish, finished work is
    over      committed, then joining again; what comes back in the very next generation goes on without a replay
    lost      the lease ran out and the service says join again: nothing may be committed, others may have taken over
    left      closed: finished work is committed, then the others need not wait for a time-out

The service fences commits by generation; the lease (lease.py) fences handing out by the member's own clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol, runtime_checkable

import anyio

from .. import clock
from ..errors import (
    ApiError,
    AuthError,
    ConfigError,
    CoordinationUnsupported,
    DisError,
    NotFoundError,
    StaleGeneration,
    TransportError,
)
from ..model import Partition
from ..wire.groups import NO_GENERATION, JoinAnswer, SyncAnswer
from ..wire.partitioning import partition_id
from .callbacks import Callbacks
from .config import ConsumerConfig, Pattern, ServiceGroup
from .cursor import heals
from .heartbeat import BeatingGroups, Heartbeats, Twin, beat_interval_s
from .holdings import Holdings
from .keeper import AppSource, Fence, ServiceKeeper
from .lease import Lease
from .membership import CLOSE_COMMIT_S, COMMIT_SHARE, LEAVE_TIMEOUT_S, new_member_id
from .reader import log

SYNC_POLL_S = 0.2
"""Between two questions whether the generation is formed: adds half of it to each hand-over."""

MAX_GENERATION = 2**63 - 1
"""What the bodies of the protocol can carry."""


class GroupsApi(BeatingGroups, Protocol):
    async def join(
        self,
        app: str,
        member_id: str,
        *,
        streams: Sequence[str] = (),
        pattern: str | None = None,
        rebalance_timeout_s: float = 20.0,
        accelerate: bool = False,
        timeout_s: float | None = None,
    ) -> JoinAnswer: ...
    async def sync(
        self, app: str, member_id: str, generation: int, *, timeout_s: float | None = None
    ) -> SyncAnswer: ...


@runtime_checkable
class GroupSource(AppSource, Protocol):
    """What a consumer needs of a client to be a member."""

    @property
    def groups(self) -> GroupsApi: ...
    def twin(self) -> Twin | None: ...


class Member:
    """One consumer's membership. `run` is its task; `join` and `leave` stand before and behind it."""

    def __init__(
        self,
        source: GroupSource,
        app: str,
        subscription: tuple[str, ...] | Pattern,
        config: ConsumerConfig,
        group: ServiceGroup,
        holdings: Holdings,
        rng: Random,
    ) -> None:
        self._source = source
        self._app = app
        self._subscription = subscription
        self._config = config
        self._group = group
        self._holdings = holdings
        self._rng = rng
        self.member_id = config.member_id or new_member_id(rng)
        self.lease = Lease(group.rebalance_timeout_s)
        holdings.keeper = ServiceKeeper(source, app, Fence(self.member_id, self.lease))
        holdings.prefetch.suspended = True  # until the first assignment is taken over
        if isinstance(subscription, Pattern):
            holdings.intake.heed = self._gone
        self.rebalances = 0
        self.stall_to_tell = False
        """The loop was blocked for so long that the partitions were given up, and nobody was told yet."""
        self._session_s = config.session_timeout_s
        self._news: anyio.Event | None = None
        self._heartbeats = Heartbeats(
            app,
            self.member_id,
            self.lease,
            interval_s=beat_interval_s(group.heartbeat_s, self._session_s),
            max_stall_s=group.max_stall_s,
            on_news=self.news,
            warn_s=config.stall_warn_s,
        )
        self.callbacks = Callbacks(app, config)
        self._asked_in = False  # so the service may take this one for a member
        self._joined: JoinAnswer | None = None

    @property
    def holds(self) -> bool:
        """Whether records may be handed out now."""
        return self.lease.holds(clock.boot())

    @property
    def generation(self) -> int | None:
        return self.lease.generation if self.lease.generation != NO_GENERATION else None

    @property
    def lapses(self) -> int:
        return self._heartbeats.lapses

    # --- life ---

    async def join(self) -> None:
        """The first join. Raises CoordinationUnsupported, NotFoundError (no such stream), AuthError and the like."""
        await self._holdings.ensure_app()
        await self._look_for_streams()
        self._joined = await self._join()
        log.info("app %s: member %s joined", self._app, self.member_id)

    async def run(self) -> None:
        """Until cancelled. Raises what will not heal."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pulse, name="pulse")
            tasks.start_soon(self._beat, name="heartbeats")  # from now on: joining may take longer than a session
            while True:
                synced = None
                while synced is None:
                    synced = await self._sync()
                if await self._opened(synced):
                    await self._until_told()
                await self._hand_over()

    async def close(self) -> None:
        """Give up everything. What is finished is committed if the lease still holds; nothing in hand is awaited."""
        self._holdings.prefetch.suspended = True
        self._holdings.recall()
        await self._announce_revoked(anyio.current_time() + self._drain_s())
        if self.holds:
            with anyio.move_on_after(CLOSE_COMMIT_S) as commit:
                await self.commit_finished()
            if commit.cancelled_caught:
                log.warning("app %s: finished work was not committed in time and may be done again", self._app)

    async def leave(self) -> None:
        """Tell the service; bounded, and silent about failures: the session time-out does the same later."""
        self.lease.lose(self.lease.generation)
        if not self._asked_in:
            return
        with anyio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
            try:
                await self._source.groups.leave(self._app, self.member_id, timeout_s=LEAVE_TIMEOUT_S)
            except DisError as error:
                log.warning("app %s: member %s could not leave: %s", self._app, self.member_id, error)

    # --- joining ---

    async def _look_for_streams(self) -> None:
        """Raises NotFoundError: the group protocol would not tell which stream is missing."""
        if not isinstance(self._subscription, Pattern):
            await self._holdings.look_for(self._subscription)

    async def _join(self) -> JoinAnswer:
        subscription = self._subscription
        pattern = subscription.regex if isinstance(subscription, Pattern) else None
        streams = () if isinstance(subscription, Pattern) else subscription
        while True:
            self._asked_in = True
            try:
                answer = await self._source.groups.join(
                    self._app,
                    self.member_id,
                    streams=streams,
                    pattern=pattern,
                    rebalance_timeout_s=self._group.rebalance_timeout_s,
                    accelerate=self._group.accelerate,
                )
            except (ApiError, TransportError) as error:
                if unsupported := _unsupported(error):
                    self._asked_in = self.rebalances > 0
                    raise unsupported from None
                raise
            match answer.state:
                case "OK":
                    self._session_s = answer.session_timeout_s or self._config.session_timeout_s
                    self._heartbeats.interval_s = beat_interval_s(self._group.heartbeat_s, self._session_s)
                    return answer
                case "GROUP_NOT_EXIST":
                    await self._holdings.ensure_app()
                case "ERR_SUBSCRIPTION":
                    await self._look_for_streams()
                    raise ConfigError(
                        f"app {self._app!r}: the service refuses the subscription {self._subscription!r}: "
                        "a stream cannot be read, or the pattern is not one it understands"
                    )
                case "ERROR" | "REJOIN":
                    log.warning("app %s: the service answered the join with %s; trying again", self._app, answer.state)
            await self._pause()

    async def _pause(self) -> None:
        await anyio.sleep(self._rng.uniform(0.5, 1.5) * self._config.retry_base_s * 5)

    async def _sync(self) -> tuple[SyncAnswer, float, frozenset[str]] | None:
        """The assignment, when it was asked for, and the streams the app never read; None: join again."""
        joined, self._joined = self._joined, None
        try:
            if joined is None:
                joined = await self._join()
            names = joined.subscription if isinstance(self._subscription, Pattern) else self._subscription
            # Before the generation forms nobody can commit for it: all members see the same, and "latest" pinned by
            # one member does not make another begin at the oldest record.
            fresh = await self._holdings.never_read(names or ())
            await anyio.sleep(min(joined.sync_delay_s, self._group.rebalance_timeout_s))
            while True:
                sent_at = clock.boot()
                answer = await self._source.groups.sync(self._app, self.member_id, self.lease.generation)
                if answer.state == "OK":
                    if not 0 <= answer.generation <= MAX_GENERATION:
                        raise TransportError(f"a sync was answered with {answer}", outcome_unknown=False)
                    return answer, sent_at, fresh
                await anyio.sleep(SYNC_POLL_S)
                if answer.state != "WAITING":
                    if answer.state == "GROUP_NOT_EXIST":
                        await self._holdings.ensure_app()
                    if answer.state != "ERROR":
                        # A round ended without us, or a new group counts its generations anew: then ours would be
                        # refused until it has caught up.
                        self.lease.forget()
                    return None
        except DisError as error:
            if not heals(error):
                raise
            log.warning("app %s: member %s cannot join and tries again: %s", self._app, self.member_id, error)
            await self._pause()
            return None

    # --- holding ---

    async def _opened(self, synced: tuple[SyncAnswer, float, frozenset[str]]) -> bool:
        """Take over what is assigned. False: it has to be joined again already."""
        answer, sent_at, fresh = synced
        holdings = self._holdings
        assigned = {Partition(stream, partition_id(n)) for stream, ns in answer.assignment.items() for n in ns}
        # In the very next generation nobody else can have had what was ours in this one.
        goes_on = answer.generation == self.lease.generation + 1 and self.lease.generation != NO_GENERATION
        ours = {p for p in assigned & holdings.held.keys() if not holdings.held[p].reader.gone} if goes_on else set()
        kept = await self._still_the_same(ours)
        if lost := holdings.drop(sorted(holdings.held.keys() - kept)):
            log.warning(
                "app %s: %d partitions were lost with work that is not committed: it will be done again",
                self._app,
                lost,
            )
        self._heartbeats.stalled = False  # while it joined, so nothing was given up
        self.lease.grant(answer.generation, self._session_s, sent_at)
        self.rebalances += 1
        log.info(
            "app %s: member %s holds %d partitions in generation %d",
            self._app,
            self.member_id,
            len(assigned),
            answer.generation,
        )
        while True:
            try:
                await holdings.open(sorted(assigned - holdings.held.keys()), fresh)
                break
            except DisError as error:
                if isinstance(error, StaleGeneration | NotFoundError):
                    self.lease.end(self.lease.generation)
                elif not heals(error):
                    raise
                if self.lease.rejoin:
                    log.info("app %s: the assignment changes again: %s", self._app, error)
                    await self._pause()
                    return False
                log.warning("app %s: partitions cannot be opened yet: %s", self._app, error)
                await self._pause()
        await self.callbacks.assigned(frozenset(assigned))
        holdings.prefetch.suspended = False
        holdings.intake.notify()
        return True

    async def _still_the_same(self, partitions: set[Partition]) -> set[Partition]:
        """Of these, those whose stream was not deleted and created again."""
        while True:
            try:
                return await self._holdings.of_the_same_stream(partitions)
            except DisError as error:
                if not heals(error):
                    raise
                log.warning("app %s: streams cannot be looked up yet: %s", self._app, error)
            await self._pause()

    def news(self) -> None:
        """Something about the lease changed."""
        if self._news is not None:
            self._news.set()
        self._holdings.intake.notify()

    async def _until_told(self) -> None:
        while not self.lease.rejoin:
            self._news = anyio.Event()
            await self._news.wait()

    def _gone(self, partition: Partition, error: DisError) -> bool:
        """A partition cannot be read: of a pattern the other streams are read on, and a join tells the group."""
        if not isinstance(error, NotFoundError):
            return False
        log.info("app %s: the group is joined again: %s", self._app, error)
        self.lease.end(self.lease.generation)
        self.news()
        return True

    # --- handing over ---

    async def _hand_over(self) -> None:
        """Let what is under way finish, and commit what is finished, as far as the lease allows."""
        holdings = self._holdings
        holdings.prefetch.suspended = True
        holdings.recall()
        if self._heartbeats.stalled:
            self._heartbeats.stalled = False
            self._heartbeats.alive()  # the loop works again: before the next heartbeat looks
            self.stall_to_tell = True
            holdings.intake.notify()
        left_s = self._drain_s()
        deadline = anyio.current_time() + left_s
        await self._announce_revoked(deadline)
        if not self.holds:
            log.warning("app %s: member %s lost its partitions: others may have them", self._app, self.member_id)
            return
        if not await holdings.drain(deadline):
            log.warning("app %s: work was not finished within %.1f s and may be done again", self._app, left_s)
        with anyio.move_on_after(self.lease.deadline - clock.boot()) as scope:
            await self.commit_finished()
        if scope.cancelled_caught:
            log.warning("app %s: finished work was not committed in time and may be done again", self._app)

    def _drain_s(self) -> float:
        """How long what is under way may take to finish."""
        left_s = max(0.0, self.lease.deadline - clock.boot())
        return min(self._config.drain_timeout_s, left_s * (1 - COMMIT_SHARE))

    async def _announce_revoked(self, deadline: float) -> None:
        # What is lost already cannot be lost by waiting: cleaning up gets as long as finishing would.
        until = deadline if self.holds else anyio.current_time() + self._config.drain_timeout_s
        await self.callbacks.revoked(deadline, until)

    async def commit_finished(self) -> None:
        """Commit, and log instead of raising: what is not committed now is later, or done again."""
        try:
            await self._holdings.commit()
        except DisError as error:
            self.heed(error)
            log.warning("app %s: finished work could not be committed: %s", self._app, error)

    def heed(self, error: DisError) -> None:
        """A commit was refused: if the membership is over, the service has just told so."""
        if isinstance(error, StaleGeneration) and error.code in ("DIS.4702", "DIS.4703"):
            self.lease.lose(self.lease.generation)
            self.news()

    # --- beside ---

    async def _beat(self) -> None:
        twin = self._source.twin()
        if twin is None:
            await self._heartbeats.run(self._source.groups)
        else:
            await self._heartbeats.run_beside(twin)

    async def _pulse(self) -> None:
        while True:
            self._heartbeats.alive()
            await anyio.sleep(min(self._heartbeats.interval_s, self._group.max_stall_s / 3))


def _unsupported(error: DisError) -> CoordinationUnsupported | None:
    """What to raise if an answer to the first join means that the endpoint has no such call."""
    known = isinstance(error, ApiError) and error.code.startswith("DIS.") and error.status not in (404, 405)
    if known or isinstance(error, AuthError) or error.retryable:
        return None
    return CoordinationUnsupported(
        f"the endpoint does not serve consumer groups ({error}): use ConsumerConfig(coordination=Static([...])) and "
        "give each consumer its own partitions"
    )
