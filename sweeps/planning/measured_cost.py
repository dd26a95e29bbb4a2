"""Measured cost: what the finished stages of a plan took, by kind."""

from dataclasses import dataclass

from sweeps.console import format_duration
from sweeps.planning.network_summary import networks
from sweeps.planning.plan import Plan, Planned

HEADERS = ("stages", "number", "done", "tokens", "FLOPs", "training time")
DASH = "–"  # noqa: RUF001
NOTE = (
    "Distinct stages; tokens and FLOPs are those of finished stages, computed from the settings (of readouts, from "
    "typical widths of rows). Training time is these tokens at the speed measured in each stage; it leaves out starts, "
    "compilation, reading and answering."
)


def note(plan: Plan) -> str:
    """Returns the remark on the table of costs: what its columns count, and the parameters of the networks."""
    counts = (f"{name}: {network.parameters:,} parameters." for name, network in networks(plan).items())
    return " ".join([NOTE, *counts])


@dataclass(frozen=True)
class Cost:
    """The stages of one kind; tokens, FLOPs and seconds are sums over the finished ones."""

    kind: str
    stages: int
    done: int
    tokens: int
    flops: float
    seconds: float

    @property
    def line(self) -> tuple[str, ...]:
        """The cells of a table row under `HEADERS`; an en dash where no stage of the kind measured anything."""
        flops = f"{self.flops:.1e}" if self.flops else DASH
        seconds = format_duration(self.seconds) if self.seconds else DASH
        return self.kind, f"{self.stages:,}", f"{self.done:,}", f"{self.tokens:,}", flops, seconds


def cost_by_kind(plan: Plan) -> tuple[Cost, ...]:
    """Returns the cost of each kind of stage, in the order in which a cell runs them, and last the cost of all."""
    kinds: dict[str, list[Planned]] = {}
    for planned in plan.stages:
        kinds.setdefault(planned.stage.kind, []).append(planned)
    costs = [_cost(kind, members, plan) for kind, members in kinds.items()]
    names = ("stages", "done", "tokens", "flops", "seconds")
    return (*costs, Cost("all", *(sum(getattr(cost, name) for cost in costs) for name in names)))


def _cost(kind: str, members: list[Planned], plan: Plan) -> Cost:
    done = [p for p in members if p.state == "done"]
    speeds = [(p, plan.snapshot.done[p.stage.key].metrics.get("speed/tokens_per_second")) for p in done]
    seconds = sum(p.tokens / speed for p, speed in speeds if speed)
    return Cost(kind, len(members), len(done), sum(p.tokens for p in done), sum(p.flops for p in done), seconds)
