"""Workers that are stopped, cancelled, cut off and replaced; dead letters that cannot be stored. Nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict

import pytest
from app_world import Line
from worker_world import Hired, WorkerWorld, simulate, until

from disstream.door import DisClient
from disstream.errors import Reject, TransportError
from disstream.model import Record
from disstream.testing.clock import SimLoop
from disstream.wire.http import Request, Response


class Log:
    """What handlers of all workers did, and what must never happen, asserted where it would."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self.begun: defaultdict[str | None, list[int]] = defaultdict(list)
        self.running: set[str | None] = set()
        self.poison: set[str] = set()
        self.pause_s = 1.0

    async def handler(self, record: Record) -> None:
        """The text of a record is key:number."""
        key, number = record.key, int(record.text().split(":")[1])
        assert key not in self.running, "two records of a key at once"
        first = number not in self.begun[key]
        if first:
            assert number > max(self.begun[key], default=-1), "a record overtook an earlier one of its key"
            self.begun[key].append(number)
        self.running.add(key)
        try:
            await asyncio.sleep(self.pause_s)
            if record.text() in self.poison:
                raise Reject(record.text())
            self.finished[record.text()] += 1
        finally:
            self.running.discard(key)


def rows(count: int, keys: int = 5, first: int = 0) -> list[tuple[str | None, str]]:
    return [(f"k{n % keys}", f"k{n % keys}:{n}") for n in range(first, first + count)]


def handled(log: Log, letters: Counter[str]) -> set[str]:
    return {*log.finished, *letters}


# --- partitions change hands ---


def test_a_rebalance_replays_nothing_of_handlers_that_end_in_time() -> None:
    """Two more workers come and go while handlers run: each record is handled once, and promptly."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=4)
        await world.put(*rows(300, keys=30))
        log = Log()
        first = world.hire(log.handler, concurrency=4)
        await until(lambda: sum(log.finished.values()) > 20)
        second = world.hire(log.handler, concurrency=4, dis=await world.other())
        await until(lambda: second.worker.stats().in_flight > 0)
        third = world.hire(log.handler, concurrency=4, dis=await world.other())
        await until(lambda: third.worker.stats().in_flight > 0)
        await first.stop()
        await until(lambda: len(log.finished) == 300)
        await second.stop()
        await third.stop()
        assert set(log.finished.values()) == {1}
        assert sum((await world.committed()).values()) == 300  # type: ignore[arg-type]
        # A hand-over waits for what was begun, not for what was not: half a minute for 300 s of work in 8 lanes or so.
        assert asyncio.get_running_loop().time() < 120

    simulate(test)


def test_a_handler_that_outlasts_a_hand_over_is_cancelled() -> None:
    """Shortly before the deadline: its record is not committed, and the next one handles it."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=2)
        await world.put(*rows(4, keys=4))
        log = Log()
        log.pause_s = 1e6
        first = world.hire(log.handler, record_timeout_s=None)
        await until(lambda: first.worker.stats().in_flight == 4)
        log.pause_s = 1.0
        world.hire(log.handler, dis=await world.other())
        await until(lambda: len(log.finished) == 4)
        assert first.worker.stats().cancelled >= 4
        assert set(log.finished.values()) == {1}

    simulate(test)


def test_a_worker_that_is_cut_off_cancels_its_handlers_before_others_begin() -> None:
    """Its membership ran out by its own clock: handlers are told by cancellation, nothing is handled by two at once."""

    async def test(world: WorkerWorld) -> None:
        await world.stream(partitions=2)
        await world.put(*rows(6, keys=6))
        log = Log()
        log.pause_s = 1e6
        first = world.hire(log.handler, record_timeout_s=None)
        await until(lambda: first.worker.stats().in_flight == 6)
        log.pause_s = 1.0
        world.hire(log.handler, dis=await world.other())
        world.line.cut = True
        await until(lambda: len(log.finished) == 6)
        assert first.worker.stats().cancelled == 6
        assert first.worker.stats().in_flight == 0
        world.line.cut = False
        await until(lambda: first.worker.stats().partitions != {} and first.worker.stats().queued_records == 0)
        assert set(log.finished.values()) == {1}

    simulate(test)


def test_a_blocked_loop_does_not_begin_what_is_anothers() -> None:
    """Time jumps past the session while records are queued: nothing of the old share is begun any more."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.put(*rows(50, keys=1))
        log = Log()
        first = world.hire(log.handler)
        await until(lambda: len(log.finished) == 3)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.advance(60.0)
        await until(lambda: len(log.finished) == 50)
        await first.stop()
        assert await world.committed() == {0: 50}

    simulate(test)


# --- dead letters ---


class LettersDown(Line):
    """A line on which nothing can be written."""

    down = False

    async def exchange(self, request: Request) -> Response:
        if self.down and request.method == "POST" and request.target.endswith("/records"):
            raise TransportError("the letters are down", outcome_unknown=True)
        return await super().exchange(request)


def test_nothing_is_committed_past_a_letter_that_is_not_stored() -> None:
    """The dead-letter stream is down: other keys go on, the checkpoint stands, and moves when it is up again."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        line = LettersDown(world.app)
        dis = await world._stack.enter_async_context(DisClient(line, "p", dice=random.Random(5)))
        line.down = True
        log = Log()
        log.poison = {"k1:1"}
        await world.put(*rows(60, keys=3))
        hired = world.hire(log.handler, dis=dis, dead_letters="stream:dead", concurrency=3)
        await until(lambda: len(log.finished) == 40)
        await asyncio.sleep(120.0)
        stats = hired.worker.stats()
        assert (stats.dead_letters, stats.waiting_letters) == (0, 20)
        assert "letters" in (stats.letter_error or "") or stats.letter_error
        assert await world.committed() == {0: 1}
        line.down = False
        await until(lambda: hired.worker.stats().dead_letters == 20)
        await hired.stop()
        assert hired.worker.stats().letter_error is None
        assert await world.committed() == {0: 60}
        numbers = [int(letter.data.split(b":")[1]) for letter in await world.letters()]
        firsts = [*dict.fromkeys(numbers)]  # at least once: what was in doubt may stand there twice
        assert firsts == list(range(1, 60, 3))

    simulate(test)


def test_a_stop_while_letters_cannot_be_stored_loses_none() -> None:
    """The worker ends within its patience without them; the next one finds the records again."""

    async def test(world: WorkerWorld) -> None:
        await world.stream()
        await world.stream("dead")
        line = LettersDown(world.app)
        dis = await world._stack.enter_async_context(DisClient(line, "p", dice=random.Random(5)))
        line.down = True
        log = Log()
        log.poison = {"k0:0"}
        await world.put(*rows(4, keys=2))
        hired = world.hire(log.handler, dis=dis, dead_letters="stream:dead", drain_timeout_s=10.0)
        await until(lambda: hired.worker.stats().waiting_letters == 2)
        began = asyncio.get_running_loop().time()
        await hired.stop()
        assert asyncio.get_running_loop().time() - began < 25.0  # 10 s of patience, 10 s until the producer gives up
        assert await world.committed() == {0: 0}
        again = world.hire(log.handler, dead_letters="stream:dead")
        await until(lambda: again.worker.stats().dead_letters == 2 and again.worker.stats().handled == 2)
        await again.stop()
        assert await world.committed() == {0: 4}
        assert {letter.data for letter in await world.letters()} == {b"k0:0", b"k0:2"}

    simulate(test)


# --- ended anywhere ---


@pytest.mark.parametrize("block", range(8))
def test_cancelled_at_any_await(block: int) -> None:
    """Wherever `run` is cancelled, no task is left, no checkpoint passes what is unfinished, the next one goes on."""

    async def test(world: WorkerWorld, steps: int) -> None:
        await world.stream()
        await world.stream("dead")
        await world.put(*rows(12, keys=3))
        log = Log()
        log.pause_s = 0.01
        log.poison = {"k1:4"}
        before = len(asyncio.all_tasks())
        task = asyncio.create_task(world.worker(log.handler, dead_letters="stream:dead").run())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not log.running
        await asyncio.sleep(1.0)  # requests that are on their way come to their end
        assert len(asyncio.all_tasks()) <= before
        letters = Counter(letter.data.decode() for letter in await world.letters())
        try:
            (committed,) = (await world.committed()).values()
        except Exception:
            committed = None
        for _, text in rows(12, keys=3)[: committed or 0]:
            assert log.finished[text] or letters[text], "a checkpoint passed a record that is not finished"
        again = world.hire(log.handler, dead_letters="stream:dead")
        await until(lambda: again.worker.stats().queued_records == 0 and again.worker.stats().partitions != {})
        await asyncio.sleep(2.0)
        await again.stop()
        letters = Counter(letter.data.decode() for letter in await world.letters())
        assert handled(log, letters) == {text for _, text in rows(12, keys=3)}

    for steps in range(block * 40, block * 40 + 40, 3):
        simulate(lambda world, steps=steps: test(world, steps))  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(6))
def test_workers_come_and_go(seed: int) -> None:
    """Stops, cancellations, cut lines and poison under a seed: order and exclusion hold, and all has its end."""

    async def test(world: WorkerWorld) -> None:
        dice = random.Random(seed)
        await world.stream(partitions=4)
        await world.stream("dead")
        log = Log()
        crew: list[tuple[Hired, Line]] = []
        written = 0

        async def hire() -> None:
            line = Line(world.app)
            dis = await world._stack.enter_async_context(DisClient(line, "p", dice=random.Random(seed)))
            crew.append((world.hire(log.handler, dis=dis, dead_letters="stream:dead", concurrency=6), line))

        await hire()
        for _ in range(25):
            await asyncio.sleep(dice.uniform(0.0, 5.0))
            count = dice.randint(0, 20)
            log.poison |= {text for _, text in rows(count, keys=11, first=written) if dice.random() < 0.03}
            if count:
                await world.put(*rows(count, keys=11, first=written))
                written += count
            match dice.choice(["hire", "stop", "cancel", "cut", "mend", "nothing"]):
                case "hire" if len(crew) < 4:
                    await hire()
                case "stop" if len(crew) > 1:
                    hired, line = crew.pop(dice.randrange(len(crew)))
                    line.cut = False
                    await hired.stop()
                case "cancel" if len(crew) > 1:
                    hired, _ = crew.pop(dice.randrange(len(crew)))
                    hired.task.cancel()
                    await asyncio.wait({hired.task})
                case "cut":
                    dice.choice(crew)[1].cut = True
                case "mend":
                    for _, line in crew:
                        line.cut = False
            for hired, _ in crew:
                assert not hired.task.done() or hired.task.result()
        for _, line in crew:
            line.cut = False
        everything = {text for _, text in rows(written, keys=11)}
        letters: Counter[str] = Counter()
        for _ in range(60):
            await asyncio.sleep(10.0)
            letters = Counter(letter.data.decode() for letter in await world.letters())
            if handled(log, letters) >= everything:
                break
        assert handled(log, letters) == everything
        for hired, _ in crew:
            await hired.stop()
        ends = {n: s.latest for n, s in enumerate(await world.dis.apps.state("a", "s"))}
        assert await world.committed() == ends

    simulate(test)
