"""Encodes a saved view of MLflow's runs page, in MLflow's private format. Only `views.py` imports this module.

MLflow (since 3.15) stores a named view as a tag of the experiment. The tag's value is JSON: a name, timestamps, and the
deflated state of the page, with the fields that the page of MLflow 3.17 writes when a person saves a view.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TAG = "mlflow.sharedViewState."
"""Prefix of the experiment's tag; the view's id follows, which is also in its link."""
LARGEST = 5_000
"""Characters that an experiment tag may hold."""
PAGE = 100
"""Runs that the page loads at first."""
RUN = "attributes.`Run Name`"
"""The column with the name of a run or group."""


@dataclass(frozen=True)
class ViewSection:
    """Charts under a heading: bars or lines of one metric each, or parallel coordinates of axes and metrics."""

    kind: Literal["BAR", "LINE", "PARALLEL"]
    metrics: tuple[str, ...]
    axes: tuple[str, ...] = ()

    def cards(self, name: str) -> list[dict[str, Any]]:
        """The charts in the page's format."""
        common = {"type": self.kind, "metricSectionId": name, "deleted": False, "isGenerated": False}
        if self.kind == "PARALLEL":
            selected = {"selectedParams": self.axes, "selectedMetrics": self.metrics, "showAllRuns": False}
            return [{"uuid": f"{name}-0", **common, **selected}]
        return [{"uuid": f"{name}-{k}", **common, "metricKey": metric} for k, metric in enumerate(self.metrics)]

    def heading(self, name: str, rows: int) -> dict[str, Any]:
        """The section in the page's format; a single chart takes the whole width."""
        single = self.kind == "PARALLEL" or len(self.metrics) == 1
        height = max(360, 140 + 20 * rows) if self.kind == "BAR" else 480
        return _heading(name, True) | {"columns": 1 if single else 2, "cardHeight": height}


@dataclass(frozen=True)
class SavedView:
    """A view of the runs that have the tag `rows_tag`, grouped by its value: the row of the table."""

    id: str
    name: str
    rows_tag: str
    rows: Mapping[str, str]
    """Row by run id; the runs of a row are replicates."""
    params: tuple[str, ...]
    """Columns of the table, before those of the metrics."""
    sections: Mapping[str, ViewSection]
    recorded: frozenset[str] = frozenset()
    """All metrics of the runs: MLflow adds charts of those in no section, which are put below, collapsed."""

    def state(self) -> dict[str, Any]:
        """The page's state: filter, order, columns, grouping and charts.

        Charts show the mean of a row's runs, except parallel coordinates, which cannot average a categorical axis.
        """
        metrics = dict.fromkeys(metric for section in self.sections.values() for metric in section.metrics)
        grouped = all(section.kind != "PARALLEL" for section in self.sections.values())
        rows = tuple(dict.fromkeys(self.rows.values()))
        cards = [card for name, section in self.sections.items() for card in section.cards(name)]
        others = {_default_section(metric) for metric in self.recorded - {card.get("metricKey") for card in cards}}
        columns = {f"params.`{name}`": name for name in self.params} | {f"metrics.`{name}`": name for name in metrics}
        columns |= {"tags.`ktrain.state`": "ktrain.state"}
        group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": self.rows_tag}]}
        return {
            "searchFilter": f"tags.`{self.rows_tag}` != ''",
            # In the order of the report; by start, the page would also list the parents of runs that it shows.
            "orderByKey": f"tags.`{order_tag(self.rows_tag)}`",
            "orderByAsc": True,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(columns),
            "columnOrder": [RUN, *columns],
            "columnWidths": {RUN: 360} | {column: 45 + 7 * len(name) for column, name in columns.items()},
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": cards,
            "compareRunSections": [
                *(section.heading(name, len(rows)) for name, section in self.sections.items()),
                *(_heading(name, False) for name in sorted(others - self.sections.keys())),
            ],
            # Otherwise the page sorts the sections by name.
            "isAccordionReordered": True,
            "viewMaximized": False,
            "runListHidden": False,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": group if grouped else None,
            "groupsExpanded": dict.fromkeys((f"tag.{self.rows_tag}.{row}" for row in rows[:PAGE] if grouped), False),
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }

    def tag(self, created: int) -> str:
        """The value of the experiment's tag. `created`, in milliseconds, orders the menu of views, newest first.

        Raises `ValueError` if the value is too long for a tag.
        """
        state = json.dumps(self.state(), separators=(",", ":")).encode()
        deflated = base64.b64encode(zlib.compress(state, 9)).decode()
        envelope = {"name": self.name, "createdAt": created, "updatedAt": created, "state": f"deflate;{deflated}"}
        value = json.dumps(envelope, separators=(",", ":"))
        if len(value) > LARGEST:
            raise ValueError(f"the view {self.name} takes {len(value)} characters, and a tag holds {LARGEST}")
        return value


def order_tag(rows_tag: str) -> str:
    """The tag by which the runs of a view are sorted."""
    return f"{rows_tag}.order"


def path(experiment: str, view: str) -> str:
    """The path of a view's page, relative to the server's address."""
    return f"{runs_path(experiment)}&viewStateShareKey={view}&compareRunsMode=CHART"


def runs_path(experiment: str) -> str:
    """The path of an experiment's runs, in the pages for training models: MLflow (since 3.9) opens those for calls of
    language models otherwise, whatever kind the experiment has."""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def _default_section(metric: str) -> str:
    """The section into which MLflow sorts a metric: its name up to the last slash."""
    return metric.rpartition("/")[0] or "Model metrics"


def _heading(name: str, expanded: bool) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": expanded,
        "isReordered": expanded,
        "deleted": False,
        "isGenerated": not expanded,
    }
