"""P-probes and Q-probes of one pretrained network: up to two tasks an attribute, trained side by side."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ktrain.errors import WrongRequest
from ktrain.model.heads import Classifier
from ktrain.model.lora import AdapterSpec
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.readout import evaluation, probe_checks, probe_scores, probes
from ktrain.readout.adapter_training import AdapterBatch, AdapterJob, AdapterTrainer, concatenated, curve_of_adapters
from ktrain.readout.job import ReadoutJob
from ktrain.readout.probes import ProbeTask, Rows, Stream
from ktrain.stages import Stage
from ktrain.store.base import FileContent
from ktrain.training.artifacts import measurement_files
from ktrain.training.loop import Diverged
from ktrain.training.progress import Progress


@dataclass
class StageProbes:
    """What the trained probes of one stage have given so far, by task."""

    stage: Stage
    predicted: dict[ProbeTask, np.ndarray] = field(default_factory=dict)
    """(rows, P) classes of the people who are held out."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Adapters and heads, named `<task>/<tensor>`."""
    curve: list[Progress] = field(default_factory=list)


class ProbeTraining:
    """The probes of cells that differ in their ranks only; a cell's stage is published after its last probe."""

    def __init__(self, job: ReadoutJob, rows: Rows, *, batch_norm: bool) -> None:
        """`rows` are those of all people. Raises `GuardFailure`, and `WrongRequest` where no task has enough people."""
        self._job, self._readout, self._batch_norm = job, job.cells[0].readout, batch_norm
        self._learned, self._tested = job.corpus.people_split(self._readout.people)
        self._refused = probes.refusal(
            job.corpus.people.pools,
            lambda: job.corpus.tokenizer,
            int(self._learned.sum()),
            self._readout.people_per_class,
        )
        tasks = [task for task in probes.tasks(job.corpus.attributes) if task not in self._refused]
        if not tasks:
            raise WrongRequest(f"not enough people: {list(self._refused.values())[-1]}")
        self._classes = {task: probes.classes(job.corpus, task) for task in tasks}
        self._rows = rows.kept(self._learned | self._tested)
        self._tested_rows = self._rows.kept(self._tested)
        self._streams = {task: self._stream(task) for task in tasks}
        probe_checks.enforce_probes(
            probe_checks.ProbeInputs(job.corpus, self._tested, self._rows, self._streams, self._classes)
        )
        self._stages = {stage.key: StageProbes(stage) for stage in job.stages}

    def run(self) -> None:
        """Trains and publishes; every rank calls it. Raises `Diverged`."""
        AdapterTrainer(
            network=self._job.network,
            readout=self._readout,
            jobs=self._adapter_jobs(),
            batch=self._batch,
            head=self._head,
            width=self._rows.ids.shape[1],
            dropout=self._job.cells[0].readout_dropout,
            tokens=self._updated_tokens(),
        ).train(self._job.store, self._job.runtime, self._job.reporter, self._collect)

    def _stream(self, task: ProbeTask) -> Stream:
        parent = self._job.stages[0].parent
        assert parent is not None
        seed, name = self._job.cells[0].seed, f"{parent.key}/{task}"
        return Stream(self._rows, self._classes[task], self._learned, self._readout.batch, seed, name)

    def _adapter_jobs(self) -> list[AdapterJob]:
        jobs = []
        for stage, cell in zip(self._job.stages, self._job.cells, strict=True):
            ranks = cell.readout.rank_embedding, cell.readout.rank_qv
            for task in self._classes:
                jobs.append(AdapterJob(stage, AdapterSpec(f"{self._readout.kind}/{task}", cell.seed, *ranks), task))
        return jobs

    def _updated_tokens(self) -> Tensor | None:
        """(vocabulary,) bool, the tokens whose embedding is updated; None means all."""
        share = self._readout.token_share
        if not share:
            return None
        vocabulary = self._job.network.config.vocab_size
        return torch.from_numpy(probes.common_tokens(self._rows, self._learned, share, vocabulary))

    def _batch(self, adapters: AdapterBatch, step: int) -> tuple[Tensor, ...]:
        """ids (K, B, T), places, targets and weights (K, B, P)."""
        parts = [self._streams[_task(adapter)].batch(step) for adapter in adapters]
        return tuple(torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True))

    def _head(self, adapters: AdapterBatch) -> Classifier:
        sizes = [len(self._classes[_task(adapter)].names) for adapter in adapters]
        specs = [adapter.spec for adapter in adapters]
        return Classifier(specs, sizes, self._job.network.config.hidden_size, batch_norm=self._batch_norm)

    def _collect(self, adapters: AdapterBatch, stack: StackedAdapters, curve: list[Progress]) -> None:
        """Keeps what the adapters of a batch have given, and publishes each stage that is complete with it."""
        if diverged := [str(a.task) for k, a in enumerate(adapters) if not math.isfinite(curve[-1].members[k])]:
            raise Diverged(f"the loss of {', '.join(diverged)} is no longer finite")
        predicted = evaluation.classify(stack, self._tested_rows, self._readout.precision)
        members: dict[str, list[int]] = {}
        for k, adapter in enumerate(adapters):
            task, stage = _task(adapter), self._stages[adapter.stage.key]
            stage.predicted[task] = predicted[k]
            head = _head_tensors(stack, k, len(self._classes[task].names))
            for name, tensor in {**stack.adapters.tensors(k), **head}.items():
                stage.tensors[f"{task}/{name}"] = tensor
            members.setdefault(adapter.stage.key, []).append(k)
        for key, own in members.items():
            stage = self._stages[key]
            stage.curve = concatenated(stage.curve, curve_of_adapters(curve, own))
            if len(stage.predicted) == len(self._classes):
                self._publish(stage)

    def _publish(self, probed: StageProbes) -> None:
        stage, store = probed.stage, self._job.store
        predictions = probe_scores.ProbePredictions(self._tested_rows, self._classes, probed.predicted)
        scores = probe_scores.score(predictions, self._tested, self._readout.kind)

        files: dict[str, FileContent] = {
            "adapters.safetensors": partial(save_file, probed.tensors),
            "predictions.parquet": partial(probe_scores.predictions(predictions).to_parquet, index=False),
            "guards.json": {name: "passed" for name in probe_checks.PROBE_GUARDS},
            # In the order of the losses in the curve.
            "tasks.json": [str(task) for task in probed.predicted],
            "refused.json": {str(task): why for task, why in self._refused.items()},
            **measurement_files(probed.curve, *scores),
        }
        store.publish_files(stage, files)
        store.clear_work(stage.key)


def _task(adapter: AdapterJob) -> ProbeTask:
    assert adapter.task is not None
    return adapter.task


def _head_tensors(stack: StackedAdapters, index: int, classes: int) -> dict[str, Tensor]:
    """The head of one adapter at its own number of classes, contiguous."""
    tensors = {}
    for name, tensor in stack.head.state_dict().items():
        own = tensor[index]
        tensors[f"head/{name}"] = (own[..., :classes] if name in ("weight", "bias") else own).cpu().contiguous()
    return tensors
