"""Runs a plan round by round where a search draws more cells, or lets some train on, by the results of others."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A trial imports this package, and importing a plan takes it seconds.
    from sweeps.planning.plan import Plan


def run_rounds(
    plan: "Plan", run: Callable[["Plan"], list[str]], again: Callable[[], "Plan"], announce: Callable[["Plan"], None]
) -> list[str]:
    """Runs a plan, then what its searches make of the results, until they have drawn and compared all, or a trial
    fails.

    `again` makes the plan anew, and `announce` is called with each further one. Returns the lines about failures of the
    last round.
    """
    while True:
        failures = run(plan)
        if failures or not plan.unfolding:
            return failures
        plan = again()
        if not plan.trials():
            return []
        announce(plan)
