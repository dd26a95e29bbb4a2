"""Sections: what the page shows of a figure, as plain text and SVG, so that it knows no kind of figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """A table as text. A line with an empty first cell goes on with the one before, and a line with fewer cells than
    there are headers ends in a reason that takes the place of all that are missing."""

    title: str
    headers: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""
    """What one must know to read it rightly."""
    quiet: tuple[int, ...] = ()
    """Lines that stand back: baselines, differences."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page; `files` lie beside it, such as the same figure in other formats and its numbers."""

    caption: str
    svg: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What belongs to one figure of the paper; all pictures of a page come before all sheets."""

    title: str
    pictures: tuple[Picture, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    note: str = ""
