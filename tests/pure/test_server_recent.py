"""What is kept of what was asked for lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.server.recent import Recent

KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(1, 12)),
        st.tuples(st.just("get"), KEYS, st.just(0)),
        st.tuples(st.just("pop"), KEYS, st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_ones_asked_for_last_are_kept(steps: list[tuple[str, str, int]]) -> None:
    recent = Recent[int](10)
    order: list[tuple[str, int]] = []  # the one asked for longest ago first
    for kind, key, weight in steps:
        known = dict(order)
        if kind == "get":
            assert recent.get(key) == known.get(key)
        order = [pair for pair in order if pair[0] != key]
        if kind == "put":
            recent.put(key, weight, weight)
            order.append((key, weight))
            while len(order) > 1 and sum(weight for _, weight in order) > 10:
                order.pop(0)
        elif kind == "pop":
            recent.pop(key)
        elif key in known:
            order.append((key, known[key]))
        assert list(recent) == [weight for _, weight in order]
        assert len(recent) == len(order)
        recent.check()
