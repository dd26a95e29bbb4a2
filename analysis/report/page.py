"""The report page: one self-contained HTML file, built from plain data without knowing figures, readouts or claims."""

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

from analysis.claims import verdict_table
from analysis.claims.claim_file import sha256
from analysis.claims.verdict import Outcome, Verdict
from analysis.figures import drawing
from analysis.measurements.cells import Axis, Results
from analysis.measurements.departures import departures_of
from analysis.presentation.number_format import MISSING
from analysis.presentation.section import Section, Sheet
from analysis.report.headline import Headline, unfinished

FOLDER = Path(__file__).parent
THEMED = {
    drawing.INK: "var(--ink)",
    drawing.MUTED: "var(--muted)",
    drawing.FAINT: "var(--line)",
    drawing.PAGE: "var(--page)",
}
CLAIMED = "Which of the paper's conclusions hold in these data?"
SMALLEST = 0.8
"""The share of a drawing's own width below which its numbers become too small to read."""
PHONE = 480
"""Pixels of the widest screen that counts as a phone; the template has the same number."""
WIDTH_OF_SVG = r'<svg\b([^>]*?)\swidth="([\d.]+)pt"'
LOWEST, HIGHEST, WIDTH = -0.25, 1.05, 130.0
"""Ends of the axis on which effects are drawn, and its width in units of the drawing."""


def write(
    path: Path,
    sweep: str,
    results: Results,
    *,
    scale: str,
    finding: Headline,
    sections: Sequence[Section],
    verdicts: Sequence[Verdict] = (),
    departures: Sequence[str] = (),
    provenance: Mapping[str, str],
    costs: Sheet | None = None,
    stages: Sheet | None = None,
    samples: Sheet | None = None,
    mlflow_hint: str,
    links: Mapping[str, str] = MappingProxyType({}),
    question: str = "",
    claims_first: bool = True,
) -> Path:
    """Writes the page for `results` atomically to `path` and returns the path.

    All pictures come first, then `samples`, which are questions with answers, then all sheets, and the settings last,
    with what each kind of stage costs and how each of the `stages` was made. Verdicts (on claims for which the sweep
    has cells) come before the pictures and, where a claim is tested as a whole, in the headline; or, without
    `claims_first`, after the sheets. `finding` is the headline otherwise. `question` is the sweep's own, of which the
    title is made.

    `mlflow_hint` is the command or address that opens MLflow, `links` maps titles to addresses in it. Escapes
    everything but SVG and loads nothing.
    """
    counted = verdict_table.counted(verdicts) if claims_first else None
    pictures = [(section.title, picture) for section in sections for picture in section.pictures]
    page = _template().render(
        question=question or (CLAIMED if counted else finding.question),
        claims_first=claims_first,
        headlines=[counted] if counted else finding.headlines,
        remarks=list(filter(None, [unfinished(results)])) if counted else finding.remarks,
        sweep=sweep,
        scale=scale,
        done=results.done,
        cells=len(results.cells),
        verdicts=[_verdict(verdict) for verdict in verdict_table.shown(verdicts)],
        claims_file=sha256(),
        departs=bool(departures_of(results.cells)),
        tuned_on=verdict_table.tuned_on(verdicts),
        pictures=[
            (title, picture, inline(picture.svg, f"f{k}-"), _is_wide(picture.svg))
            for k, (title, picture) in enumerate(pictures)
        ],
        sections=[(section, list(_sheets(section.sheets))) for section in sections if section.sheets],
        settings=_settings(results),
        departures=departures,
        provenance=provenance,
        costs=_sheet(costs) if costs else None,
        stages=_sheet(stages) if stages else None,
        samples=_sheet(samples) if samples else None,
        mlflow_hint=mlflow_hint,
        links=links,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unpublished = path.with_name(path.name + ".part")
    unpublished.write_text(page, "utf-8")
    os.replace(unpublished, path)
    return path


def inline(svg: str, prefix: str) -> Markup:
    """Prepares an SVG file for inlining: strips metadata, makes ids unique, lets colours follow the theme."""
    svg = svg[svg.index("<svg") :]
    for pattern in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>", r'\sxmlns(:\w+)?="[^"]*"'):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}")
    for colour, variable in THEMED.items():
        svg = svg.replace(colour, variable)
    # The page sets the size, up to the drawing's own width.
    sized = rf'<svg\1 style="max-width: \2pt; min-width: calc(\2pt * {SMALLEST})"'
    svg = re.sub(WIDTH_OF_SVG, sized, svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?)\sheight="[\d.]+pt"', r"\1", svg, count=1)
    return Markup(svg)


def _is_wide(svg: str) -> bool:
    """Whether a drawing is wider than a phone, where it scrolls."""
    sized = re.search(WIDTH_OF_SVG, svg)
    return sized is not None and float(sized[2]) * SMALLEST * 96 / 72 > PHONE


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """A claim as a card: its covered parts, each with effect and threshold as text and on an axis."""
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
    return {"claim": verdict.claim, "verdict": verdict.in_sweep, "scope": verdict.scope, "parts": parts}


def _axis(outcome: Outcome) -> dict[str, Any]:
    """Positions of effect, interval, threshold and zero on the axis, and the claim's side of the threshold."""

    def at(value: float) -> float:
        return round((min(max(value, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST) * WIDTH, 1)

    effect, threshold = outcome.effect, at(outcome.part.threshold)
    side = (threshold, WIDTH) if outcome.part.at_least is not None else (0.0, threshold)
    marks = [at(value) for value in (effect.low, effect.value, effect.high)] if effect else None
    return {"width": WIDTH, "zero": at(0), "threshold": threshold, "side": side, "effect": marks}


def _sheets(sheets: Sequence[Sheet]) -> Iterator[dict[str, Any]]:
    """Yields the sheets, each repeated note only once."""
    shown: set[str] = set()
    for sheet in sheets:
        yield _sheet(replace(sheet, note="") if sheet.note in shown else sheet)
        shown.add(sheet.note)


def _sheet(sheet: Sheet) -> dict[str, Any]:
    """A sheet with lines grouped by name, and numbers separated from their intervals."""
    groups: list[dict[str, Any]] = []
    for k, line in enumerate(sheet.lines):
        if line[0] or not groups:
            groups.append({"name": _cell(line[0]), "lines": []})
        short = len(sheet.headers) - len(line) + 1
        groups[-1]["lines"].append(
            {"cells": [_cell(text) for text in line[1:]], "quiet": k in sheet.quiet, "span": short if short > 1 else 0}
        )
    fields = {"title": sheet.title, "note": sheet.note, "headers": sheet.headers, "words": sheet.words}
    return {**fields, "groups": groups}


def _cell(text: str) -> tuple[str, str]:
    """`70.1 [66.8, 73.3]` as the number and its interval."""
    number, bracket, rest = text.partition(" [")
    return number, f"{bracket}{rest}".strip()


def _settings(results: Results) -> dict[str, Any]:
    """Params that all cells share, once, and those that differ, per cell."""
    names = sorted({name for cell in results.cells for name in cell.params})
    # A cell without a run knows only its axes; a param that it lacks can still be common to all others.
    values = {name: {_text(cell.params[name]) for cell in results.cells if name in cell.params} for name in names}
    common = {name: next(iter(texts)) for name, texts in values.items() if len(texts) == 1}
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
