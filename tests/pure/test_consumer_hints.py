"""Hints: readers that are told sleep and wake at once; whatever is told, nothing is lost and nobody spins."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.cursor import Obtain, PartitionCursor, Read, Wait
from disstream.consumer.hints import SAFETY_MAX_S, SAFETY_RATE, SAFETY_S, Hint, next_action, safety_s
from disstream.model import Cursor, Page, Record, SequenceRange

IDLE_MIN_S, IDLE_MAX_S = 0.02, 0.5
SAFE_S = 60.0
ANSWER_S = 0.001


def record(number: int) -> Record:
    return Record(b"", number, 0, None, "s", "shardId-0000000000")


@dataclass
class World:
    """A partition, its reader, and whoever tells the reader what he likes."""

    end: int = 0
    page: int = 3
    now: float = 0.0
    hint: Hint = field(default_factory=Hint)
    got: list[tuple[float, int]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cursor = PartitionCursor(
            on_expired="raise",
            refresh_s=270.0,
            idle_min_s=IDLE_MIN_S,
            idle_max_s=IDLE_MAX_S,
            retry_base_s=0.1,
            retry_max_s=30.0,
            rng=Random(0),
        )
        self.cursor.begin("earliest", SequenceRange(0, 0))

    def run(self, until: float) -> None:
        """Let the reader do what it does, until nothing is to do before `until`."""
        while self.now < until:
            action = next_action(self.cursor, self.hint, self.now)
            if isinstance(action, Wait):
                assert action.until is not None
                assert action.until > self.now, "a reader that waits for the past spins"
                self.now = min(action.until, until)
            elif isinstance(action, Obtain):
                self.cursor.obtained(action.epoch, Cursor("c"))
            else:
                assert isinstance(action, Read)
                self._read(action)
            self.check()

    def _read(self, action: Read) -> None:
        self.hint.asked()
        self.asked.append(self.now)
        self.now += ANSWER_S
        place = self.cursor.next
        assert place is not None
        numbers = range(place, min(self.end, place + self.page))
        records = self.cursor.accept(action.epoch, Page([record(n) for n in numbers], Cursor("c")), self.now)
        self.hint.answered(place, len(records), self.now + SAFE_S)
        self.got += [(self.now, r.sequence_number) for r in records]

    def check(self) -> None:
        self.hint.check()
        self.cursor.check()
        assert [n for _, n in self.got] == list(range(len(self.got)))


def test_who_is_told_sleeps_and_wakes_at_once() -> None:
    """Live and at the end, a reader asks no more; told of more it asks at once, page by page, and sleeps again."""
    world = World()
    world.run(1.0)
    polls = len(world.asked)
    world.hint.begin(0)
    world.run(30.0)
    assert len(world.asked) == polls
    world.end = 4
    world.hint.tell(4)
    world.run(40.0)
    # The second page reaches just the end that was told: no third one is needed to see that it was the last.
    assert world.asked[polls:] == [30.0, 30.0 + ANSWER_S]
    assert [n for _, n in world.got] == [0, 1, 2, 3]


def test_a_notice_that_overtakes_a_page_is_no_lie() -> None:
    """What is told while an empty page is on its way says nothing about it: the next one is asked for at once."""
    hint = Hint()
    hint.begin(5)
    hint.asked()
    hint.tell(6)
    hint.answered(5, 0, 100.0)
    assert hint.expects(5)
    assert not hint.doubted


def test_who_is_told_too_little_finds_it_at_the_safety_poll() -> None:
    """A service whose ends stand still costs time, and no record; a backlog is then read to its end without pauses."""
    world = World()
    world.run(1.0)
    world.hint.begin(0)
    world.end = 20
    world.run(120.0)
    assert [n for _, n in world.got] == list(range(20))
    assert world.got[0][0] <= 1.0 + SAFE_S
    assert world.got[-1][0] - world.got[0][0] < 0.1


def test_who_is_told_too_much_polls() -> None:
    """An end that is not there is believed once; then the reader polls as if there were no notices."""
    world = World()
    world.hint.begin(1000)
    world.run(60.0)
    assert 60 / IDLE_MAX_S <= len(world.asked) <= 60 / IDLE_MAX_S + 10
    world.end = 1
    world.run(61.0)
    assert world.got
    # Notices that begin anew are believed anew.
    world.hint.begin(1)
    world.run(62.0)
    asked = len(world.asked)
    world.run(90.0)
    assert len(world.asked) == asked


def test_a_look_is_one_page_and_a_loss_is_polling() -> None:
    """Told that something is different, a reader asks once; told nothing more at all, it polls."""
    world = World()
    world.hint.begin(0)
    world.run(1.0)
    before = len(world.asked)
    world.hint.look()
    world.run(2.0)
    assert len(world.asked) == before + 1
    world.hint.lose()
    world.run(12.0)
    assert len(world.asked) >= before + 20


events = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 10)),
    st.tuples(st.just("begin"), st.integers(0, 60)),
    st.tuples(st.just("truth"), st.just(0)),
    st.tuples(st.just("lie"), st.integers(0, 60)),
    st.tuples(st.just("look"), st.just(0)),
    st.tuples(st.just("lose"), st.just(0)),
)


@given(st.lists(st.tuples(st.floats(0.0, 20.0), events), max_size=40))
def test_nothing_is_lost_and_nobody_spins(history: list[tuple[float, tuple[str, int]]]) -> None:
    """Whatever is told and when: all records come in order, within a safety poll, and polls stay as rare as polling."""
    world = World()
    nudges = 0
    for pause_s, (event, value) in history:
        world.run(world.now + pause_s)
        nudges += event != "write"
        match event:
            case "write":
                world.end += value
            case "begin":
                world.hint.begin(value)
            case "truth":
                world.hint.tell(world.end)
            case "lie":
                world.hint.tell(value)
            case "look":
                world.hint.look()
            case "lose":
                world.hint.lose()
        world.check()
    world.run(world.now + SAFE_S + 1)
    assert len(world.got) == world.end
    # A page for each time of polling, for each page of records, and one or two for each thing that was told.
    most = world.now / IDLE_MAX_S + 8 * (1 + len(history)) + world.end + 2 * nudges
    assert len(world.asked) <= most


@given(st.integers(1, 100_000), st.integers(0, 100))
def test_safety_polls_are_few(partitions: int, seed: int) -> None:
    """However many partitions: a poll comes while a cursor lives, and all together are a few a second."""
    poll_s = safety_s(partitions, Random(seed))
    assert SAFETY_S / 2 <= poll_s <= SAFETY_MAX_S < 270.0
    if partitions <= SAFETY_RATE * SAFETY_MAX_S:
        assert partitions / poll_s <= 2 * SAFETY_RATE
