"""Tables for a console that fit its width: where not all columns have room, only the essential ones are shown."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
        """Yields the table with all columns, or with the essential ones where the console is too narrow for all, also
        with headers over several lines. Where those have no room either, keys are folded, and never a number."""
        everything = range(len(self.columns))
        essential = [k for k in everything if self.columns[k].essential]
        narrow = replace(self, columns=tuple(map(self._narrowed, everything)))
        ways = ((self, everything), (narrow, everything), (self, essential), (narrow, essential))
        fitting = (way for way in ways if way[0].needed_width(way[1]) <= options.max_width)
        table, chosen = next(fitting, (None, essential))
        yield (table or narrow)._table(chosen, fold_keys=table is None)
        if len(chosen) < len(self.columns):
            yield Text(HIDDEN, "table.caption")

    def needed_width(self, chosen: Iterable[int]) -> int:
        """Returns the columns of text that the `chosen` columns (indexes) need."""
        widths = []
        for k in chosen:
            longest = max(self._longest_cell(k), max(map(cell_len, self.columns[k].header.split("\n"))))
            widths.append(min(longest, WRAPPED) if self.columns[k].kind == "words" else longest)
        return sum(widths) + GAP * (len(widths) - 1)

    def _longest_cell(self, k: int) -> int:
        return max((cell_len(line) for row in self.rows for line in str(row[k]).split("\n")), default=0)

    def _narrowed(self, k: int) -> Column:
        """A column whose header is wrapped between words to the width of its numbers."""
        column = self.columns[k]
        if column.kind != "number":
            return column
        width = max(self._longest_cell(k), *map(cell_len, column.header.split() or [""]), 1)
        wrapped = (textwrap.fill(line, width, break_long_words=False) for line in column.header.split("\n"))
        return replace(column, header="\n".join(wrapped))

    def _table(self, chosen: Sequence[int], *, fold_keys: bool) -> Table:
        table = Table(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD if self.framed else None,
            header_style="bold",
            pad_edge=False,
            collapse_padding=self.framed,
        )
        for k in chosen:
            kind = self.columns[k].kind
            justify: Literal["left", "right"] = "right" if kind == "number" else "left"
            whole = kind == "number" or (kind == "key" and not fold_keys)
            table.add_column(self.columns[k].header, justify=justify, no_wrap=whole, overflow="fold")
        for number, row in enumerate(self.rows):
            cells = (row[k] if isinstance(row[k], Text) else Text(str(row[k])) for k in chosen)
            table.add_row(*cells, style="dim" if number in self.quiet else None)
        return table
