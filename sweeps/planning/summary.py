"""Summaries of a plan: its totals, its wall-clock time on several devices, its departures, and all of it as JSON."""

import heapq
from dataclasses import asdict
from typing import Any

from ktrain.data.token_estimates import nameless_share
from sweeps.planning import departures as papers
from sweeps.planning.generation_cost import generation_costs
from sweeps.planning.network_summary import networks
from sweeps.planning.plan import Plan, Planned


def as_json(plan: Plan) -> dict[str, Any]:
    """Returns the contract of `plan --json`."""
    cells = [
        {
            "key": c.key,
            "parts": list(c.parts),
            "axes": c.axes,
            "stages": [s.key for s in c.stages],
            "state": c.state,
            "refused": list(c.refused),
        }
        for c in plan.cells
    ]
    stages = [
        {
            "key": p.stage.key,
            "kind": p.stage.kind,
            "state": p.state,
            "tokens": p.tokens,
            "flops": p.flops,
            "seconds": p.seconds,
            "bytes": p.bytes,
            "passes_over_questions": p.passes,
        }
        for p in plan.stages
    ]
    written = [text.as_json() for text in generation_costs(plan)]
    searches = [asdict(search) for search in plan.searches]
    return {
        "sweep": plan.sweep.name,
        "scale": plan.scale,
        "cells": cells,
        "stages": stages,
        "totals": totals(plan),
        "departures": departures(plan),
        # What few plans have stands in no others.
        **({"writing": written} if written else {}),
        **({"searches": searches} if searches else {}),
    }


def departures(plan: Plan) -> list[str]:
    """Lists where the plan's cells differ from the paper, then what had to be assumed where the paper is silent."""
    cells = [cell.cell for cell in plan.cells]
    return papers.departures(cells, plan.sweep.figures) + papers.assumptions(cells)


def totals(plan: Plan) -> dict[str, Any]:
    """Returns sums over the distinct stages: all of them, those to do, those blocked, and those without sharing.

    `_without_sharing` is the cost if each cell did all of its stages itself. `seconds` are of one device;
    `wall_seconds_to_do` are of all devices at once.
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
        "networks": {name: asdict(network) for name, network in networks(plan).items()},
        "device": plan.device.name,
        "flops_per_second": plan.device.speed,
        "flops_per_second_from": plan.device.source,
        "flops_per_second_measured": {} if plan.chosen else plan.measured,
        "gpus": plan.gpus,
        "wall_seconds_to_do": wall_clock(plan),
        "dollars_to_do": _dollars(plan),
        "nameless_attribute_tokens": nameless_by_windows(plan),
    }


def nameless_by_windows(plan: Plan) -> dict[str, list[float]]:
    """Returns the lowest and the highest share of attribute tokens that a cell's pretraining reads in a window without
    the name before them, by `train.windows`; estimated from typical lengths."""
    shares: dict[str, list[float]] = {}
    for planned in plan.cells:
        train = planned.cell.train
        shares.setdefault(train.windows, []).append(round(nameless_share(planned.cell.corpus, train), 3))
    return {windows: [min(values), max(values)] for windows, values in shares.items()}


def wall_clock(plan: Plan) -> float:
    """Returns the seconds until all trials are done, one at a time on each device, the longest started first."""
    free = [0.0] * plan.gpus
    for seconds in sorted(by_trial(plan).values(), reverse=True):
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def by_trial(plan: Plan, *, to_pause: bool = False) -> dict[str, float]:
    """Returns each trial's seconds on one device; the first of several trials that share a stage does it.

    With `to_pause`, a trial that pauses in its pretraining counts up to there; else it counts to its end.
    """
    left = {p.stage.key: p.seconds for p in plan.stages if p.state == "to do"}
    seconds = {}
    for name, cells in plan.trials().items():
        pause_at = plan.pause_at(name) if to_pause else None
        if pause_at is None:
            seconds[name] = sum(left.pop(stage.key, 0.0) for cell in cells for stage in cell.stages)
        else:
            seconds[name] = left.pop(name, 0.0) * pause_at / cells[0].cell.train.steps
    return seconds


def _dollars(plan: Plan) -> float | None:
    """Returns what the stages to do cost at the plan's price; None without a price."""
    if plan.price_per_hour is None:
        return None
    return plan.price_per_hour * sum(p.seconds for p in plan.stages if p.state == "to do") / 3600


def _sums(stages: list[Planned], suffix: str = "") -> dict[str, Any]:
    return {
        f"stages{suffix}": len(stages),
        f"pretrainings{suffix}": sum(p.stage.kind == "pretrain" for p in stages),
        f"tokens{suffix}": sum(p.tokens for p in stages),
        f"flops{suffix}": sum(p.flops for p in stages),
        f"seconds{suffix}": sum(p.seconds for p in stages),
        f"bytes{suffix}": sum(p.bytes for p in stages),
    }
