"""The paper's figures, ours beside or above the paper's: heat maps of settings, and grids of ranks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from analysis import heat_map, paper
from analysis.comparison import Comparison
from analysis.drawing import Plot
from analysis.heat_map import CELL, MEAN, NARROW, Entry, Group, Line, Panel
from analysis.matching import Match
from analysis.names import ACCURACY, ATTRIBUTES, QUESTIONS
from analysis.number import BASELINE, heading
from analysis.percent import percent, ranged, span

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
        beside = cell * (ours.width + theirs.width) <= BESIDE
        rows += [[ours, theirs]] if beside else [[ours], [theirs]]
    described = f"{comparison.title} of arXiv 2309.14316v3 and the same measured here"
    return heat_map.draw(rows, described, cell=cell, size=7.5 if cell == NARROW else 8)


def _pair(comparison: Comparison, matches: Sequence[Match]) -> tuple[Panel, Panel]:
    """One map of ours and the same of the paper's numbers."""
    made = _grid if comparison.figure in paper.GRIDS else _map
    panel = f", {matches[0].number.panel}" if matches[0].number.panel else ""
    scale = "ours" if comparison.same else f"ours at scale {comparison.scale}"
    told = comparison.source.partition(": ")[2]
    return (
        made(f"{comparison.title}{panel}: {scale}", _note(comparison, matches), matches, comparison.columns, ours=True),
        made(f"{comparison.title}{panel}: the paper", told, matches, comparison.columns, ours=False),
    )


def _map(title: str, note: str, matches: Sequence[Match], metrics: Mapping[str, str], *, ours: bool) -> Panel:
    """Settings x columns under the headings of their readouts."""
    rows = _rows(matches)
    groups, lines = [], {row: Line(row, (), (), quiet=row == BASELINE) for row in rows}
    told: dict[str, str] = {}
    for name, found in groupby(metrics, key=lambda column: heading(metrics[column])):
        labels = list(found)
        means = [metrics[label].endswith("/mean") for label in labels]
        widths = tuple(MEAN if mean else 1 for mean in means)
        groups.append(Group(name, tuple(_label(label, metrics[label], ours) for label in labels), widths))
        for row, line in lines.items():
            cells = [rows[row].get(label) for label in labels]
            state = _state(cells) if ours and row != BASELINE and metrics[labels[0]] != metrics[labels[-1]] else ""
            # Of several groups that are one readout, only the first says why it has no numbers.
            kind = metrics[labels[0]].split("/")[0]
            shown = "" if told.get(row) == kind + state else state
            told[row] = kind + state
            entries = tuple(_entry(m, mean, ours) for m, mean in zip(cells, means, strict=True))
            lines[row] = Line(row, (*line.entries, entries), (*line.states, shown), line.quiet)
    labelled = [
        Line("majority baseline" if row == BASELINE else _marked(row, rows[row]), line.entries, line.states, line.quiet)
        for row, line in lines.items()
    ]
    return Panel(title, note, tuple(groups), tuple(labelled))


def _grid(title: str, note: str, matches: Sequence[Match], metrics: Mapping[str, str], *, ours: bool) -> Panel:
    """Ranks x ranks: the test accuracy by colour, and in brackets the accuracy in training."""
    cells: dict[str, dict[str, dict[str, Match]]] = {}
    for m in matches:
        cells.setdefault(m.row, {}).setdefault(m.number.column, {})[m.number.metric.split("/")[2]] = m
    lines = [Line(row, (tuple(_both(found.get(name), ours) for name in metrics),)) for row, found in cells.items()]
    group = Group("embedding rank", tuple(metrics), (1.0,) * len(metrics))
    return Panel(title, note, (group,), tuple(lines), corner="q/v rank")


def _rows(matches: Iterable[Match]) -> dict[str, dict[str, Match]]:
    rows: dict[str, dict[str, Match]] = {}
    for m in matches:
        rows.setdefault(m.row, {})[m.number.column] = m
    return rows


def _entry(m: Match | None, mean: bool, ours: bool) -> Entry | None:
    if m is None:
        return None
    text = ranged(m.ours, m.interval) if mean and ours else None
    return Entry(m.ours if ours else m.number.value, text, bold=mean)


def _both(found: dict[str, Match] | None, ours: bool) -> Entry | None:
    """`(26.2) 7.8`, the first being the accuracy in training."""
    if found is None:
        return None
    test, train = ((m.ours if ours else m.number.value) for m in (found["test"], found["train"]))
    return Entry(test, None if train is None else f"({percent(train)}) {percent(test)}")


def _state(cells: Iterable[Match | None]) -> str:
    """Why none of these has a number."""
    having = [m for m in cells if m is not None]
    return having[0].state if having and all(m.ours is None for m in having) else ""


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
    if parts[-1] not in (*ATTRIBUTES, "mean") or column.replace(".", "").isdigit():
        return column
    if parts[-1] == "mean":
        return "mean [95 %]" if ours else "mean"
    month = {"birth_date": "birth_month"} if parts[0] == "first" else {}
    return SHORT.get(parts[-1], month.get(parts[-1], parts[-1]).replace("_", "\n"))
