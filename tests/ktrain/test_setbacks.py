"""Patience: what machines do never uses up the budget of what a trial does itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrain.setbacks import (
    DIED,
    ERROR,
    EXPECTED,
    FAILURES,
    LOSSES,
    LOST,
    MEMORY,
    PREEMPTED,
    ROOM,
    ROOMS,
    SOON,
    TAKEN,
    WAITS,
    Patience,
    Setback,
)

OURS, MACHINES = (MEMORY, DIED, ERROR), (PREEMPTED, LOST, ROOM, TAKEN)
LONG = SOON + 1


def one(kind: str) -> Setback:
    return Setback(kind, "why")


@given(
    machines=st.lists(st.tuples(st.sampled_from(MACHINES), st.integers(0, FAILURES)), max_size=40),
    ours=st.lists(st.sampled_from(OURS), min_size=FAILURES + 1, max_size=FAILURES + 1),
)
def test_nothing_but_its_own_failures_ends_a_trial(machines: list[tuple[str, int]], ours: list[str]) -> None:
    """Wherever the others come in between."""
    patience = Patience()
    for place, kind in enumerate(ours):
        for other, before in machines:
            assert before != place or patience.bears(one(other), LONG)
        assert patience.bears(one(kind), LONG) == (place < FAILURES)


def test_a_trial_that_kills_its_nodes_ends() -> None:
    patience = Patience()
    assert all(patience.bears(one(LOST), 1.0) for _ in range(LOSSES - 1))
    # One start that lasted is proof enough that it was not the trial.
    assert patience.bears(one(LOST), LONG)
    assert all(patience.bears(one(LOST), 1.0) for _ in range(LOSSES - 1))
    assert not patience.bears(one(LOST), 1.0)


def test_fewer_workers_will_do_after_some_waits_in_a_row() -> None:
    patience = Patience()
    for kind in [ROOM] * (ROOMS - 1) + [LOST] + [ROOM] * (ROOMS - 1):
        assert patience.bears(one(kind), LONG) and not patience.crowded
    patience.bears(one(ROOM), 60.0)
    assert patience.crowded
    patience.bears(one(PREEMPTED), 60.0)
    assert not patience.crowded, "then as many as were asked for are tried again"


def test_the_time_between_losses_moves_from_the_guess_to_what_is_seen() -> None:
    patience = Patience()
    assert patience.between_losses == EXPECTED
    patience.bears(one(PREEMPTED), EXPECTED)
    assert patience.between_losses == 2 * EXPECTED, "who leaves in time loses nothing"
    patience.bears(one(LOST), EXPECTED)
    assert patience.between_losses == 3 * EXPECTED / 2
    for _ in range(1000):
        patience.bears(one(LOST), 1200.0)
    assert patience.between_losses == pytest.approx(1200.0, rel=0.05)


def test_storage_that_fails_is_given_more_time_each_time() -> None:
    patience, pauses = Patience(), []
    for _ in range(FAILURES):
        patience.bears(Setback(ERROR, "OSError: away", storage=True), 10.0)
        pauses.append(patience.pause)
    assert tuple(pauses) == WAITS and sum(pauses) > 60


def test_a_setback_is_told_in_a_line() -> None:
    assert Setback(MEMORY, "2 workers").text == "out of memory: 2 workers"
