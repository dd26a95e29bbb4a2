"""Synchronises MLflow with the store; the only module that writes runs.

The store is the source of truth: after an outage of the server, the next call writes what is missing. A run is looked
up by its key and continued, never duplicated.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ktrain.fingerprint import digest
from ktrain.readout.kinds.base import kinds
from ktrain.stages import Stage
from ktrain.store.lease import LeaseHeldElsewhere
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.tracking import run_writer, titles
from sweeps.tracking.run_record import RunRecord
from sweeps.tracking.runs import UndeliverableStage, cell_record, describes, stage_record
from sweeps.tracking.schema import schema_lock
from sweeps.tracking.server_errors import first_line, reason, refusal, status_of

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# MLflow must not repeat a request that may have succeeded: `Tracker` looks at the server first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# Otherwise each run that ends costs another request and prints its address.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# This module reports an outage itself, in one line.
logging.getLogger("urllib3").setLevel(logging.ERROR)
log = logging.getLogger("ktrain.tracking")

T = TypeVar("T")
V = TypeVar("V")
PAUSES = (1.0, 4.0)
"""Seconds to wait before each retry of a failed sync; a database restarts within about two."""
LEASE_WAIT = 120.0
"""Seconds that the last sync waits for another driver that is writing the same sweep."""
WRITERS = 6
"""Concurrent requests to a server, which has several processes; a database file takes one writer."""
LOOKUPS = 100
"""Up to this many keys, runs are looked up one by one; above it, all runs are read."""
PAGE = 200
"""Runs that one request reads; even a busy server answers it in a second or two."""
KINDS_TAG = "ktrain.readout_kinds"
"""Tag of an experiment: a JSON list of the descriptions of readout kinds."""
PARENT = "mlflow.parentRunId"
"""MLflow's tag of a run that the runs page shows below another one."""
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's tag that says what an experiment is for: training models. The pages of MLflow 3.17 do not read it, so links
name the view themselves (`saved_view.runs_path`)."""
LATER = "; the next run delivers what it missed"


Owner = tuple[PlannedCell, Stage]
"""A stage and the first cell of a plan that has it."""
PendingWrite = tuple[Any, Callable[[], RunRecord]]
"""The run that exists, or None; and a function that makes the record to write."""


@dataclass(frozen=True)
class Tracker:
    """A tracking server that has answered, and one sweep's experiment on it."""

    uri: str
    client: Any
    experiment: str

    @classmethod
    def open(cls, uri: str, sweep: str) -> "Tracker":
        """Connects, and creates a missing experiment. Raises `WrongRequest` if the server cannot be used."""
        from mlflow import MlflowClient

        try:
            with schema_lock(uri):
                client = MlflowClient(uri)
                known = client.get_experiment_by_name(sweep)
                if known and known.lifecycle_stage == "deleted":
                    client.restore_experiment(known.experiment_id)
                experiment = known.experiment_id if known else client.create_experiment(sweep, _artifacts(uri, sweep))
        except Exception as e:
            raise refusal(uri, e) from e
        return cls(uri, client, experiment)

    def sync(self, plan: Plan, *, with_curves: bool = True) -> tuple[str, ...]:
        """Writes every cell and finished stage of the plan that the server lacks, has only in part, or has with other
        numbers than the store. Returns a line for each stage that cannot be delivered; the rest is.

        Without `with_curves`, runs that are complete are not asked for the points of their curves.

        It may be interrupted anywhere: a run is complete only after its last write, and the next call writes an
        incomplete one again, which leaves what it already holds unchanged.
        """
        self._describe(plan)
        owners = first_cells(plan)
        known = self.runs([*owners, *(cell.key for cell in plan.cells)])
        edited = self._edited(plan, owners, known) if with_curves else frozenset()
        pending: list[PendingWrite] = []
        for key, (cell, stage) in owners.items():
            run = known.get(key)
            if key not in plan.snapshot.done:
                self._end_if_abandoned(plan, run, key)
                continue
            if run is not None and (key in edited or not describes(run, plan, stage)):
                # A rebuilt stage has a second curve, which would be mixed with the first one.
                self.client.delete_run(known.pop(key).info.run_id)
                run = None
            if run is None or run.info.status != "FINISHED":
                pending.append((run, partial(stage_record, plan, cell, stage)))
        written, undelivered = self._write(pending)
        ids = {key: run.info.run_id for key, run in known.items()} | written
        pending = []
        for cell in plan.cells:
            if cell.state != "done" and cell.key in known and known[cell.key].data.tags.get("ktrain.state") == "done":
                continue  # Its numbers are not, or no longer, in this store: imported, for instance.
            finished = [stage for stage in cell.stages if stage.key in plan.snapshot.done]
            if all(stage.key in ids for stage in finished):
                links = {stage.kind: ids[stage.key] for stage in finished}
                pending.append((known.get(cell.key), partial(cell_record, plan, cell, links)))
        more_written, more = self._write(pending)
        self._nest(owners, known, ids | more_written)
        return tuple(dict.fromkeys(undelivered + more))

    def _describe(self, plan: Plan) -> None:
        """Tags the experiment with what the analysis needs to show each kind of readout, where that has changed; a new
        experiment also with its question, and with the view in which it opens."""
        tags = self.client.get_experiment(self.experiment).tags
        once = EXPERIMENT_KIND | ({titles.NOTE: plan.sweep.question} if plan.sweep.question else {})
        wanted = {name: text for name, text in once.items() if name not in tags}
        wanted[KINDS_TAG] = json.dumps([kind.description() for kind in kinds()])
        for name, text in wanted.items():
            if tags.get(name) != text:
                self.client.set_experiment_tag(self.experiment, name, text)

    def _edited(self, plan: Plan, owners: Mapping[str, Owner], known: Mapping[str, Any]) -> frozenset[str]:
        """Returns the finished stages whose complete runs have another curve than the store, each with a warning."""

        def is_edited(key: str) -> bool:
            cell, stage = owners[key]
            if not describes(known[key], plan, stage):
                return False
            try:
                return not run_writer.has_curves(self.client, known[key], stage_record(plan, cell, stage))
            except UndeliverableStage:
                return False

        complete = [
            key for key in owners if key in plan.snapshot.done and key in known and known[key].info.status == "FINISHED"
        ]
        answers = zip(complete, self._concurrently(is_edited, complete), strict=True)
        edited = frozenset(key for key, other in answers if other)
        for key in edited:
            log.warning("MLflow has other points in a curve of %s than the store; they are replaced", key)
        return edited

    def _end_if_abandoned(self, plan: Plan, run: Any, key: str) -> None:
        """Ends the run of an unfinished stage on which nobody works any more."""
        if run is not None and run.info.status == "RUNNING" and key not in plan.snapshot.held:
            self.client.set_terminated(run.info.run_id, "FAILED" if key in plan.snapshot.failures else "KILLED")

    def _nest(self, owners: Mapping[str, Owner], known: Mapping[str, Any], ids: Mapping[str, str]) -> None:
        """Puts the run of each stage below that of the first cell that has it, unless it lies below another's that
        still exists: cells of other plans may have the stage too."""
        active = set(ids.values())

        def nest_one(key: str) -> None:
            tags = known[key].data.tags if key in known and known[key].info.run_id == ids[key] else {}
            if not self._is_active(tags.get(PARENT, ""), active):
                self.client.set_tag(ids[key], PARENT, ids[owners[key][0].key])

        self._concurrently(nest_one, [key for key, (cell, _) in owners.items() if {key, cell.key} <= ids.keys()])

    def _is_active(self, run: str, active: Collection[str]) -> bool:
        """Whether a run exists and is not deleted; those that are `active` do."""
        if not run or run in active:
            return bool(run)
        try:
            return bool(self.client.get_run(run).info.lifecycle_stage == "active")
        except Exception as e:
            if status_of(e) != 404:
                raise
            return False

    def runs(self, keys: Sequence[str] | None = None) -> dict[str, Any]:
        """The experiment's runs by key: all of them, or those of `keys` and perhaps others.

        Deletes duplicates of a key, which an interrupted server may leave, and keeps the first complete run.
        """
        if keys is None or len(keys) > LOOKUPS:
            candidates = list(self._search(""))
        else:
            candidates = [run for key in dict.fromkeys(keys) for run in self._search(f"tags.`ktrain.key` = '{key}'")]
        runs: dict[str, Any] = {}
        for run in sorted(candidates, key=_precedence):
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

    def _write(self, pending: Sequence[PendingWrite]) -> tuple[dict[str, str], list[str]]:
        """Writes records concurrently, each into its run if it has one. Returns the run ids by key, and a line for each
        record that could not be made, because a stage cannot be read, or that MLflow does not accept."""
        # MLflow lists runs by their start; those that have not begun are listed in the order of the plan.
        first_start = int(time.time() * 1000) - len(pending)
        undelivered: list[str] = []

        def write_one(number: int) -> tuple[str, str] | None:
            run, make_record = pending[number]
            try:
                record = make_record()
                return record.key, run_writer.write(self.client, self.experiment, run, record, first_start + number)
            except UndeliverableStage as e:
                undelivered.append(str(e))
            except Exception as e:
                if status_of(e) != 400:
                    raise
                undelivered.append(f"{record.key}: MLflow refuses it: {first_line(e)}")
            return None

        written = dict(filter(None, self._concurrently(write_one, range(len(pending)))))
        return written, undelivered

    def _concurrently(self, write: Callable[[T], V], items: Iterable[T]) -> list[V]:
        """Calls `write` for each item, several at a time where there is a server."""
        with ThreadPoolExecutor(WRITERS if self.uri.startswith("http") else 1) as writers:
            return list(writers.map(write, items))


def sync_with_retry(tracker: Tracker, plan: Plan, *, last: bool = True) -> str | None:
    """`Tracker.sync`; returns None, or the line that says why it failed. The next call writes what is missing.

    The `last` sync of a driver looks at curves too, is retried when it fails, waits for another driver that is writing,
    and warns of stages that cannot be delivered.
    """
    lease = f"mlflow-{digest([tracker.uri, plan.sweep.name])}"
    try:
        with plan.store.lease(lease, patience=LEASE_WAIT if last else 0.0):
            undelivered = _with_retries(partial(tracker.sync, plan, with_curves=last), PAUSES if last else ())
    except LeaseHeldElsewhere as e:
        return f"another driver of this sweep writes to MLflow ({e.holder}){LATER}"
    except Exception as e:
        return f"{reason(tracker.uri, e)}{LATER}"
    for line in undelivered if last else ():
        log.warning("not delivered to MLflow: %s; `ktrain verify` moves what is damaged aside", line)
    return None


def first_cells(plan: Plan) -> dict[str, Owner]:
    """The stages of a plan by key, each with the first cell that has it."""
    owners: dict[str, Owner] = {}
    for cell in plan.cells:
        for stage in cell.stages:
            owners.setdefault(stage.key, (cell, stage))
    return owners


def _with_retries(write: Callable[[], V], pauses: Sequence[float]) -> V:
    for pause in pauses:
        try:
            return write()
        except Exception as e:
            log.debug("sync failed, retrying in %g s: %s", pause, e)
            time.sleep(pause)
    return write()


def _precedence(run: Any) -> tuple[bool, int, str]:
    """Sorts complete runs before others, then by age."""
    complete = "ktrain.state" in run.data.tags or run.info.status == "FINISHED"
    return not complete, run.info.start_time, run.info.run_id


def _artifacts(uri: str, sweep: str) -> str | None:
    """The folder of artifacts beside a local database; None for a server, which has its own."""
    path = uri.removeprefix("sqlite:///")
    return Path(path).absolute().with_name("mlflow-artifacts").joinpath(sweep).as_uri() if path != uri else None
