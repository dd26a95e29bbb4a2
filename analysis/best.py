"""Best of: the paper shows the best test accuracy over its finetuning runs, so a table can be asked for that."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from analysis.cells import Fold
from analysis.names import QUESTIONS, metric


def best(folds: Iterable[Fold], over: Sequence[str]) -> tuple[Fold, ...]:
    """Among folds equal in all axes but those in `over`, the one with the highest exact match on held-out people.

    It is chosen by the very number that it is then shown with, which therefore lies a little too high, and its interval
    knows nothing of that. `compared` says how many folds have a number; the state tells of those that have none yet.
    """
    alike: dict[str, list[Fold]] = {}
    for fold in folds:
        others = {name: value for name, value in fold.axes.items() if name not in over}
        alike.setdefault(json.dumps(others, sort_keys=True), []).append(fold)
    return tuple(_best(members) for members in alike.values())


def _best(folds: Sequence[Fold]) -> Fold:
    if len(folds) == 1:
        return folds[0]
    ranked = [(value, k) for k, fold in enumerate(folds) if fold.done and (value := _accuracy(fold)) is not None]
    without = [fold for k, fold in enumerate(folds) if k not in {k for _, k in ranked}]
    # A seed may be missing in any of them, the best one included.
    unfinished = "; ".join(dict.fromkeys(fold.state for fold in folds if fold.state != "done"))
    if not ranked:
        return replace(folds[0], state=unfinished or "done")
    value, k = max(ranked, key=lambda pair: (pair[0], -pair[1]))
    state = f"best of {len(ranked)}"
    if without:
        state += f" (of {len(folds)})"
    return replace(folds[k], compared=len(ranked), state=f"{state}; {unfinished}" if unfinished else state)


def _accuracy(fold: Fold) -> float | None:
    found = (fold.metrics.get(metric(group, "mean")) for group in QUESTIONS)
    return next((value for value in found if value is not None), None)
