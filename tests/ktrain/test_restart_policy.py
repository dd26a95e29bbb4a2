"""Interruptions that machines cause never use up the budget of those that a trial causes itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrain.restart_policy import (
    FAILURES,
    PAUSES,
    PRIOR_SECONDS,
    SOON,
    SOON_LOSSES,
    WAITS,
    Interruption,
    Kind,
    RestartPolicy,
)

OURS, MACHINES = (Kind.MEMORY, Kind.DIED, Kind.ERROR), (Kind.PREEMPTED, Kind.LOST, Kind.NO_CAPACITY, Kind.LEASE_LOST)
LONG = SOON + 1


def one(kind: str) -> Interruption:
    return Interruption(kind, "why")


@given(
    machines=st.lists(st.tuples(st.sampled_from(MACHINES), st.integers(0, FAILURES)), max_size=40),
    ours=st.lists(st.sampled_from(OURS), min_size=FAILURES + 1, max_size=FAILURES + 1),
)
def test_nothing_but_its_own_failures_ends_a_trial(machines: list[tuple[str, int]], ours: list[str]) -> None:
    """Wherever the others come in between."""
    policy = RestartPolicy()
    for place, kind in enumerate(ours):
        for other, before in machines:
            assert before != place or policy.should_restart(one(other), LONG)
        assert policy.should_restart(one(kind), LONG) == (place < FAILURES)


def test_a_trial_that_kills_its_nodes_ends() -> None:
    policy = RestartPolicy()
    assert all(policy.should_restart(one(Kind.LOST), 1.0) for _ in range(SOON_LOSSES - 1))
    # One start that lasted is proof enough that it was not the trial.
    assert policy.should_restart(one(Kind.LOST), LONG)
    assert all(policy.should_restart(one(Kind.LOST), 1.0) for _ in range(SOON_LOSSES - 1))
    assert not policy.should_restart(one(Kind.LOST), 1.0)


def test_fewer_workers_will_do_after_some_waits_in_a_row() -> None:
    policy = RestartPolicy()
    for kind in [Kind.NO_CAPACITY] * (WAITS - 1) + [Kind.LOST] + [Kind.NO_CAPACITY] * (WAITS - 1):
        assert policy.should_restart(one(kind), LONG) and not policy.starved
    policy.should_restart(one(Kind.NO_CAPACITY), 60.0)
    assert policy.starved
    policy.should_restart(one(Kind.PREEMPTED), 60.0)
    assert not policy.starved, "then as many as were asked for are tried again"


def test_the_time_between_losses_moves_from_the_guess_to_what_is_seen() -> None:
    policy = RestartPolicy()
    assert policy.between_losses == PRIOR_SECONDS
    policy.should_restart(one(Kind.PREEMPTED), PRIOR_SECONDS)
    assert policy.between_losses == 2 * PRIOR_SECONDS, "who leaves in time loses nothing"
    policy.should_restart(one(Kind.LOST), PRIOR_SECONDS)
    assert policy.between_losses == 3 * PRIOR_SECONDS / 2
    for _ in range(1000):
        policy.should_restart(one(Kind.LOST), 1200.0)
    assert policy.between_losses == pytest.approx(1200.0, rel=0.05)


def test_storage_that_fails_is_given_more_time_each_time() -> None:
    policy, pauses = RestartPolicy(), []
    for _ in range(FAILURES):
        policy.should_restart(Interruption(Kind.ERROR, "OSError: away", storage=True), 10.0)
        pauses.append(policy.pause)
    assert tuple(pauses) == PAUSES and sum(pauses) > 60


def test_an_interruption_reads_as_one_line() -> None:
    assert Interruption(Kind.MEMORY, "2 workers").text == "out of memory: 2 workers"
