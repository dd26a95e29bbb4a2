"""Placement: how many GPUs or CPUs, and how much memory, a trial holds, from sizes and from measured peaks."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from ktrain.config import CellConfig, RuntimeConfig
from ktrain.errors import WrongRequest
from ktrain.stages import Stage
from sweeps.execution.capacity import GIB, ClusterCapacity, ResourceRequest
from sweeps.planning import cost, memory
from sweeps.planning.feasibility import batches
from sweeps.planning.plan import Plan, PlannedCell

UNMEASURED, MEASURED = 1.25, 1.1
"""Factors on an estimate and on a measured peak, because allocators leave gaps."""
PROCESS = {True: 1.0 * GIB, False: 1.2 * GIB}
"""Memory of a process besides its tensors: on a GPU (context, libraries' workspace) and on a CPU."""
USABLE = 0.95
"""Share of a GPU's memory that trials may fill."""
LIGHT = 4e12
"""FLOPs of a step below which a GPU waits for its launches, so that another trial may share it."""
MOST = 8
"""Trials on one GPU."""

MemoryClass = tuple[object, ...]


@dataclass
class Placement:
    """Decides what each trial of a plan requests in a cluster, and learns from every trial that ends."""

    plan: Plan
    capacity: ClusterCapacity
    runtime: RuntimeConfig

    def __post_init__(self) -> None:
        self._gpu = bool(self.capacity.gpus)
        self._done = {planned.stage.key for planned in self.plan.stages if planned.state == "done"}
        self._peaks: dict[MemoryClass, dict[int, float]] = {}
        self._needs: dict[str, ResourceRequest] = {}

    def check(self) -> None:
        """Reads the peaks of finished stages and decides every trial's request.

        Raises `WrongRequest` if the cluster can never hold a trial.
        """
        for planned in self.plan.cells:
            self._learn([stage for stage in planned.stages.trained if stage.key in self._done], planned.cell)
        self._needs = {name: self._need(cells) for name, cells in self.plan.trials().items()}

    def need(self, name: str) -> ResourceRequest:
        """Returns the request of a trial, as far as is known by now."""
        return self._needs[name]

    def ended(self, name: str) -> None:
        """Reads what an ended trial measured, and decides the requests of the plan's trials again."""
        learned = [self._learn(planned.stages.trained, planned.cell) for planned in self.plan.trials()[name]]
        if not any(learned):
            return
        for other, cells in self.plan.trials().items():
            # The run has started. If it turns out that a trial cannot fit, trying it costs less than stopping the run.
            with suppress(WrongRequest):
                self._needs[other] = self._need(cells)

    def _learn(self, stages: Sequence[Stage], cell: CellConfig) -> bool:
        """Reads the peaks of finished stages, one of each memory class; returns whether there was a new one."""
        learned = False
        for stage in stages:
            if _memory_class(stage, cell) in self._peaks:
                continue
            try:
                metrics = self.plan.store.metrics(stage.key)
            except FileNotFoundError:
                continue
            gpus = int(metrics.get("speed/gpus", 0))
            if "speed/peak_memory_bytes" in metrics and bool(gpus) == self._gpu:
                peak = float(metrics["speed/peak_memory_bytes"])
                self._peaks[_memory_class(stage, cell)] = {gpus or self.runtime.workers: peak}
                learned = True
        return learned

    def _need(self, cells: Sequence[PlannedCell]) -> ResourceRequest:
        return self._on_gpus(cells) if self._gpu else self._on_processors(cells)

    def _on_gpus(self, cells: Sequence[PlannedCell]) -> ResourceRequest:
        least, have = self.runtime.workers, self.capacity.gpus
        if least > have:
            raise WrongRequest(f"workers={least}: there are {have} GPUs")
        usable = USABLE * self.capacity.gpu_memory if self.capacity.gpu_memory else math.inf
        most = math.gcd(*(batch for planned in cells for batch in batches(planned.cell).values()))
        counts = [count for count in range(least, most + 1) if most % count == 0]
        workers = next((count for count in counts if self._peak(cells, count)[0] <= usable), None)
        need, zero = self._peak(cells, workers or counts[-1])
        what, size = f"model.size={cells[0].cell.model.name} {zero}", usable / USABLE / GIB
        if workers is None:
            raise WrongRequest(
                f"{what}: needs {need / GIB:.0f} GiB on each of {counts[-1]} GPUs, which have {size:.0f} each; "
                f"{zero.partition('=')[0]} up to 3 divides weights and optimizer"
            )
        if workers > have:
            raise WrongRequest(
                f"{what}: needs {workers} GPUs of {size:.0f} GiB at once, there are {have}; "
                "--gpus-max says how many the cluster can grow to"
            )
        if workers > 1 or usable == math.inf or not self._light(cells):
            return ResourceRequest(workers, gpus=Fraction(1), memory=int(need))
        together = max(1, min(MOST, int(usable // need)))
        # Ray counts GPUs in ten thousandths.
        return ResourceRequest(1, gpus=Fraction(10_000 // together, 10_000), memory=int(need))

    def _on_processors(self, cells: Sequence[PlannedCell]) -> ResourceRequest:
        workers, threads = self.runtime.workers, self.runtime.threads
        plain = ResourceRequest(workers, cpus=threads)
        if self.capacity.workers(plain) < workers:
            have = sum(node.cpus * node.count for node in self.capacity.nodes)
            parts = f" on {len(self.capacity.nodes)} machines" if len(self.capacity.nodes) > 1 else ""
            raise WrongRequest(
                f"workers={workers}, threads={threads}: there are {have:.0f} CPUs{parts} and no GPUs; "
                "--gpus-max says how many the cluster can grow to"
            )
        # A machine with less memory than the estimate may still run one worker at a time.
        need = ResourceRequest(
            workers, cpus=threads, memory=int(min(self._peak(cells, workers)[0], self.capacity.memory or 0))
        )
        return need if self.capacity.workers(need) >= workers else plain

    def _peak(self, cells: Sequence[PlannedCell], workers: int) -> tuple[float, str]:
        """Returns the peak bytes of each worker of a trial, libraries included, and the ZeRO setting of that stage."""
        peaks = [(PROCESS[self._gpu], "")]
        for planned in cells:
            for stage in planned.stages.trained:
                if stage.key in self._done:
                    continue
                peak = self._peaks.get(_memory_class(stage, planned.cell), {}).get(workers)
                if peak is None:
                    guess = memory.estimate(stage, planned.cell, workers, gpu=self._gpu, compiled=self.runtime.compile)
                    need = UNMEASURED * guess + PROCESS[self._gpu]
                else:
                    # A process's peak includes its libraries; the peak of tensors on a GPU does not.
                    need = MEASURED * peak + (PROCESS[True] if self._gpu else 0)
                train, readout = planned.cell.train, planned.cell.readout
                zero = f"train.zero={train.zero}" if stage.kind == "pretrain" else f"readout.zero={readout.zero}"
                peaks.append((need, zero))
        return max(peaks)

    def _light(self, cells: Sequence[PlannedCell]) -> bool:
        """Whether a GPU would idle between the steps of a trial, and no stage of it has run out of memory before."""
        cell = cells[0].cell
        if cell.train.batch * cell.train.context * cost.per_token(cell, cell.train.context) > LIGHT:
            return False
        lines = (self.plan.store.failure(stage.key) for planned in cells for stage in planned.stages)
        return not any(line and "OutOfMemory" in line for line in lines)


def _memory_class(stage: Stage, cell: CellConfig) -> MemoryClass:
    """Stages for which this is equal take the same memory."""
    setting, vocabulary = cell.train if stage.kind == "pretrain" else cell.readout, cost.vocabulary(cell)
    shape = cell.train.context if stage.kind == "pretrain" else cell.readout.adapted
    return stage.kind, cell.model, vocabulary, setting.batch, setting.precision, setting.zero, shape
