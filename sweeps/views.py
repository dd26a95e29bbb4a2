"""Views: what each figure compares, prepared in MLflow itself as named saved views, and their links."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ktrain.config import ATTRIBUTES
from sweeps.plan import Plan, PlannedCell
from sweeps.saved_view import TAG, Section, View, path
from sweeps.tracking import Tracker, first_line

log = logging.getLogger("ktrain.views")
MINE = "ktrain-"
"""What the ids of these views begin with; those that people save by hand are left alone."""
PORT = 5_000
"""Where `ktrain ui` serves MLflow, unless told otherwise."""
WIDTH = 38
"""Characters that the terminal gives a view's name."""


def _bars(prefix: str, columns: Sequence[Any]) -> Section:
    return Section("BAR", tuple(f"{prefix}/{column}" for column in columns))


def _asked(prefix: str) -> dict[str, Section]:
    controls = (f"{prefix}/exact_match/train/mean", f"{prefix}/first_token/test/mean", "recall/attribute_tokens")
    return {
        "Exact match on held-out people, mean": _bars(f"{prefix}/exact_match/test", ["mean"]),
        "Exact match on held-out people, by attribute": _bars(f"{prefix}/exact_match/test", ATTRIBUTES),
        "People asked about, first tokens, recall": Section("BAR", controls),
    }


GROUPS: Mapping[str, tuple[str, Mapping[str, Section]]] = {
    "qa_finetune": ("QA finetune", _asked("qa")),
    "mixed": ("Mixed training", _asked("mixed")),
    "q_probe": (
        "Q-probe",
        {
            "First token, mean": _bars("q_probe/first", ["mean"]),
            "First token, by attribute": _bars("q_probe/first", ATTRIBUTES),
            "Whole attribute": _bars("q_probe/whole", ["mean", *ATTRIBUTES[1:]]),
        },
    ),
    "p_probe": (
        "P-probe",
        {
            "First token, before all attributes, mean": _bars("p_probe/first/0", ["mean"]),
            "First token, before all attributes": _bars("p_probe/first/0", ATTRIBUTES),
            "First token, mean, before later ones and its own": Section(
                "BAR", tuple(f"p_probe/first/{place}/mean" for place in (1, 2, 3, 4, 5, "own"))
            ),
            "Whole attribute, before all attributes": _bars("p_probe/whole/0", ["mean", *ATTRIBUTES[1:]]),
        },
    ),
}
"""Title and charts of the column group that a kind of readout makes; the first metric is the main one."""
CURVES = (
    "bio/first_token/train/mean",
    "bio/first_token/test/mean",
    "mixed/first_token/train/mean",
    "mixed/first_token/test/mean",
    "mixed/exact_match/test/mean",
)
"""The learning curves of mixed training (paper, Figures 1b and 1c), on the runs of the pretraining."""


@dataclass(frozen=True)
class Link:
    """A view and where it opens, after the server's address."""

    name: str
    path: str
    compare: str = ""
    """MLflow's own page of comparison: the settings of all its runs side by side."""

    def line(self, uri: str, port: int = PORT) -> str:
        """As the terminal shows it."""
        return f"  {self.name:<{WIDTH}}  {address(uri, port)}{self.path}"

    def pages(self, uri: str, port: int = PORT) -> dict[str, str]:
        """Full addresses by what they show, for the report."""
        whole = {self.name: self.path} | ({f"{self.name}, settings side by side": self.compare} if self.compare else {})
        return {name: address(uri, port) + path for name, path in whole.items()}


def prepare(uri: str, plan: Plan, figures: Mapping[str, Mapping[str, str]]) -> tuple[Link, ...]:
    """Writes the views of a plan into its experiment, and returns their links in the order of the figures.

    `figures` has, by the name of each figure, the row of each of its cells by key; the name stands before those of its
    views, unless empty. Only what has changed is written, and a cell that left the plan leaves the view. A server that
    fails costs one warning and the links.
    """
    try:
        tracker = Tracker.open(uri, plan.sweep.name)
        known = tracker.runs()
        views = [view for figure, rows in figures.items() for view in _views(plan, known, figure, rows)]
        _mark(tracker, known, views)
        _save(tracker, views)
    except Exception as e:
        log.warning("no comparison views: %s", first_line(e))
        return ()
    at = tracker.experiment
    return tuple(Link(view.name, path(at, view.id), _compare(at, list(view.rows))) for view in views)


def links(uri: str) -> dict[str, tuple[Link, ...]]:
    """The prepared views of all experiments of a tracking server, by the experiment's name.

    Raises MLflow's own exception where the server does not answer.
    """
    from mlflow import MlflowClient

    found = {}
    for experiment in MlflowClient(uri).search_experiments():
        tags = {key.removeprefix(TAG): text for key, text in experiment.tags.items() if key.startswith(TAG + MINE)}
        views = sorted(((json.loads(text), id) for id, text in tags.items()), key=lambda view: -view[0]["createdAt"])
        if views:
            at = experiment.experiment_id
            found[experiment.name] = tuple(Link(view["name"], path(at, id)) for view, id in views)
    return found


def address(uri: str, port: int = PORT) -> str:
    """Where the pages of a tracking URI are: the server itself, or what `ktrain ui` starts on `port`."""
    return uri.rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{port}"


def _views(plan: Plan, known: Mapping[str, Any], figure: str, rows: Mapping[str, str]) -> Iterator[View]:
    recorded = {run.info.run_id: run.data.metrics for run in known.values()}
    for kind, (title, sections) in GROUPS.items():
        cells = [c for c in plan.cells if c.key in rows and c.key in known and c.cell.readout.kind == kind]
        if not cells:
            continue
        group = "-".join(filter(None, (quote(figure, safe="").replace("%", "_"), kind, plan.scale)))
        id, tag, name = MINE + group, f"ktrain.view.{group}", f"{figure}: {title}" if figure else title
        runs = {known[c.key].info.run_id: rows[c.key] for c in cells}
        params = _varied(cells)
        axes = tuple(axis for axis in params if axis != "seed")
        yield View(id, f"{name} ({plan.scale})", tag, runs, axes, sections, _metrics(recorded, runs))
        if axes:
            drawn = {"Axes": Section("PARALLEL", next(iter(sections.values())).metrics, axes)}
            yield View(
                f"{id}-axes", f"{name} by axis ({plan.scale})", tag, runs, params, drawn, _metrics(recorded, runs)
            )
        pretrained = {known[c.key].data.tags.get("ktrain.run.pretrain", ""): rows[c.key] for c in cells}
        if curves := {run: row for run, row in pretrained.items() if _metrics(recorded, [run]) & set(CURVES)}:
            told, drawn = f"{name}, learning curves ({plan.scale})", {"Learning curves": Section("LINE", CURVES)}
            yield View(f"{id}-curves", told, f"{tag}-curves", curves, (), drawn, _metrics(recorded, curves))


def _metrics(recorded: Mapping[str, Mapping[str, float]], runs: Iterable[str]) -> frozenset[str]:
    return frozenset(metric for run in runs for metric in recorded.get(run, {}))


def _varied(cells: Sequence[PlannedCell]) -> tuple[str, ...]:
    """The axes that tell cells of one kind of readout apart."""
    return tuple(axis for axis in cells[0].axes if len({str(cell.axes[axis]) for cell in cells}) > 1)


def _mark(tracker: Tracker, known: Mapping[str, Any], views: Sequence[View]) -> None:
    """Tags the runs of each view with their row, and takes the tag from those that are no longer part of it."""
    from mlflow.entities import RunTag

    wanted = {view.rows_tag: view.rows for view in views}
    for run in known.values():
        id, tags = run.info.run_id, run.data.tags
        rows = {tag: rows[id] for tag, rows in wanted.items() if id in rows}
        if changed := [RunTag(tag, row) for tag, row in rows.items() if tags.get(tag) != row]:
            tracker.client.log_batch(id, tags=changed)
        for tag in wanted.keys() & tags.keys() - rows.keys():
            tracker.client.delete_tag(id, tag)


def _save(tracker: Tracker, views: Sequence[View]) -> None:
    tags = tracker.client.get_experiment(tracker.experiment).tags
    now = int(time.time() * 1000)
    for number, view in enumerate(views):
        before = tags.get(TAG + view.id)
        value = view.tag(json.loads(before)["createdAt"] if before else now - number)
        if value != before:
            tracker.client.set_experiment_tag(tracker.experiment, TAG + view.id, value)


def _compare(experiment: str, runs: Sequence[str]) -> str:
    def told(ids: Sequence[str]) -> str:
        return quote(json.dumps(list(ids), separators=(",", ":")))

    return f"/#/compare-runs?runs={told(runs)}&experiments={told([experiment])}"
