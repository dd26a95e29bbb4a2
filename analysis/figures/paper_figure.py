"""The paper's figures, with our numbers beside or above theirs: heat maps of settings, and grids of ranks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from analysis.figures import heat_map
from analysis.figures.drawing import Plot
from analysis.figures.heat_map import CELL, MEAN, NARROW, Entry, Group, Line, Panel
from analysis.measurements.names import ACCURACY, QUESTIONS
from analysis.measurements.table_rows import RULES_SUFFIX
from analysis.paper import tables
from analysis.paper.comparison import Comparison
from analysis.paper.matching import MatchedValue
from analysis.paper.paper_value import BASELINE, heading
from analysis.presentation.number_format import percent, ranged, span

GRID = 0.82
"""Width of a cell of a grid, in inches."""
BESIDE = 11.0
"""Largest total width, in inches, of two maps beside each other."""
SHORT = {"university": "univ."}
EXACT = "exact match on people never asked about (%)"
GRIDDED = f"{EXACT}, in brackets first token on people asked about"


def draw_comparison(comparison: Comparison) -> Plot | None:
    """Draws ours and the paper's numbers in the paper's order; returns `None` for sets, which `pair_sets` draws.

    Omits rows for which the sweep has no cell. Missing numbers are hatched, with the reason; cells blank in the paper
    stay blank. Means carry their interval; n and the widest interval of the others stand above.
    """
    matches = comparison.planned
    if any(m.paper.metric.startswith("p_probe/seen/") for m in matches):
        return None
    rows, cell = [], CELL
    for _, of_panel in groupby(matches, key=lambda m: m.paper.panel):
        ours, theirs = _pair(comparison, tuple(of_panel))
        cell = GRID if comparison.figure in tables.GRIDS else NARROW if len(ours.groups) > 5 else CELL
        # Panels beside each other share row labels, which "[rules, no LLM]" would make wrong for the paper.
        alike = len(ours.lines) == len(theirs.lines) and not any(RULES_SUFFIX in line.label for line in ours.lines)
        beside = alike and cell * (ours.width + theirs.width) <= BESIDE
        rows += [[ours, theirs]] if beside else [[ours], [theirs]]
    described = f"{comparison.title} of arXiv 2309.14316v3 and the same measured here"
    return heat_map.draw_heat_maps(rows, described, cell=cell, size=7.5 if cell == NARROW else 8)


def _pair(comparison: Comparison, matches: Sequence[MatchedValue]) -> tuple[Panel, Panel]:
    """The panel of our numbers and the panel of the paper's."""
    draw_panel = _grid if comparison.figure in tables.GRIDS else _map
    panel = f", {matches[0].paper.panel}" if matches[0].paper.panel else ""
    scale = "ours" if comparison.same else f"ours at scale {comparison.scale}"
    note = comparison.source.partition(": ")[2]
    # The paper has one row where ours may have several with suffixes.
    printed = {(m.paper.row, m.paper.column, m.paper.metric): replace(m, suffix="") for m in matches}
    title, columns = f"{comparison.title}{panel}", comparison.columns
    return (
        draw_panel(f"{title}: {scale}", _note(comparison, matches), matches, columns, ours=True),
        draw_panel(f"{title}: the paper", note, tuple(printed.values()), columns, ours=False),
    )


def _map(title: str, note: str, matches: Sequence[MatchedValue], metrics: Mapping[str, str], *, ours: bool) -> Panel:
    """Settings x columns under the headings of their readouts."""
    rows: dict[str, dict[str, MatchedValue]] = {}
    for m in matches:
        rows.setdefault(m.row, {})[m.paper.column] = m
    shown = {name: tuple(columns) for name, columns in groupby(metrics, key=lambda column: heading(metrics[column]))}
    groups = []
    for name, columns in shown.items():
        widths = tuple(MEAN if metrics[column].endswith("/mean") else 1.0 for column in columns)
        varied = ", by the share of questions" if columns[0].replace(".", "").isdigit() else ""
        groups.append(Group(name + varied, tuple(_label(column, metrics[column], ours) for column in columns), widths))
    lines = []
    for row, matched in rows.items():
        entries = tuple(tuple(_entry(matched.get(column), ours) for column in columns) for columns in shown.values())
        if row == BASELINE:
            lines.append(Line("majority baseline", entries, quiet=True))
        elif ours:
            states = _states([matched[column] for column in columns if column in matched] for columns in shown.values())
            lines.append(Line(_marked(row, matched), entries, tuple(states)))
        else:
            lines.append(Line(row, entries))
    return Panel(title, note, tuple(groups), tuple(lines))


def _grid(title: str, note: str, matches: Sequence[MatchedValue], metrics: Mapping[str, str], *, ours: bool) -> Panel:
    """Ranks x ranks: held-out accuracy by colour, training accuracy in brackets."""
    cells: dict[str, dict[str, dict[str, MatchedValue]]] = {}
    for m in matches:
        cells.setdefault(m.row, {}).setdefault(m.paper.column, {})[m.paper.metric.split("/")[2]] = m
    lines = []
    for row, columns in cells.items():
        lines.append(Line(row, (tuple(_train_and_test(columns.get(name), ours) for name in metrics),)))
    group = Group("embedding rank", tuple(metrics), (1.0,) * len(metrics))
    return Panel(title, note, (group,), tuple(lines), corner="q/v rank")


def _entry(m: MatchedValue | None, ours: bool) -> Entry | None:
    if m is None:
        return None
    mean = m.paper.metric.endswith("/mean")
    return Entry(m.ours if ours else m.paper.value, ranged(m.ours, m.interval) if mean and ours else None, mean)


def _train_and_test(halves: dict[str, MatchedValue] | None, ours: bool) -> Entry | None:
    """`(26.2) 7.8`: first tokens in training, exact match held out."""
    if halves is None:
        return None
    test, train = ((m.ours if ours else m.paper.value) for m in (halves["test"], halves["train"]))
    return Entry(test, None if train is None else f"({percent(train)}) {percent(test)}")


def _states(groups: Iterable[Sequence[MatchedValue]]) -> Iterator[str]:
    """Yields for each group of columns why it has no numbers; only the first group of a readout states it.

    Yields an empty text where every column is a cell of its own and so has its own reason.
    """
    previous = None
    for matches in groups:
        blocks = {m.paper.columns for m in matches}
        missing = bool(matches) and all(m.ours is None for m in matches) and len(blocks) == 1
        state = (blocks, matches[0].state) if missing else None
        yield matches[0].state if missing and state != previous else ""
        previous = state


def _marked(row: str, matches: dict[str, MatchedValue]) -> str:
    """The row's label, starred if a shown number may still change."""
    return f"{row} *" if any(m.ours is not None and not m.complete for m in matches.values()) else row


def _note(comparison: Comparison, matches: Sequence[MatchedValue]) -> str:
    """States the measure, n, the widest interval, and what is missing."""
    groups = {m.paper.metric.split("/")[0] for m in matches if m.paper.row != BASELINE}
    exact, grid = groups <= set(QUESTIONS), comparison.figure in tables.GRIDS
    remarks = [GRIDDED if grid else EXACT if exact else ACCURACY]
    rows = {m.row for m in matches if m.paper.row != BASELINE}
    if unfinished := {m.row for m in matches if not m.complete}:
        remarks.append(f"{len(rows - unfinished)} of {len(rows)} rows complete")
    if "p_probe" in groups:
        remarks.append("columns are positions, 0 right before the first attribute of an entry")
    shown = [m for m in matches if m.ours is not None and m.paper.row != BASELINE]
    if counts := [m.n for m in shown if m.n is not None]:
        remarks.append(f"n = {span(counts)}")
    if seeds := [m.seeds for m in shown if m.seeds > 1]:
        remarks.append(f"{span(seeds)} seeds")
    bare = [m for m in shown if grid or not m.paper.metric.endswith("/mean")]
    if halves := [(m.interval[1] - m.interval[0]) / 2 for m in bare if m.interval]:
        remarks.append(
            f"95 % interval {'of the others ' if len(bare) < len(shown) else ''}up to ±{percent(max(halves))} points"
        )
    if compared := [m.compared for m in shown if m.compared > 1]:
        remarks.append(f"best of {span(compared)}")
    if any(not m.complete for m in shown):
        remarks.append("* may change: a cell is not done")
    # If every column is a cell of its own, no text over a row can give one reason for missing numbers.
    alone = {(m.row, m.paper.columns) for m in matches}
    missing = Counter({(m.row, m.paper.columns): m.state for m in matches if m.ours is None}.values())
    if missing and len(alone) > len({(m.row, m.paper.columns.title) for m in matches}):
        remarks.append("hatched: " + ", ".join(f"{count} {state}" for state, count in missing.items()))
    return "; ".join(remarks)


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
