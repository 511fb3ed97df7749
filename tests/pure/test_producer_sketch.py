"""Proves the summary of keys: bounded, never too high, at most a 33rd too low, and about the last minute."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from disstream.producer.sketch import HALF_LIFE_S, SAMPLES, SIZE, KeySketch

keys = st.one_of(st.none(), st.integers(0, 200).map(str), st.sampled_from("abc"))


@given(st.lists(st.lists(keys, max_size=40), max_size=40))
def test_counts_keep_their_bounds(batches: list[list[str | None]]) -> None:
    """Fed everything, each share is at most the true one and at least that less 1 / (SIZE + 1); others are smaller."""
    sketch, true = KeySketch(), Counter[str | None]()
    for batch in batches:
        sketch.add(batch, 1.0, 0.0)
        true.update(batch)
        sketch.check()
    total = sum(true.values())
    told = dict(sketch.shares(2 * SIZE))
    for key, count in true.items():
        if key is not None:
            share = told.get(key, 0.0)
            assert share <= count / total + 1e-9
            assert share >= count / total - 1 / (SIZE + 1) - 1e-9
    assert list(told.values()) == sorted(told.values(), reverse=True)


def test_samples_find_the_hot_key_among_many() -> None:
    """A key with a fifth of the records among 10,000 others is told with its share, from 8 samples of each request."""
    dice, sketch = random.Random(4), KeySketch()
    for request in range(300):
        rows = ["hot" if dice.random() < 0.2 else f"k{dice.randrange(10_000)}" for _ in range(1_000)]
        sketch.feed(rows, request / 10)
        assert len(sketch) <= 2 * SIZE
    (key, share), *others = sketch.shares(5)
    assert key == "hot"
    assert 0.13 < share < 0.23
    assert all(other < 0.02 for _, other in others)


def test_keys_that_come_in_turn_are_all_met() -> None:
    """Where keys take turns in step with the samples, none is told more than three times its share."""
    sketch, keys = KeySketch(), [f"k{i}" for i in range(SAMPLES)]
    rows = [keys[i % SAMPLES] for i in range(1_024)]
    for request in range(600):
        sketch.feed(rows, request / 100)
    assert max(share for _, share in sketch.shares(SIZE)) < 3 / SAMPLES
    assert len(sketch.shares(SIZE)) == SAMPLES


def test_old_traffic_fades() -> None:
    """Two half-lives after a key stopped, what came since weighs four times as much."""
    sketch = KeySketch()
    sketch.feed(["old"], 0.0)
    sketch.feed(["new"], 2 * HALF_LIFE_S)
    assert [(key, round(share, 3)) for key, share in sketch.shares(2)] == [("new", 0.8), ("old", 0.2)]


def test_records_without_a_key_count_in_the_total_only() -> None:
    """Half of the records without a key: a key that all others have is told with a half."""
    sketch = KeySketch()
    for _ in range(SAMPLES):
        sketch.feed([None, "a"] * SAMPLES, 1.0)
    assert sketch.shares(5) == [("a", 0.5)]
    assert KeySketch().shares(5) == []
