"""Spent: what the distinct stages of a plan took, by kind."""

from dataclasses import dataclass

from sweeps.live import clock
from sweeps.plan import Plan, Planned

HEADERS = ("stages", "number", "done", "tokens", "FLOPs", "training time")
NOTE = (
    "Distinct stages; tokens and FLOPs of those that are done, from the settings (of readouts by typical lengths). "
    "Training time is these tokens at the speed that was measured in each stage; starts, compilation, reading and "
    "answering are not in it."
)


@dataclass(frozen=True)
class Cost:
    """All stages of one kind; sums are over those that are done."""

    kind: str
    stages: int
    done: int
    tokens: int
    flops: float
    seconds: float

    @property
    def line(self) -> tuple[str, ...]:
        """As text, under `HEADERS`; what no stage of the kind has measured is an en dash."""
        spent = [f"{self.flops:.1e}" if self.flops else "–", clock(self.seconds) if self.seconds else "–"]  # noqa: RUF001
        return (self.kind, f"{self.stages:,}", f"{self.done:,}", f"{self.tokens:,}", *spent)


def by_kind(plan: Plan) -> tuple[Cost, ...]:
    """The kinds of the plan's stages in the order in which they are done, and their sum."""
    kinds: dict[str, list[Planned]] = {}
    for planned in plan.stages:
        kinds.setdefault(planned.stage.kind, []).append(planned)
    costs = [_cost(kind, members, plan) for kind, members in kinds.items()]
    names = ("stages", "done", "tokens", "flops", "seconds")
    return (*costs, Cost("all", *(sum(getattr(cost, name) for cost in costs) for name in names)))


def _cost(kind: str, members: list[Planned], plan: Plan) -> Cost:
    done = [p for p in members if p.state == "done"]
    speeds = [(p, plan.seen.done[p.stage.key].metrics.get("speed/tokens_per_second")) for p in done]
    seconds = sum(p.tokens / speed for p, speed in speeds if speed)
    return Cost(kind, len(members), len(done), sum(p.tokens for p in done), sum(p.flops for p in done), seconds)
