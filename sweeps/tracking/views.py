"""Saves the comparisons of each figure as named views in MLflow, and links to them.

MLflow has no interface for saved views. This module and `saved_view.py`, the format, can be deleted together; `prepare`
(called by `sweeps.report`) and `links` (by `ktrain ui`) are their only entry points.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ktrain.config import ATTRIBUTES
from ktrain.readout.kinds.base import ReadoutKind, kinds
from ktrain.stages import active_axes
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.tracking.saved_view import TAG, SavedView, ViewSection, order_tag, path, runs_path
from sweeps.tracking.schema import await_schema
from sweeps.tracking.server_errors import first_line
from sweeps.tracking.sync import KINDS_TAG, Tracker

log = logging.getLogger("ktrain.views")
PREFIX = "ktrain-"
"""Prefix of the ids of these views; views that people save are left alone."""
PORT = 5_000
"""The default port of `ktrain ui`."""
WIDTH = 48
"""Width of a view's name on the terminal, in characters."""


CURVES = (
    "bio/first_token/train/mean",
    "bio/first_token/test/mean",
    "mixed/first_token/train/mean",
    "mixed/first_token/test/mean",
    "mixed/exact_match/test/mean",
)
"""Learning curves of mixed training (paper, Figures 1b and 1c), which the runs of pretraining hold."""


@dataclass(frozen=True)
class Link:
    """A view and the path of its page, relative to the server's address."""

    name: str
    path: str

    def line(self, uri: str, port: int = PORT) -> str:
        """The line for the terminal."""
        return f"  {self.name:<{WIDTH}}  {address(uri, port)}{self.path}"

    def pages(self, uri: str, port: int = PORT) -> dict[str, str]:
        """The full address by title, for the report."""
        return {self.name: address(uri, port) + self.path}


def prepare(uri: str, plan: Plan, figures: Mapping[str, Mapping[str, str]]) -> tuple[Link, ...]:
    """Writes the views of a plan into its experiment, and returns their links in the order of the figures.

    `figures` maps the name of each figure to the rows of its cells by key; the name, unless empty, precedes those of
    its views. Writes only what has changed, and removes cells that left the plan. If the server fails, logs one warning
    and returns no links.
    """
    try:
        tracker = Tracker.open(uri, plan.sweep.name)
        known = tracker.runs()
        views = [view for figure, rows in figures.items() for view in _views(plan, known, figure, rows)]
        _tag_runs(tracker, known, views)
        _save(tracker, views)
    except Exception as e:
        log.warning("no comparison views: %s", first_line(e))
        return ()
    experiment = tracker.experiment
    return tuple(Link(view.name, path(experiment, view.id)) for view in views)


def links(uri: str) -> dict[str, tuple[Link, ...]]:
    """All runs and the prepared views of each experiment of a tracking server that a sweep has written, by name.

    Raises MLflow's own exception if the server does not answer.
    """
    from mlflow import MlflowClient

    await_schema(uri)
    by_experiment = {}
    for experiment in MlflowClient(uri).search_experiments():
        tags = {key.removeprefix(TAG): text for key, text in experiment.tags.items() if key.startswith(TAG + PREFIX)}
        views = sorted(((json.loads(text), id) for id, text in tags.items()), key=lambda view: -view[0]["createdAt"])
        if views or KINDS_TAG in experiment.tags:
            by_experiment[experiment.name] = (
                Link("all runs", runs_path(experiment.experiment_id)),
                *(Link(view["name"], path(experiment.experiment_id, id)) for view, id in views),
            )
    return by_experiment


def address(uri: str, port: int = PORT) -> str:
    """The web address of a tracking URI: the server itself, or `ktrain ui` on `port` for a database."""
    return uri.rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{port}"


def bar_charts(kind: ReadoutKind, own: Iterable[str] = ()) -> dict[str, ViewSection]:
    """The charts of a kind of readout by title; the first metric of the first is the main one.

    A chart with a bar for the last of the six attributes gets one for each of the user's `own`, after it.
    """
    charts = {}
    for title, metrics in kind.charts().items():
        last = [metric.removesuffix(ATTRIBUTES[-1]) for metric in metrics if metric.endswith(f"/{ATTRIBUTES[-1]}")]
        charts[title] = ViewSection("BAR", (*metrics, *(prefix + attribute for prefix in last for attribute in own)))
    return charts


def _views(plan: Plan, known: Mapping[str, Any], figure: str, rows: Mapping[str, str]) -> Iterator[SavedView]:
    """For each kind of readout of a figure: its bars, the settings of its cells side by side, and its learning curves
    if it has some."""
    recorded = {run.info.run_id: run.data.metrics for run in known.values()}
    for kind in kinds():
        cells = [c for c in plan.cells if c.key in rows and c.key in known and c.cell.readout.kind == kind.name]
        if not cells:
            continue
        group = "-".join(filter(None, (quote(figure, safe="").replace("%", "_"), kind.name, plan.scale)))
        id, tag = PREFIX + group, f"ktrain.view.{group}"
        name = f"{figure}: {kind.title}" if figure else kind.title
        runs = {known[c.key].info.run_id: rows[c.key] for c in cells}
        params = _varied(cells)
        own = dict.fromkeys(a for c in cells for a in c.cell.corpus.own_attributes)
        sections = bar_charts(kind, own)
        axes = tuple(axis for axis in params if axis != "seed")
        yield SavedView(id, f"{name} ({plan.scale})", tag, runs, axes, sections, _metrics(recorded, runs))
        if axes:
            by_axis = {"Axes": ViewSection("PARALLEL", next(iter(sections.values())).metrics, axes)}
            yield SavedView(
                f"{id}-axes",
                f"{name}, settings side by side ({plan.scale})",
                tag,
                runs,
                params,
                by_axis,
                _metrics(recorded, runs),
            )
        pretrained = {known[c.key].data.tags.get("ktrain.run.pretrain", ""): rows[c.key] for c in cells}
        if curves := {run: row for run, row in pretrained.items() if _metrics(recorded, [run]) & set(CURVES)}:
            title = f"{name}, learning curves ({plan.scale})"
            lines = {"Learning curves": ViewSection("LINE", CURVES)}
            yield SavedView(f"{id}-curves", title, f"{tag}-curves", curves, (), lines, _metrics(recorded, curves))


def _metrics(recorded: Mapping[str, Mapping[str, float]], runs: Iterable[str]) -> frozenset[str]:
    """The names of all metrics that any of the runs has."""
    return frozenset(metric for run in runs for metric in recorded.get(run, {}))


def _varied(cells: Sequence[PlannedCell]) -> tuple[str, ...]:
    """The axes that are active in all cells and have more than one value among them; MLflow draws no line through the
    axes of a run that lacks one."""
    active = [active_axes(cell.cell) for cell in cells]
    shared = [axis for axis in active[0] if all(axis in axes for axes in active)]
    return tuple(axis for axis in shared if len({str(axes[axis]) for axes in active}) > 1)


def _tag_runs(tracker: Tracker, known: Mapping[str, Any], views: Sequence[SavedView]) -> None:
    """Tags the runs of each view with their row and its place, and removes the tags from runs that left the view."""
    from mlflow.entities import RunTag

    values_by_tag: dict[str, Mapping[str, str]] = {}
    for view in views:
        values_by_tag[view.rows_tag] = view.rows
        # MLflow sorts tags as text.
        values_by_tag[order_tag(view.rows_tag)] = {id: f"{place:05}" for place, id in enumerate(view.rows)}
    for run in known.values():
        id, tags = run.info.run_id, run.data.tags
        own = {tag: values[id] for tag, values in values_by_tag.items() if id in values}
        if changed := [RunTag(tag, value) for tag, value in own.items() if tags.get(tag) != value]:
            tracker.client.log_batch(id, tags=changed)
        for tag in values_by_tag.keys() & tags.keys() - own.keys():
            tracker.client.delete_tag(id, tag)


def _save(tracker: Tracker, views: Sequence[SavedView]) -> None:
    """Writes each view that is new or has changed; a changed one keeps its place in the menu."""
    tags = tracker.client.get_experiment(tracker.experiment).tags
    now = int(time.time() * 1000)
    for number, view in enumerate(views):
        before = tags.get(TAG + view.id)
        value = view.tag(json.loads(before)["createdAt"] if before else now - number)
        if value != before:
            tracker.client.set_experiment_tag(tracker.experiment, TAG + view.id, value)
