"""Best settings: tables can show the best of several finetunings, like the paper, and of a search's samples."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from analysis.measurements.cells import STOPPED_EARLY, ReplicateGroup, Results, Search, group_replicates
from analysis.measurements.names import QUESTIONS, metric


def shown_groups(results: Results) -> tuple[ReplicateGroup, ...]:
    """Groups cells that differ only in `seed`; of the samples of a search only the best one is kept.

    That one is chosen by the search's metric, which rests on no answer about the people of the test half. So the number
    that is then shown for these people is not biased by the choice. Its `axes` are without those that were drawn.
    """
    groups = group_replicates(results)
    for search in results.searches:
        groups = _best_samples(groups, search)
    return groups


def keep_best(replicate_groups: Iterable[ReplicateGroup], over: Sequence[str]) -> tuple[ReplicateGroup, ...]:
    """Among groups equal in all axes but those in `over`, keep the one with the highest held-out exact match.

    The selection uses the number that is then shown, so that number is biased slightly upwards and its interval does
    not account for the selection. `compared` counts the candidates that have a number; `state` names the others.
    """
    alike: dict[str, list[ReplicateGroup]] = {}
    for replicates in replicate_groups:
        alike.setdefault(_other_axes(replicates, over), []).append(replicates)
    return tuple(_best(members, _accuracy) for members in alike.values())


def _best_samples(groups: Sequence[ReplicateGroup], search: Search) -> tuple[ReplicateGroup, ...]:
    """The groups with the best of the search's samples in place of all that are equal in the axes not drawn."""

    def value(replicates: ReplicateGroup) -> float | None:
        measured = replicates.metrics.get(search.metric)
        return -measured if measured is not None and search.lowest else measured

    alike: dict[str, list[ReplicateGroup]] = {}
    for number, replicates in enumerate(groups):
        sampled = search.keys.issuperset(replicates.keys)
        others = _other_axes(replicates, (*search.axes, *search.following)) if sampled else f"{number}"
        alike.setdefault(others, []).append(replicates)
    kept = []
    for members in alike.values():
        best = members[0]
        if search.keys.issuperset(best.keys):
            best = _best(members, value, f" by {search.metric}")
            if best.done and value(best) is None:
                # Its number must not be shown as if it had been chosen.
                best = replace(best, seeds=(), counted=(), metrics={}, state=f"no sample has {search.metric}")
            best = replace(best, axes={axis: best.axes[axis] for axis in best.axes if axis not in search.axes})
        kept.append(best)
    return tuple(kept)


def _other_axes(replicates: ReplicateGroup, over: Sequence[str]) -> str:
    return json.dumps({name: value for name, value in replicates.axes.items() if name not in over}, sort_keys=True)


def _best(
    candidates: Sequence[ReplicateGroup], value: Callable[[ReplicateGroup], float | None], by: str = ""
) -> ReplicateGroup:
    """The candidate with the highest value, and in its state of how many it is the best, `by` what."""
    if len(candidates) == 1:
        return candidates[0]
    # What a search has stopped is compared already, and worse: it has no number, and none will come.
    stopped = [c for c in candidates if STOPPED_EARLY in c.state]
    # A group can be done in some seeds only, the best one included.
    unfinished = "; ".join(dict.fromkeys(c.state for c in candidates if c.state != "done" and c not in stopped))
    measured = [(number, c) for c in candidates if c.done and c not in stopped and (number := value(c)) is not None]
    if not measured:
        return replace(candidates[0], state=unfinished or candidates[0].state)
    _, best = max(measured, key=lambda pair: pair[0])  # of equal ones the first
    compared = len(measured) + len(stopped)
    state = f"best of {compared}"
    if compared < len(candidates):
        state += f" (of {len(candidates)})"
    state += by
    if stopped:
        state += f", {len(stopped)} of them stopped early"
    return replace(best, compared=compared, state=f"{state}; {unfinished}" if unfinished else state)


def _accuracy(replicates: ReplicateGroup) -> float | None:
    values = (replicates.metrics.get(metric(group, "mean")) for group in QUESTIONS)
    return next((value for value in values if value is not None), None)
