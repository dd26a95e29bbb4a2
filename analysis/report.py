"""The report: one self-contained HTML page, computed from the results alone."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import drawing
from analysis.finding import find
from analysis.names import COLUMNS, GROUPS, PROBES, RECALL, majority, metric
from analysis.percent import MISSING, percent, points
from analysis.probe_table import sheets
from analysis.results import Axis, Results
from analysis.rows import Row, baseline, groups, published, rows

FOLDER = Path(__file__).parent
THEMED = {
    drawing.INK: "var(--ink)",
    drawing.MUTED: "var(--muted)",
    drawing.FAINT: "var(--line)",
    drawing.PAGE: "var(--page)",
}


def write(
    path: Path,
    sweep: str,
    results: Results,
    *,
    scale: str,
    figures: Mapping[str, str],
    paper: pd.DataFrame | None,
    provenance: Mapping[str, str],
    departures: Sequence[str],
    mlflow_hint: str,
    links: Mapping[str, str] = MappingProxyType({}),
    best_of: Sequence[str] = (),
) -> Path:
    """Write the page for `results` to `path` in one step, and return it.

    `figures` are SVG texts by caption; `paper` is `analysis.paper.beside(...)`; `mlflow_hint` is the command or address
    that opens MLflow, `links` addresses in it by what they show. Everything but the SVG is escaped, and nothing is
    loaded from elsewhere.
    """
    table = rows(results, best_of=best_of)
    comparisons = [(name, c) for name in groups(table) if (c := _comparison(table, name, paper))]
    probes = sheets(results, paper)
    page = _template().render(
        finding=find(results, paper, best_of=best_of),
        sweep=sweep,
        scale=scale,
        done=results.done,
        cells=len(results.cells),
        columns=[column.replace("_", " ") for column in COLUMNS],
        tables=[_table(table, name) for name in groups(table)],
        comparisons=[comparison for _, comparison in comparisons],
        source=_sources(paper, [name for name, _ in comparisons]),
        probes=probes,
        probe_source=_sources(paper, PROBES) if any("paper" in sheet.headers for sheet in probes) else "",
        figures=[(caption, inline(svg, f"f{k}-")) for k, (caption, svg) in enumerate(figures.items())],
        settings=_settings(results),
        departures=departures,
        provenance=provenance,
        mlflow_hint=mlflow_hint,
        links=links,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(page, "utf-8")
    os.replace(unfinished, path)
    return path


def inline(svg: str, prefix: str) -> Markup:
    """An SVG file as a part of a page: no prologue or metadata, ids of its own, colours that follow the theme."""
    svg = svg[svg.index("<svg") :]
    for pattern in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>", r'\sxmlns(:\w+)?="[^"]*"'):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}")
    for colour, variable in THEMED.items():
        svg = svg.replace(colour, variable)
    # Sized by the page; the drawing's own width is the most that it takes, and below 0.8 of it numbers get too small.
    sized = r'<svg\1 style="max-width: \2pt; min-width: calc(\2pt * .8)"'
    svg = re.sub(r'<svg\b([^>]*?)\swidth="([\d.]+)pt"', sized, svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?)\sheight="[\d.]+pt"', r"\1", svg, count=1)
    return Markup(svg)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _table(table: Sequence[Row], name: str) -> dict[str, Any]:
    """One column group: per row the numbers as text, or the state that stands in their place."""
    lines = []
    for row in table:
        fold = row.folds.get(name)
        if fold is None:
            continue
        bounds, gate = row.interval(name, "mean"), fold.params.get("readout.recall_gate")
        lines.append(
            {
                "name": row.name,
                "state": row.state(name),
                "done": fold.done,
                "numbers": [percent(row.value(name, column)) for column in COLUMNS],
                "interval": f"{percent(bounds[0])}–{percent(bounds[1])}" if bounds else "",  # noqa: RUF001
                "n": f"{fold.n[metric(name, 'mean')]:,}" if fold.done and metric(name, "mean") in fold.n else MISSING,
                "seeds": ", ".join(map(str, fold.seeds)) or MISSING,
                "baseline": percent(fold.metrics.get(majority(name, "whole", "mean"))),
                "asked": percent(row.asked(name)),
                "recall": percent(fold.metrics.get(RECALL)),
                "gate": percent(gate) if isinstance(gate, float) else "",
            }
        )
    guesses = [percent(baseline(table, majority(name, "whole", column))) for column in COLUMNS]
    return {"title": GROUPS[name], "baseline": guesses, "rows": lines}


def _comparison(table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> dict[str, Any] | None:
    """The paper, ours and the difference, for the settings that the paper has in this column group."""
    lines = []
    for row in table:
        theirs = [published(paper, row.setting, metric(name, column)) for column in COLUMNS]
        if name not in row.folds or None in theirs:
            continue
        ours = [row.value(name, column) for column in COLUMNS]
        less = [None if o is None or t is None else o - t for o, t in zip(ours, theirs, strict=True)]
        lines.append(
            {
                "name": row.name,
                "paper": [percent(value) for value in theirs],
                "ours": [percent(value) for value in ours],
                "difference": [points(value) for value in less],
            }
        )
    return {"title": GROUPS[name], "rows": lines} if lines else None


def _sources(paper: pd.DataFrame | None, prefixes: Iterable[str]) -> str:
    """Where the paper's numbers of these column groups stand."""
    starts = tuple(f"{prefix}/" for prefix in prefixes)
    found = paper.attrs["sources"] if paper is not None else {}
    return "; ".join(dict.fromkeys(source for column, source in found.items() if column.startswith(starts)))


def _settings(results: Results) -> dict[str, Any]:
    """What all cells share, once, and what tells them apart, per cell."""
    names = sorted({name for cell in results.cells for name in cell.params})
    # A cell without a run knows its axes only; what it does not know says nothing against what the others share.
    values = {name: {_text(cell.params[name]) for cell in results.cells if name in cell.params} for name in names}
    common = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    differing = [name for name in names if name not in common]
    cells = [
        {
            "key": cell.key,
            "state": cell.state,
            "values": [_text(cell.params[name]) if name in cell.params else MISSING for name in differing],
            "stages": dict(cell.stages),
        }
        for cell in results.cells
    ]
    return {"common": common, "differing": differing, "cells": cells}


def _text(value: Axis) -> str:
    return value if isinstance(value, str) else json.dumps(value)
