"""Placement: what a trial holds while it runs, from the sizes of its networks and from what trials have measured.

Of N parameters, weights and gradients take 4 N bytes each, the moments of AdamW 8 N, casts to bf16 2 N; from ZeRO 1 on
moments and a copy of the weights are divided by the workers, from ZeRO 2 on gradients too, at ZeRO 3 also the weights;
several workers need a bucket of up to half a billion gradients. A layer of width d keeps a d bytes of each token for
the backward pass, and where there are no fused kernels for attention 8 h T more (h heads, T tokens); the loss takes l
bytes for each of V logits, or of a chunk of them, and then 4 V d for the gradient of the embedding and 2 V d for what
each chunk adds to it. a and l were counted in the saved tensors of this package's forward (`ACTIVATION`, `LOGIT`).
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from ktrain import shapes
from ktrain.config import Cell, Runtime
from ktrain.errors import WrongRequest
from ktrain.stages import Stage
from sweeps import cost
from sweeps.plan import Plan, PlannedCell, batches
from sweeps.room import GIB, Need, Room

ACTIVATION = {("bf16", True): 40, ("bf16", False): 64, ("fp32", True): 80, ("fp32", False): 120}
LOGIT = {True: 8, False: 12}
"""By precision and by whether the code is compiled."""
CHUNKED = {True: 8, False: 20}
"""As `LOGIT`, of a chunk, whose gradient is there too."""
BUCKET = 5e8
ANSWERED, LONGEST = 128, 128
"""Rows and tokens of a batch in evaluation, in fp32."""
UNMEASURED, MEASURED = 1.25, 1.1
"""What an estimate, and what a measured peak, is multiplied by: allocators leave gaps."""
PROCESS = {True: 1.0 * GIB, False: 1.2 * GIB}
"""What a process takes besides its tensors, on a GPU (context, libraries' workspace) or in memory."""
USABLE = 0.95
"""Of a GPU's memory."""
LIGHT = 4e12
"""FLOPs of a step below which a GPU waits for its launches, so that another trial may as well use it."""
MOST = 8
"""Trials on one GPU."""

Alike = tuple[object, ...]


def estimate(stage: Stage, cell: Cell, workers: int, *, gpu: bool, compiled: bool = True) -> float:
    """Bytes that a stage's tensors hold at most on each of `workers`, by the formulas above."""
    shape, vocabulary = shapes.SHAPES[cell.model.size], cost.vocabulary(cell)
    network = shapes.parameters(cell.model, vocabulary)
    answering = 4.0 * network + ANSWERED * LONGEST * vocabulary * 8
    if stage.kind in ("corpus", "mixed"):
        return answering if stage.kind == "mixed" else 0.0
    setting = cell.train if stage.kind == "pretrain" else cell.readout
    trained, frozen, tokens = float(network), 0.0, cell.train.context
    if stage.kind != "pretrain":
        tokens = cost.row(cell)
        if cell.readout.adapted:
            rank = cell.readout.rank_embedding
            wide = vocabulary * shape.width if rank == "full" else int(rank) * (vocabulary + shape.width)
            frozen = 4.0 * network
            trained = float(wide + 4 * shape.layers * cell.readout.rank_qv * shape.width)
    rows = math.ceil(setting.batch / workers)
    layer = ACTIVATION[setting.precision, compiled] * shape.width + (0 if gpu else 8 * shape.heads * tokens)
    kept = shape.layers * rows * tokens * layer
    logits = rows * tokens * vocabulary * LOGIT[compiled]
    chunk = shapes.LOGITS["cuda" if gpu else "cpu"] // 4
    if frozen == 0.0 and rows * tokens * vocabulary > chunk:
        chunks = math.ceil(rows * tokens * vocabulary / chunk)
        logits = chunk * CHUNKED[compiled] + (4 + 2 * chunks) * vocabulary * shape.width
    casts = 2 * network if setting.precision == "bf16" else 0
    return max(answering, frozen + states(trained, setting.zero, workers) + casts + kept + logits)


def states(parameters: float, zero: int, workers: int) -> float:
    """Bytes of weights, gradients and optimizer on each of `workers`."""
    weights = 4 * parameters / (workers if zero == 3 else 1)
    gradients = 4 * parameters / (workers if zero >= 2 else 1)
    moments = (12 if zero else 8) * parameters / (workers if zero else 1)
    return weights + gradients + moments + (4 * min(parameters, BUCKET) if workers > 1 else 0)


@dataclass
class Placement:
    """What the trials of a plan need in a room; learns from every trial that has ended."""

    plan: Plan
    room: Room
    runtime: Runtime

    def __post_init__(self) -> None:
        self._gpu = bool(self.room.gpus)
        self._done = {planned.stage.key for planned in self.plan.stages if planned.state == "done"}
        self._peaks: dict[Alike, dict[int, float]] = {}
        self._needs: dict[str, Need] = {}

    def check(self) -> None:
        """Looks at what is done, then at every trial. Raises `WrongRequest` where the room can never hold one."""
        for planned in self.plan.cells:
            self._learn([stage for stage in planned.stages[1:] if stage.key in self._done], planned.cell)
        self._needs = {name: self._need(cells) for name, cells in self.plan.trials().items()}

    def need(self, name: str) -> Need:
        """What a trial of the plan needs, as far as is known by now."""
        return self._needs[name]

    def ended(self, name: str) -> None:
        """Learns what a trial has measured, for those that have not begun."""
        news = [self._learn(planned.stages[1:], planned.cell) for planned in self.plan.trials()[name]]
        if not any(news):
            return
        for other, cells in self.plan.trials().items():
            # The request was taken: where it turns out to be wrong, to try costs less than to stop all that runs.
            with suppress(WrongRequest):
                self._needs[other] = self._need(cells)

    def _learn(self, stages: Sequence[Stage], cell: Cell) -> bool:
        """Takes in the peaks of finished stages, one of each kind; whether there was one."""
        news = False
        for stage in stages:
            if _alike(stage, cell) in self._peaks:
                continue
            try:
                metrics = self.plan.store.metrics(stage.key)
            except FileNotFoundError:
                continue
            gpus = int(metrics.get("speed/gpus", 0))
            if "speed/peak_memory_bytes" in metrics and bool(gpus) == self._gpu:
                peak = float(metrics["speed/peak_memory_bytes"])
                self._peaks[_alike(stage, cell)] = {gpus or self.runtime.workers: peak}
                news = True
        return news

    def _need(self, cells: Sequence[PlannedCell]) -> Need:
        return self._on_gpus(cells) if self._gpu else self._on_processors(cells)

    def _on_gpus(self, cells: Sequence[PlannedCell]) -> Need:
        least, have = self.runtime.workers, self.room.gpus
        if least > have:
            raise WrongRequest(f"workers={least}: there are {have} GPUs")
        usable = USABLE * self.room.gpu_memory if self.room.gpu_memory else math.inf
        most = math.gcd(*(batch for planned in cells for batch in batches(planned.cell).values()))
        counts = [count for count in range(least, most + 1) if most % count == 0]
        workers = next((count for count in counts if self._most(cells, count)[0] <= usable), None)
        need, zero = self._most(cells, workers or counts[-1])
        what, size = f"model.size={cells[0].cell.model.size} {zero}", usable / USABLE / GIB
        if workers is None:
            raise WrongRequest(
                f"{what}: needs {need / GIB:.0f} GiB on each of {counts[-1]} GPUs, which have {size:.0f} each; "
                f"{zero.partition('=')[0]} up to 3 divides weights and optimizer"
            )
        if workers > have:
            raise WrongRequest(
                f"{what}: needs {workers} GPUs of {size:.0f} GiB at once, there are {have}; "
                "--gpus-max tells of those that the cluster can grow to"
            )
        if workers > 1 or usable == math.inf or not self._light(cells):
            return Need(workers, gpus=Fraction(1), memory=int(need))
        together = max(1, min(MOST, int(usable // need)))
        # Ray counts GPUs in ten thousandths.
        return Need(1, gpus=Fraction(10_000 // together, 10_000), memory=int(need))

    def _on_processors(self, cells: Sequence[PlannedCell]) -> Need:
        workers, threads = self.runtime.workers, self.runtime.threads
        plain = Need(workers, cpus=threads)
        if self.room.workers(plain) < workers:
            have = sum(node.cpus * node.count for node in self.room.nodes)
            parts = f" on {len(self.room.nodes)} machines" if len(self.room.nodes) > 1 else ""
            raise WrongRequest(
                f"workers={workers}, threads={threads}: there are {have:.0f} CPUs{parts} and no GPUs; "
                "--gpus-max tells of those that the cluster can grow to"
            )
        # A machine that has less than an estimate may still do one worker at a time.
        need = Need(workers, cpus=threads, memory=int(min(self._most(cells, workers)[0], self.room.memory or 0)))
        return need if self.room.workers(need) >= workers else plain

    def _most(self, cells: Sequence[PlannedCell], workers: int) -> tuple[float, str]:
        """Bytes that each worker of a trial takes, its libraries included, and the ZeRO of the stage that does."""
        found = [(PROCESS[self._gpu], "")]
        for planned in cells:
            for stage in planned.stages[1:]:
                if stage.key in self._done:
                    continue
                peak = self._peaks.get(_alike(stage, planned.cell), {}).get(workers)
                if peak is None:
                    guess = estimate(stage, planned.cell, workers, gpu=self._gpu, compiled=self.runtime.compile)
                    need = UNMEASURED * guess + PROCESS[self._gpu]
                else:
                    # The peak of a process counts its libraries, that of tensors on a GPU does not.
                    need = MEASURED * peak + (PROCESS[True] if self._gpu else 0)
                pretrain, cell = stage.kind == "pretrain", planned.cell
                found.append(
                    (need, f"train.zero={cell.train.zero}" if pretrain else f"readout.zero={cell.readout.zero}")
                )
        return max(found)

    def _light(self, cells: Sequence[PlannedCell]) -> bool:
        """Whether a GPU would idle between the steps of a trial, and none has run out of memory before."""
        cell = cells[0].cell
        if cell.train.batch * cell.train.context * cost.per_token(cell, cell.train.context) > LIGHT:
            return False
        lines = (self.plan.store.failure(stage.key) for planned in cells for stage in planned.stages)
        return not any(line and "OutOfMemory" in line for line in lines)


def _alike(stage: Stage, cell: Cell) -> Alike:
    """Stages of which this is the same take as much memory."""
    setting, vocabulary = cell.train if stage.kind == "pretrain" else cell.readout, cost.vocabulary(cell)
    about = stage.kind, cell.model, vocabulary, setting.batch, setting.precision, setting.zero
    return *about, *((cell.train.context,) if stage.kind == "pretrain" else (cell.readout.adapted,))
