"""Matching: finds the result of ours that stands beside each number of the paper.

A cell belongs to a row if it read the row's text and has the axes that define the row's columns. Among such cells the
paper's own choice goes first: if every row has cells with a usual value of the paper (its model size, ratio of
questions, ranks), the other cells are left out; and if the rows share ways of finetuning, only those ways are compared,
so that no row is the best of more settings than its neighbours. Then the best is taken, as in the paper. Settings that
still differ (in another axis, such as `corpus.people`) are never mixed: each becomes a further row, named after the
axes that differ.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.measurements.best_settings import keep_best
from analysis.measurements.cells import Interval, ReplicateGroup
from analysis.measurements.table_rows import name_suffix, paper_setting, varied_axes
from analysis.paper.paper_value import BASELINE, ColumnSpec, PaperValue, Place

ABSENT = "not planned"


@dataclass(frozen=True)
class MatchedValue:
    """One number of the paper and ours; fractions of 1."""

    paper: PaperValue
    suffix: str
    """Axes that distinguish this row from others of the same name, as ` [axis=value]`."""
    ours: float | None
    interval: Interval | None
    n: int | None
    seeds: int
    compared: int
    """Number of settings of which this is the best."""
    state: str
    """`done`, why the number is missing or may still change, or `not planned` if no cell of the sweep is this row."""
    keys: tuple[str, ...]
    """The cells behind `ours`, one for each seed."""
    complete: bool
    """Whether `ours` is final: every cell that contributes to it, or could have been the best, is done."""

    @property
    def row(self) -> str:
        """The row's name with further axes."""
        return self.paper.row + self.suffix

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.ours is None else self.paper.difference(self.ours)


def match(replicate_groups: Sequence[ReplicateGroup], numbers: Sequence[PaperValue]) -> tuple[MatchedValue, ...]:
    """Matches our results to the numbers of one figure, in their order; further rows follow the one that they vary."""
    candidates = candidates_by_place(replicate_groups, numbers)
    best = {place: keep_best(members, place.columns.best_of) for place, members in candidates.items()}
    naming_axes = _naming_axes(best)
    by_suffix: dict[Place, dict[str, ReplicateGroup]] = {}
    unfinished: set[tuple[Place, str]] = set()
    for place, members in best.items():
        by_suffix[place] = {name_suffix(replicates, naming_axes): replicates for replicates in members}
        for replicates in candidates[place]:
            if not replicates.final:
                unfinished.add((place, name_suffix(replicates, naming_axes)))
    rows: dict[tuple[str, str], list[PaperValue]] = {}
    for number in numbers:
        rows.setdefault((number.panel, number.row), []).append(number)
    matches: list[MatchedValue] = []
    for (_, row), row_numbers in rows.items():
        if row == BASELINE:
            matches += [_match_baseline(number, best[number.place]) for number in row_numbers]
            continue
        suffixes = dict.fromkeys(suffix for number in row_numbers for suffix in by_suffix[number.place])
        for suffix in suffixes or [""]:
            for number in row_numbers:
                ours = by_suffix[number.place].get(suffix)
                matches.append(_match(number, suffix, ours, complete=(number.place, suffix) not in unfinished))
    return tuple(matches)


def candidates_by_place(
    replicate_groups: Sequence[ReplicateGroup], numbers: Sequence[PaperValue]
) -> dict[Place, tuple[ReplicateGroup, ...]]:
    """The results that may stand at each place, before the best of them is taken."""
    by_setting: dict[str, list[ReplicateGroup]] = {}
    for replicates in replicate_groups:
        by_setting.setdefault(paper_setting(replicates), []).append(replicates)
    by_columns: dict[ColumnSpec, dict[Place, tuple[ReplicateGroup, ...]]] = {}
    for number in numbers:
        places = by_columns.setdefault(number.columns, {})
        if number.place not in places:
            readers = [replicates for name in number.settings for replicates in by_setting.get(name, ())]
            places[number.place] = tuple(replicates for replicates in readers if number.fits(replicates.params))
    kept: dict[Place, tuple[ReplicateGroup, ...]] = {}
    for columns, places in by_columns.items():
        kept |= _as_usual(columns, places)
    return kept


def _as_usual(
    columns: ColumnSpec, places: Mapping[Place, tuple[ReplicateGroup, ...]]
) -> dict[Place, tuple[ReplicateGroup, ...]]:
    """Keeps the paper's own choice where all rows have it, then the ways of finetuning that all rows share."""
    kept = dict(places)
    for axis, values in columns.usual.items():
        usual = {place: tuple(r for r in members if r.params.get(axis) in values) for place, members in kept.items()}
        if all(usual[place] for place, members in kept.items() if members):
            kept = usual
    recipes = [
        {_recipe(columns, replicates) for replicates in members}
        for place, members in kept.items()
        if members and place.row != BASELINE
    ]
    shared = set.intersection(*recipes) if recipes else set()
    if not shared:
        return kept
    return {place: tuple(r for r in members if _recipe(columns, r) in shared) for place, members in kept.items()}


def _recipe(columns: ColumnSpec, replicates: ReplicateGroup) -> str:
    return json.dumps([replicates.params.get(axis) for axis in columns.best_of])


def _naming_axes(best: Mapping[Place, Sequence[ReplicateGroup]]) -> dict[str, set[str]]:
    """Axes that differ within a row, by column group."""
    axes: dict[str, set[str]] = {}
    for place, members in best.items():
        if place.row != BASELINE:
            varied = varied_axes(members) - set(place.columns.best_of)
            axes.setdefault(place.columns.group, set()).update(varied)
    return axes


def _match(number: PaperValue, suffix: str, replicates: ReplicateGroup | None, *, complete: bool) -> MatchedValue:
    if replicates is None:
        return MatchedValue(number, suffix, None, None, None, 0, 0, ABSENT, (), True)
    ours = replicates.metrics.get(number.metric)
    return MatchedValue(
        number,
        suffix,
        ours,
        None if ours is None else replicates.interval.get(number.metric),
        None if ours is None else replicates.n.get(number.metric),
        len(replicates.seeds),
        replicates.compared,
        "not measured" if ours is None and replicates.state == "done" else replicates.state,
        replicates.keys,
        complete,
    )


def _match_baseline(number: PaperValue, rows: Iterable[ReplicateGroup]) -> MatchedValue:
    """The mean baseline of the rows that recorded one; it hardly varies between the people of a sweep."""
    values = [replicates.metrics[number.metric] for replicates in rows if number.metric in replicates.metrics]
    mean = sum(values) / len(values) if values else None
    return MatchedValue(number, "", mean, None, None, 0, len(values), "done" if values else ABSENT, (), True)
