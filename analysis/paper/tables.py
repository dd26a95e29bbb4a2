"""The paper's own numbers as data (arXiv 2309.14316v3), one CSV file per figure in `csv/`."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.measurements.cells import Axis, Cell, Results, group_replicates
from analysis.measurements.names import (
    ATTRIBUTES,
    AVERAGED,
    POSITIONS,
    PROBE_TARGETS,
    majority,
    metric,
    p_probe,
    p_probe_after,
    q_probe,
)
from analysis.paper import matching
from analysis.paper.paper_value import BASELINE, FAMILIES, SHORT, PaperValue, column_spec, grid_spec, label

if TYPE_CHECKING:
    # A plan reads this module and does not wait for pandas.
    import pandas as pd

FOLDER = Path(__file__).parent / "csv"
TOGETHER = (
    ("fig3", "fig5", "fig7", "fig13a", "fig13c", "fig16a"),
    ("fig13b", "fig13d", "fig16b"),
    ("fig12a", "fig14a", "fig14c", "fig16c"),
    ("fig14b", "fig14d", "fig16d"),
)
"""Figures that read out the same pretrained models in different ways; probes of one line have one embedding rank."""
GRIDS = ("fig2", "fig11")
"""Figures whose rows and columns are ranks."""
PAIRS = (("birth_date", "birth_city"), ("university", "major"), ("company", "company_city"))
"""The ordered pairs of the couple data (section 5.1.1)."""


def figures() -> tuple[str, ...]:
    """Names of the figures with a CSV file, in the paper's order."""
    return tuple(sorted((path.stem for path in FOLDER.glob("*.csv")), key=_order))


def parts(name: str) -> tuple[str, ...]:
    """Expands a name to its figures: `fig13` has parts a to d, `fig3` only itself, `fig4` has no numbers."""
    return tuple(known for known in figures() if known == name or re.fullmatch(re.escape(name) + "[a-z]", known))


def source(name: str) -> str:
    """One line on where the paper prints a figure and what it shows."""
    return next(line.lstrip("# ") for line in _path(name).read_text("utf-8").splitlines() if line.startswith("#"))


def figure(name: str) -> "pd.DataFrame":
    """Returns the numbers of one figure, such as `fig3`, as fractions of 1: settings x our metric names.

    The paper prints no means of probes; they are computed here over the five attributes without the birth date. Row
    names carry the family as in `table_rows.Row.setting`. `.attrs["sources"]` gives each column's place in the paper.
    Raises `KeyError` for an unknown figure and for one whose columns are ranks, ratios or sets (see `numbers`).
    """
    import pandas as pd

    if not _tabular(name):
        raise KeyError(f"no table of {name!r}; there are {', '.join(filter(_tabular, figures()))}")
    # The files keep the percentages as printed; one decimal needs no more than three digits of a fraction.
    printed = pd.DataFrame(_lines(name)).set_index("setting").apply(pd.to_numeric)
    frame = _with_means((printed / 100).round(4))
    if name in FAMILIES:
        frame.index = pd.Index([row if row == BASELINE else f"{row} ({FAMILIES[name]})" for row in frame.index])
    frame.attrs["sources"] = dict.fromkeys(frame.columns, source(name))
    return frame


def beside(name: str) -> "pd.DataFrame | None":
    """Returns the table to compare with a sweep that regenerates `name`: that figure joined with those in `TOGETHER`.

    Returns `None` if the paper has no such table.
    """
    tables = [part for part in parts(name) if _tabular(part)]
    if not tables:
        return None
    frame = figure(tables[0])
    sources = dict(frame.attrs["sources"])
    for other in next((line for line in TOGETHER if tables[0] in line), ()):
        more = figure(other)
        new = [column for column in more.columns if column not in sources]
        sources |= {column: more.attrs["sources"][column] for column in new}
        frame = frame.join(more[new])
    frame.attrs["sources"] = sources
    return frame


@cache
def numbers(name: str) -> tuple[PaperValue, ...]:
    """Returns every number of a figure or of all its parts, row by row in the paper's order.

    Raises `KeyError`, which lists the figures, if there is none of this name.
    """
    if not parts(name):
        raise KeyError(f"no numbers of {name!r}; there are {', '.join(figures())}")
    return tuple(number for part in parts(name) for number in _numbers(part))


def rows_of(cells: Mapping[str, Mapping[str, Axis]], names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Returns every row of these figures (default: all) with the keys of the cells (key -> axes) that measure it.

    One entry per row and readout: `figure`, `panel` (if there are several), `row`, `readout`, `columns`, `cells`. An
    empty `cells` means that no cell measures the row.
    """
    replicate_groups = group_replicates(
        Results("", tuple(Cell(key=key, axes=axes, params=axes) for key, axes in cells.items()))
    )
    by_place: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for name in figures() if names is None else dict.fromkeys(part for one in names for part in parts(one)):
        candidates = matching.candidates_by_place(replicate_groups, numbers(name))
        for number in numbers(name):
            place = (number.figure, number.panel, number.row, number.columns.title)
            entry = by_place.setdefault(place, dict(zip(("figure", "panel", "row", "readout"), place, strict=True)))
            entry.setdefault("columns", {})[number.column] = None
            keys = (key for replicates in candidates[number.place] for key in replicates.keys)
            entry.setdefault("cells", {}).update(dict.fromkeys(keys))
    entries = [
        {**entry, "columns": list(entry["columns"]), "cells": list(entry["cells"])} for entry in by_place.values()
    ]
    return [{key: value for key, value in entry.items() if value != ""} for entry in entries]


def _numbers(name: str) -> Iterator[PaperValue]:
    if name in GRIDS:
        return _of_grid(name)
    if "seen" in _lines(name)[0]:
        return _of_sets(name)
    return _of_table(name) if _tabular(name) else _of_ratios(name)


def _of_table(name: str) -> Iterator[PaperValue]:
    """Settings x metrics."""
    settings = tuple(line["setting"] for line in _lines(name) if line["setting"] != BASELINE)
    for line in _lines(name):
        row = line["setting"]
        for column, text in list(line.items())[1:]:
            if not text:
                continue
            group, of, *_, attribute = column.split("/")
            if row == BASELINE:
                guess = majority(group, "first" if of == "first" else "whole", attribute)
                made = column_spec(name, group, _text(settings[0]), celebrities=False)
                yield PaperValue(name, row, label(column), guess, _fraction(text), settings, made)
            else:
                made = column_spec(name, group, _text(row), celebrities="+CEL" in row)
                yield PaperValue(name, row, label(column), column, _fraction(text), (row,), made)


def _of_ratios(name: str) -> Iterator[PaperValue]:
    """Settings x shares of questions, one panel per kind of text."""
    for line in sorted(_lines(name), key=lambda line: _text(line["setting"]), reverse=True):
        row = line["setting"]
        for ratio, text in list(line.items())[1:]:
            made = column_spec(name, "mixed", _text(row), celebrities=False, ratio=float(ratio))
            yield PaperValue(name, row, ratio, metric("mixed", "mean"), _fraction(text), (row,), made, _text(row))


def _of_grid(name: str) -> Iterator[PaperValue]:
    """Panels of q/v ranks x embedding ranks, with two metrics each."""
    for line in _lines(name):
        panel, row, column = line["panel"], line["rank_qv"], line["rank_embedding"]
        # The panels of Figure 2 are models of several sizes: `124M bioS single (540 passes)`.
        parsed = re.fullmatch(r"(?:(\d+M) )?(bio\S+ \S+)(?: \(.*\))?", panel)
        if parsed is None:
            raise ValueError(f"{name}: panel {panel!r} names no setting")
        made = grid_spec(row, column, (parsed[1] or "").lower(), _text(parsed[2]))
        for ours, text in list(line.items())[3:]:
            yield PaperValue(name, row, column, ours, _fraction(text), (parsed[2],), made, panel)


def _of_sets(name: str) -> Iterator[PaperValue]:
    """P-probes by the set of attributes before the position; each set has the range of its kind."""
    for line in _lines(name):
        row, attribute = line["setting"], line["attribute"]
        low, high = _fraction(line["low"]), _fraction(line["high"])
        for chosen in sets(attribute)[line["seen"]]:
            after = ", ".join(SHORT.get(one, one) for one in chosen) or "nothing"
            column = f"{SHORT.get(attribute, attribute)} after {after}"
            ours, made = (
                p_probe_after("first", chosen, attribute),
                column_spec(name, "p_probe", _text(row), celebrities=False),
            )
            reach = (low, high) if low < high else None
            yield PaperValue(name, row, column, ours, round((low + high) / 2, 5), (row,), made, reported_range=reach)


def sets(attribute: str) -> dict[str, list[tuple[str, ...]]]:
    """Sets of attributes that can precede a position before `attribute`, the second of a coupled pair.

    By kind: `nothing`, `others` without the attribute's partner, and sets with the `partner`; twelve in all.
    """
    partner = next(first for first, second in PAIRS if second == attribute)
    others = [pair for pair in PAIRS if attribute not in pair]
    whole = [tuple(chain(*chosen)) for count in range(3) for chosen in combinations(others, count)]
    begun = [(*chosen, pair[0]) for pair in others for chosen in ((), *(other for other in others if other != pair))]
    return {
        "nothing": [()],
        "others": [_sorted(chosen) for chosen in (*whole[1:], *begun)],
        "partner": [_sorted((partner, *chosen)) for chosen in whole],
    }


def _sorted(chosen: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in ATTRIBUTES if name in chosen)


def _with_means(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Adds the means of probes, and P-probe accuracies right before the attribute itself (`own`)."""
    import pandas as pd

    added: dict[str, pd.Series] = {}
    for of in PROBE_TARGETS:
        if q_probe(of, "major") in frame:
            added[q_probe(of, "mean")] = frame[[q_probe(of, name) for name in AVERAGED]].mean(axis="columns")
        if p_probe(of, 0, "major") not in frame:
            continue
        for position in POSITIONS:
            columns = [p_probe(of, position, name) for name in AVERAGED]
            added[p_probe(of, position, "mean")] = frame[columns].mean(axis="columns")
        # A blank cell means a fixed order. In permuted rows no column says which attribute comes next.
        fixed = frame[p_probe(of, 5, "major")].isna() | (frame.index == BASELINE)
        for name in AVERAGED:
            own = frame[p_probe(of, ATTRIBUTES.index(name), name)]
            added[p_probe(of, "own", name)] = own.where(fixed)
        owns = [added[p_probe(of, "own", name)] for name in AVERAGED]
        added[p_probe(of, "own", "mean")] = pd.concat(owns, axis="columns").mean(axis="columns")
    return frame.assign(**{name: values.round(6) for name, values in added.items()})


@cache
def _lines(name: str) -> tuple[dict[str, str], ...]:
    """Lines of a file as text by column; empty where the figure has no number."""
    with _path(name).open(encoding="utf-8") as file:
        return tuple(csv.DictReader(line for line in file if not line.startswith("#")))


def _tabular(name: str) -> bool:
    """Whether a figure's rows are settings and its columns metrics."""
    if name not in figures():
        return False
    first, *others = _lines(name)[0]
    return first == "setting" and all("/" in column for column in others)


def _path(name: str) -> Path:
    return FOLDER / f"{name}.csv"


def _fraction(text: str) -> float:
    return round(float(text) / 100, 5)


def _text(setting: str) -> str:
    """`bioS` or `bioR`."""
    return setting.partition(" ")[0]


def _order(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else 0, name)
