"""Streams the curves of stages that train now to MLflow, each into the run that the stage keeps when it is done."""

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ktrain.system.source_commit import source_commit
from ktrain.training.progress import Progress, lines_apart
from sweeps.planning.plan import Plan
from sweeps.tracking import run_writer
from sweeps.tracking.run_record import Point
from sweeps.tracking.runs import live_record
from sweeps.tracking.server_errors import first_line, status_of
from sweeps.tracking.sync import Tracker, first_cells

STREAMED = {"train/loss": "loss", "train/learning_rate": "learning_rate"}
"""Metrics and their fields in a line of progress. Speed is not one of them: a stage that goes back to a checkpoint
takes other seconds for the same steps."""
log = logging.getLogger("ktrain.live")


@dataclass
class _Stream:
    """The run of a stage and the last step that it has; no run where the stage is done already."""

    run: Any
    last: int


class LiveCurves:
    """Curves on their way to MLflow. Any thread may `add` to them; one thread calls `send` and `drop`."""

    def __init__(self, tracker: Tracker, plan: Plan) -> None:
        self._tracker, self._plan = tracker, plan
        self._owners = first_cells(plan)
        self._lines: dict[str, list[Progress]] = {}
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()

    def add(self, key: str, progress: Progress) -> None:
        """Takes one line of a stage's progress, if it will be one of the curve in the store.

        Adapters that are trained together have no curve until each stage is given its own.
        """
        on_curve = progress.step % lines_apart(progress.steps) == 0 or progress.step == progress.steps
        if on_curve and not progress.members:
            with self._lock:
                self._lines.setdefault(key, []).append(progress)

    def send(self) -> None:
        """Writes all lines that were added since. Raises MLflow's errors; what was not written stays for the next
        call."""
        with self._lock:
            waiting = {key: list(lines) for key, lines in self._lines.items() if lines}
        for key, lines in waiting.items():
            try:
                self._send(key, lines)
            except Exception as e:
                if status_of(e) not in (400, 404):
                    raise
                # Somebody has deleted the run: the next lines get another one.
                log.debug("%s: %s", key, first_line(e))
                self._streams.pop(key, None)
            with self._lock:
                del self._lines[key][: len(lines)]

    def drop(self, keys: Collection[str]) -> None:
        """Forgets stages that are done: their whole curves are delivered from the store."""
        with self._lock:
            for key in keys:
                self._lines.pop(key, None)
                self._streams.pop(key, None)

    def _send(self, key: str, lines: list[Progress]) -> None:
        if key not in self._streams:
            self._streams[key] = self._open(key, lines[0])
        stream = self._streams[key]
        # After a restart, steps that were sent already come again.
        new = [line for line in lines if line.step > stream.last]
        points = [Point(m, getattr(line, f), line.step, line.seconds) for line in new for m, f in STREAMED.items()]
        if stream.run is not None and points:
            self._tracker.client.log_batch(stream.run.info.run_id, metrics=run_writer.metrics(stream.run, points))
            stream.last = new[-1].step

    def _open(self, key: str, line: Progress) -> _Stream:
        """Finds the run of a stage that another driver has begun, or makes one that began when training did."""
        client = self._tracker.client
        run = self._tracker.runs([key]).get(key)
        if run is None:
            cell, stage = self._owners[key]
            start = round(1000 * (time.time() - line.seconds))
            record = live_record(self._plan, cell, stage, start, {"commit": source_commit() or ""})
            run = run_writer.create(client, self._tracker.experiment, record, start)
            run_writer.log(client, run, replace(record, points=()))
            return _Stream(run, 0)
        if run.info.status == "FINISHED":
            # Of a stage that was lost and is made again; the next sync replaces it.
            return _Stream(None, 0)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, "RUNNING")
        sent = [m for m in STREAMED if m in run.data.metrics]
        history = [point.step for m in sent for point in client.get_metric_history(run.info.run_id, m)]
        return _Stream(run, max(history, default=0))
