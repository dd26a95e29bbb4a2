"""Publication: what a plan's results come to, on the screen, as files beside the store, and as one page.

A part of the command line, which knows this package, the trainer and the analysis.
"""

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ktrain
from analysis import (
    answer_sheets,
    cells,
    claims,
    comparison,
    figures,
    finding,
    learning,
    names,
    paper,
    probe_table,
    report,
    rows,
    table,
    verdict_table,
)
from analysis.cells import Results
from analysis.section import Section, Sheet
from ktrain.errors import WrongRequest
from sweeps import spent, tracking, views
from sweeps.plan import Plan
from sweeps.show import wide_screen

LISTED = 8
"""Comparison views above which their links are left to the page and to `ktrain ui`."""


def read(plan: Plan, uri: str) -> Results:
    """The results of a plan from MLflow. Raises `WrongRequest` where it does not answer."""
    with _answering(uri):
        return cells.load(uri, plan.sweep.name, {c.key: c.axes for c in plan.cells})


@contextmanager
def _answering(uri: str) -> Iterator[None]:
    """A server that does not answer, or does not let us in, is a wrong request, in one line."""
    try:
        yield
    except Exception as e:
        raise tracking.refusal(uri, e) from e


def publish(plan: Plan) -> None:
    """Prints verdicts and tables; writes figures, their numbers, the verdicts and the page; prepares MLflow's views."""
    folder, uri = _folder(plan), tracking.default_uri(plan.store)
    found, best_of = read(plan, uri), plan.sweep.best_of
    numbers = paper.beside(plan.sweep.figure)
    with _answering(uri):
        curves = learning.read(uri, found)
    verdicts = claims.judge(found, curves)
    console = wide_screen()
    console.print(verdict_table.rich_table(verdicts), table.everything(found, numbers, best_of=best_of))
    parts = {
        part.figure: {cell.key for cell in plan.cells if part.name in cell.parts}
        for part in plan.sweep.parts
        if part.figure
    }
    compared = comparison.compare(found, plan.sweep.figures, scale=plan.scale, parts=parts)
    drawn = figures.draw(
        found, numbers, question=plan.sweep.question, best_of=best_of, comparisons=compared, curves=curves
    )
    for one in compared:
        (folder / f"{one.figure}.csv").write_text(one.frame().to_csv(index=False), encoding="utf-8")
    for drawing in drawn:
        drawing.write(folder)
    (folder / "claims.json").write_text(json.dumps(verdict_table.as_json(verdicts), indent=1), encoding="utf-8")
    sections = figures.sections(drawn, compared)
    if not compared:
        sheets = (*answer_sheets.sheets(found, numbers, best_of=best_of), *probe_table.sheets(found, numbers))
        sections = (*sections, Section("", (), sheets))
    links = _views(plan, uri, found)
    hint = "ktrain ui" if uri.startswith("sqlite:///") else uri
    page = report.write(
        folder / "report.html",
        plan.sweep.name,
        found,
        scale=plan.scale,
        finding=finding.find(found, numbers, best_of=best_of),
        sections=sections,
        verdicts=verdicts,
        departures=plan.departures(),
        provenance=_provenance(plan),
        costs=Sheet("Costs", spent.HEADERS, tuple(cost.line for cost in spent.by_kind(plan)), spent.NOTE),
        mlflow_hint=hint,
        links={name: address for link in links for name, address in link.pages(uri).items()},
    )
    _tell(folder, [drawing.name for drawing in drawn], page, hint, [link.line(uri) for link in links])


def _folder(plan: Plan) -> Path:
    """The folder of the report, made where missing."""
    folder = plan.store.reports / plan.sweep.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WrongRequest(f"{folder}: not writable: {e.strerror}") from e
    return folder


def _views(plan: Plan, uri: str, found: Results) -> tuple[Any, ...]:
    """The comparison views in MLflow, of each part under the row names of the report; none before there are runs."""
    if all(cell.state == "missing" for cell in found.cells):
        return ()
    named = {}
    for part in dict.fromkeys(part for cell in plan.cells for part in cell.parts):
        keys = {cell.key for cell in plan.cells if part in cell.parts}
        members = replace(found, cells=tuple(cell for cell in found.cells if cell.key in keys))
        table = rows.rows(members, names.GROUPS)
        shown = {key: row.name for row in table for fold in row.folds.values() for key in fold.keys}
        named[part if plan.sweep.parts else ""] = shown
    return tuple(views.prepare(uri, plan, named))


def _provenance(plan: Plan) -> dict[str, str]:
    """Versions of the last finished stage, and the machine that writes the page."""
    finished = [s.key for c in plan.cells for s in c.stages if s.key in plan.seen.done]
    versions = plan.seen.done[finished[-1]].manifest["versions"] if finished else {}
    return {"ktrain": ktrain.__version__, "machine": platform.platform(), **versions}


def _tell(folder: Path, drawn: list[str], page: Path, hint: str, links: Sequence[str]) -> None:
    """Where everything is."""
    shown = "".join(f"figure  {folder / name}.svg\n" for name in drawn)
    many = len(links) > LISTED
    views = f" ({len(links)} comparison views)" if many else ""
    print(f"{shown}claims  {folder / 'claims.json'}\nreport  {page}\nMLflow  {hint}{views}")
    for line in () if many else links:
        print(line)
