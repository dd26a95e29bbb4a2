"""The paper's figures, ours beside or above the paper's: heat maps of settings, and grids of ranks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from analysis import heat_map, paper
from analysis.comparison import Comparison
from analysis.drawing import Plot
from analysis.heat_map import CELL, MEAN, NARROW, Entry, Group, Line, Panel
from analysis.matching import Match
from analysis.names import ACCURACY, QUESTIONS
from analysis.number import BASELINE, heading
from analysis.percent import percent, ranged, span
from analysis.rows import RULED

GRID = 0.82
"""Width of a cell of a grid, in inches."""
BESIDE = 11.0
"""Inches that two maps beside each other may take."""
SHORT = {"university": "univ."}
EXACT = "exact match on people never asked about (%)"
GRIDDED = f"{EXACT}, in brackets first token on people asked about"


def draw(comparison: Comparison) -> Plot | None:
    """Ours and the paper's numbers, in the paper's order of rows and columns; `None` for sets, which are no heat map.

    Rows of which the sweep has no cell are left out. Missing numbers are hatched, with the reason; what the paper
    leaves blank is blank. A mean has its interval, and n and the widest interval of the others stand above.
    """
    matches = comparison.planned
    if any(m.number.metric.startswith("p_probe/seen/") for m in matches):
        return None
    rows, cell = [], CELL
    for _, found in groupby(matches, key=lambda m: m.number.panel):
        ours, theirs = _pair(comparison, tuple(found))
        cell = GRID if comparison.figure in paper.GRIDS else NARROW if len(ours.groups) > 5 else CELL
        # Panels beside each other share their labels, and the paper's text is by a language model.
        alike = len(ours.lines) == len(theirs.lines) and not any(RULED in line.label for line in ours.lines)
        beside = alike and cell * (ours.width + theirs.width) <= BESIDE
        rows += [[ours, theirs]] if beside else [[ours], [theirs]]
    described = f"{comparison.title} of arXiv 2309.14316v3 and the same measured here"
    return heat_map.draw(rows, described, cell=cell, size=7.5 if cell == NARROW else 8)


def _pair(comparison: Comparison, matches: Sequence[Match]) -> tuple[Panel, Panel]:
    """One map of ours and the same of the paper's numbers."""
    made = _grid if comparison.figure in paper.GRIDS else _map
    panel = f", {matches[0].number.panel}" if matches[0].number.panel else ""
    scale = "ours" if comparison.same else f"ours at scale {comparison.scale}"
    told = comparison.source.partition(": ")[2]
    # Of further rows of ours the paper has one.
    printed = {(m.number.row, m.number.column, m.number.metric): replace(m, further="") for m in matches}
    return (
        made(f"{comparison.title}{panel}: {scale}", _note(comparison, matches), matches, comparison.columns, ours=True),
        made(f"{comparison.title}{panel}: the paper", told, tuple(printed.values()), comparison.columns, ours=False),
    )


def _map(title: str, note: str, matches: Sequence[Match], metrics: Mapping[str, str], *, ours: bool) -> Panel:
    """Settings x columns under the headings of their readouts."""
    rows: dict[str, dict[str, Match]] = {}
    for m in matches:
        rows.setdefault(m.row, {})[m.number.column] = m
    shown = {name: tuple(found) for name, found in groupby(metrics, key=lambda column: heading(metrics[column]))}
    groups = []
    for name, columns in shown.items():
        widths = tuple(MEAN if metrics[column].endswith("/mean") else 1.0 for column in columns)
        varied = ", by the share of questions" if columns[0].replace(".", "").isdigit() else ""
        groups.append(Group(name + varied, tuple(_label(column, metrics[column], ours) for column in columns), widths))
    lines = []
    for row, found in rows.items():
        entries = tuple(tuple(_entry(found.get(column), ours) for column in columns) for columns in shown.values())
        if row == BASELINE:
            lines.append(Line("majority baseline", entries, quiet=True))
        elif ours:
            states = _states([found[column] for column in columns if column in found] for columns in shown.values())
            lines.append(Line(_marked(row, found), entries, tuple(states)))
        else:
            lines.append(Line(row, entries))
    return Panel(title, note, tuple(groups), tuple(lines))


def _grid(title: str, note: str, matches: Sequence[Match], metrics: Mapping[str, str], *, ours: bool) -> Panel:
    """Ranks x ranks: the test accuracy by colour, and in brackets the accuracy in training."""
    cells: dict[str, dict[str, dict[str, Match]]] = {}
    for m in matches:
        cells.setdefault(m.row, {}).setdefault(m.number.column, {})[m.number.metric.split("/")[2]] = m
    lines = [Line(row, (tuple(_both(found.get(name), ours) for name in metrics),)) for row, found in cells.items()]
    group = Group("embedding rank", tuple(metrics), (1.0,) * len(metrics))
    return Panel(title, note, (group,), tuple(lines), corner="q/v rank")


def _entry(m: Match | None, ours: bool) -> Entry | None:
    if m is None:
        return None
    mean = m.number.metric.endswith("/mean")
    return Entry(m.ours if ours else m.number.value, ranged(m.ours, m.interval) if mean and ours else None, mean)


def _both(found: dict[str, Match] | None, ours: bool) -> Entry | None:
    """`(26.2) 7.8`, the first being the accuracy in training."""
    if found is None:
        return None
    test, train = ((m.ours if ours else m.number.value) for m in (found["test"], found["train"]))
    return Entry(test, None if train is None else f"({percent(train)}) {percent(test)}")


def _states(groups: Iterable[Sequence[Match]]) -> Iterator[str]:
    """For each group of columns, why it has no numbers; of several that are one readout, only the first says it.

    Where each column is a cell of its own there is no one reason.
    """
    said = None
    for matches in groups:
        blocks = {m.number.block for m in matches}
        missing = bool(matches) and all(m.ours is None for m in matches) and len(blocks) == 1
        state = (blocks, matches[0].state) if missing else None
        yield matches[0].state if missing and state != said else ""
        said = state


def _marked(row: str, matches: dict[str, Match]) -> str:
    """The row's label, with a mark where a number that is shown may still change."""
    return f"{row} *" if any(m.ours is not None and not m.complete for m in matches.values()) else row


def _note(comparison: Comparison, matches: Sequence[Match]) -> str:
    """What the numbers are, of how many people, how sure, and what is missing."""
    groups = {m.number.metric.split("/")[0] for m in matches if m.number.row != BASELINE}
    exact, grid = groups <= set(QUESTIONS), comparison.figure in paper.GRIDS
    told = [GRIDDED if grid else EXACT if exact else ACCURACY]
    rows = {m.row for m in matches if m.number.row != BASELINE}
    if unfinished := {m.row for m in matches if not m.complete}:
        told.append(f"{len(rows - unfinished)} of {len(rows)} rows complete")
    if "p_probe" in groups:
        told.append("columns are positions, 0 right before the first attribute of an entry")
    shown = [m for m in matches if m.ours is not None and m.number.row != BASELINE]
    if counts := [m.n for m in shown if m.n is not None]:
        told.append(f"n = {span(counts)}")
    if seeds := [m.seeds for m in shown if m.seeds > 1]:
        told.append(f"{span(seeds)} seeds")
    bare = [m for m in shown if grid or not m.number.metric.endswith("/mean")]
    if halves := [(m.interval[1] - m.interval[0]) / 2 for m in bare if m.interval]:
        told.append(
            f"95 % interval {'of the others ' if len(bare) < len(shown) else ''}up to ±{percent(max(halves))} points"
        )
    if compared := [m.compared for m in shown if m.compared > 1]:
        told.append(f"best of {span(compared)}")
    if any(not m.complete for m in shown):
        told.append("* may change: a cell is not done")
    # Where every column is a cell of its own, no text over a row can say why numbers are missing.
    alone = {(m.row, m.number.block) for m in matches}
    missing = Counter({(m.row, m.number.block): m.state for m in matches if m.ours is None}.values())
    if missing and len(alone) > len({(m.row, m.number.block.title) for m in matches}):
        told.append("hatched: " + ", ".join(f"{count} {state}" for state, count in missing.items()))
    return "; ".join(told)


def _label(column: str, metric: str, ours: bool) -> str:
    """A column's label: the position of a P-probe, the words of an attribute, or the paper's own."""
    group, *parts = metric.split("/")
    if group == "p_probe":
        return parts[1]
    if column.replace(".", "").isdigit():
        return column
    if parts[-1] == "mean":
        return "mean [95 %]" if ours else "mean"
    month = {"birth_date": "birth_month"} if parts[0] == "first" else {}
    return SHORT.get(parts[-1], month.get(parts[-1], parts[-1]).replace("_", "\n"))
