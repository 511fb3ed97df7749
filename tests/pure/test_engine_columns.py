"""Rows as columns are the list of those rows, whatever form they are in and however they are cut."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from disstream.engine import Columns, sizes_of
from disstream.engine.api import Row
from disstream.engine.columns import Times
from disstream.engine.rules import weigh
from disstream.errors import StorageError

rows = st.builds(
    Row,
    st.binary(max_size=9),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.none() | st.integers(0, 9),
)
lists = st.lists(rows, max_size=9)
places = st.none() | st.integers(-12, 12)


def joined(model: list[Row]) -> Columns:
    """As they come out of a body: all payloads in one piece, and that a view of something larger."""
    data = b"".join(row.data for row in model)
    times = [row.timestamp for row in model]
    told = times if any(time is not None for time in times) else None
    view = memoryview(b"<" + data + b">")[1:-1]
    return Columns([row.key for row in model], [len(row.data) for row in model], told, view)


def stored(model: list[Row]) -> Columns:
    """As they come from the disk: packed, and looked at by nobody yet."""
    columns = joined(model)
    return Columns.of_packed(len(model), columns.packed, bytes(columns.data))


FORMS: dict[str, Callable[[list[Row]], Columns]] = {"joined": joined, "one by one": Columns.of, "stored": stored}
forms = st.sampled_from([*FORMS.values()])


def agree(columns: Columns, model: list[Row]) -> None:
    """Everything that can be asked is as with the list."""
    assert len(columns) == len(model)
    assert bool(columns) == bool(model)
    assert list(columns) == model
    assert [columns[i] for i in range(-len(model), len(model))] == [*model, *model]
    assert list(reversed(columns)) == model[::-1]
    assert columns.payloads == [row.data for row in model]
    assert bytes(columns.data) == b"".join(row.data for row in model)
    assert columns.sizes == sizes_of(columns) == sizes_of(model) == [len(row.data) for row in model]
    assert columns.keys == [row.key for row in model]
    assert weigh(columns) == weigh(model) == sum(row.weight for row in model)
    times = [row.timestamp for row in model]
    assert (columns.timestamps or [None] * len(model)) == times
    assert columns == model
    assert model == columns
    assert all(type(row.data) is bytes for row in columns)
    for beyond in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            columns[beyond]


class Life(RuleBasedStateMachine):
    """Columns and a list, cut and shortened alike; nothing that is cut off changes what it was cut from."""

    @initialize(model=lists, form=forms)
    def begin(self, model: list[Row], form: Callable[[list[Row]], Columns]) -> None:
        self.model = list(model)
        self.columns = form(model)
        self.left: list[tuple[Columns, list[Row]]] = []

    @rule(begin=places, end=places)
    def cut(self, begin: int | None, end: int | None) -> None:
        self.left.append((self.columns, list(self.model)))
        self.model, self.columns = self.model[begin:end], self.columns[begin:end]

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        self.model.pop()
        self.columns.pop()

    @rule()
    def ask_for_all_in_one(self) -> None:
        assert bytes(self.columns.data) == b"".join(row.data for row in self.model)

    @rule()
    def ask_one_by_one(self) -> None:
        assert self.columns.payloads == [row.data for row in self.model]

    @invariant()
    def lengths_agree(self) -> None:
        """Without asking for either form: that would make it."""
        if hasattr(self, "columns"):
            assert len(self.columns) == len(self.model)

    @rule()
    def look(self) -> None:
        assert len(self.columns.keys) == len(self.model)

    @rule()
    def pack(self) -> None:
        data = b"".join(row.data for row in self.model)
        assert Columns.of_packed(len(self.model), self.columns.packed, data) == self.model

    def teardown(self) -> None:
        for columns, model in [*self.left, (self.columns, self.model)]:
            agree(columns, model)


TestLife = Life.TestCase


@given(model=lists, form=forms)
def test_all_that_can_be_asked(model: list[Row], form: Callable[[list[Row]], Columns]) -> None:
    """Fresh from a body, from rows or from the disk, and as an empty cut."""
    columns = form(model)
    agree(columns, model)
    agree(columns[:0], [])
    agree(columns[5:2], [])
    assert repr(columns) == f"Columns({model!r})"


@given(model=lists, begin=places, end=places)
def test_cuts(model: list[Row], begin: int | None, end: int | None) -> None:
    """A cut of each form is the cut of the list, and shortening it leaves the whole as it was."""
    for make in FORMS.values():
        columns = make(model)
        cut = columns[begin:end]
        expected = model[begin:end]
        if expected:
            cut.pop()
            agree(cut, expected[:-1])
        agree(columns, model)
        agree(columns[begin:end], expected)


@given(model=st.lists(rows, min_size=1, max_size=9), data=st.data())
def test_picked(model: list[Row], data: st.DataObject) -> None:
    """Rows that are picked are those of the list, and shortening them leaves the whole as it was."""
    indices = data.draw(st.lists(st.integers(0, len(model) - 1), max_size=9))
    for make in FORMS.values():
        columns = make(model)
        picked = columns.pick(indices)
        agree(picked, [model[i] for i in indices])
        if indices:
            picked.pop()
            agree(picked, [model[i] for i in indices[:-1]])
        agree(columns, model)


@given(model=st.lists(rows, min_size=1, max_size=9))
def test_shortened_in_both_forms(model: list[Row]) -> None:
    """Payloads that were asked for in one piece and one by one are both shortened."""
    for make in FORMS.values():
        columns = make(model)
        assert bytes(columns.data) == b"".join(columns.payloads)
        columns.pop()
        agree(columns, model[:-1])


@given(model=st.lists(rows, min_size=1, max_size=9), other=lists)
def test_equality(model: list[Row], other: list[Row]) -> None:
    """Equal to any sequence of equal rows, and to nothing else."""
    for make in FORMS.values():
        for another in FORMS.values():
            assert (make(model) == another(other)) == (model == other)
        assert make(model) == tuple(model)
        assert make(model) != model[:-1]
        assert make(model) != 7
        assert make(model) != "rows"
        with pytest.raises(TypeError):
            hash(make(model))


@given(model=lists)
def test_columns_of_columns(model: list[Row]) -> None:
    """What is columns already is not made again; a column of times is only there if some row has one."""
    columns = Columns.of(model)
    assert Columns.of(columns) is columns
    agree(Columns.of(tuple(model)), model)
    assert (columns.timestamps is None) == all(row.timestamp is None for row in model)


def test_what_was_stored_is_not_looked_at() -> None:
    """It is sent on as it was stored, whatever it holds; who looks is told that it does not fit, again and again."""
    for packed, told in [
        (b"", "cannot be decoded"),
        (b"\xc1", "cannot be decoded"),
        (msgspec.msgpack.encode((["k"], [2], None)), "1 rows, its header tells of 2"),
        (msgspec.msgpack.encode((["k", "l", "m"], [1, 1, 0], None)), "3 rows, its header tells of 2"),
        (msgspec.msgpack.encode((["k", "l"], [2], None)), "different lengths"),
        (msgspec.msgpack.encode((["k", "l"], [1, 1], [7])), "different lengths"),
        (msgspec.msgpack.encode((["k", "l"], [1, 2], None)), "2 bytes, not the 3"),
    ]:
        columns = Columns.of_packed(2, packed, b"hi")
        assert (len(columns), columns.packed, columns.data) == (2, packed, b"hi")
        for look in (
            columns.check,
            columns.pop,
            lambda columns=columns: columns[:1],
            lambda columns=columns: columns[0],
        ):
            with pytest.raises(StorageError, match=told):
                look()
        assert (len(columns), columns.packed) == (2, packed)


def test_a_cut_copies_no_payload() -> None:
    """Of payloads that are in one piece a cut is a view, so that a put over many partitions costs no copy for each."""
    columns = Columns([None] * 3, [1, 2, 3], None, b"abbccc")
    cut = columns[1:]
    assert isinstance(cut.data, memoryview)
    assert bytes(cut.data) == b"bbccc"
    assert cut.data.obj is columns.data


def test_steps() -> None:
    """Cuts are of neighbours."""
    for step in (2, -1):
        with pytest.raises(ValueError, match=f"steps of {step}"):
            Columns([None] * 3, [0] * 3)[::step]


def test_columns_of_different_lengths() -> None:
    """They are our mistake, and noticed at once."""
    with pytest.raises(AssertionError):
        Columns([None], [])
    with pytest.raises(AssertionError):
        Columns([None], [0], [])


# --- rows that were appended at different times -------------------------------------------------------------------

timed_lists = st.lists(st.tuples(rows, st.integers(0, 2**63)), min_size=1, max_size=9)
Timed = list[tuple[Row, int]]


def timed_forms(model: Timed) -> list[Columns]:
    """As they are made of rows, of columns, and come from the disk."""
    told = [row for row, _ in model]
    times = [time for _, time in model]
    made = Columns.of(told, times)
    packed = Columns.of_packed(len(told), made.stamped, bytes(made.data), made.packed_times)
    return [made, Columns.of(joined(told), times), packed]


def stamps_of(model: Timed) -> list[int]:
    return [time if row.timestamp is None else row.timestamp for row, time in model]


@given(model=timed_lists, begin=places, end=places)
def test_rows_of_different_times(model: Timed, begin: int | None, end: int | None) -> None:
    """Each keeps its time and its own timestamp, cut or shortened; stamped, a reader gets one of them."""
    for form in range(3):
        columns = timed_forms(model)[form]
        assert columns.timed
        assert len(Times(columns)) == len(model)
        times = [time for _, time in model]
        assert Times(columns) == times == list(Times(columns)) == columns.times
        assert repr(Times(columns)) == repr(times)
        assert [Times(columns)[i] for i in range(-len(times), 0)] == times
        assert Times(columns)[begin:end] == times[begin:end]
        agree(columns, [row for row, _ in model])
        assert msgspec.msgpack.decode(columns.stamped)[2] == stamps_of(model)
        assert columns.packed == Columns.of([row for row, _ in model]).packed
        cut = columns[begin:end]
        assert (cut.timed, cut.times) == (True, times[begin:end])
        agree(cut, [row for row, _ in model][begin:end])
        if len(cut):
            cut.pop()
            assert cut.times == times[begin:end][:-1]
            assert msgspec.msgpack.decode(cut.stamped)[2] == stamps_of(model[begin:end][:-1])
        assert columns.times == times


@pytest.mark.parametrize("times", [None, b"nor these"])
def test_what_goes_on_as_it_came_is_not_looked_at(times: bytes | None) -> None:
    """Packed rows give their stamped form without being unpacked, which damaged ones could not be."""
    columns = Columns.of_packed(2, b"no rows", b"payloads", times)
    assert (columns.stamped, columns.data, len(columns)) == (b"no rows", b"payloads", 2)
    with pytest.raises(StorageError):
        columns.check()


@given(model=timed_lists)
def test_times_are_given_to_columns(model: Timed) -> None:
    """What tells its times already stays what it is; other columns become new ones, which share nothing with them."""
    for columns in timed_forms(model):
        assert Columns.of(columns, Times(columns)) is columns
        assert Columns.of(columns) is columns
    plain = Columns.of([row for row, _ in model])
    again = Columns.of(plain, [time for _, time in model])
    assert (plain.timed, plain.times, again.timed) == (False, None, True)
    again.pop()
    agree(plain, [row for row, _ in model])


def test_times_of_nobody() -> None:
    """They are as many as the rows."""
    with pytest.raises(AssertionError):
        Columns([None], [0], times=[])
