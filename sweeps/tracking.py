"""The one writer to MLflow: it brings the tracking server level with the store.

The store is the truth and the spool: what a server that was away has missed is delivered by the next call, and a run
is found by its key and continued, never doubled.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrain.errors import WrongRequest
from ktrain.stages import Stage
from ktrain.store import Store
from sweeps.plan import Plan, PlannedCell

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# Its retries are ours to tell, in one line at the end.
logging.getLogger("urllib3").setLevel(logging.ERROR)
log = logging.getLogger("ktrain.tracking")


def default_uri(store: Store) -> str:
    """`MLFLOW_TRACKING_URI`, or SQLite beside a store in a folder, as an absolute address.

    Raises `WrongRequest` for a store elsewhere without a tracking server.
    """
    if named := os.environ.get("MLFLOW_TRACKING_URI"):
        return named
    if "://" in store.address:
        raise WrongRequest(
            f"store={store.address}: set MLFLOW_TRACKING_URI to a tracking server; "
            "only a store in a folder has a database of its own"
        )
    return f"sqlite:///{Path(store.address) / 'mlflow.db'}"


@dataclass(frozen=True)
class Tracker:
    """A tracking server that has answered, and the experiment of one sweep."""

    uri: str
    client: Any
    experiment: str

    @classmethod
    def open(cls, uri: str, sweep: str) -> "Tracker":
        """Raises `WrongRequest` where the server does not answer."""
        from mlflow import MlflowClient

        try:
            client = MlflowClient(uri)
            known = client.get_experiment_by_name(sweep)
            if known and known.lifecycle_stage == "deleted":
                client.restore_experiment(known.experiment_id)
            experiment = known.experiment_id if known else client.create_experiment(sweep, _artifacts(uri, sweep))
        except Exception as e:
            raise WrongRequest(f"MLFLOW_TRACKING_URI={uri}: does not answer: {first_line(e)}") from e
        return cls(uri, client, experiment)

    def sync(self, plan: Plan) -> None:
        """Writes every cell and finished stage of the plan that the server does not have yet."""
        known = self.runs()
        for cell in plan.cells:
            links = {}
            for stage in cell.stages:
                if stage.key in plan.seen.done:
                    links[stage.kind] = self._stage(known, plan, stage)
            self._cell(known, plan, cell, links)

    def runs(self) -> dict[str, Any]:
        """The experiment's runs by key."""
        runs, token = {}, None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            runs.update({run.data.tags["ktrain.key"]: run for run in page if "ktrain.key" in run.data.tags})
            token = page.token
            if not token:
                return runs

    def _stage(self, known: dict[str, Any], plan: Plan, stage: Stage) -> str:
        """The run of a stage with its curves, written once; returns the run's id."""
        run = known.get(stage.key)
        if run is None or run.info.status != "FINISHED":
            identity = _flat(stage.identity)
            run = run or self._create(known, stage.key, stage.kind, {"ktrain.kind": "stage"})
            curve = _file(plan, stage.key, "curve.json") or []
            curves = [
                (name, point[field], point["step"])
                for point in curve
                for name, field in (
                    ("train/loss", "loss"),
                    ("train/learning_rate", "learning_rate"),
                    ("speed/tokens_per_second", "tokens_per_second"),
                )
            ]
            points, people = _learning(_file(plan, stage.key, "learning.json"))
            drawn = {*_CURVES, *(name for name, *_ in points)}
            # The last point of a curve is its final number, and one at step 0 would be another point of it.
            metrics = plan.seen.done[stage.key].metrics
            finals = [(name, value, 0) for name, value in metrics.items() if name not in drawn]
            self._log(run.info.run_id, curves + points + finals, identity | people, {})
            self.client.set_terminated(run.info.run_id)
            known[stage.key] = self.client.get_run(run.info.run_id)
        return str(run.info.run_id)

    def _cell(self, known: dict[str, Any], plan: Plan, cell: PlannedCell, links: Mapping[str, str]) -> None:
        run = known.get(cell.key)
        tags = {"ktrain.state": cell.state, **{f"ktrain.run.{kind}": run_id for kind, run_id in links.items()}}
        if run is not None and tags.items() <= run.data.tags.items():
            return
        metrics: dict[str, float] = {}
        tags |= {"ktrain.kind": "cell", "ktrain.scale": plan.scale}
        done = {s.kind: s.key for s in cell.stages if s.kind in links}
        tags["ktrain.stages"] = json.dumps({kind: plan.seen.done[key].where for kind, key in done.items()})
        for kind, key in done.items():
            metrics.update(plan.seen.done[key].metrics)
            if about := _file(plan, key, "counts.json"):
                tags |= _pieces("ktrain.n", about["n"]) | _pieces("ktrain.interval", about["interval"])
            log.debug("%s: %s", cell.key, kind)
        # The state is written last: a run without one was cut short, and the next call writes it again.
        run = run or self._create(known, cell.key, cell.key, {"ktrain.kind": "cell"})
        params = {} if "ktrain.state" in run.data.tags else {axis: str(value) for axis, value in cell.axes.items()}
        if cell.state != "running":
            ended = cell.state == "done" or cell.state.startswith("blocked")
            status = "FINISHED" if ended else "FAILED" if cell.state.startswith("failed") else "SCHEDULED"
            self.client.update_run(run.info.run_id, status=status)
        self._log(run.info.run_id, [(n, v, 0) for n, v in metrics.items()], params, tags)

    def _create(self, known: dict[str, Any], key: str, name: str, tags: Mapping[str, str]) -> Any:
        run = self.client.create_run(self.experiment, tags={**tags, "ktrain.key": key}, run_name=name)
        known[key] = run
        return run

    def _log(
        self,
        run: str,
        metrics: list[tuple[str, float, int]],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(name, float(value), 0, step) for name, value, step in metrics]
        for begin in range(0, len(points), 1000):
            self.client.log_batch(run, metrics=points[begin : begin + 1000])
        self.client.log_batch(
            run,
            params=[Param(name, str(value)) for name, value in params.items()][:100],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )


def _file(plan: Plan, key: str, name: str) -> Any:
    """A JSON file of a finished stage; None where the stage has none. Raises `FileNotFoundError` for a damaged one."""
    if name not in plan.seen.done[key].manifest["files"]:
        return None
    return json.loads(plan.store.read(key, name))


def _learning(found: Any) -> tuple[list[tuple[str, float, int]], dict[str, int]]:
    """Accuracies over the steps of a mixed training, and as params over how many people of each half they are."""
    if not found:
        return [], {}
    points = [
        (name, value, point["step"]) for point in found["curve"] for name, value in point.items() if name != "step"
    ]
    return points, {f"learning.n.{half}": people for half, people in found["n"].items()}


def _pieces(name: str, value: Any) -> dict[str, str]:
    """A JSON text as tags `name.0`, `name.1`, ...: a tag holds 5,000 characters at most."""
    text = json.dumps(_short(value), separators=(",", ":"))
    return {f"{name}.{k}": text[begin : begin + PIECE] for k, begin in enumerate(range(0, len(text), PIECE))}


def _short(value: Any) -> Any:
    """Bounds of intervals to six digits, which is more than any of them is worth."""
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return [round(x, 6) for x in value] if isinstance(value, list) else value


PIECE = 4_500
_CURVES = ("train/loss", "speed/tokens_per_second")


def deliver(tracker: Tracker, plan: Plan) -> str | None:
    """`sync`, or one line that says why not: what was measured stays in the store and is delivered next time."""
    try:
        tracker.sync(plan)
    except Exception as e:
        return f"MLflow at {tracker.uri} does not answer now ({first_line(e)}); the next run delivers what it missed"
    return None


def _artifacts(uri: str, sweep: str) -> str | None:
    """Where artifacts of a local database go; a server decides for itself."""
    path = uri.removeprefix("sqlite:///")
    return Path(path).absolute().with_name("mlflow-artifacts").joinpath(sweep).as_uri() if path != uri else None


def first_line(error: Exception) -> str:
    """What an error says, short enough for a line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _flat(identity: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return flat
