"""A run goes on while an adaptive search draws more cells, and no longer."""

from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.execution.rounds import run_rounds


def plan(waiting: int, trials: int = 1) -> Any:
    return SimpleNamespace(unfolding=bool(waiting), trials=lambda: {str(number): () for number in range(trials)})


@pytest.mark.parametrize(
    ("plans", "failing", "runs"),
    [
        ([plan(0)], None, 1),
        ([plan(8), plan(4), plan(0)], None, 3),
        ([plan(8), plan(4), plan(0)], 1, 2),
        # Another driver has done the rest meanwhile.
        ([plan(8), plan(0, trials=0)], None, 1),
        ([plan(0, trials=0)], None, 1),
    ],
)
def test_rounds_follow_until_all_is_drawn_or_something_fails(plans: list[Any], failing: int | None, runs: int) -> None:
    left, ran, announced = iter(plans[1:]), list[Any](), list[Any]()

    def run(one: Any) -> list[str]:
        ran.append(one)
        return ["a line"] if len(ran) - 1 == failing else []

    failures = run_rounds(plans[0], run, lambda: next(left), announced.append)
    assert ran == plans[:runs] and announced == plans[1:runs]
    assert failures == ([] if failing is None else ["a line"])
