"""The one writer to MLflow: it brings the tracking server level with the store.

The store is the truth and the spool: what a server that was away has missed is delivered by the next call, and a run
is found by its key and continued, never doubled.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ktrain.errors import WrongRequest
from ktrain.keys import digest
from ktrain.lease import LeaseHeld
from ktrain.store import Store
from sweeps import credentials, record
from sweeps.plan import Plan
from sweeps.record import Record

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# A request that may have been carried out is not sent again before we have looked.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# Or each run that ends asks once more, and prints its own address.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# What a server that is away costs is ours to tell, in one line.
logging.getLogger("urllib3").setLevel(logging.ERROR)
log = logging.getLogger("ktrain.tracking")

PAUSES = (1.0, 4.0)
"""Seconds before a delivery that failed is tried again; a database that restarts takes some two."""
PATIENCE = 120.0
"""Seconds that the last delivery waits for another driver of the same sweep that is writing."""
WRITERS = 6
"""Requests at once to a server, which answers them in several processes; a database file takes one writer."""
FEW, PAGE = 100, 200
"""Keys up to which runs are looked up one by one, instead of reading all of them, so many at once, which even a
busy server does in a second or two."""
LATER = "; the next run delivers what it missed"


def default_uri(store: Store) -> str:
    """`MLFLOW_TRACKING_URI`, or SQLite beside a store in a folder, as an absolute address.

    Raises `WrongRequest` for a store elsewhere without a tracking server, and for an address with a password, which
    reports and messages would show.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and urlsplit(uri).password:
        raise WrongRequest(
            "MLFLOW_TRACKING_URI: holds a password, which links would show; "
            f"it belongs into {credentials.NAME} and {credentials.PASSWORD}"
        )
    if not uri and "://" in store.address:
        raise WrongRequest(
            f"store={store.address}: set MLFLOW_TRACKING_URI to a tracking server; "
            "only a store in a folder has a database of its own"
        )
    return uri or f"sqlite:///{Path(store.address) / 'mlflow.db'}"


@dataclass(frozen=True)
class Tracker:
    """A tracking server that has answered, and the experiment of one sweep."""

    uri: str
    client: Any
    experiment: str

    @classmethod
    def open(cls, uri: str, sweep: str) -> "Tracker":
        """Raises `WrongRequest` where the server does not answer, or does not let us in."""
        from mlflow import MlflowClient

        try:
            client = MlflowClient(uri)
            known = client.get_experiment_by_name(sweep)
            if known and known.lifecycle_stage == "deleted":
                client.restore_experiment(known.experiment_id)
            experiment = known.experiment_id if known else client.create_experiment(sweep, _artifacts(uri, sweep))
        except Exception as e:
            raise refusal(uri, e) from e
        return cls(uri, client, experiment)

    def sync(self, plan: Plan) -> None:
        """Writes every cell and finished stage of the plan that the server does not have yet, or not whole.

        May be cut short anywhere: a run is whole when its last write has been made, and one that is not is written
        again, which changes nothing of what it has.
        """
        stages = {s.key: s for cell in plan.cells for s in cell.stages if s.key in plan.seen.done}
        known = self.runs([*stages, *(cell.key for cell in plan.cells)])
        told: list[tuple[Any, Callable[[], Record]]] = []
        for stage in stages.values():
            run = known.get(stage.key)
            if run is not None and run.data.tags.get("ktrain.built") not in (None, record.built(plan, stage.key)):
                # The curve of a stage that was made twice would be two curves in one.
                self.client.delete_run(run.info.run_id)
                run = None
            if run is None or run.info.status != "FINISHED":
                told.append((run, partial(record.of_stage, plan, stage)))
        ids = {key: run.info.run_id for key, run in known.items()} | self._write(told)
        told = []
        for cell in plan.cells:
            links = {stage.kind: ids[stage.key] for stage in cell.stages if stage.key in stages}
            run = known.get(cell.key)
            if run is None or not record.state(cell, links).items() <= run.data.tags.items():
                told.append((run, partial(record.of_cell, plan, cell, links)))
        self._write(told)

    def runs(self, keys: Sequence[str] | None = None) -> dict[str, Any]:
        """The experiment's runs by key, all or those of `keys` (and perhaps others).

        Of runs that share a key, which a server leaves that has broken off in the middle, the first whole one stays.
        """
        if keys is None or len(keys) > FEW:
            found = list(self._search(""))
        else:
            found = [run for key in dict.fromkeys(keys) for run in self._search(f"tags.`ktrain.key` = '{key}'")]
        runs: dict[str, Any] = {}
        for run in sorted(found, key=_precedence):
            if (key := run.data.tags.get("ktrain.key")) in runs:
                self.client.delete_run(run.info.run_id)
            elif key:
                runs[key] = run
        return runs

    def _search(self, condition: str) -> Iterable[Any]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], filter_string=condition, max_results=PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _write(self, told: Sequence[tuple[Any, Callable[[], Record]]]) -> dict[str, str]:
        """Writes records, each into its run where it has one; returns the ids of the runs by key."""
        # Runs are listed by when they began, and that is to be the order of the plan.
        begin = int(time.time() * 1000) - len(told)

        def one(number: int) -> tuple[str, str]:
            run, made = told[number][0], told[number][1]()
            return made.key, self._record(run, made, begin + number)

        with ThreadPoolExecutor(WRITERS if self.uri.startswith("http") else 1) as writers:
            return dict(writers.map(one, range(len(told))))

    def _record(self, run: Any, made: Record, begin: int) -> str:
        from mlflow.entities import Metric, Param, RunTag

        if run is not None and _other(run.data.metrics, made):
            self.client.delete_run(run.info.run_id)
            run = None
        if run is None:
            run = self.client.create_run(self.experiment, begin, dict(made.about), made.name)
        id, before = str(run.info.run_id), run.data.tags
        if made.tags and made.status != run.info.status:
            self._end(id, made.status)
        for points, params, tags in made.batches():
            self.client.log_batch(
                id,
                metrics=[Metric(name, value, 0, step) for name, value, step in points],
                params=[Param(*param) for param in params if "ktrain.state" not in before],
                tags=[RunTag(*tag) for tag in tags],
            )
        if not made.tags:
            self._end(id, made.status)
        return id

    def _end(self, run: str, status: str) -> None:
        if status in ("FINISHED", "FAILED"):
            self.client.set_terminated(run, status)
        else:
            self.client.update_run(run, status)


def deliver(tracker: Tracker, plan: Plan, *, last: bool = True) -> str | None:
    """`sync`, or one line that says why not: what was measured stays in the store and is delivered next time.

    The `last` delivery of a driver is tried again where it fails, and waits for another driver that is writing.
    """
    writing = f"mlflow-{digest([tracker.uri, plan.sweep.name])}"
    try:
        with plan.store.lease(writing, patience=PATIENCE if last else 0.0):
            _persist(partial(tracker.sync, plan), PAUSES if last else ())
    except LeaseHeld as e:
        return f"another driver of this sweep writes to MLflow ({e.holder}){LATER}"
    except Exception as e:
        return f"{_trouble(tracker.uri, e)}{LATER}"
    return None


def _persist(once: Callable[[], None], pauses: Sequence[float]) -> None:
    for pause in pauses:
        try:
            return once()
        except Exception as e:
            log.debug("delivery failed and is tried again: %s", e)
            time.sleep(pause)
    once()


def refusal(uri: str, error: Exception) -> WrongRequest:
    """What to tell the user of a server that could not be used."""
    status, said = _status(error), str(error)
    user = os.environ.get(credentials.NAME)
    if status == 401:
        who = f"{credentials.NAME}={user}" if user else "requests without a login"
        told = f"refuses {who}; {credentials.NAME} and {credentials.PASSWORD} must be a login of that server"
    elif "Invalid Host header" in said:
        told = "does not serve under this name; `ktrain serve --allowed-hosts NAME` would"
    elif status == 403:
        told = f"does not allow {user or 'this'} to do it: {first_line(error)}"
    else:
        told = f"does not answer: {first_line(error)}"
    return WrongRequest(f"MLFLOW_TRACKING_URI={uri}: {told}")


def _trouble(uri: str, error: Exception) -> str:
    if _status(error) in (401, 403):
        return str(refusal(uri, error))
    return f"MLflow at {uri} does not answer now ({first_line(error)})"


def _status(error: Exception) -> int | None:
    from mlflow.exceptions import MlflowException

    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else None


def _precedence(run: Any) -> tuple[bool, int, str]:
    """Whole runs before others, then the older ones."""
    whole = "ktrain.state" in run.data.tags or run.info.status == "FINISHED"
    return not whole, run.info.start_time, run.info.run_id


def _other(metrics: Mapping[str, float], made: Record) -> bool:
    """Whether a run has another value of a final number: a stage was made again, and both would stay."""
    finals = {name: value for name, value, step in made.points if step == 0}
    # Databases keep no infinity; MLflow takes the largest number for it.
    return any(
        name in metrics and metrics[name] != value and math.isfinite(value) and math.isfinite(metrics[name])
        for name, value in finals.items()
    )


def _artifacts(uri: str, sweep: str) -> str | None:
    """Where artifacts of a local database go; a server decides for itself."""
    path = uri.removeprefix("sqlite:///")
    return Path(path).absolute().with_name("mlflow-artifacts").joinpath(sweep).as_uri() if path != uri else None


def first_line(error: Exception) -> str:
    """What an error says, short enough for a line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
