"""Sections of the page as plain text and SVG, so that the page needs to know no kind of figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """A table as text. A line with an empty first cell continues the one before. A line with fewer cells than headers
    ends in a reason, which spans the missing cells."""

    title: str
    headers: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""
    """Text that readers need to understand the table."""
    quiet: tuple[int, ...] = ()
    """Indexes of lines shown in a muted colour: baselines, differences."""
    words: bool = False
    """Whether its cells are words, which stand left and wrap."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page; `files` beside it hold other formats and its numbers."""

    caption: str
    svg: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Pictures and sheets of one figure of the paper; the page shows all pictures before all sheets."""

    title: str
    pictures: tuple[Picture, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    note: str = ""
