"""Membership by leases: the consumers of an app share partitions through a store that all of them can change.

    joining    the member's row is written; from then on a thread renews it, which keeps everything the member holds
    looking    twice a second it reads what all have written, and does what `claims.py` decides:
                 taking      a free partition becomes its own in the store, is opened, and is read
                 giving up   a partition dealt to another is not handed out any more; what is in hand may finish, is
                             committed, and the row is released. All others are read on
    out        renewals fail, or the process was stopped: the lease ran out, nothing is handed out, nothing committed.
               If the next renewal is made, nobody has taken over, and it goes on as if nothing had been
    ended      the row is gone: others may have everything. All is dropped, and the member joins again under a new name
    left       its rows are released and its own is deleted: the others go on within one look

What fences a commit is the version of the partition's row (leasekeeper.py), and what fences handing out is the lease by
the member's own clock (lease.py). Which of the two says stop first does not matter: both do before another may begin.
"""

from __future__ import annotations

from random import Random

import anyio
import anyio.abc

from .. import clock
from ..errors import DisError, LeaseLost, NotFoundError, StoreUnavailable
from ..leases.api import LeaseStore, Swap
from ..model import Partition
from .callbacks import Callbacks
from .claims import Claims, Plan, Table
from .config import ConsumerConfig, Leases, Pattern
from .cursor import heals
from .heartbeat import Heartbeats, beat_interval_s
from .holdings import Holdings
from .keeper import AppSource
from .lease import Lease
from .leasekeeper import LeaseKeeper, answered_in, key_of
from .membership import CLOSE_COMMIT_S, COMMIT_SHARE, LEAVE_TIMEOUT_S, new_member_id
from .mirror import Mirror
from .moving import Moves
from .outage import Outage
from .reader import log
from .renewal import Life, Lives, Renewals, StoreTwin, remove
from .rows import VERSION, MemberRow, encode_row, member_key
from .survey import Survey

LOOK_TIMEOUT_S = 10.0
"""A store that takes longer does not answer."""

MIRROR_CLOSE_S = 3.0
"""For the service's checkpoints at the end."""


class Leasing:
    """One consumer's membership through a store (membership.Membership)."""

    def __init__(
        self,
        source: AppSource,
        app: str,
        subscription: tuple[str, ...] | Pattern,
        config: ConsumerConfig,
        leases: Leases,
        holdings: Holdings,
        rng: Random,
    ) -> None:
        self._app = app
        self._subscription = subscription
        self._config = config
        self._leases = leases
        self._holdings = holdings
        self._rng = rng
        self.member_id = config.member_id or new_member_id(rng)
        self.lease = Lease(0.0)  # who is told that it has ended may do nothing any more
        self.callbacks = Callbacks(app, config)
        self.stall_to_tell = False
        self._store: LeaseStore = leases.store.twin() or leases.store
        self._table = Table()
        self._keeper = holdings.keeper = LeaseKeeper(self._store, app, self._table, self.lease, source.streams)
        self._keeper.on_refused = self.news
        self._survey = Survey(source, app, subscription, self._store, LeaseKeeper.together)
        self._mirror = Mirror(source, app, self._table)
        self._lives = Lives()
        self._claims: Claims | None = None
        self._news: anyio.Event | None = None
        self._moves = Moves(app, config, holdings, self._keeper, self._table, self.callbacks, rng)
        self._moves.news = self.news
        self._moves.doubt = self._survey.doubt
        self._moves.holds = lambda: self.holds
        self._out = Outage(leases.outage_budget_s)
        self._look_s = min(leases.look_s, config.session_timeout_s / 10)
        self._heartbeats = Heartbeats(
            app,
            self.member_id,
            self.lease,
            interval_s=beat_interval_s(leases.heartbeat_s, config.session_timeout_s),
            max_stall_s=leases.max_stall_s,
            on_news=self.news,
            warn_s=config.stall_warn_s,
        )
        holdings.intake.heed = self._gone

    @property
    def holds(self) -> bool:
        return self.lease.holds(clock.boot())

    @property
    def generation(self) -> int | None:
        """Each partition has a token of its own instead."""
        return None

    @property
    def rebalances(self) -> int:
        return self._moves.count

    @property
    def lapses(self) -> int:
        return self._heartbeats.lapses

    # --- life ---

    async def join(self) -> None:
        """Raises StorageError, NotFoundError (no such stream), ConfigError (a store that cannot be), AuthError..."""
        await self._store.start()
        await self._holdings.ensure_app()
        if not isinstance(self._subscription, Pattern):
            await self._holdings.look_for(self._subscription)
        await self._enter(self._new_name())
        log.info("app %s: member %s joined", self._app, self.member_id)

    async def run(self) -> None:
        """Until cancelled. Raises what will not heal, and StorageError after `outage_budget_s` without a store."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pulse, name="pulse")
            tasks.start_soon(self._beat, name="heartbeats")
            if self._leases.mirror_s is not None:
                tasks.start_soon(self._mirror_every, self._leases.mirror_s, name="mirror")
            while True:
                await self._live()
                await self._lose_all()
                await self._enter_again()

    async def close(self) -> None:
        """Commit what is finished if the lease holds; nothing in hand is awaited."""
        holdings = self._holdings
        holdings.prefetch.suspended = True
        holdings.recall()
        left_s = max(0.0, self.lease.deadline - clock.boot()) * (1 - COMMIT_SHARE)
        deadline = anyio.current_time() + min(self._config.drain_timeout_s, left_s)
        until = deadline if self.holds else anyio.current_time() + self._config.drain_timeout_s
        await self.callbacks.revoked(deadline, until)
        if not self.holds:
            return
        with anyio.move_on_after(CLOSE_COMMIT_S) as commit:
            while self.holds and not await self._committed():
                await self._pause()
        if commit.cancelled_caught:
            log.warning("app %s: finished work was not committed in time and may be done again", self._app)
        if self._leases.mirror_s is not None:
            with anyio.move_on_after(MIRROR_CLOSE_S):
                await self._mirror.write(self._keeper.owner)

    async def leave(self) -> None:
        """Release everything; bounded, and silent about failures: the session time-out does the same later."""
        self.lease.lose(self.lease.generation)
        with anyio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
            while self._keeper.owner:
                try:
                    owned = [k for k, known in self._table.leases.items() if known.row.owner == self._keeper.owner]
                    await self._keeper.release(owned)
                    await remove(self._store, self._app, self._keeper.owner)
                    self._keeper.owner = ""
                except StoreUnavailable as error:
                    log.info("app %s: member %s could not leave yet: %s", self._app, self.member_id, error)
                    await self._pause()
                except DisError as error:  # it was not even opened, or is of no use any more
                    log.warning("app %s: member %s could not leave: %s", self._app, self.member_id, error)
                    break
        with anyio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
            await self._store.close()

    # --- joining ---

    def _new_name(self) -> str:
        return f"{self.member_id}/{self._rng.getrandbits(48):012x}"

    async def _enter(self, name: str) -> None:
        """Write this member's row. The same name again if it is not known whether that was done."""
        subscription = self._subscription
        row = MemberRow(
            v=VERSION,
            beat=0,
            session_timeout_s=self._config.session_timeout_s,
            streams=() if isinstance(subscription, Pattern) else subscription,
            pattern=subscription.regex if isinstance(subscription, Pattern) else "",
        )
        self._keeper.owner = name  # from now on there may be something to remove
        key = member_key(name)
        sent_at = clock.boot()
        with answered_in(LOOK_TIMEOUT_S):
            (version,) = await self._store.swap(self._app, [Swap(key, None, encode_row(row))])
            while version is None:  # it was done, and the answer was lost
                found = (await self._store.read(self._app, key)).get(key)
                sent_at = clock.boot()  # others may have seen the row for some time: it counts from a renewal
                expected = None if found is None else found.version
                (version,) = await self._store.swap(self._app, [Swap(key, expected, encode_row(row))])
        self._claims = Claims(name, self._table)
        generation = self.lease.generation + 1
        self._lives.now = Life(generation, name, row, version)
        self.lease.grant(generation, self._config.session_timeout_s, sent_at)

    async def _enter_again(self) -> None:
        name = self._new_name()
        while True:
            try:
                await self._enter(name)
            except StoreUnavailable as error:
                self._out_of_reach(error)
                await self._pause()
                continue
            log.info("app %s: member %s joined again", self._app, self.member_id)
            return

    async def _pause(self) -> None:
        await anyio.sleep(self._rng.uniform(0.5, 1.5) * self._look_s)

    # --- looking ---

    async def _live(self) -> None:
        """Until the member's row is gone, or it gave up."""
        async with anyio.create_task_group() as tasks:
            surveyed = False
            while not self.lease.rejoin:
                again = False
                try:
                    again = await self._look(tasks)
                except StoreUnavailable as error:
                    self._out_of_reach(error)
                else:
                    self._in_reach()
                    if not surveyed:
                        tasks.start_soon(self._survey_every, self._leases.discover_s, name="survey")
                        surveyed = True
                if not again and not self.lease.rejoin:
                    self._news = anyio.Event()
                    with anyio.move_on_after(self._look_s):
                        await self._news.wait()
            tasks.cancel_scope.cancel()

    def _in_reach(self) -> None:
        if not self.holds and not self.lease.rejoin:
            self._out_of_reach(StoreUnavailable("it can be read, and the member's row cannot be renewed"))
        elif self._out.worked():
            log.info("app %s: the lease store answers again, after %.1f s", self._app, self._out.lasted_s)

    def _out_of_reach(self, error: DisError) -> None:
        if self._out.failed(error, clock.boot()):
            log.warning("app %s: the lease store does not answer: %s", self._app, error)

    async def _look(self, tasks: anyio.abc.TaskGroup) -> bool:
        """See what all have written, and do what follows. Whether to look again at once."""
        claims = self._claims
        assert claims is not None
        with answered_in(LOOK_TIMEOUT_S):
            rows = await self._store.read(self._app)
        self._table.looked(rows)
        claims.looked(clock.boot())
        plan = self._plan(claims)
        if plan.ended:
            log.warning("app %s: member %s was removed by another", self._app, self.member_id)
            self.lease.lose(self.lease.generation)
            return False
        if not self.holds:
            return False  # whoever may be about to lose everything does not judge others
        with answered_in(LOOK_TIMEOUT_S):
            if plan.bury:
                buried = await self._keeper.bury(plan.bury)
                for name in buried:
                    log.warning("app %s: member %s was silent for its session time-out and is removed", self._app, name)
                if len(buried) < len(plan.bury):
                    return True
                plan = self._plan(claims)
            if plan.lost:
                tasks.start_soon(self._moves.lose, plan.lost, name="lost")
            if plan.give:
                await self._keeper.mark(plan.give)
                self._moves.begin_giving(tasks, frozenset(key for key, _ in plan.give))
            opening = plan.open
            if plan.take:
                opening += await self._keeper.take(plan.take)
        if opening:
            self._moves.begin_opening(tasks, opening)
        return False

    def _plan(self, claims: Claims) -> Plan:
        held = {key_of(partition) for partition in self._holdings.held}
        return claims.plan(held | self._moves.opening, self._moves.giving)

    async def _lose_all(self) -> None:
        log.warning("app %s: member %s lost its partitions: others may have them", self._app, self.member_id)
        if self._heartbeats.stalled:
            self._heartbeats.stalled = False
            self._heartbeats.alive()  # the loop works again: before the next heartbeat looks
            self.stall_to_tell = True
            self._holdings.intake.notify()
        await self._moves.lose_all()

    async def commit_finished(self) -> None:
        """Commit, and log instead of raising: what is not committed now is later, or done again."""
        await self._committed()

    async def _committed(self) -> bool:
        """Commit, and log instead of raising. False: the store did not answer, and may when it is asked again."""
        try:
            await self._holdings.commit()
        except DisError as error:
            self.heed(error)
            log.warning("app %s: finished work could not be committed: %s", self._app, error)
            return not isinstance(error, StoreUnavailable)
        return True

    def heed(self, error: DisError) -> None:
        """A commit was refused."""
        if isinstance(error, LeaseLost):
            self.news()

    # --- beside ---

    def news(self) -> None:
        """Something about the lease or the rows changed."""
        if self._news is not None:
            self._news.set()
        self._holdings.intake.notify()

    def _gone(self, partition: Partition, error: DisError) -> bool:
        """A partition cannot be read: look what became of its stream. Of a pattern, the others are read on."""
        if not isinstance(error, NotFoundError):
            return False
        self._survey.doubt(partition.stream)
        self.news()
        return isinstance(self._subscription, Pattern)

    async def _survey_every(self, seconds: float) -> None:
        while True:
            assert self._claims is not None
            if not self.holds:
                await self._pause()  # what is doubted stays so until it can be looked at
                continue
            try:
                if await self._survey.look(self._claims):
                    self.news()
            except DisError as error:
                if not heals(error):
                    await self.commit_finished()  # of the other streams
                    raise
                log.warning("app %s: partitions cannot be looked up yet: %s", self._app, error)
                await self._pause()
            with anyio.move_on_after(seconds):
                await self._survey.until_doubted()

    async def _mirror_every(self, seconds: float) -> None:
        while True:
            await anyio.sleep(seconds)
            if self.holds:
                with anyio.move_on_after(max(seconds, MIRROR_CLOSE_S)):
                    await self._mirror.write(self._keeper.owner)

    async def _beat(self) -> None:
        twin = self._leases.store.twin()
        if twin is None:
            await self._heartbeats.run(Renewals(self._store, self._lives))
        else:
            await self._heartbeats.run_beside(StoreTwin(twin, self._lives))

    async def _pulse(self) -> None:
        while True:
            self._heartbeats.alive()
            await anyio.sleep(min(self._heartbeats.interval_s, self._leases.max_stall_s / 3))
