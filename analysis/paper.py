"""The paper's own numbers as data (arXiv 2309.14316v3), one CSV file per figure in `paper_tables/`."""

import re
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent / "paper_tables"


def figure(name: str) -> pd.DataFrame:
    """The numbers of one figure, such as `fig3`, as fractions of 1 under our metric names; rows are settings.

    `.attrs["source"]` says where they stand in the paper. Raises `KeyError` with the figures that there are.
    """
    if name not in figures():
        raise KeyError(f"no numbers of {name!r}; there are {', '.join(figures())}")
    path = FOLDER / f"{name}.csv"
    source = [line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    # The files keep the percentages as printed; one decimal needs no more than three digits of a fraction.
    frame = (pd.read_csv(path, comment="#", index_col="setting") / 100).round(4)
    frame.attrs["source"] = source[0]
    return frame


def figures() -> tuple[str, ...]:
    """Names of the figures whose numbers are here."""
    return tuple(sorted((path.stem for path in FOLDER.glob("*.csv")), key=_order))


def _order(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else 0, name)
