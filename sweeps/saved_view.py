"""A saved view of MLflow's page of runs: what it shows, and how MLflow keeps it.

MLflow (since 3.15) keeps a named view as a tag of the experiment, whose value is JSON: a name, times, and the state of
the page, deflated. The fields of the state are those that the page of MLflow 3.17 writes when a view is saved by hand.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TAG = "mlflow.sharedViewState."
"""What the name of the experiment's tag begins with; the rest is the view's id, which stands in its link."""
LARGEST = 5_000
"""Characters that a tag of an experiment may hold."""
PAGE = 100
"""Runs that the page loads before it is asked for more."""
RUN = "attributes.`Run Name`"
"""The column that names a run or a row."""


@dataclass(frozen=True)
class Section:
    """Charts under a heading: bars or lines of one metric each, or parallel coordinates of axes and metrics."""

    kind: Literal["BAR", "LINE", "PARALLEL"]
    metrics: tuple[str, ...]
    axes: tuple[str, ...] = ()

    def cards(self, name: str) -> list[dict[str, Any]]:
        """As the page keeps them."""
        common = {"type": self.kind, "metricSectionId": name, "deleted": False, "isGenerated": False}
        if self.kind == "PARALLEL":
            drawn = {"selectedParams": self.axes, "selectedMetrics": self.metrics, "showAllRuns": False}
            return [{"uuid": f"{name}-0", **common, **drawn}]
        return [{"uuid": f"{name}-{k}", **common, "metricKey": metric} for k, metric in enumerate(self.metrics)]

    def heading(self, name: str, rows: int) -> dict[str, Any]:
        """As the page keeps it; a chart that is alone takes the whole width."""
        alone = self.kind == "PARALLEL" or len(self.metrics) == 1
        height = max(360, 140 + 20 * rows) if self.kind == "BAR" else 480
        return _heading(name, True) | {"columns": 1 if alone else 2, "cardHeight": height}


@dataclass(frozen=True)
class View:
    """One view: the runs that bear the tag `rows_tag`, whose value is the row that a run belongs to."""

    id: str
    name: str
    rows_tag: str
    rows: Mapping[str, str]
    """Row by run id; runs of one row are replicates."""
    params: tuple[str, ...]
    """Columns of the table, before the metrics that are drawn."""
    sections: Mapping[str, Section]
    recorded: frozenset[str] = frozenset()
    """All metrics of the runs: MLflow draws by itself what no section has, and that shall stay below, closed."""

    def state(self) -> dict[str, Any]:
        """The page's state: filter, order, columns, grouping and charts.

        Runs of a row are drawn as their mean, except in parallel coordinates, which cannot average an axis of words.
        """
        metrics = dict.fromkeys(metric for section in self.sections.values() for metric in section.metrics)
        folded = all(section.kind != "PARALLEL" for section in self.sections.values())
        rows = tuple(dict.fromkeys(self.rows.values()))
        cards = [card for name, section in self.sections.items() for card in section.cards(name)]
        others = {_place(metric) for metric in self.recorded - {card.get("metricKey") for card in cards}}
        columns = {f"params.`{name}`": name for name in self.params} | {f"metrics.`{name}`": name for name in metrics}
        columns |= {"tags.`ktrain.state`": "ktrain.state"}
        group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": self.rows_tag}]}
        return {
            "searchFilter": f"tags.`{self.rows_tag}` != ''",
            "orderByKey": "attributes.start_time",
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
            # Or the page sorts the sections by name.
            "isAccordionReordered": True,
            "viewMaximized": False,
            "runListHidden": False,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": group if folded else None,
            "groupsExpanded": dict.fromkeys((f"tag.{self.rows_tag}.{row}" for row in rows[:PAGE] if folded), False),
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }

    def tag(self, created: int) -> str:
        """The value of the experiment's tag; `created` in milliseconds orders the menu of views, newest first.

        Raises `ValueError` where it is longer than a tag may be.
        """
        state = json.dumps(self.state(), separators=(",", ":")).encode()
        deflated = base64.b64encode(zlib.compress(state, 9)).decode()
        told = {"name": self.name, "createdAt": created, "updatedAt": created, "state": f"deflate;{deflated}"}
        value = json.dumps(told, separators=(",", ":"))
        if len(value) > LARGEST:
            raise ValueError(f"the view {self.name} takes {len(value)} characters, and a tag holds {LARGEST}")
        return value


def path(experiment: str, view: str) -> str:
    """The address that opens a view by its id, after that of the server."""
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={view}&compareRunsMode=CHART"


def _place(metric: str) -> str:
    """The section that MLflow sorts a metric into: its name up to the last slash."""
    return metric.rpartition("/")[0] or "Model metrics"


def _heading(name: str, opened: bool) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": opened,
        "isReordered": opened,
        "deleted": False,
        "isGenerated": not opened,
    }
