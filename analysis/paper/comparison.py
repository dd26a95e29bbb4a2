"""Comparison: a figure of the paper with our numbers beside it, and how far its rows keep their order."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from analysis.measurements.best_settings import shown_groups
from analysis.measurements.cells import Results
from analysis.measurements.departures import UNRECORDED, departures_of, departures_remark
from analysis.paper import tables as paper_tables
from analysis.paper.matching import ABSENT, MatchedValue, candidates_by_place, match
from analysis.paper.paper_value import BASELINE
from analysis.paper.rank_order import RankAgreement, describe_orders, rank_agreement, signed
from analysis.presentation.number_format import percent, points, ranged, span
from analysis.presentation.section import Sheet

LEAST_ORDERED = 4
"""Fewest rows whose order says something: two rows have the paper's by chance half of the time."""


class Counts(NamedTuple):
    """Numbers of rows of a figure, without the baseline."""

    finished: int
    """Our rows, further rows included, whose cells are all done."""
    shown: int
    """Our rows, further rows included."""
    planned: int
    """The paper's rows for which the sweep has a cell."""
    printed: int
    """The paper's rows."""


@dataclass(frozen=True)
class Comparison:
    """One figure of the paper, or one part of it, with our numbers."""

    figure: str
    """Such as `fig12a`."""
    source: str
    scale: str
    matches: tuple[MatchedValue, ...]
    keys: frozenset[str]
    """All cells that belong to the figure, including those that are not the best."""
    departures: tuple[str, ...] = (UNRECORDED,)
    """Where these cells differ from the paper's experiment (`departures_of`)."""

    @property
    def title(self) -> str:
        """`Figure 12a`."""
        return f"Figure {self.figure.removeprefix('fig')}"

    @property
    def same(self) -> bool:
        """Whether ours is the paper's experiment, so that values can be compared."""
        return not self.departures

    @property
    def planned(self) -> tuple[MatchedValue, ...]:
        """The matches in rows and readouts for which the sweep has at least one cell."""
        cells = [m for m in self.matches if m.state != ABSENT and m.paper.row != BASELINE]
        rows = {(m.paper.panel, m.row) for m in cells} | {(m.paper.panel, BASELINE) for m in cells}
        groups = {m.paper.columns.group for m in cells}
        return tuple(m for m in self.matches if (m.paper.panel, m.row) in rows and m.paper.columns.group in groups)

    @property
    def columns(self) -> dict[str, str]:
        """Metric by column, in the paper's order, for the readouts that the sweep has.

        Rows of a fixed order lack some columns, so the baseline, which has all, decides the order.
        """
        groups = {m.paper.columns.group for m in self.planned}
        shown = [m.paper for m in self.matches if m.paper.columns.group in groups]
        metrics = {number.column: number.metric for number in shown if number.row != BASELINE}
        if self.figure in paper_tables.GRIDS:
            # The first row of a grid has a single cell, at its right end.
            return dict(sorted(metrics.items(), key=lambda pair: (not pair[0].isdigit(), pair[0].zfill(9))))
        return {number.column: metrics[number.column] for number in shown}

    @property
    def counts(self) -> Counts:
        """How many rows of the figure are finished, shown, planned and printed."""
        own = [m for m in self.planned if m.paper.row != BASELINE]
        printed = {(m.paper.panel, m.paper.row) for m in self.matches if m.paper.row != BASELINE}
        planned = {(m.paper.panel, m.paper.row) for m in own}
        shown = {(m.paper.panel, m.row) for m in own}
        unfinished = {(m.paper.panel, m.row) for m in own if not m.complete}
        return Counts(len(shown - unfinished), len(shown), len(planned), len(printed))

    def frame(self) -> pd.DataFrame:
        """Returns one line per number of the paper, as fractions of 1.

        Columns: figure, panel, row, column, metric, ours, low, high (95 % interval), n, seeds, compared (of how many
        settings ours is the best), paper, paper_low, paper_high (where the figure is known as a range), difference
        (ours less the paper's; 0 within a range), state, keys (cells, separated by blanks). Missing numbers are NaN.
        """
        lines = []
        for m in self.matches:
            number = m.paper
            low, high = m.interval or (None, None)
            least, most = number.reported_range or (None, None)
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
        """Three lines a row (ours, the paper's, the difference); one sheet per panel, and per metric of a grid.

        If the experiment is not the paper's, a last sheet compares the orders.
        """
        tables: dict[tuple[str, str], list[MatchedValue]] = {}
        for m in self.planned:
            grid = self.figure in paper_tables.GRIDS
            tables.setdefault((m.paper.panel, m.paper.metric if grid else ""), []).append(m)
        sheets = [self._sheet(" ".join(filter(None, name)), table) for name, table in tables.items()]
        if not self.same and (orders := self.orders()):
            sheets.append(_order_sheet(self.title, orders))
        return tuple(sheets)

    def orders(self) -> tuple[RankAgreement, ...]:
        """Rank agreement per column of at least `LEAST_ORDERED` rows, the baseline left out; per panel and metric in
        grids of ranks."""
        by_column: dict[tuple[str, str, str, str], list[tuple[str, MatchedValue]]] = {}
        for m in self.planned:
            number = m.paper
            if m.ours is None:
                continue
            # The baseline has its own metric, hence a column of one row, which has no order.
            grid = self.figure in paper_tables.GRIDS
            label = f"{number.row} / {number.column}" if grid else m.row
            column = "" if grid else number.column
            by_column.setdefault((number.panel, column, number.metric, m.suffix), []).append((label, m))
        return tuple(
            rank_agreement(panel, column + suffix, metric, rows)
            for (panel, column, metric, suffix), rows in by_column.items()
            if len(rows) >= LEAST_ORDERED
        )

    def remarks(self) -> tuple[str, ...]:
        """Sentences that figure and table need to be read correctly."""
        finished, shown, planned, printed = self.counts
        remarks = []
        if planned < printed:
            remarks.append(f"{planned} of the {printed} rows of {self.title} are in this plan.")
        titles = dict.fromkeys(m.paper.columns.title for m in self.matches)
        if absent := [title for title in titles if title not in {m.paper.columns.title for m in self.planned}]:
            remarks.append(f"Not in this plan: {', '.join(absent)}.")
        if finished < shown:
            remarks.append(f"{finished} of {shown} rows have all their cells done; the others may change.")
        if not self.same:
            remarks.append(departures_remark(self.departures, self.scale))
        return tuple(remarks)

    def agreement(self) -> tuple[str, ...]:
        """Sentences on how far the rows keep the paper's order; empty if values can be compared."""
        return () if self.same else tuple(describe_orders(self.orders()))

    def _sheet(self, name: str, table: Sequence[MatchedValue]) -> Sheet:
        rows: dict[str, dict[str, MatchedValue]] = {}
        for m in table:
            rows.setdefault(m.row, {})[m.paper.column] = m
        printed = {m.paper.column for m in table}
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
    """Compares each of the paper's figures (`fig12` stands for its parts) of which `results` have at least one row.

    `parts` gives keys of cells by figure in a sweep that joins other sweeps. Each figure is then compared to its own
    cells only: another figure's cells of the same row may have another number of people or steps.
    """
    replicate_groups = shown_groups(results)
    comparisons: dict[str, Comparison] = {}
    for figure in figures:
        members = replicate_groups
        if parts and figure in parts:
            own = set(parts[figure])
            members = tuple(replicates for replicates in replicate_groups if own & set(replicates.keys))
        for name in paper_tables.parts(figure):
            numbers = paper_tables.numbers(name)
            candidates = [r for place in candidates_by_place(members, numbers).values() for r in place]
            if name not in comparisons and candidates:
                keys = frozenset(key for replicates in candidates for key in replicates.keys)
                matches = match(members, numbers)
                departures = departures_of(cell for cell in results.cells if cell.key in keys)
                comparisons[name] = Comparison(name, paper_tables.source(name), scale, matches, keys, departures)
    return tuple(comparisons.values())


def _order_sheet(title: str, orders: Sequence[RankAgreement]) -> Sheet:
    lines = tuple(
        (", ".join(filter(None, (o.panel, o.column or o.metric))), signed(o.tau), str(o.n), "; ".join(o.reversed_pairs))
        for o in orders
    )
    headers = ("column", "Kendall's tau", "rows", "reversed beyond the intervals")
    return Sheet(f"{title}: the order of the rows, here and in the paper", headers, lines)


def _printed(m: MatchedValue) -> str:
    """The paper's number, or its reported range."""
    low, high = m.paper.reported_range or (None, None)
    return percent(m.paper.value) if low is None else f"{percent(low)} to {percent(high)}"


def _mean(m: MatchedValue) -> bool:
    return m.paper.metric.endswith("/mean")


def _states(matches: Iterable[MatchedValue]) -> str:
    """One state if all readouts share it, else one per readout."""
    by_title: dict[str, dict[str, None]] = {}
    for m in matches:
        by_title.setdefault(m.paper.columns.title, {})[m.state] = None
    joined = {title: ", ".join(states) for title, states in by_title.items()}
    if len(set(joined.values())) == 1:
        return next(iter(joined.values()))
    return "; ".join(f"{title}: {state}" for title, state in joined.items())
