"""Proves that a member stops before the service may give its partitions away, whatever the network does."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from disstream.consumer.lease import Lease

SESSION_S = 10.0
REBALANCE_S = 20.0


@given(st.integers(0, 2**32))
def test_the_member_stops_first(seed: int) -> None:
    """Random delays and losses both ways: whenever the service could have dropped the member, the lease has ended."""
    dice = random.Random(seed)
    lease = Lease(REBALANCE_S)
    lease.grant(1, SESSION_S, 0.0)
    heard_at = 0.0  # by the service; the sync of generation 1
    round_at: float | None = None
    answers: list[tuple[float, float, bool]] = []  # (arrives, sent, go on)
    now = 0.0
    while now < 200.0:
        now += dice.uniform(0.1, 4.0)
        dropped_at = heard_at + SESSION_S if round_at is None else min(heard_at + SESSION_S, round_at + REBALANCE_S)
        if now >= dropped_at:
            assert not lease.holds(now)
            assert not lease.holds(dropped_at)
            return
        for answer in [a for a in answers if a[0] <= now]:
            answers.remove(answer)
            if answer[2]:
                lease.go_on(1, answer[1])
            else:
                lease.end(1)
        if round_at is None and dice.random() < 0.05:
            round_at = now
        reaches = now + dice.uniform(0.0, 3.0)
        if dice.random() < 0.7 and reaches < dropped_at:
            heard_at = max(heard_at, reaches)
            if dice.random() < 0.8:
                answers.append((reaches + dice.uniform(0.0, 15.0), now, round_at is None or reaches < round_at))


def test_a_late_answer_does_not_bring_back_time() -> None:
    """Answers count from when their question was sent, in whatever order they come."""
    lease = Lease(REBALANCE_S)
    lease.grant(1, SESSION_S, 0.0)
    lease.go_on(1, 8.0)
    lease.go_on(1, 3.0)
    assert lease.holds(16.9)
    assert not lease.holds(17.1)


def test_an_answer_of_another_generation_changes_nothing() -> None:
    """A heartbeat sent before the rebalance neither renews nor ends the new lease."""
    lease = Lease(REBALANCE_S)
    lease.grant(1, SESSION_S, 0.0)
    lease.end(1)
    lease.grant(2, SESSION_S, 5.0)
    lease.end(1)
    lease.go_on(1, 9.0)
    lease.lose(1)
    assert not lease.rejoin
    assert lease.holds(13.9)
    assert not lease.holds(14.1)


def test_a_lease_that_ran_out_revives_only_while_nobody_was_told_to_join_again() -> None:
    """The service vouches with "go on"; after "join again" or a loss only a new generation helps."""
    lease = Lease(REBALANCE_S)
    lease.grant(1, SESSION_S, 0.0)
    assert not lease.holds(20.0)
    lease.go_on(1, 20.0)
    assert lease.holds(21.0)
    lease.end(1)
    assert lease.holds(28.0)
    lease.go_on(1, 25.0)
    assert not lease.holds(29.5)
    lease.lose(1)
    assert not lease.holds(21.0)
    assert lease.rejoin


def test_a_loss_in_another_thread_wins_over_an_answer() -> None:
    """A lease that was given up is not brought back by an answer that was under way."""

    class Interrupted(float):
        """A time whose comparison lets the other thread run."""

        def __ge__(self, other: float) -> bool:
            lease.lose(1)
            return super().__ge__(other)

    lease = Lease(REBALANCE_S)
    lease.grant(1, SESSION_S, 0.0)
    lease.go_on(1, Interrupted(5.0))
    assert not lease.holds(6.0)
    assert lease.rejoin


def test_a_lease_that_was_forgotten_holds_nothing() -> None:
    """No answer of before brings it back; the next generation does, also one of the same number."""
    lease = Lease(REBALANCE_S)
    lease.grant(7, SESSION_S, 0.0)
    lease.forget()
    lease.go_on(7, 1.0)
    lease.go_on(-1, 1.0)
    assert not lease.holds(1.0)
    lease.grant(7, SESSION_S, 2.0)
    assert lease.holds(3.0)


def test_heartbeats_before_the_first_assignment_do_not_hold_it_up() -> None:
    """One that was sent behind the sync and answered before it is of no generation: the grant counts from the sync."""
    lease = Lease(REBALANCE_S)
    lease.go_on(-1, 5.0)
    assert not lease.holds(5.0)
    lease.grant(0, SESSION_S, 4.0)
    assert lease.holds(12.9)
    assert not lease.holds(13.1)


def test_a_grant_counts_from_its_sync_whatever_was_confirmed_before() -> None:
    """A heartbeat of the old generation may have been sent later than the sync of the new one."""
    lease = Lease(REBALANCE_S)
    lease.grant(1, SESSION_S, 0.0)
    lease.go_on(1, 8.0)
    lease.grant(2, SESSION_S, 7.0)
    assert lease.holds(15.9)
    assert not lease.holds(16.1)
