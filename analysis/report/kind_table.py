"""Tables of any kind of readout: settings as rows, the kind's own columns, whatever they measure."""

from analysis.measurements.cells import Results
from analysis.measurements.names import RECALL
from analysis.measurements.other_kinds import OtherKind
from analysis.measurements.table_rows import rows
from analysis.presentation.number_format import percent, ranged
from analysis.presentation.section import Sheet


def sheets(results: Results) -> tuple[Sheet, ...]:
    """Returns one table for each kind besides the paper's that has a cell."""
    made = (_sheet(results, kind) for kind in results.other_kinds)
    return tuple(sheet for sheet in made if sheet.lines)


def _sheet(results: Results, kind: OtherKind) -> Sheet:
    main, *others = kind.metrics
    headers = ("setting", f"{kind.columns[0]} [95 %]", *kind.columns[1:], "n", "recall", "seeds", "state")
    lines = []
    for row in rows(results, (kind.name,)):
        replicates, count = row.replicates[kind.name], row.count(kind.name, main)
        lines.append(
            (
                row.name,
                ranged(row.measured(kind.name, main), row.bounds(kind.name, main)),
                *(percent(row.measured(kind.name, metric)) for metric in others),
                percent(None) if count is None else f"{count:,}",
                percent(replicates.metrics.get(RECALL)),
                str(len(replicates.seeds)) if replicates.done else percent(None),
                replicates.state,
            )
        )
    return Sheet(f"{kind.title}: {kind.label}", headers, tuple(lines))
