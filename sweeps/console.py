"""The terminal of a command: width, colours, numbers, and how `ktrain` is called in it."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLOURS = (
    "red", "green", "yellow", "blue", "magenta", "cyan", "bright_red", "bright_green", "bright_yellow", "bright_blue",
)  # fmt: skip
"""The colours of the attributes' values in printed text, in the order of the attributes; there are ten at most."""
TABLE_WIDTH = 160
"""Columns of text in which every column of a table has room."""
DEFAULT_STORE = "results"
STORE_VARIABLE = "KTRAIN_STORE"


class Screen(Console):
    """A console that lets `main` handle a reader who leaves early (`ktrain plan paper | head`), which is no failure."""

    def on_broken_pipe(self) -> None:
        """Re-raises the `BrokenPipeError`, where `Console` would exit with 1."""
        raise


def table_screen(wide: bool = False) -> Screen:
    """Returns a console for tables: as wide as the terminal, or as all columns need where `wide` or in a pipe."""
    screen = Screen()
    return screen if screen.is_terminal and not wide else Screen(width=max(TABLE_WIDTH, screen.width))


def text_screen() -> Screen:
    """Returns a console for sentences: wrapped between words on a terminal, and not at all in a pipe or a file."""
    return Screen(soft_wrap=not Screen().is_terminal)


def format_duration(seconds: float | None) -> str:
    """Formats seconds as `1:02:03` or `2:03`; None, an unknown duration, gives a dash."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_hours(seconds: float) -> str:
    """Formats minutes below an hour and a half, hours above."""
    return counted(round(seconds / 60), "minute") if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def counted(number: int, noun: str) -> str:
    """`1 minute`, `2 minutes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_doubts(doubts: Sequence[str]) -> None:
    """Prints to the error stream what was recorded and is not shown."""
    for doubt in doubts:
        print(f"ktrain: {doubt}", file=sys.stderr)


def own_command(*words: str) -> str:
    """Returns a command of `ktrain` as it can be pasted into the shell that this one was called in.

    `ktrain` alone may be on no path there; then it is called as it was this time.
    """
    called = Path(sys.argv[0])
    if called.name == "cli.py":
        return shlex.join([shown_path(sys.executable), "-m", "sweeps.cli", *words])
    # A relative path is what somebody typed; `make` has a search path of its own, which the shell has not.
    typed = called.name == "ktrain" and not (called.is_absolute() and shutil.which("ktrain") == str(called))
    return shlex.join([shown_path(called) if typed else "ktrain", *words])


def store_words(address: str) -> list[str]:
    """Returns the words that choose a store; none if a command here takes it without them."""
    default = os.path.abspath(os.path.expanduser(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE))
    return [] if address in (default, os.environ.get(STORE_VARIABLE)) else ["--store", shown_path(address)]


def shown_path(path: str | Path) -> str:
    """Returns a path or address, as short as it can be typed in this folder."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def waiting(console: Console, text: str) -> AbstractContextManager[object]:
    """Shows a text on a terminal while the block runs; elsewhere, nothing is printed."""
    return console.status(Text(text, "dim")) if console.is_terminal else nullcontext()
