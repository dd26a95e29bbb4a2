"""Logs a sweep's runs to Weights & Biases too, where its file asks for it: `Sweep(callbacks=[WandbLogger()])`.

The runs are those of MLflow, one for each stage and cell, with the same names, settings, curves and final metrics.
"""

import importlib.util
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ray.tune import Callback

from ktrain.errors import WrongRequest, shorten
from ktrain.fingerprint import flatten
from ktrain.stages import Stage, active_axes
from ktrain.training.progress import StageLine, from_result, stage_lines
from sweeps.execution.restart_log import interruption_of
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.tracking import titles
from sweeps.tracking.run_record import LINK, Point, RunRecord
from sweeps.tracking.runs import UndeliverableStage, cell_numbers, cell_record, live_record, stage_record
from sweeps.tracking.sync import first_cells

PATIENCE = 120.0
"""Seconds that the end of a sweep waits for what is still to be sent."""
ONLINE = ("online", "run", "shared")
"""wandb's modes that send something."""
UNKNOWN = ("planned", "running")
"""States of cells that have nothing to log yet."""
log = logging.getLogger("ktrain.wandb")


class WandbLogger(Callback):  # type: ignore[misc]
    """A callback of Ray Tune that writes to Weights & Biases in a thread of its own, so that no trial waits.

    The `project` is the sweep's name unless given; runs have the keys of their stages and cells as ids. wandb's own
    variables say where runs go: `WANDB_MODE=offline` writes them to `WANDB_DIR` and sends nothing. After a failure,
    which costs one line, nothing more is logged. Raises `WrongRequest` where wandb is not installed.
    """

    def __init__(self, project: str = "", entity: str = "") -> None:
        if importlib.util.find_spec("wandb") is None:
            raise WrongRequest("WandbLogger: wandb is not installed: pip install -c constraints.txt -e '.[wandb]'")
        self._project, self._entity = project, entity
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._logged: set[str] = set()
        self._runs: dict[str, Any] = {}
        self._sent: dict[str, set[tuple[str, int]]] = {}

    def use_plan(self, plan: Plan) -> None:
        """Learns what the runs are called and where their results are; called before the first trial."""
        self._plan, self._owners = plan, first_cells(plan)
        self._logged = set(plan.snapshot.done)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()
        self._tasks.put(self._log_in)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported progress, which adds to the curves of one or more stages."""
        if interruption_of(result):
            return
        for key, line in stage_lines(*from_result(result)).items():
            self._tasks.put(partial(self._log_line, key, line))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done."""
        self._tasks.put(partial(self._log_trial, trial.config["trial"]["name"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed; some of its stages may be done."""
        self._tasks.put(partial(self._log_trial, trial.config["trial"]["name"]))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Waits until everything is logged, at most `PATIENCE` seconds."""
        if self._thread is None:
            return
        self._tasks.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            log.warning("Weights & Biases did not take every run within %g s; MLflow and the store have all", PATIENCE)

    def _work(self) -> None:
        """Does what the callbacks ask for, one after another, until the sweep ends or something fails."""
        failed = False
        while (task := self._tasks.get()) is not None:
            if failed:
                continue
            try:
                task()
            except Exception as e:
                failed = True
                line = f"{type(e).__name__}: {shorten(e, 200)}"
                log.warning("Weights & Biases: %s; nothing more is logged there, MLflow and the store have all", line)
        for run in () if failed else self._runs.values():
            run.finish(exit_code=1)

    def _log_in(self) -> None:
        """Raises where Weights & Biases would ask for a key, which would stop at a prompt."""
        # Errors are this module's line, and no report to the makers of wandb.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        if wandb.setup().settings.mode in ONLINE and not wandb.login(prompt=False):
            raise PermissionError("no key: `wandb login`, WANDB_API_KEY=..., or WANDB_MODE=offline")

    def _log_line(self, key: str, line: StageLine) -> None:
        """Adds a line to the curves of a stage that trains now; after a restart, lines come again and are left out."""
        cell, stage = self._owners[key]
        if key in self._logged:
            return
        if key not in self._runs:
            self._runs[key] = self._open(stage.kind, cell, live_record(self._plan, cell, stage, None, {}), stage)
        losses = {} if line.loss is None else {"train/loss": line.loss}
        losses |= {f"train/task_loss/{task}": loss for task, loss in line.tasks.items()}
        values = {"train/learning_rate": line.learning_rate, **losses}
        self._log_points(key, [Point(name, value, line.step) for name, value in values.items()])

    def _log_points(self, key: str, points: list[Point]) -> None:
        """Logs the points of curves that the run of a stage does not have yet, a step at a time."""
        sent, by_step = self._sent.setdefault(key, set()), dict[int, dict[str, float]]()
        for point in points:
            if (point.name, point.step) not in sent:
                sent.add((point.name, point.step))
                by_step.setdefault(point.step, {})[point.name] = point.value
        for step in sorted(by_step):
            self._runs[key].log({"step": step, **by_step[step]})

    def _log_trial(self, name: str) -> None:
        """Completes the runs of a trial's stages that are done, and logs its cells."""
        plan = self._plan.refreshed({cell.key for cell in self._plan.cells if cell.stages.pretrain.key == name})
        for cell in plan.cells:
            links = {stage.kind: stage.key for stage in cell.stages if stage.key in plan.snapshot.done}
            try:
                for stage in cell.stages:
                    if stage.key in plan.snapshot.done and stage.key not in self._logged:
                        self._log_stage(plan, cell, stage)
                if cell.state not in UNKNOWN:
                    self._log_cell(plan, cell, links)
            except UndeliverableStage as e:
                log.warning("Weights & Biases lacks %s: %s", cell.key, e)

    def _log_stage(self, plan: Plan, cell: PlannedCell, stage: Stage) -> None:
        record = stage_record(plan, cell, stage)
        if stage.key not in self._runs:
            self._runs[stage.key] = self._open(stage.kind, cell, record, stage)
        points = sorted(record.points, key=lambda point: point.step)
        self._log_points(stage.key, [point for point in points if point.step])
        run = self._runs.pop(stage.key)
        # Of a curve the last point, whatever was logged last: an earlier driver's part of it comes late.
        run.summary.update({point.name: point.value for point in points})
        run.finish(exit_code=0)
        self._logged.add(stage.key)

    def _log_cell(self, plan: Plan, cell: PlannedCell, links: Mapping[str, str]) -> None:
        """Logs a cell with the metrics of its finished stages, their people and intervals."""
        numbers = cell_numbers(plan, [stage for stage in cell.stages if stage.kind in links])
        run = self._open("cell", cell, cell_record(plan, cell, links))
        run.summary.update(
            {
                **numbers.metrics,
                **{f"{name}/n": count for name, count in numbers.n.items()},
                **{f"{name}/low": low for name, (low, _) in numbers.interval.items()},
                **{f"{name}/high": high for name, (_, high) in numbers.interval.items()},
            }
        )
        run.finish(exit_code=1 if cell.state.startswith("failed") else 0)

    def _open(self, kind: str, cell: PlannedCell, record: RunRecord, stage: Stage | None = None) -> Any:
        """Begins the run of a record, or continues the one that has its id."""
        import wandb

        typed = active_axes(cell.cell) if stage is None else flatten(stage.identity)
        tags = {name: text for name, text in record.tags.items() if name in ("ktrain.state", "ktrain.scale")}
        links = {name: text for name, text in record.tags.items() if name.startswith(LINK)}
        run = wandb.init(
            project=self._project or self._plan.sweep.name,
            entity=self._entity or None,
            id=record.key,
            name=record.name,
            group=cell.stages.pretrain.key,
            job_type=kind,
            notes=record.initial_tags[titles.NOTE],
            config={**record.params, **typed, **tags, **links, "ktrain.key": record.key},
            resume="allow",
            reinit="create_new",
            # Like MLflow's, a run holds nothing of the machine, the code or the terminal.
            settings=wandb.Settings(
                console="off",
                silent=True,
                save_code=False,
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        # Curves of a stage arrive late, or again after a restart, and wandb's own steps only grow.
        run.define_metric("*", step_metric="step")
        return run
