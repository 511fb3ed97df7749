"""The one thread that writes, and group commit.

    loop    submit(job) ──> queue ──┐                            ┌──> publish states, wake waits, resolve futures
    thread                          └─> take all, apply, commit ─┘

Every write is a job: a function that is applied inside an LMDB write transaction on the thread. The thread takes all
jobs that wait, in the order of the calls, applies them in one transaction, commits it (one fsync for all of them), and
answers all with one call into the loop. While it commits the next jobs gather: the busier, the larger the groups.

- A job decides before it writes. One that refuses (raises DisError) has written nothing and disturbs nobody.
- Partition states live in memory: `_states` belongs to the thread and is what the file holds; a transaction's changes
  are kept beside it until the commit succeeded, so a failed transaction leaves no trace in memory either. `states`
  belongs to the loop and follows with each answer.
- What a failed transaction means, `faults` decides. If nothing was stored for want of room, its jobs are told so and
  the engine goes on; what is no append is tried once more, without the appends and with the ballast given up, so that
  a trim, a deletion or a checkpoint goes through on a full disk. After every other failure of the disk the engine
  stops: nothing is acknowledged any more, `wait_failed` raises, and whoever runs it ends.
- With "relaxed" the thread synchronises every `sync_interval_s` (`synced`). If that fails it stops as well.
- Forgotten rows (trim, drop) are swept in small pieces, which ride along: see sweeping.py.
- Small batches are merged likewise (`merging`), beside what else a transaction writes, and after a pause if there is
  nothing else: the transaction of its own is then in nobody's way. Damage that either meets fails no job (`riding`).

The thread is a daemon: a process that ends without closing the engine ends, and the file is as after any crash.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lmdb

from ...errors import DisError, OutcomeUnknown, StorageError, StorageFull
from ..api import EngineStats, PartitionRef
from ..waiters import Waiters
from .environment import EmbeddedConfig, Environment
from .faults import Fault, judge
from .merging import Merging
from .partitions import PartitionState
from .reading import Reading
from .riding import remember, ride_along
from .sweeping import Need, SetAside, Snapshots, Sweeper, left_over
from .watch import Watch
from .write import Write

T = TypeVar("T")

_log = logging.getLogger("disstream.engine")

MAX_GROUP_BYTES = 32 * 1024**2
"""How much one transaction takes from the queue: enough to amortise any fsync, little enough to commit within a second
on a slow disk, and far from the 512 MiB of changed pages that LMDB can hold."""

MERGE_PAUSE_S = 0.05
"""How long the thread waits for something to write before it merges what is due without: then nobody appends."""

SWEEPS_WITHOUT_BALLAST = 8
"""How many pieces are swept before the ballast is put back: what the first ones free, the later ones already use."""

MAX_LOOSE_PAGES = 2000
"""How many pages "relaxed" replaces before it syncs before its time: until then none is used again, for the way back
leads over them. They lie here and there, and whoever stores a large batch looks through all that are free for a place
where it fits: 70,000 doubled the price of an append, and stayed, for large batches never use them up."""


def _loose_pages(write: Write, merges: int) -> int:
    """About how many pages of the tables a transaction replaced: a path down each, and a leaf for each partition."""
    return 4 + 3 * len(write.changed) + 2 * merges


class _Job(NamedTuple):
    apply: Callable[[Write], Any]
    size: int
    future: asyncio.Future[Any]
    append: bool


_CLOSE = None
"""In the queue: end after everything before it."""


class Committer:
    """The open directory and its thread.  idle -> starting -> running -> closing -> closed"""

    def __init__(self, data_dir: Path, config: EmbeddedConfig) -> None:
        self.states: dict[PartitionRef, PartitionState] = {}
        self.waiters = Waiters()
        self.reading = Reading()
        self._data_dir = data_dir
        self._config = config
        self._phase = "not started"
        self._broken: StorageError | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # What the thread owns.
        self._states: dict[PartitionRef, PartitionState] = {}
        self._sweeper = Sweeper()
        self._snapshots = Snapshots()
        self._merging = Merging()
        self._may_merge = True
        self._loose = 0
        self._watch = Watch(data_dir, config)

    # --- on the loop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._phase != "not started":
            raise StorageError(f"the engine in {self._data_dir} is {self._phase}: make a new one")
        self._phase = "starting"
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._failed = asyncio.Event()
        opened: asyncio.Future[Environment] = self._loop.create_future()
        self._pending.add(opened)
        thread = threading.Thread(target=self._main, args=(opened,), name="disstream-commit", daemon=True)
        thread.start()  # the system may refuse it: then there is nobody whose end `close` could wait for
        self._thread = thread
        try:
            self._env = await opened
        except BaseException as exc:
            self._queue.put(_CLOSE)
            self._phase = "closed"
            if isinstance(exc, StorageError):  # the thread ends: whoever tries again finds the directory free
                await asyncio.shield(self._ended)
            raise
        self.reading.opened(self.states)
        self._phase = "running"

    async def close(self) -> None:
        if self._phase == "running":
            self._phase = "closing"
            self._queue.put(_CLOSE)
        if self._thread is None:
            self._phase = "closed"
        else:
            await asyncio.shield(self._ended)
        self.waiters.close()

    def check(self) -> Environment:
        """The environment; raises StorageError unless the engine runs."""
        self.check_open()
        if self._broken is not None:
            raise StorageError(str(self._broken)) from self._broken
        return self._env

    def check_open(self) -> None:
        """Raises StorageError unless it was started and not closed."""
        if self._phase != "running":
            raise StorageError(f"the engine in {self._data_dir} is {self._phase}: use it between start() and close()")

    def submit(self, apply: Callable[[Write], T], size: int = 0, *, append: bool = False) -> asyncio.Future[T]:
        """Queue a job of about `size` bytes; the future gets its result once it is durable.

        `append`: it holds records, and so gets nothing of the room that is kept for others.
        """
        self.check()
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending.add(future)
        self._queue.put(_Job(apply, size, future, append))
        return future

    async def wait_failed(self) -> None:
        """Until the engine has stopped by itself, whose reason it raises as a StorageError."""
        self.check_open()
        await self._failed.wait()
        assert self._broken is not None
        raise self._broken

    def stats(self) -> EngineStats:
        self.check_open()
        stats = self._watch.stats(self._loop.time(), None if self._broken is None else str(self._broken))
        aside = len(self._merging.aside | self._sweeper.aside.keys())
        return replace(stats, set_aside=aside, snapshot_age_s=self._snapshots.age_s(self._env.env))

    def _deliver(
        self,
        changed: dict[PartitionRef, PartitionState | None],
        answers: list[tuple[asyncio.Future[Any], Any]],
        broken: StorageError | None,
    ) -> None:
        """Make a transaction visible, then answer its jobs."""
        if broken is not None and self._broken is None:
            self._stop(broken)
        for ref, state in changed.items():
            if state is None:
                self.states.pop(ref, None)
                self.waiters.dropped(ref)
            else:
                self.states[ref] = state
                self.waiters.advanced(ref, state.next)
        for future, answer in answers:
            self._pending.discard(future)
            if future.done():  # its caller was cancelled
                continue
            if isinstance(answer, DisError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _stop(self, broken: StorageError) -> None:
        self._broken = broken
        self._failed.set()
        self.waiters.close()

    def _end(self, env: Environment | None, clean: bool) -> None:
        """The thread is done. The environment is closed here, where no read can be under way."""
        if self._thread is not None:
            self._thread.join()  # it has nothing left to do but to return
        if self._phase == "running" and self._broken is None:
            self._stop(StorageError(f"the commit thread of {self._data_dir} died: see its traceback"))
        self._phase = "closed"
        self.waiters.close()
        self.reading.close()
        if env is not None:
            env.close(clean=clean)
        for future in self._pending:  # only if the thread died of a bug, whose traceback it has printed
            if not future.done():
                future.set_exception(OutcomeUnknown(f"the commit thread of {self._data_dir} died: see its traceback"))
        self._pending.clear()
        if not self._ended.done():
            self._ended.set_result(None)

    # --- on the thread -------------------------------------------------------------------------------------------

    def _main(self, opened: asyncio.Future[Environment]) -> None:
        env: Environment | None = None
        clean = False
        try:
            try:
                env = Environment(self._data_dir, self._config)
                self._states = env.load()
                self._sweeper.add(left_over(env, self._states))
                self._watch.look(env, self._loop.time())
            except StorageError as exc:
                self._call(self._deliver, {}, [(opened, exc)], None)
                return
            clean = self._serve(env, opened)
        except _LoopClosed:
            _log.warning("the event loop ended without closing the engine in %s", self._data_dir)
        finally:
            try:
                self._call(self._end, env, clean)
            except _LoopClosed:
                self.reading.close()
                if env is not None:
                    env.close()

    def _serve(self, env: Environment, opened: asyncio.Future[Environment]) -> bool:
        """Until the queue says that it is over; True if all that was stored is synchronised."""
        self._call(self._deliver, dict(self._states), [(opened, env)], None)
        broken: StorageError | None = None
        sync_at: float | None = None
        closing = False
        while not closing:
            jobs, closing = self._take(sync_at)
            if broken is not None:
                sync_at = None  # its time would come again and again
                refused = f"nothing was stored, the engine has stopped: {broken}"
                self._call(self._deliver, {}, [(job.future, StorageError(refused)) for job in jobs], broken)
                continue
            if jobs or self._sweeper.pause_s() == 0 or (self._merging.due and self._may_merge):
                broken = self._write(env, jobs)
                if broken is None:
                    self._snapshots.look(env.env)
                if env.synced is not None and self._loose >= MAX_LOOSE_PAGES:
                    sync_at = self._loop.time()
                elif env.synced is not None and sync_at is None:
                    sync_at = self._loop.time() + self._config.sync_interval_s
            if broken is None and sync_at is not None and (closing or self._loop.time() >= sync_at):
                sync_at = None
                broken = self._sync(env)
        return broken is None

    def _take(self, sync_at: float | None) -> tuple[list[_Job], bool]:
        """All jobs that wait, up to MAX_GROUP_BYTES, and whether to end after them. Waits if there is nothing to do."""
        jobs: list[_Job] = []
        size = 0
        try:
            pauses = [] if sync_at is None else [max(sync_at - self._loop.time(), 0)]
            if (sweep_s := self._sweeper.pause_s()) is not None:
                pauses.append(sweep_s)
            if self._merging.due and self._may_merge:
                pauses.append(MERGE_PAUSE_S)
            job = self._queue.get(timeout=min(pauses, default=None))
            while job is not _CLOSE:
                jobs.append(job)
                size += job.size
                if size >= MAX_GROUP_BYTES:
                    return jobs, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _write(self, env: Environment, jobs: list[_Job]) -> StorageError | None:
        """Commit the jobs, and a piece of the garbage. Returns why the engine must stop, if it must."""
        self._watch.look(env, self._loop.time())
        appends = [job for job in jobs if job.append]
        fault = self._commit(env, jobs)
        if fault is None:
            return None
        if fault.stops:
            return self._stop_after(env, fault, jobs)
        if appends:
            self._watch.refuses(fault.told)
            self._refuse(appends, fault)
        others = [job for job in jobs if not job.append]
        if others or self._sweeper.can_sweep:
            fault = self._commit_without_appends(env, others)
            if fault is not None and fault.stops:
                return self._stop_after(env, fault, others)
            if fault is not None:
                self._refuse(others, fault)
        else:  # what the last transaction freed, LMDB uses in the one after the next: there has to be a next
            fault = self._commit(env, [], Need.NOTHING)
            if fault is not None and fault.stops:
                return self._stop_after(env, fault, [])
        # With "relaxed", what was freed is free once there is no way back to it.
        return None if env.synced is None else self._sync(env)

    def _commit(self, env: Environment, jobs: list[_Job], need: Need | None = None) -> Fault | None:
        """One transaction, with a piece of the garbage. Answers its jobs, unless it failed: then returns why."""
        answers: list[tuple[asyncio.Future[Any], Any]] = []
        transaction = 0
        write: Write | None = None
        merges = self._merging.take() if self._may_merge and need is not Need.NOTHING else []
        began = time.monotonic()
        try:
            with env.env.begin(write=True, buffers=True) as txn:
                write = Write(env, txn, self._states)
                for job in jobs:
                    try:
                        answers.append((job.future, job.apply(write)))
                    except DisError as exc:
                        answers.append((job.future, exc))
                if not jobs and need is Need.NOTHING:
                    env.count_up(txn, b"version")  # to LMDB, a transaction that changes nothing is none
                ride_along(write, merges, self._merging, self._sweeper, alone=not jobs, need=need)
                transaction = txn.id()  # leaving the block commits it
        except SetAside:
            self._merging.put_back(merges)
            return self._commit(env, jobs, Need.NOTHING) if jobs else None
        except lmdb.Error as exc:
            self._may_merge = False  # it takes room, and there may be none: the next append that succeeds allows it
            self._merging.put_back(merges)
            return judge(exc, env.env, env.file, transaction, [job.size for job in jobs])
        self._watch.committed(self._loop.time())
        self._loose += _loose_pages(write, len(merges))
        self._sweeper.committed(began, alone=not jobs)
        self._sweeper.add(write.garbage)
        self._may_merge = remember(write, self._merging) or self._may_merge
        for ref, state in write.changed.items():
            if state is None:
                self._states.pop(ref, None)
            else:
                self._states[ref] = state
        if any([job.append for job in jobs]):
            self._watch.accepts()
        if answers or write.changed:
            self._call(self._deliver, write.changed, answers, None)
        return None

    def _commit_without_appends(self, env: Environment, jobs: list[_Job]) -> Fault | None:
        """What the appends beside them could not get room for, these may: in free pages, or in place of the ballast."""
        fault = self._commit(env, jobs, Need.MUCH)
        if fault is None or fault.stops:
            return fault
        if fault.kind == "refused":  # the map is full: the ballast is no help, to write less at a time may be
            fault = self._commit(env, jobs, Need.NOTHING)
            if fault is not None and fault.stops:
                return fault
            swept = self._commit(env, [], Need.LITTLE)
            self._sweeper.may_sweep = swept is None
            return swept if swept is not None and swept.stops else fault
        env.ballast.give_up()
        try:
            fault = swept = self._commit(env, jobs, Need.MUCH)
            for _ in range(SWEEPS_WITHOUT_BALLAST):
                if swept is None and self._sweeper.can_sweep:
                    swept = self._commit(env, [], Need.MUCH)
        finally:
            env.ballast.put_back()
        self._sweeper.may_sweep = swept is None  # not again and again for nothing: the next success allows it
        return swept if swept is not None and swept.stops else fault

    def _refuse(self, jobs: list[_Job], fault: Fault) -> None:
        told = f"nothing was stored in {self._data_dir}: {fault.told}"
        self._call(self._deliver, {}, [(job.future, StorageFull(told)) for job in jobs], None)

    def _stop_after(self, env: Environment, fault: Fault, jobs: list[_Job]) -> StorageError:
        told = f"the engine in {self._data_dir} stops: {fault.told}"
        answers: list[tuple[asyncio.Future[Any], Any]] = []
        for job in jobs:  # an error for each: a traceback grows with every await that raises it
            sure = fault.kind != "unknown"
            answers.append((job.future, StorageError(f"nothing was stored: {told}") if sure else OutcomeUnknown(told)))
        return self._stop_thread(env, told, answers)

    def _stop_thread(self, env: Environment, told: str, answers: list[tuple[asyncio.Future[Any], Any]]) -> StorageError:
        _log.error("%s", told)
        if env.synced is not None:
            env.synced.distrust()
        self._sweeper.may_sweep = self._may_merge = False
        broken = StorageError(told)
        self._call(self._deliver, {}, answers, broken)
        return broken

    def _sync(self, env: Environment) -> StorageError | None:
        assert env.synced is not None
        try:
            env.synced.advance()
        except (lmdb.Error, OSError) as exc:
            told = (
                f"the engine in {self._data_dir} stops: a sync failed: {exc}; check the disk, then start again, which "
                "undoes what was acknowledged since the last sync"
            )
            return self._stop_thread(env, told, [])
        self._watch.synced(self._loop.time())
        self._loose = 0
        return None

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError as exc:
            raise _LoopClosed from exc


class _LoopClosed(Exception):
    """There is nobody left to answer."""
