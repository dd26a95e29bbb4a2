"""Comparison: a figure of the paper, ours beside it, and how far the order of its rows agrees."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from analysis import paper
from analysis.cells import Results, replicates
from analysis.matching import ABSENT, Match, match, placed
from analysis.number import BASELINE
from analysis.order import Order, order, signed, spoken
from analysis.percent import percent, points, ranged, span
from analysis.section import Sheet


class Counts(NamedTuple):
    """Rows of a figure, without the baseline."""

    finished: int
    """Ours, further rows included, with all their cells done."""
    shown: int
    """Ours, further rows included."""
    planned: int
    """The paper's of which the sweep has a cell."""
    printed: int
    """The paper's."""


@dataclass(frozen=True)
class Comparison:
    """One figure of the paper, or one part of it, with ours."""

    figure: str
    """Such as `fig12a`."""
    source: str
    scale: str
    matches: tuple[Match, ...]
    keys: frozenset[str]
    """All cells that belong to the figure, those that are not the best ones too."""

    @property
    def title(self) -> str:
        """`Figure 12a`."""
        return f"Figure {self.figure.removeprefix('fig')}"

    @property
    def same(self) -> bool:
        """Whether the two are the same experiment."""
        return self.scale == "full"

    @property
    def planned(self) -> tuple[Match, ...]:
        """The matches in rows, and in columns of a readout, of which the sweep has at least one cell."""
        cells = [m for m in self.matches if m.state != ABSENT and m.number.row != BASELINE]
        rows = {(m.number.panel, m.row) for m in cells} | {(m.number.panel, BASELINE) for m in cells}
        groups = {m.number.block.group for m in cells}
        return tuple(m for m in self.matches if (m.number.panel, m.row) in rows and m.number.block.group in groups)

    @property
    def columns(self) -> dict[str, str]:
        """Metric by column, in the paper's order, of the readouts that the sweep has a cell of.

        Where rows of a fixed order lack columns, the order is that of the baseline, which has all.
        """
        groups = {m.number.block.group for m in self.planned}
        shown = [m.number for m in self.matches if m.number.block.group in groups]
        metrics = {number.column: number.metric for number in shown if number.row != BASELINE}
        if self.figure in paper.GRIDS:
            # The only cell of the first row of a grid stands at its right end.
            return dict(sorted(metrics.items(), key=lambda pair: (not pair[0].isdigit(), pair[0].zfill(9))))
        return {number.column: metrics[number.column] for number in shown}

    @property
    def counts(self) -> Counts:
        """How many of the figure's rows there are."""
        own = [m for m in self.planned if m.number.row != BASELINE]
        printed = {(m.number.panel, m.number.row) for m in self.matches if m.number.row != BASELINE}
        planned = {(m.number.panel, m.number.row) for m in own}
        shown = {(m.number.panel, m.row) for m in own}
        unfinished = {(m.number.panel, m.row) for m in own if not m.complete}
        return Counts(len(shown - unfinished), len(shown), len(planned), len(printed))

    def frame(self) -> pd.DataFrame:
        """One line per number of the paper, as fractions of 1.

        Columns: figure, panel, row, column, metric, ours, low, high (95 % interval), n, seeds, compared (of how many
        settings ours is the best), paper, paper_low, paper_high (where the figure is known as a range), difference
        (ours less the paper's; 0 within a range), state, keys (cells, separated by blanks). Missing numbers are NaN.
        """
        lines = []
        for m in self.matches:
            number = m.number
            low, high = m.interval or (None, None)
            least, most = number.reach or (None, None)
            lines.append(
                {
                    "figure": number.figure,
                    "panel": number.panel,
                    "row": m.row,
                    "column": number.column,
                    "metric": number.metric,
                    "ours": m.ours,
                    "low": low,
                    "high": high,
                    "n": m.n,
                    "seeds": m.seeds,
                    "compared": m.compared,
                    "paper": number.value,
                    "paper_low": least,
                    "paper_high": most,
                    "difference": None if m.difference is None else round(m.difference, 6),
                    "state": m.state,
                    "keys": " ".join(m.keys),
                }
            )
        frame = pd.DataFrame(lines)
        numbers = ["ours", "low", "high", "paper", "paper_low", "paper_high", "difference"]
        return frame.astype(dict.fromkeys(numbers, float) | {"n": "Int64"})

    def sheets(self) -> tuple[Sheet, ...]:
        """Ours, the paper's and the difference as three lines a row; one sheet for each panel and metric of a grid.

        At another scale than the paper's a last sheet has the orders.
        """
        tables: dict[tuple[str, str], list[Match]] = {}
        for m in self.planned:
            grid = self.figure in paper.GRIDS
            tables.setdefault((m.number.panel, m.number.metric if grid else ""), []).append(m)
        made = [self._sheet(" ".join(filter(None, at)), table) for at, table in tables.items()]
        if not self.same and (orders := self.orders()):
            made.append(_ordered(self.title, orders))
        return tuple(made)

    def orders(self) -> tuple[Order, ...]:
        """One for each column, over the rows without the baseline; for each panel and metric where rows are ranks."""
        found: dict[tuple[str, str, str, str], list[tuple[str, Match]]] = {}
        for m in self.planned:
            number = m.number
            if m.ours is None:
                continue
            # The baseline has a metric of its own, so it stands alone and has no order.
            grid = self.figure in paper.GRIDS
            label = f"{number.row} / {number.column}" if grid else m.row
            column = "" if grid else number.column
            found.setdefault((number.panel, column, number.metric, m.further), []).append((label, m))
        return tuple(
            order(panel, column + further, metric, rows)
            for (panel, column, metric, further), rows in found.items()
            if len(rows) > 1
        )

    def remarks(self) -> tuple[str, ...]:
        """What has to be known to read figure and table rightly, in sentences."""
        finished, shown, planned, printed = self.counts
        said = []
        if planned < printed:
            said.append(f"{planned} of the {printed} rows of {self.title} are in this plan.")
        titles = dict.fromkeys(m.number.block.title for m in self.matches)
        if absent := [title for title in titles if title not in {m.number.block.title for m in self.planned}]:
            said.append(f"Not in this plan: {', '.join(absent)}.")
        if finished < shown:
            said.append(f"{finished} of {shown} rows have all their cells done; the others may change.")
        if not self.same:
            said.append(
                f"Ours is at scale {self.scale}, the paper's is of 100,000 people and models of 124M parameters or "
                "more: not the same experiment, so compare the order of the rows, not the values."
            )
        return tuple(said)

    def agreement(self) -> tuple[str, ...]:
        """Where values cannot be compared: how far the order of the rows is the paper's, in sentences."""
        return () if self.same else tuple(spoken(self.orders()))

    def _sheet(self, name: str, table: Sequence[Match]) -> Sheet:
        rows: dict[str, dict[str, Match]] = {}
        for m in table:
            rows.setdefault(m.row, {})[m.number.column] = m
        printed = {m.number.column for m in table}
        columns = [column for column in self.columns if column in printed]
        lines: list[tuple[str, ...]] = []
        for row, matches in rows.items():
            cells = [matches.get(column) for column in columns]
            state = _states(matches.values())
            which = "ours" if self.same else f"ours, {self.scale}"
            if any(m.ours is not None for m in matches.values()):
                ours = [ranged(m.ours, m.interval) if m and _mean(m) else percent(m.ours if m else None) for m in cells]
                counts = [m.n for m in matches.values() if m.n is not None]
                seeds = [m.seeds for m in matches.values() if m.seeds]
                lines.append((row, which, *ours, span(counts), span(seeds), "" if row == BASELINE else state))
            else:
                lines.append((row, which, state))
            lines.append(("", "paper", *(_printed(m) if m else percent(None) for m in cells), "", "", ""))
            lines.append(("", "difference", *(points(m.difference if m else None) for m in cells), "", "", ""))
        title = f"{self.title}{f', {name}' if name else ''} (%)"
        quiet = tuple(range(2, len(lines), 3))
        return Sheet(title, ("row", "", *columns, "n", "seeds", "state"), tuple(lines), self.source, quiet)


def compare(
    results: Results, figures: Iterable[str], *, scale: str, parts: Mapping[str, Collection[str]] | None = None
) -> tuple[Comparison, ...]:
    """The paper's figures (`fig12` stands for its parts) of which `results` have at least one row, in their order.

    `parts` are keys of cells by figure, where a sweep is the whole of others: a figure is compared to its own cells
    then. Those of another figure may have read as much of the same row as that figure needs, and not as much as this.
    """
    folds = replicates(results)
    made: dict[str, Comparison] = {}
    for figure in figures:
        own = parts.get(figure) if parts else None
        having = folds if own is None else [fold for fold in folds if set(own) & set(fold.keys)]
        for name in paper.parts(figure):
            numbers = paper.numbers(name)
            places = placed(having, numbers)
            if name not in made and any(places.values()):
                keys = frozenset(key for found in places.values() for fold in found for key in fold.keys)
                made[name] = Comparison(name, paper.source(name), scale, match(having, numbers), keys)
    return tuple(made.values())


def _ordered(title: str, orders: Sequence[Order]) -> Sheet:
    lines = tuple(
        (", ".join(filter(None, (o.panel, o.column or o.metric))), signed(o.tau), str(o.n), "; ".join(o.turned))
        for o in orders
    )
    headers = ("column", "Kendall's tau", "rows", "reversed beyond the intervals")
    return Sheet(f"{title}: the order of the rows, here and in the paper", headers, lines)


def _printed(m: Match) -> str:
    """The paper's number, or the range in which it is known."""
    low, high = m.number.reach or (None, None)
    return percent(m.number.value) if low is None else f"{percent(low)} to {percent(high)}"


def _mean(m: Match) -> bool:
    return m.number.metric.endswith("/mean")


def _states(matches: Iterable[Match]) -> str:
    """One state, or those of each kind of readout."""
    by_title: dict[str, dict[str, None]] = {}
    for m in matches:
        by_title.setdefault(m.number.block.title, {})[m.state] = None
    told = {title: ", ".join(states) for title, states in by_title.items()}
    alike = set(told.values())
    return alike.pop() if len(alike) == 1 else "; ".join(f"{title}: {state}" for title, state in told.items())
