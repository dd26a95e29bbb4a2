"""The paper's own numbers as data (arXiv 2309.14316v3), one CSV file per figure in `paper_tables/`."""

import re
from pathlib import Path

import pandas as pd

from analysis.names import ATTRIBUTES, AVERAGED, OFS, POSITIONS, p_probe, q_probe

FOLDER = Path(__file__).parent / "paper_tables"
TOGETHER = (
    ("fig3", "fig5", "fig7", "fig13a", "fig13c", "fig16a"),
    ("fig13b", "fig13d", "fig16b"),
    ("fig14a", "fig14c", "fig16c"),
    ("fig14b", "fig14d", "fig16d"),
)
"""Figures about the same pretrained models, read out in different ways; the probes of a line are of one strength."""


def figure(name: str) -> pd.DataFrame:
    """The numbers of one figure, such as `fig3`, as fractions of 1 under our metric names; rows are settings.

    The means of probes are ours, over the five attributes without the birth date, since the paper prints none.
    `.attrs["sources"]` says by column where it stands in the paper. Raises `KeyError` with the figures that there are.
    """
    if name not in figures():
        raise KeyError(f"no numbers of {name!r}; there are {', '.join(figures())}")
    path = FOLDER / f"{name}.csv"
    source = next(line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("#"))
    # The files keep the percentages as printed; one decimal needs no more than three digits of a fraction.
    frame = _with_means((pd.read_csv(path, comment="#", index_col="setting") / 100).round(4))
    frame.attrs["sources"] = dict.fromkeys(frame.columns, source)
    return frame


def beside(name: str) -> pd.DataFrame | None:
    """What a sweep that regenerates `name` is compared to: that figure, joined with those about the same models.

    `None` where the paper's numbers for `name` are not here.
    """
    if name not in figures():
        return None
    frame = figure(name)
    sources = dict(frame.attrs["sources"])
    for other in next((line for line in TOGETHER if name in line), ()):
        more = figure(other)
        new = [column for column in more.columns if column not in sources]
        sources |= {column: more.attrs["sources"][column] for column in new}
        frame = frame.join(more[new])
    frame.attrs["sources"] = sources
    return frame


def figures() -> tuple[str, ...]:
    """Names of the figures whose numbers are here, in the paper's order."""
    return tuple(sorted((path.stem for path in FOLDER.glob("*.csv")), key=_order))


def _with_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds the means of probes, and a P-probe's accuracy right before the attribute itself."""
    found: dict[str, pd.Series] = {}
    for of in OFS:
        if q_probe(of, "major") in frame:
            found[q_probe(of, "mean")] = frame[[q_probe(of, name) for name in AVERAGED]].mean(axis="columns")
        if p_probe(of, 0, "major") not in frame:
            continue
        for position in POSITIONS:
            columns = [p_probe(of, position, name) for name in AVERAGED]
            found[p_probe(of, position, "mean")] = frame[columns].mean(axis="columns")
        # Where something has been passed the order is fixed; elsewhere no cell says which attribute comes next.
        fixed = frame[p_probe(of, 5, "major")].isna() | (frame.index == "baseline")
        for name in AVERAGED:
            own = frame[p_probe(of, ATTRIBUTES.index(name), name)]
            found[p_probe(of, "own", name)] = own.where(fixed)
        owns = [found[p_probe(of, "own", name)] for name in AVERAGED]
        found[p_probe(of, "own", "mean")] = pd.concat(owns, axis="columns").mean(axis="columns")
    return frame.assign(**{name: values.round(6) for name, values in found.items()})


def _order(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else 0, name)
