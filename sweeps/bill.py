"""The bill of a plan: sums over its stages, shared or not, and the time that it takes on several devices."""

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.plan import Plan, Planned


def totals(plan: "Plan") -> dict[str, Any]:
    """Sums over the distinct stages; those with `to_do` leave out what is done and what is blocked.

    `without_sharing` is what the cells would take if each did all of its stages itself. Times are in seconds of one
    device, `wall_seconds_to_do` of all of them.
    """
    stages = {p.stage.key: p for p in plan.stages}
    unshared = [stages[stage.key] for cell in plan.cells for stage in cell.stages]
    return {
        "cells": len(plan.cells),
        "cells_done": sum(c.state == "done" for c in plan.cells),
        "cells_blocked": sum(c.blocked for c in plan.cells),
        **_sums(list(stages.values())),
        **_sums([p for p in plan.stages if p.state == "to do"], "_to_do"),
        **_sums([p for p in plan.stages if p.state == "blocked"], "_blocked"),
        **_sums(unshared, "_without_sharing"),
        "stages_done": sum(p.state == "done" for p in plan.stages),
        "device": plan.device.name,
        "flops_per_second": plan.device.speed,
        "flops_per_second_from": plan.device.told,
        "flops_per_second_measured": {} if plan.chosen else plan.measured,
        "gpus": plan.gpus,
        "wall_seconds_to_do": wall(plan),
    }


def wall(plan: "Plan") -> float:
    """Seconds until all is done with a trial on each device, the longest first as they are begun."""
    free = [0.0] * plan.gpus
    for seconds in sorted(by_trial(plan).values(), reverse=True):
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def by_trial(plan: "Plan") -> dict[str, float]:
    """Seconds of each trial of a plan on one device; what trials share is done by the first of them."""
    left = {p.stage.key: p.seconds for p in plan.stages if p.state == "to do"}
    return {
        name: sum(left.pop(stage.key, 0.0) for cell in cells for stage in cell.stages)
        for name, cells in plan.trials().items()
    }


def _sums(stages: list["Planned"], about: str = "") -> dict[str, Any]:
    return {
        f"stages{about}": len(stages),
        f"pretrainings{about}": sum(p.stage.kind == "pretrain" for p in stages),
        f"tokens{about}": sum(p.tokens for p in stages),
        f"flops{about}": sum(p.flops for p in stages),
        f"seconds{about}": sum(p.seconds for p in stages),
        f"bytes{about}": sum(p.bytes for p in stages),
    }
