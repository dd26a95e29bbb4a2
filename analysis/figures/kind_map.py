"""The figure of any kind of readout: a heat map of its columns by setting."""

from analysis.figures.drawing import Plot
from analysis.figures.heat_map import MEAN, Entry, Group, Line, Panel, draw_heat_maps
from analysis.measurements.cells import Results
from analysis.measurements.other_kinds import OtherKind
from analysis.measurements.table_rows import Row, rows
from analysis.presentation.number_format import ranged


def draw_kind(results: Results, kind: OtherKind) -> Plot | None:
    """Draws settings x columns; cells without a final number are hatched, with the reason. `None` without cells."""
    table = rows(results, (kind.name,))
    if not table:
        return None
    labels = (f"{kind.columns[0]} [95 %]", *(column.replace("_", "\n") for column in kind.columns[1:]))
    group = Group(kind.title, labels, (MEAN, *[1.0] * (len(labels) - 1)))
    panel = Panel(kind.title, kind.label, (group,), tuple(_line(row, kind) for row in table))
    return draw_heat_maps([[panel]], f"Heat map: {kind.title}, {kind.label}, by setting")


def _line(row: Row, kind: OtherKind) -> Line:
    main, *others = kind.metrics
    value = row.measured(kind.name, main)
    entries = [Entry(value, ranged(value, row.bounds(kind.name, main)), bold=True)]
    entries += [Entry(row.measured(kind.name, metric)) for metric in others]
    replicates = row.replicates[kind.name]
    return Line(row.name, (tuple(entries),), ("" if replicates.done else replicates.state,))
