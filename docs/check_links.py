"""Names every dead link of README.md, CONTRIBUTING.md and docs/: part of `make check`.

rumdl, a linter of Markdown, looks up files and headings by GitHub's rules, without a network. It gets the texts of a
notebook as Markdown of as many lines, so that it names a link by its line in the notebook's file.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs")
LINTER = str(Path(sysconfig.get_path("scripts"), "rumdl"))
RULES = "MD051,MD052,MD057"
"""Headings that links name, definitions that references name, and files that links and images name."""


def dead_links(root: Path) -> list[str]:
    """Returns a line `file:line:column: [rule] what is dead` for each dead link in the repository at `root`."""
    lines = _run_linter(root, [page for page in PAGES if (root / page).exists()])
    for notebook in sorted((root / "docs").glob("*.ipynb")):
        text = markdown_of(notebook.read_text(encoding="utf-8"))
        lines += _run_linter(root, ["--stdin", "--stdin-filename", str(notebook.relative_to(root))], text)
    return lines


def markdown_of(notebook: str) -> str:
    """Returns the texts of a notebook's file, each line of them at its line in the file; all other lines are empty."""
    written = [line.strip().removesuffix(",") for line in notebook.splitlines()]
    lines, at = [""] * len(written), 0
    for cell in json.loads(notebook)["cells"]:
        for line in cell["source"]:
            at = written.index(json.dumps(line, ensure_ascii=False), at) + 1
            if cell["cell_type"] == "markdown":
                lines[at - 1] = line.rstrip("\n")
    return "\n".join(lines) + "\n"


def _run_linter(root: Path, words: Sequence[str], text: str = "") -> list[str]:
    """The problems that rumdl names. Raises `RuntimeError` with what it says if it cannot work."""
    command = [LINTER, "check", "--isolated", "--no-cache", "--color", "never", "--enable", RULES, *words]
    done = subprocess.run(command, cwd=root, input=text, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return [line for line in (done.stdout + done.stderr).splitlines() if ": [MD" in line]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the dead links; returns 1 if there are some."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    dead = dead_links(ROOT)
    print("\n".join(dead) if dead else "No dead links.")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
