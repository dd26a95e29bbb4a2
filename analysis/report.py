"""The report: one self-contained HTML page of plain data; it knows no kind of figure, readout or claim."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import drawing, verdict_table
from analysis.cells import Axis, Results
from analysis.claims import Outcome, Verdict, sha256
from analysis.finding import Finding, unfinished
from analysis.percent import MISSING
from analysis.section import Section, Sheet

FOLDER = Path(__file__).parent
THEMED = {
    drawing.INK: "var(--ink)",
    drawing.MUTED: "var(--muted)",
    drawing.FAINT: "var(--line)",
    drawing.PAGE: "var(--page)",
}
CLAIMED = "Which of the paper's conclusions hold in these data?"
LOWEST, HIGHEST, WIDTH = -0.25, 1.05, 130.0
"""Ends of the axis on which effects are drawn, and its width in units of the drawing."""


def write(
    path: Path,
    sweep: str,
    results: Results,
    *,
    scale: str,
    finding: Finding,
    sections: Sequence[Section],
    verdicts: Sequence[Verdict] = (),
    departures: Sequence[str] = (),
    provenance: Mapping[str, str],
    costs: Sheet | None = None,
    mlflow_hint: str,
    links: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the page for `results` to `path` in one step, and return it.

    Verdicts come first (those that the sweep's cells bear on), then all pictures, then all sheets, then how it was
    done. `finding` is the headline of a sweep that tests no claim as a whole; `mlflow_hint` the command or address that
    opens MLflow, `links` addresses in it by what they show. Everything but the SVG is escaped, and nothing is loaded
    from elsewhere.
    """
    counted = verdict_table.counted(verdicts)
    pictures = [(section.title, picture) for section in sections for picture in section.pictures]
    page = _template().render(
        question=CLAIMED if counted else finding.question,
        headlines=[counted] if counted else finding.headlines,
        remarks=list(filter(None, [unfinished(results)])) if counted else finding.remarks,
        sweep=sweep,
        scale=scale,
        done=results.done,
        cells=len(results.cells),
        verdicts=[_verdict(verdict) for verdict in verdict_table.shown(verdicts)],
        claims_file=sha256(),
        pictures=[(title, picture, inline(picture.svg, f"f{k}-")) for k, (title, picture) in enumerate(pictures)],
        sections=[(section, list(_sheets(section.sheets))) for section in sections if section.sheets],
        settings=_settings(results),
        departures=departures,
        provenance=provenance,
        costs=_sheet(costs) if costs else None,
        mlflow_hint=mlflow_hint,
        links=links,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unpublished = path.with_name(path.name + ".part")
    unpublished.write_text(page, "utf-8")
    os.replace(unpublished, path)
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


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """A claim as a card: its parts in this sweep, each with effect and threshold as text and on an axis."""
    parts = [
        {
            "says": outcome.part.says,
            "verdict": outcome.verdict,
            "why": outcome.why,
            "effect": verdict_table.effect(outcome),
            "threshold": verdict_table.threshold(outcome),
            "axis": _axis(outcome),
        }
        for outcome in verdict.covered
    ]
    return {"claim": verdict.claim, "verdict": verdict.verdict, "of": len(verdict.parts), "parts": parts}


def _axis(outcome: Outcome) -> dict[str, Any]:
    """Where effect, interval, threshold and zero stand on the axis, and which side of the threshold is the claim's."""

    def at(value: float) -> float:
        return round((min(max(value, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST) * WIDTH, 1)

    found, threshold = outcome.effect, at(outcome.part.threshold)
    side = (threshold, WIDTH) if outcome.part.at_least is not None else (0.0, threshold)
    marks = [at(value) for value in (found.low, found.value, found.high)] if found else None
    return {"width": WIDTH, "zero": at(0), "threshold": threshold, "side": side, "effect": marks}


def _sheets(sheets: Sequence[Sheet]) -> Iterator[dict[str, Any]]:
    """What is noted alike of several sheets is said once."""
    said: set[str] = set()
    for sheet in sheets:
        yield _sheet(replace(sheet, note="") if sheet.note in said else sheet)
        said.add(sheet.note)


def _sheet(sheet: Sheet) -> dict[str, Any]:
    """A sheet with the lines of one name together, and numbers apart from their intervals."""
    groups: list[dict[str, Any]] = []
    for k, line in enumerate(sheet.lines):
        if line[0] or not groups:
            groups.append({"name": _cell(line[0]), "lines": []})
        short = len(sheet.headers) - len(line) + 1
        groups[-1]["lines"].append(
            {"cells": [_cell(text) for text in line[1:]], "quiet": k in sheet.quiet, "span": short if short > 1 else 0}
        )
    return {"title": sheet.title, "note": sheet.note, "headers": sheet.headers, "groups": groups}


def _cell(text: str) -> tuple[str, str]:
    """`70.1 [66.8, 73.3]` as the number and its interval."""
    number, bracket, rest = text.partition(" [")
    return number, f"{bracket}{rest}".strip()


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
