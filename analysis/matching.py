"""Matching: which of our results stands beside a number of the paper.

A cell belongs to a row if it has read what the row names and has the axes that define the row's block of columns. Of
those, the paper's own choice goes first: where every row has cells with a usual value of the paper (its model size,
ratio of questions, ranks), the others are left out; and where the rows of a block have ways of finetuning in common,
only those are compared, so that no row is the best of more than its neighbours. Then the best is taken, as the paper
does. What is still several settings (another axis was varied, say `corpus.people`) is never mixed: each becomes a row
of its own, named after the axes that differ.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.best import best
from analysis.cells import Fold, Interval
from analysis.number import BASELINE, Block, Number
from analysis.rows import differing, further, setting

ABSENT = "not planned"
Place = tuple[str, str, str, Block]
"""Figure, panel, row and block: numbers that come from one cell."""


@dataclass(frozen=True)
class Match:
    """One number of the paper and ours; fractions of 1."""

    number: Number
    further: str
    """Axes that tell this row from others of the same name, as ` [axis=value]`."""
    ours: float | None
    interval: Interval | None
    n: int | None
    seeds: int
    compared: int
    """Of how many settings this is the best."""
    state: str
    """`done`, or why a number is missing or may still change; `not planned` where no cell of the sweep is this row."""
    keys: tuple[str, ...]
    """The cells behind `ours`, one for each seed."""
    complete: bool
    """Whether `ours` is final: all cells are done that it is, or could have been, the mean or the best of."""

    @property
    def row(self) -> str:
        """The row's name with further axes."""
        return self.number.row + self.further

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.ours is None else self.number.less(self.ours)


def match(folds: Sequence[Fold], numbers: Sequence[Number]) -> tuple[Match, ...]:
    """Ours (`analysis.cells.replicates`) beside each of the numbers of one figure, in their order.

    Further rows follow the one that they vary.
    """
    candidates = placed(folds, numbers)
    chosen = {at: best(found, at[-1].best_of) for at, found in candidates.items()}
    told = _told(chosen)
    named: dict[Place, dict[str, Fold]] = {}
    unfinished = set()
    for at, found in chosen.items():
        named[at] = {further(fold, told): fold for fold in found} if at[2] != BASELINE else {}
        unfinished |= {(at, further(fold, told)) for fold in candidates[at] if fold.state != "done"}
    rows: dict[tuple[str, str], list[Number]] = {}
    for number in numbers:
        rows.setdefault((number.panel, number.row), []).append(number)
    matches = []
    for row in rows.values():
        for name in dict.fromkeys(name for number in row for name in named[place(number)]) or {"": None}:
            for number in row:
                at = place(number)
                if number.row == BASELINE:
                    matches.append(_baseline(number, chosen[at]))
                else:
                    matches.append(_match(number, name, named[at].get(name), (at, name) not in unfinished))
    return tuple(matches)


def placed(folds: Sequence[Fold], numbers: Sequence[Number]) -> dict[Place, tuple[Fold, ...]]:
    """The results that belong to each place, before the best of them is taken."""
    read: dict[str, list[Fold]] = {}
    for fold in folds:
        read.setdefault(setting(fold.params), []).append(fold)
    fitting: dict[Place, tuple[Fold, ...]] = {}
    for number in numbers:
        if place(number) not in fitting:
            candidates = [fold for name in number.settings for fold in read.get(name, ())]
            fitting[place(number)] = tuple(fold for fold in candidates if number.fits(fold.params))
    by_block: dict[Block, dict[Place, tuple[Fold, ...]]] = {}
    for at, found in fitting.items():
        by_block.setdefault(at[-1], {})[at] = found
    return {at: found for block, places in by_block.items() for at, found in _as_usual(block, places).items()}


def place(number: Number) -> Place:
    """What a number shares with those from the same cell."""
    return number.figure, number.panel, number.row, number.block


def _as_usual(block: Block, places: Mapping[Place, tuple[Fold, ...]]) -> dict[Place, tuple[Fold, ...]]:
    """The paper's own choice where all rows have it, then what they have in common."""
    kept = dict(places)
    for axis, values in block.usual.items():
        chosen = {at: tuple(f for f in folds if f.params.get(axis) in values) for at, folds in kept.items()}
        if all(chosen[at] for at in kept if kept[at]):
            kept = chosen
    ways = [{_way(block, fold) for fold in folds} for at, folds in kept.items() if folds and at[2] != BASELINE]
    common = set.intersection(*ways) if ways else set()
    if common:
        kept = {at: tuple(fold for fold in folds if _way(block, fold) in common) for at, folds in kept.items()}
    return kept


def _way(block: Block, fold: Fold) -> str:
    return json.dumps([fold.params.get(axis) for axis in block.best_of])


def _told(folds: Mapping[Place, Sequence[Fold]]) -> dict[str, set[str]]:
    """Axes that differ within a row, by column group."""
    told: dict[str, set[str]] = {}
    for (_, _, row, block), found in folds.items():
        if row != BASELINE:
            told.setdefault(block.group, set()).update(differing(found) - set(block.best_of))
    return told


def _match(number: Number, name: str, fold: Fold | None, complete: bool) -> Match:
    if fold is None:
        return Match(number, name, None, None, None, 0, 0, ABSENT, (), True)
    ours = fold.metrics.get(number.metric)
    return Match(
        number,
        name,
        ours,
        None if ours is None else fold.interval.get(number.metric),
        None if ours is None else fold.n.get(number.metric),
        len(fold.seeds),
        fold.compared,
        "not measured" if ours is None and fold.state == "done" else fold.state,
        fold.keys,
        complete,
    )


def _baseline(number: Number, folds: Iterable[Fold]) -> Match:
    """The mean over the rows that recorded one; the people of a sweep differ little in it."""
    values = [fold.metrics[number.metric] for fold in folds if number.metric in fold.metrics]
    mean = sum(values) / len(values) if values else None
    return Match(number, "", mean, None, None, 0, len(values), "done" if values else ABSENT, (), True)
