"""Training many adapters over one frozen network, in batches of as many as train fastest side by side."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from ktrain.config import ReadoutConfig, RuntimeConfig
from ktrain.fingerprint import digest
from ktrain.model.hashed_dropout import dropout_seeds
from ktrain.model.lora import AdapterSpec
from ktrain.model.module_lora import adapters_of
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.readout import adapter_batch_size
from ktrain.readout.probes import ProbeTask
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.system.collectives import rank_share
from ktrain.system.device import to_device, training_device
from ktrain.training.fit import fit
from ktrain.training.progress import Progress, Reporter, StageLine, on_curve


@dataclass(frozen=True)
class AdapterJob:
    """One adapter of a readout stage: for a probe, one of its tasks."""

    stage: Stage
    spec: AdapterSpec
    task: ProbeTask | None = None

    @property
    def name(self) -> str:
        """What tells it from the other adapters of its stage."""
        return str(self.task) if self.task else self.spec.name


AdapterBatch = Sequence[AdapterJob]
"""Adapters that are trained side by side."""
Publish = Callable[[AdapterBatch, StackedAdapters, list[Progress]], None]


@dataclass(frozen=True)
class AdapterTrainer:
    """Trains the adapters of `jobs` over `network`.

    `batch(adapters, step)` gives ids, places, targets and weights of whole batches, each (K, B, ...), and
    `head(adapters)` the module that reads the states. `width` is the tokens of a row, `dropout` the rate in the frozen
    network, `tokens` (vocabulary,) bool the tokens whose embedding may be updated, None all of them.
    """

    network: Any
    readout: ReadoutConfig
    jobs: Sequence[AdapterJob]
    batch: Callable[[AdapterBatch, int], tuple[Tensor, ...]]
    head: Callable[[AdapterBatch], nn.Module]
    width: int
    dropout: float
    tokens: Tensor | None = None

    def train(self, store: Store, runtime: RuntimeConfig, reporter: Reporter, publish: Publish) -> None:
        """Trains one batch of adapters after the other; `publish` gets each on rank 0, in evaluation mode.

        What a batch has learned stays in its work folder until all are published, so that a crash loses none of it.
        Raises `Diverged`, `Preempted`.
        """
        self.network.to(training_device())
        planned = list(self._adapter_batches(store, runtime))
        curves = StageCurves(self.jobs)
        for index, adapters in enumerate(planned):
            stack = self.stacked(adapters)
            curve = fit(
                stack,
                self.readout,
                partial(self.rows, adapters),
                self.readout.batch * self.width * len(adapters),
                store.work_dir(_work_key(adapters)),
                runtime,
                reporter.for_stage(self.jobs[0].stage.key).for_batch(
                    index, len(planned), partial(curves.lines, adapters)
                ),
                clip=stack.clip,
            )
            curves.add(adapters, curve)
            if not dist.get_rank():
                publish(adapters, stack.eval(), curve)
        if not dist.get_rank():
            for key in {_work_key(adapters) for adapters in (*planned, *self._by_parameters())}:
                store.clear_work(key)

    def stacked(self, adapters: AdapterBatch) -> StackedAdapters:
        """The adapters of a batch as they are before training."""
        specs = [adapter.spec for adapter in adapters]
        scale, modules = self.readout.lora_scale, self.readout.modules
        updates = adapters_of(self.network, specs, scale, self.dropout, self.tokens, modules)
        updates.rank, updates.ranks = dist.get_rank(), dist.get_world_size()
        return StackedAdapters(self.network, updates, self.head(adapters)).to(training_device()).train()

    def rows(self, adapters: AdapterBatch, step: int) -> tuple[Tensor, ...]:
        """What this rank feeds to a batch of adapters at a step."""
        *read, weights = self.batch(adapters, step)
        # DeepSpeed takes the mean over ranks, the loss is a sum over them.
        parts = (rank_share(x, 1) for x in (*read, weights * dist.get_world_size()))
        streams = [(adapter.spec.seed, f"{_parent_key(adapter)}/{adapter.spec.name}") for adapter in adapters]
        return (*parts, dropout_seeds(streams, step))

    def _by_parameters(self) -> list[AdapterBatch]:
        """Whole embeddings and updates of low rank are different parameters, so they are trained apart."""
        low_rank = [job for job in self.jobs if job.spec.rank_embedding != "full"]
        whole = [job for job in self.jobs if job.spec.rank_embedding == "full"]
        return [jobs for jobs in (low_rank, whole) if jobs]

    def _adapter_batches(self, store: Store, runtime: RuntimeConfig) -> Iterator[AdapterBatch]:
        for jobs in self._by_parameters():
            place = store.work_dir(_work_key(jobs))
            size = adapter_batch_size.choose_batch_size(
                partial(self._first_step, jobs), len(jobs), self.readout, runtime, place.folder / "wave.json"
            )
            if not dist.get_rank():
                place.upload_async()
            yield from (jobs[begin : begin + size] for begin in range(0, len(jobs), size))

    def _first_step(self, jobs: AdapterBatch, count: int) -> tuple[StackedAdapters, tuple[Tensor, ...]]:
        """The first `count` adapters and what they read at step 0."""
        first = jobs[:count]
        return self.stacked(first), tuple(to_device(part, training_device()) for part in self.rows(first, 0))


class StageCurves:
    """The curves of the stages of some adapters, as far as their batches have come."""

    def __init__(self, jobs: AdapterBatch) -> None:
        self._adapters = Counter(job.stage.key for job in jobs)
        self._done: dict[str, list[Progress]] = {}

    def add(self, adapters: AdapterBatch, curve: Sequence[Progress]) -> None:
        """Takes the curve of a batch that has been trained."""
        for key, members in _by_stage(adapters).items():
            self._done[key] = concatenated(self._done.get(key, []), curve_of_adapters(curve, members))

    def lines(self, adapters: AdapterBatch, progress: Progress) -> dict[str, StageLine]:
        """Returns what progress of a batch adds to the curves of its stages: nothing at a step of which they have no
        line, and nothing of an adapter that has diverged."""
        if not on_curve(progress.step, progress.steps):
            return {}
        lines = {key: self._line(adapters, key, members, progress) for key, members in _by_stage(adapters).items()}
        return {key: line for key, line in lines.items() if line.loss is not None or line.tasks}

    def _line(self, adapters: AdapterBatch, key: str, members: Sequence[int], progress: Progress) -> StageLine:
        before = [line for line in self._done.get(key, []) if line.step == progress.step]
        (own,) = concatenated(before, curve_of_adapters([progress], members))
        known = len(own.members) == self._adapters[key] and math.isfinite(own.loss)
        losses = {adapters[k].name: progress.members[k] for k in members} if self._adapters[key] > 1 else {}
        return StageLine(
            own.step,
            own.learning_rate,
            own.seconds,
            own.loss if known else None,
            {name: loss for name, loss in losses.items() if math.isfinite(loss)},
        )


def curve_of_adapters(curve: Sequence[Progress], members: Sequence[int]) -> list[Progress]:
    """The curve of some adapters of a batch, by their indices in it."""
    lines = []
    for progress in curve:
        losses = tuple(progress.members[k] for k in members)
        lines.append(replace(progress, loss=sum(losses) / len(losses), members=losses))
    return lines


def concatenated(before: list[Progress], after: list[Progress]) -> list[Progress]:
    """The curve of a stage whose adapters were trained in two batches."""
    lines = []
    for a, b in zip(before, after, strict=True) if before else ():
        members = (*a.members, *b.members)
        loss = sum(members) / len(members)
        lines.append(replace(b, loss=loss, members=members, tokens=a.tokens + b.tokens, seconds=a.seconds + b.seconds))
    return lines or after


def _by_stage(adapters: AdapterBatch) -> dict[str, list[int]]:
    """The indices of a batch's adapters by the key of their stage."""
    members: dict[str, list[int]] = {}
    for k, adapter in enumerate(adapters):
        members.setdefault(adapter.stage.key, []).append(k)
    return members


def _work_key(adapters: AdapterBatch) -> str:
    return f"fleet-{digest([[adapter.stage.key, adapter.spec.name] for adapter in adapters])}"


def _parent_key(adapter: AdapterJob) -> str:
    assert adapter.stage.parent is not None
    return adapter.stage.parent.key
