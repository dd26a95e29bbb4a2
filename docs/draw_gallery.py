"""Draws docs/gallery.md, the figures of the paper that a store has: part of `make docs-numbers`.

A figure is drawn from finished cells alone, ours beside the paper's. If several sweeps have cells of it, those of the
sweep that has most of its numbers are shown, and of two that have as many, those of the sweep that is quicker to train.
"""

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.figures import curve_figure, pair_sets, paper_figure
from analysis.figures.drawing import PAGE, Plot
from analysis.measurements.cells import Results
from analysis.measurements.recorded import load_results
from analysis.paper import tables
from analysis.paper.comparison import Comparison, compare
from analysis.paper.paper_value import BASELINE
from ktrain.errors import WrongRequest
from sweeps.options import planned
from sweeps.planning.grid import builtin, load
from sweeps.planning.plan import Plan
from sweeps.planning.sweep import FIGURES
from sweeps.results import read, read_curves

ROOT = Path(__file__).parents[1]
SCALE = "mini"
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.S)
SECTION = re.compile(r"^## Figure (?P<number>\w+)\n.*?(?=^## |^<!-- end)", re.M | re.S)
PICTURE = re.compile(r"\(gallery/([\w.]+)\)")
CLAIMED = {
    "fig1": ("mixed training",),
    "fig2": ("any finetuning",),
    "fig3": ("wordings and orders", "mixed training"),
    "fig5": ("places",),
    "fig7": ("wordings and orders",),
    "fig8": ("celebrities", "celebrities compared with"),
    "fig9": ("GBERT finetuned", "GBERT mixed"),
}
"""The parts of the sweep `claims`, which regenerates no figure, that have rows of a figure."""
WITH_CURVES = "fig1a"
"""The figure whose other parts, Figures 1b and 1c, are learning curves."""
GROUND = f'<rect width="100%" height="100%" fill="{PAGE}"/>'
"""Behind a picture, whose ink is dark on dark pages too."""


@dataclass(frozen=True)
class Candidate:
    """A figure of the paper as the finished cells of one sweep show it."""

    comparison: Comparison
    results: Results
    """The finished cells of the sweep that belong to the figure."""
    curves: pd.DataFrame
    command: str
    """What trains these cells."""
    cells: int
    """How many cells that command trains."""

    @property
    def figure(self) -> str:
        """Such as `fig12a`."""
        return self.comparison.figure

    @property
    def numbers(self) -> int:
        """How many of the figure's numbers there are."""
        return sum(m.ours is not None and m.paper.row != BASELINE for m in self.comparison.planned)

    def plots(self) -> dict[str, Plot]:
        """Returns what is drawn of it, by the stem of the file."""
        plots = {
            self.figure: paper_figure.draw_comparison(self.comparison) or pair_sets.draw_pair_sets(self.results),
            "fig1bc": curve_figure.draw_curves(self.results, self.curves) if self.figure == WITH_CURVES else None,
        }
        return {stem: plot for stem, plot in plots.items() if plot}


def candidates(plan: Plan, results: Results, curves: pd.DataFrame, command: str) -> Iterator[Candidate]:
    """Yields each figure of the paper of which a sweep has a finished cell."""
    for figure, keys in keys_by_figure(plan).items():
        cells = tuple(cell for cell in results.cells if cell.done and cell.key in keys)
        finished = replace(results, cells=cells)
        for comparison in compare(finished, [figure], scale=SCALE):
            yield Candidate(comparison, finished, curves, command, len(plan.cells))


def keys_by_figure(plan: Plan) -> dict[str, Collection[str]]:
    """Returns the keys of the cells of a sweep that are made for a figure of the paper, by the figure."""
    if plan.sweep.figure:
        return {plan.sweep.figure: {cell.key for cell in plan.cells}}
    parts: dict[str, tuple[str, ...]] = {part.figure: (part.name,) for part in plan.sweep.parts if part.figure}
    if plan.sweep.name == "claims":
        parts = CLAIMED
    return {
        figure: {cell.key for cell in plan.cells if set(names) & set(cell.parts)} for figure, names in parts.items()
    }


def chosen(found: Iterable[Candidate]) -> list[Candidate]:
    """Returns the best candidate for each figure, in the paper's order."""
    best: dict[str, Candidate] = {}
    for one in found:
        other = best.get(one.figure)
        if one.numbers and (other is None or (one.numbers, -one.cells) > (other.numbers, -other.cells)):
            best[one.figure] = one
    return [best[name] for name in tables.figures() if name in best]


def candidates_of_store(store: Path) -> Iterator[Candidate]:
    """Yields the candidates of every sweep of this project that a store has finished cells of, at scale `mini`."""
    uri = f"sqlite:///{store.absolute() / 'mlflow.db'}"
    for name in builtin():
        recorded = [cell for cell in load_results(uri, name).cells if cell.done and cell.scale == SCALE]
        seeds = sorted({int(str(cell.axes["seed"])) for cell in recorded})
        if not seeds:
            continue
        words = [] if seeds == [0] else [f"seed={','.join(map(str, seeds))}"]
        try:
            plan = planned(name, words, SCALE, str(store))
        except WrongRequest:  # It needs a folder of the user's, which its command line named.
            continue
        results = read(plan, uri)
        curves, _ = read_curves(plan, uri, results)
        yield from candidates(plan, results, curves, " ".join(("ktrain run", name, *words)))


def sections(page: str) -> dict[str, str]:
    """Returns the sections of the figures on a page, by figure, such as `fig1a`."""
    drawn = BLOCK.search(page)
    found = SECTION.finditer(drawn[0]) if drawn else ()
    return {f"fig{match['number']}": match[0].rstrip() + "\n" for match in found}


def block(shown: Sequence[Candidate], pictures: Sequence[Mapping[str, str]], before: Mapping[str, str]) -> str:
    """Returns the Markdown of the figures in the paper's order, whose pictures are descriptions by stem of the file,
    and a list of the others. Of figures that are not `shown`, the sections `before` stay."""
    by_figure = dict(before)
    for one, files in zip(shown, pictures, strict=True):
        lines = []
        counts, (_, _, says) = one.comparison.counts, one.comparison.source.partition(": ")
        sweep = next(name for name in FIGURES if one.figure in tables.parts(name))
        lines.append(f"## {one.comparison.title}\n\n{load(sweep).question} In the paper: {says}.\n")
        lines += [f"[![{text}](gallery/{stem}.svg)](gallery/{stem}.svg)\n" for stem, text in files.items()]
        rows = "all rows" if counts.planned == counts.printed else f"{counts.planned} of the {counts.printed} rows"
        lines.append(" ".join((f"`{one.command}` trains {rows}.", *one.comparison.agreement())) + "\n")
        by_figure[one.figure] = "\n".join(lines)
    lines = [by_figure[name] for name in tables.figures() if name in by_figure]
    missing = [name for name in FIGURES if not by_figure.keys() & set(tables.parts(name))]
    if missing:
        lines.append("## Not there yet\n\n| figure | asks | is trained by |\n| --- | --- | --- |")
        lines += [f"| {name.removeprefix('fig')} | {load(name).question} | `ktrain run {name}` |" for name in missing]
        lines.append("")
    return "\n".join(lines)


def picture(plot: Plot) -> str:
    """Returns a plot as SVG on a light ground. Its text is text, so it is sharp and a tenth of its size in git."""
    return plot.svg.replace('<g id="figure_1">', f'{GROUND}\n <g id="figure_1">', 1)


def write(docs: Path, shown: Sequence[Candidate]) -> None:
    """Writes the pictures and their page into the folder `docs`. What the page has of other figures stays."""
    folder, pictures, page = docs / "gallery", [one.plots() for one in shown], docs / "gallery.md"
    folder.mkdir(exist_ok=True)
    for plots in pictures:
        for stem, plot in plots.items():
            (folder / f"{stem}.svg").write_text(picture(plot), "utf-8")
    old = page.read_text("utf-8")
    text = block(shown, [{stem: plot.description for stem, plot in plots.items()} for plots in pictures], sections(old))
    page.write_text(BLOCK.sub(lambda match: match[1] + text + match[2], old), "utf-8")
    linked = set(PICTURE.findall(text))
    for path in folder.glob("*.svg"):
        if path.name not in linked:
            path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the gallery from a store; prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=ROOT / "results", help="folder of the store (results)")
    shown = chosen(candidates_of_store(parser.parse_args(arguments).store))
    write(ROOT / "docs", shown)
    print(f"docs/gallery.md: {', '.join(one.figure for one in shown) or 'no figure in this store'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
