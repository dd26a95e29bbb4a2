"""Streams the curves of stages that train now to MLflow, each into the run that the stage keeps when it is done."""

import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ktrain.system.source_commit import source_commit
from ktrain.training.progress import Progress, StageLine, stage_lines
from sweeps.planning.plan import Plan
from sweeps.tracking import run_writer
from sweeps.tracking.run_record import MOST_POINTS, Point, chunks
from sweeps.tracking.runs import TASK_LOSS, live_record
from sweeps.tracking.server_errors import first_line, status_of
from sweeps.tracking.sync import PARENT, Tracker, first_cells

LOSS, RATE = "train/loss", "train/learning_rate"
"""Streamed metrics, besides the losses of tasks. Speed is not one of them: a stage that goes back to a checkpoint takes
other seconds for the same steps."""
log = logging.getLogger("ktrain.live")


@dataclass
class _Stream:
    """The run of a stage and the last step that it has of each metric; no run where the stage is done already."""

    run: Any
    last: dict[str, int] = field(default_factory=dict)


class LiveCurves:
    """Curves on their way to MLflow. Any thread may `add` to them; one thread calls `send` and `drop`."""

    def __init__(self, tracker: Tracker, plan: Plan) -> None:
        self._tracker, self._plan = tracker, plan
        self._owners = first_cells(plan)
        self._lines: dict[str, list[StageLine]] = {}
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()

    def add(self, key: str, progress: Progress) -> None:
        """Takes progress that was reported under the key of a stage, if it adds to the curve of that stage or, of
        adapters that train together, to those of their stages."""
        with self._lock:
            for own, line in stage_lines(key, progress).items():
                self._lines.setdefault(own, []).append(line)

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

    def _send(self, key: str, lines: list[StageLine]) -> None:
        if key not in self._streams:
            self._streams[key] = self._open(key, lines[0])
        stream = self._streams[key]
        if stream.run is None:
            return
        for points in chunks(_unsent(lines, stream.last), MOST_POINTS):
            self._tracker.client.log_batch(stream.run.info.run_id, metrics=run_writer.metrics(stream.run, points))
            stream.last |= {point.name: point.step for point in points}

    def _open(self, key: str, line: StageLine) -> _Stream:
        """Finds the run of a stage that another driver has begun, or makes one that began when training did."""
        client = self._tracker.client
        run = self._tracker.runs([key]).get(key)
        if run is None:
            cell, stage = self._owners[key]
            start = round(1000 * (time.time() - line.seconds))
            record = live_record(self._plan, cell, stage, start, {"commit": source_commit() or ""})
            if parent := self._tracker.runs([cell.key]).get(cell.key):
                # A sync nests the others, as soon as their cells have runs.
                record = replace(record, tags={**record.tags, PARENT: parent.info.run_id})
            run = run_writer.create(client, self._tracker.experiment, record, start)
            run_writer.log(client, run, replace(record, points=()))
            return _Stream(run)
        if run.info.status == "FINISHED":
            # Of a stage that was lost and is made again; the next sync replaces it.
            return _Stream(None)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, "RUNNING")
        sent = [name for name in run.data.metrics if name in (LOSS, RATE) or name.startswith(TASK_LOSS)]
        history = {name: client.get_metric_history(run.info.run_id, name) for name in sent}
        return _Stream(run, {name: max(point.step for point in points) for name, points in history.items()})


def _unsent(lines: Sequence[StageLine], last: dict[str, int]) -> list[Point]:
    """The points of lines of a stage that lie beyond the last step of their metric: after a restart, steps that were
    sent already come again."""
    last, points = dict(last), []
    for line in lines:
        losses = {LOSS: line.loss} if line.loss is not None else {}
        losses |= {f"{TASK_LOSS}{task}": loss for task, loss in line.tasks.items()}
        for name, value in {RATE: line.learning_rate, **losses}.items():
            if line.step > last.get(name, 0):
                points.append(Point(name, value, line.step, line.seconds))
                last[name] = line.step
    return points
