"""The table of the live view, in the width of the terminal: a label is cut where it has no room, a number never."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

COLUMNS = ("cell", "stage", "", "step", "loss", "tok/s", "ETA")
"""Headers; the third column is a bar."""
BAR = 18
LABEL = 20
"""Narrowest that the label of a cell is cut to before a column is left out."""
LEFT_OUT = ("", "tok/s", "stage", "loss", "ETA")
"""Columns in the order in which a narrow terminal leaves them out."""
GAP = 2


def progress_table(rows: Sequence[Sequence[RenderableType]], width: int) -> Table:
    """Returns the table of trials, whose `rows` have a cell for each of `COLUMNS`, for a terminal of some width."""
    widths = {name: max([cell_len(name), *(_length(row[k]) for row in rows)]) for k, name in enumerate(COLUMNS)}
    widths[""] = BAR
    shown = list(COLUMNS)
    for name in LEFT_OUT:
        if min(LABEL, widths["cell"]) + _others(shown, widths) <= width:
            break
        shown.remove(name)
    widths["cell"] = max(1, min(widths["cell"], width - _others(shown, widths)))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for name in shown:
        justify = "left" if name in ("cell", "stage", "") else "right"
        table.add_column(name, width=widths[name], justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(row[COLUMNS.index(name)] for name in shown))
    return table


def _others(shown: Sequence[str], widths: dict[str, int]) -> int:
    """Columns of text of all but the label, with the gaps before them."""
    return sum(widths[name] + GAP for name in shown[1:])


def _length(cell: RenderableType) -> int:
    """Columns of text of a cell; a bar has no text."""
    return cell_len(str(cell)) if isinstance(cell, str | Text) else 0
