"""Tables for a console that fit its width: where not all columns have room, only the essential ones are shown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2
"""Blank columns between two columns of text."""
WRAPPED = 30
"""Widest that a column of words needs to be; longer text wraps between words."""
HIDDEN = "more columns with --wide, or in a wider terminal"


@dataclass(frozen=True)
class Column:
    """A column of a console table."""

    header: str
    kind: Literal["words", "key", "number"] = "number"
    """Words wrap and stand left; keys stand left and numbers right, and neither wraps."""
    essential: bool = False
    """Whether it is shown however narrow the console is."""


@dataclass(frozen=True)
class ConsoleTable:
    """A table whose columns are chosen when it is printed, by the width of the console."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Text, ...], ...]
    quiet: tuple[int, ...] = ()
    """Indexes of rows in a muted colour."""
    framed: bool = True
    """Whether a line stands below the headers."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table with all columns, or with the essential ones where the console is too narrow for all."""
        chosen = range(len(self.columns))
        fits = self.needed_width(chosen) <= options.max_width
        if not fits:
            chosen = [k for k in chosen if self.columns[k].essential]  # type: ignore[assignment]
        yield self._table(chosen, None if fits or len(chosen) == len(self.columns) else HIDDEN)

    def needed_width(self, chosen: Iterable[int]) -> int:
        """Returns the columns of text that the `chosen` columns (indexes) need."""
        widths = []
        for k in chosen:
            cells = [self.columns[k].header, *(str(row[k]) for row in self.rows)]
            longest = max(cell_len(line) for cell in cells for line in cell.split("\n"))
            widths.append(min(longest, WRAPPED) if self.columns[k].kind == "words" else longest)
        return sum(widths) + GAP * (len(widths) - 1)

    def _table(self, chosen: Sequence[int], caption: str | None) -> Table:
        table = Table(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            title_style="bold",
            caption=caption,
            caption_justify="left",
            box=box.SIMPLE_HEAD if self.framed else None,
            header_style="bold",
            pad_edge=False,
            collapse_padding=self.framed,
        )
        for k in chosen:
            kind = self.columns[k].kind
            justify: Literal["left", "right"] = "right" if kind == "number" else "left"
            table.add_column(self.columns[k].header, justify=justify, no_wrap=kind != "words", overflow="fold")
        for number, row in enumerate(self.rows):
            cells = (row[k] if isinstance(row[k], Text) else Text(str(row[k])) for k in chosen)
            table.add_row(*cells, style="dim" if number in self.quiet else None)
        return table
