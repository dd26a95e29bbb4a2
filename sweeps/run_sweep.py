"""Runs what a sweep lacks, and delivers it to MLflow: each stage while others train, and everything at the end."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console

from ktrain.config import RuntimeConfig
from sweeps.execution import summary_lines
from sweeps.execution.cluster_address import LOCAL, chosen_address
from sweeps.execution.rounds import run_rounds
from sweeps.execution.run import run
from sweeps.planning.plan import Plan
from sweeps.tracking import address, schema
from sweeps.tracking.background_sync import BackgroundSync
from sweeps.tracking.sync import Tracker, sync_with_retry


@dataclass(frozen=True)
class Outcome:
    """A plan as it stands after a run, and the lines about what went wrong in it."""

    plan: Plan
    failures: list[str]
    undelivered: str
    """What kept results from MLflow; empty if it has them all."""


class SweepRun:
    """A run of a plan that can begin: its MLflow is usable, and it is known where Ray is."""

    def __init__(
        self,
        plan: Plan,
        again: Callable[[], Plan],
        runtime: RuntimeConfig,
        *,
        store: str,
        gpus_most: int | None = None,
        gpu_gib: float | None = None,
    ) -> None:
        """`again` makes the plan anew from the store, whose address is `store` as the user gave it; `gpus_most` and
        `gpu_gib` are those of `measure_capacity`. Raises `WrongRequest` for an MLflow or a Ray that cannot be used."""
        self._plan, self._again, self._runtime = plan, again, runtime
        self._store, self._gpus_most, self._gpu_gib = store, gpus_most, gpu_gib
        self.to_do = bool(plan.trials())
        self._uri = address.default_uri(plan.store)
        self._place = chosen_address() if self.to_do else LOCAL
        schema.require_usable(self._uri, plan.sweep.name)

    def __call__(self, console: Console) -> Outcome:
        """Runs and delivers everything, with its progress on `console`; raises what `run` raises, once what is done is
        delivered."""
        trackers: list[Tracker] = []
        plan, undelivered = self._plan, None

        def warn(line: str) -> None:
            console.print(line, style="yellow", markup=False, soft_wrap=True)

        def announce(part: Plan) -> None:
            header = summary_lines.header(part, here=self._place == LOCAL)
            console.print(header, markup=False, highlight=False, soft_wrap=True)

        def run_once(part: Plan) -> list[str]:
            with ExitStack() as delivery:

                def begin() -> list[BackgroundSync]:
                    part.store.ready(given=self._store)
                    trackers.append(Tracker.open(self._uri, part.sweep.name))
                    return [delivery.enter_context(BackgroundSync(trackers[-1], part, warn))]

                place, most, gib = self._place, self._gpus_most, self._gpu_gib
                return run(part, self._runtime, console, begin, address=place, gpus_most=most, gpu_gib=gib)

        if self.to_do:
            announce(plan)
        try:
            failures = run_rounds(plan, run_once, self._again, announce)
        finally:
            # A run that was refused, or stopped before it began, leaves nothing behind.
            if trackers:
                plan = self._again()
                undelivered = sync_with_retry(trackers[0], plan)
        return Outcome(plan, failures, undelivered or "")
