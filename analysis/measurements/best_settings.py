"""Best settings: like the paper, tables can show the best of several finetuning settings."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from analysis.measurements.cells import ReplicateGroup
from analysis.measurements.names import QUESTIONS, metric


def keep_best(replicate_groups: Iterable[ReplicateGroup], over: Sequence[str]) -> tuple[ReplicateGroup, ...]:
    """Among groups equal in all axes but those in `over`, keep the one with the highest held-out exact match.

    The selection uses the number that is then shown, so that number is biased slightly upwards and its interval does
    not account for the selection. `compared` counts the candidates that have a number; `state` names the others.
    """
    alike: dict[str, list[ReplicateGroup]] = {}
    for replicates in replicate_groups:
        others = {name: value for name, value in replicates.axes.items() if name not in over}
        alike.setdefault(json.dumps(others, sort_keys=True), []).append(replicates)
    return tuple(_best(members) for members in alike.values())


def _best(candidates: Sequence[ReplicateGroup]) -> ReplicateGroup:
    if len(candidates) == 1:
        return candidates[0]
    # A group can be done in some seeds only, the best one included.
    unfinished = "; ".join(dict.fromkeys(c.state for c in candidates if c.state != "done"))
    measured = [(value, c) for c in candidates if c.done and (value := _accuracy(c)) is not None]
    if not measured:
        return replace(candidates[0], state=unfinished or "done")
    _, best = max(measured, key=lambda pair: pair[0])  # of equal ones the first
    state = f"best of {len(measured)}"
    if len(measured) < len(candidates):
        state += f" (of {len(candidates)})"
    return replace(best, compared=len(measured), state=f"{state}; {unfinished}" if unfinished else state)


def _accuracy(replicates: ReplicateGroup) -> float | None:
    values = (replicates.metrics.get(metric(group, "mean")) for group in QUESTIONS)
    return next((value for value in values if value is not None), None)
