"""The report: one self-contained HTML page, computed from the results alone."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import figure
from analysis.finding import QUESTION, find
from analysis.percent import MISSING, percent, points
from analysis.results import Axis, Results
from analysis.table import COLUMNS, GROUPS, RECALL, Row, baseline, groups, metric, published, rows

FOLDER = Path(__file__).parent
THEMED = {
    figure.INK: "var(--ink)",
    figure.MUTED: "var(--muted)",
    figure.FAINT: "var(--line)",
    figure.PAGE: "var(--page)",
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
) -> Path:
    """Write the page for `results` to `path` in one step, and return it.

    `figures` are SVG texts by caption; `paper` is `analysis.paper.figure(...)`; `mlflow_hint` is the command or address
    that opens MLflow. Everything but the SVG is escaped, and nothing is loaded from elsewhere.
    """
    table = rows(results)
    page = _template().render(
        question=QUESTION,
        finding=find(results, paper),
        sweep=sweep,
        scale=scale,
        done=results.done,
        cells=len(results.cells),
        columns=[column.replace("_", " ") for column in COLUMNS],
        tables=[_table(table, name) for name in groups(table)],
        comparisons=[c for name in groups(table) if (c := _comparison(table, name, paper))],
        source=paper.attrs.get("source", "") if paper is not None else "",
        figures=[(caption, inline(svg, f"f{k}-")) for k, (caption, svg) in enumerate(figures.items())],
        settings=_settings(results),
        departures=departures,
        provenance=provenance,
        mlflow_hint=mlflow_hint,
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
    # Sized by the page; the drawing's own width is the most that it takes.
    svg = re.sub(r'<svg\b([^>]*?)\swidth="([\d.]+pt)"', r'<svg\1 style="max-width: \2"', svg, count=1)
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
                "baseline": percent(fold.metrics.get("baseline/test/mean")),
                "asked": percent(row.asked(name)),
                "recall": percent(fold.metrics.get(RECALL)),
                "gate": percent(gate) if isinstance(gate, float) else "",
            }
        )
    return {"title": GROUPS[name], "baseline": [percent(baseline(table, column)) for column in COLUMNS], "rows": lines}


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
