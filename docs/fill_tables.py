"""Writes the tables of README.md and docs/miniature.md from a store: part of `make docs-numbers`.

A table stands between `<!-- numbers: NAME, by COMMAND -->` and `<!-- end -->`. The command is what fills the store, and
the table shows the cells that it plans. A table whose cells are not there stays as it is, and is named.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from doc_tables import TABLES, Missing, Numbers

from sweeps.options import planned
from sweeps.results import read

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/miniature.md")
PICTURE = "demo/figure.png", "docs/demo.png"
"""The figure of the demo's report, under the reports' folder, and where README shows it."""
BLOCK = re.compile(
    r"(<!-- numbers: (?P<name>[a-z-]+), by (?P<command>[^\n]+?) -->\n)(?P<table>.*?)(<!-- end -->)", re.S
)


def commands() -> list[str]:
    """Returns the commands that fill the tables, each once."""
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    return list(dict.fromkeys(match["command"] for page in pages for match in BLOCK.finditer(page)))


def numbers_of(command: str, store: Path) -> Numbers:
    """Returns what a store has of the cells of `ktrain run SWEEP axis=value`."""
    sweep, *axes = command.split()[2:]
    uri = f"sqlite:///{store.absolute() / 'mlflow.db'}"
    return Numbers(read(planned(sweep, axes, "mini", str(store)), uri), uri)


def rewrite(text: str, numbers: Callable[[str], Numbers]) -> tuple[str, list[str]]:
    """Returns a page with its tables written anew from the `numbers` of their commands, and a line for each table that
    they cannot fill."""
    missing: list[str] = []

    def again(match: re.Match[str]) -> str:
        try:
            return match[1] + TABLES[match["name"]](numbers(match["command"])) + match[5]
        except Missing as e:
            missing.append(f"{match['name']}: {e}; first: {match['command']}")
            return match[0]

    return BLOCK.sub(again, text), missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the pages, or with `--check` only compares; returns 1 where a table differs or cannot be filled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=ROOT / "results", help="folder of the store (results)")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; say which pages are not what the store has"
    )
    given = parser.parse_args(arguments)
    problems: list[str] = []
    for page in PAGES:
        before = (ROOT / page).read_text(encoding="utf-8")
        after, missing = rewrite(before, partial(numbers_of, store=given.store))
        problems += [f"{page}: {line}" for line in missing]
        if after != before and given.check:
            problems.append(f"{page}: differs from the store; run make docs-numbers")
        elif after != before:
            (ROOT / page).write_text(after, encoding="utf-8")
            print(f"{page}: written")
    picture = given.store / "reports" / PICTURE[0]
    if picture.is_file() and not given.check:
        shutil.copyfile(picture, ROOT / PICTURE[1])
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
