"""What is remembered of a producer: each row is stored once and told where it is; as drawn byte by byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.engine.api import Known, Span, Writer
from disstream.engine.embedded import writers as form
from disstream.engine.rules import MAX_SPANS, MAX_WRITERS
from disstream.engine.writers import WriterState, judge, overdue, stored

P = "0123456789abcdef" * 2


def flat(spans: tuple[Span, ...]) -> dict[int, int]:
    """Number -> sequence number; -1 for all rows of a span whose place is not known."""
    return {n: first if first < 0 else first + n - number for number, end, first in spans for n in range(number, end)}


class Model:
    """A partition that forgets nothing: each stored row by its number, and the requests that stored."""

    def __init__(self) -> None:
        self.epoch = -1
        self.rows: dict[int, int] = {}
        self.request = -1
        self.next_sequence = 0

    def append(self, writer: Writer, rows: int) -> tuple[dict[int, int], str]:
        """(number -> place of those that are stored after all, why the others are not)."""
        _, epoch, number, request = writer
        if epoch < self.epoch:
            return {}, "fenced"
        known = dict(self.rows) if epoch == self.epoch else {}
        if number > len(known):
            return {}, "gap"
        wanted = range(number, number + rows)
        if any(n not in known for n in wanted):
            if request <= self.request:
                return {n: known[n] for n in wanted if n in known}, "fenced"
            for n in wanted:
                if n not in known:
                    known[n] = self.next_sequence
                    self.next_sequence += 1
            self.epoch, self.rows, self.request = epoch, known, request
        return {n: known[n] for n in wanted}, ""


steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # epoch
        st.integers(-4, 2),  # number, counted from the next one
        st.integers(1, 5),  # rows
        st.integers(-2, 1),  # request, counted from the step
        st.integers(0, 2),  # rows of others that come between
    ),
    max_size=80,
)


@given(steps=steps)
def test_as_a_partition_that_forgets_nothing(steps: list[tuple[int, int, int, int, int]]) -> None:
    """Any history of attempts has the ends it has in the simplest of models, but for places long past."""
    model = Model()
    state: WriterState | None = None
    for step, (epoch, ahead, rows, late, others) in enumerate(steps):
        known_rows = len(model.rows) if epoch == model.epoch else 0
        writer = Writer(P, epoch, max(known_rows + ahead, 0), max(step + late, 0))
        model.next_sequence += others
        sequence = model.next_sequence
        known = judge(state, writer, rows, 1000)
        assert known.rows == sum(span.end - span.number for span in known.spans)
        found = flat(known.spans)
        if known.refused is None and known.rows < rows:
            number = writer.number + known.rows
            span = Span(number, writer.number + rows, sequence)
            state = stored(state, writer, span, 1000)
            found |= flat((span,))
        expected, refused = model.append(writer, rows)
        assert (known.refused.kind if known.refused else "") == refused
        assert found.keys() == expected.keys()
        assert all(place in (-1, expected[number]) for number, place in found.items())
        if state is not None:
            assert (state.epoch, state.next, state.request) == (model.epoch, len(model.rows), model.request)
            assert len(state.spans) <= MAX_SPANS
            # What was stored last can always be told.
            last = state.spans[-1]
            assert flat((last,)).items() <= model.rows.items()
            assert last.end == state.next


@given(seen=st.dictionaries(st.text("ab", min_size=12, max_size=12), st.integers(0, 9), max_size=1100))
def test_too_many(seen: dict[str, int]) -> None:
    """So many go that the rest is not too many, and none that stays was quiet for longer than one that goes."""
    gone = overdue(seen.items())
    assert len(gone) == max(0, len(seen) - MAX_WRITERS) == len(set(gone))
    stays = seen.keys() - gone
    assert not gone or max(seen[p] for p in gone) <= min(seen[p] for p in stays)


def test_more_than_too_many() -> None:
    """The ones quiet longest go, whatever their order was."""
    seen = {f"{n:04}": n for n in range(MAX_WRITERS + 100)}
    assert overdue(reversed(seen.items())) == [f"{n:04}" for n in reversed(range(100))]


def test_worked_example() -> None:
    """The bytes of the docstring are the bytes that are stored."""
    drawn = {line.split()[0]: line.split()[1:] for line in (form.__doc__ or "").splitlines() if line.strip()}
    key, value = bytes.fromhex("".join(drawn["key"])), bytes.fromhex("".join(drawn["value"]))
    producer = f"{2:032x}"
    state = stored(None, Writer(producer, 0, 0, 7), Span(0, 5, 10), 1000)
    assert form._key(1, producer) == key
    assert form._encoder.encode(state) == value
    assert form._decode(1, producer, value) == state
    assert judge(state, Writer(producer, 0, 1, 8), 2, 1000) == Known((Span(1, 3, 11),))
