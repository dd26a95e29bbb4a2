"""`ktrain report`: judges and draws the results of a plan, prints them, and writes files and one page beside the store.

Like the command line, this module knows ktrain, sweeps and analysis together.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import ktrain
from analysis.claims import judge, verdict_table
from analysis.claims.verdict import Verdict
from analysis.figures import draw
from analysis.measurements import names, table_rows
from analysis.measurements.cells import Results
from analysis.paper import comparison, tables
from analysis.presentation.section import Section, Sheet
from analysis.report import answer_sheets, headline, kind_table, probe_table, sample_answers, search_table, table
from analysis.report import page as report_page
from ktrain.errors import WrongRequest
from sweeps.console import own_command, print_doubts, shown_path, store_words, table_screen
from sweeps.execution import stage_history
from sweeps.planning import measured_cost, summary
from sweeps.planning.plan import Plan
from sweeps.results import read, read_answers, read_curves, undelivered
from sweeps.tracking import address, local_port, sync, views

CLAIMS = "claims"
"""The sweep whose answer is the verdicts."""
LISTED = 8
"""Up to this many comparison views, the terminal lists their links; above it, only the page and `ktrain ui` do."""


@dataclass(frozen=True)
class Analysis:
    """What the results of a plan show, before anything is drawn."""

    results: Results
    paper: pd.DataFrame | None
    """The paper's numbers for the figure of the sweep, if it has one."""
    curves: pd.DataFrame
    verdicts: tuple[Verdict, ...]
    comparisons: tuple[comparison.Comparison, ...]


def publish(plan: Plan, *, wide: bool = False) -> None:
    """Prints verdicts and tables; writes figures, their numbers, the verdicts and the page; saves views in MLflow.

    Tables fit the terminal, or have every column where `wide`.
    """
    folder, uri, best_of = _report_folder(plan), address.default_uri(plan.store), plan.sweep.best_of
    analysis = _analyse(plan, uri)
    tables_of_rows = table.everything(analysis.results, analysis.paper, best_of=best_of)
    table_screen(wide).print(verdict_table.rich_table(analysis.verdicts), tables_of_rows)
    drawings = draw.draw_figures(
        analysis.results,
        analysis.paper,
        question=plan.sweep.question,
        best_of=best_of,
        comparisons=analysis.comparisons,
        curves=analysis.curves,
    )
    _write_files(folder, analysis, drawings)
    links = _save_views(plan, uri, analysis.results)
    # A database is served at an address only once the hint is followed.
    local = address.database_file(uri) is not None
    hint = own_command("ui", *store_words(plan.store.address)) if local else uri
    port = local_port.last_port(uri)
    page = report_page.write(
        folder / "report.html",
        plan.sweep.name,
        analysis.results,
        scale=plan.scale,
        finding=headline.find_headline(analysis.results, analysis.paper, best_of=best_of),
        sections=_sections(analysis, drawings, best_of),
        verdicts=analysis.verdicts,
        departures=summary.departures(plan),
        provenance=_provenance(plan, analysis.results),
        costs=_costs(plan),
        stages=Sheet(
            "How each stage was made", stage_history.HEADERS, stage_history.stage_lines(plan), stage_history.NOTE
        ),
        samples=_samples(plan, analysis.results, best_of),
        mlflow_hint=hint,
        links={name: page for link in links for name, page in link.pages(uri, port).items()},
        question=plan.sweep.question,
        claims_first=bool(plan.sweep.figures) or plan.sweep.name == CLAIMS,
    )
    _print_paths(folder, drawings, page, hint, [link.line(uri, port) for link in links])


def _analyse(plan: Plan, uri: str) -> Analysis:
    results = _delivered(plan, uri)
    curves, doubts = read_curves(plan, uri, results)
    print_doubts((*results.doubts, *doubts, *filter(None, [results.origin])))
    keys_by_figure = {
        part.figure: {cell.key for cell in plan.cells if part.name in cell.parts}
        for part in plan.sweep.parts
        if part.figure
    }
    comparisons = comparison.compare(results, plan.sweep.figures, scale=plan.scale, parts=keys_by_figure)
    paper = tables.beside(plan.sweep.figure)
    verdicts = judge.judge(results, curves[curves["metric"].isin(list(names.LEARNING))])
    return Analysis(results, paper, curves, verdicts, comparisons)


def _delivered(plan: Plan, uri: str) -> Results:
    """Reads the results, after a delivery to MLflow if it lacks stages that were finished since, by another sweep for
    instance."""
    results = read(plan, uri)
    if not undelivered(plan, results):
        return results
    try:
        failure = sync.sync_with_retry(sync.Tracker.open(uri, plan.sweep.name), plan, last=False)
    except WrongRequest as e:
        # A login that may only read: the store's numbers are shown all the same.
        failure = str(e)
    if failure:
        print_doubts((failure,))
        return results
    return read(plan, uri)


def _report_folder(plan: Plan) -> Path:
    """The folder of the report, created if missing."""
    folder = plan.store.reports / plan.sweep.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WrongRequest(f"{folder}: not writable: {e.strerror}") from e
    return folder


def _write_files(folder: Path, analysis: Analysis, drawings: Sequence[draw.Drawing]) -> None:
    """Each comparison with the paper as CSV, each drawing with its numbers, and the verdicts as JSON."""
    for compared in analysis.comparisons:
        (folder / f"{compared.figure}.csv").write_text(compared.frame().to_csv(index=False), encoding="utf-8")
    for drawing in drawings:
        drawing.write(folder)
    verdicts = json.dumps(verdict_table.as_json(analysis.verdicts), indent=1)
    (folder / "claims.json").write_text(verdicts, encoding="utf-8")


def _sections(analysis: Analysis, drawings: Sequence[draw.Drawing], best_of: Sequence[str]) -> tuple[Section, ...]:
    """The sections of the page; tables of all results only where no figure of the paper has its own."""
    sections = tuple(draw.sections(drawings, analysis.comparisons))
    if analysis.comparisons:
        return sections
    answers = answer_sheets.sheets(analysis.results, analysis.paper, best_of=best_of)
    probes = probe_table.sheets(analysis.results, analysis.paper)
    others = (*kind_table.sheets(analysis.results), *search_table.sheets(analysis.results))
    return (*sections, Section("", (), (*answers, *probes, *others)))


def _save_views(plan: Plan, uri: str, results: Results) -> tuple[views.Link, ...]:
    """Saves the comparison views of each part in MLflow under the report's row names; none before there are runs."""
    if not any(cell.runs for cell in results.cells):
        return ()
    row_names = {}
    for part in dict.fromkeys(part for cell in plan.cells for part in cell.parts):
        keys = {cell.key for cell in plan.cells if part in cell.parts}
        members = replace(results, cells=tuple(cell for cell in results.cells if cell.key in keys), searches=())
        row_names[part if plan.sweep.parts else ""] = {
            key: row.name
            for row in table_rows.rows(members, (*names.GROUPS, *(kind.name for kind in results.other_kinds)))
            for replicates in row.replicates.values()
            for key in replicates.keys
        }
    return views.prepare(uri, plan, row_names)


def _samples(plan: Plan, results: Results, best_of: Sequence[str]) -> Sheet | None:
    """Questions with answers of the settings that the headline contrasts, as far as the store has them."""
    sampled = sample_answers.sampled_cells(results, best_of=best_of)
    answers = [(name, read_answers(plan, cell.key, sample_answers.COLUMNS)) for name, cell in sampled]
    return sample_answers.sheet([(name, frame) for name, frame in answers if frame is not None])


def _costs(plan: Plan) -> Sheet:
    lines = tuple(cost.line for cost in measured_cost.cost_by_kind(plan))
    return Sheet("Costs", measured_cost.HEADERS, lines, measured_cost.note(plan))


def _provenance(plan: Plan, results: Results) -> dict[str, str]:
    """When and on what stages were made, what is imported, the versions of the last stage, and the machine that writes
    the page."""
    made = {"last stage finished": f"{stage_history.last_finished(plan)} UTC"}
    if results.origin:
        made["imported"] = results.origin
    if devices := stage_history.devices(plan):
        made["computed on"] = ", ".join(devices)
    finished = [s.key for c in plan.cells for s in c.stages if s.key in plan.snapshot.done]
    versions = plan.snapshot.done[finished[-1]].manifest["versions"] if finished else {}
    return {**made, "page written on": platform.platform(), "ktrain": ktrain.__version__, **versions}


def _print_paths(folder: Path, drawings: Sequence[draw.Drawing], page: Path, hint: str, links: Sequence[str]) -> None:
    """Prints where figures, verdicts, page and MLflow are."""
    for drawing in drawings:
        print(f"figure  {shown_path(folder / drawing.name)}.svg")
    count = f" ({len(links)} comparison views)" if len(links) > LISTED else ""
    print(f"claims  {shown_path(folder / 'claims.json')}\nreport  {shown_path(page)}\nMLflow  {hint}{count}")
    if len(links) <= LISTED:
        for link in links:
            print(link)
