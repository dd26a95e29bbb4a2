"""Readouts that ask questions: of a network as it is, of one finetuned whole, or of many finetuned adapters."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from ktrain.config import CellConfig
from ktrain.data import checks
from ktrain.data.questions import QuestionRows
from ktrain.model.forward import bidirectional
from ktrain.model.heads import LanguageHead
from ktrain.model.lora import AdapterSpec, merged
from ktrain.model.masked_token_loss import MaskedTokenLoss
from ktrain.model.networks import set_dropout
from ktrain.model.objectives import next_token_loss
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.readout import evaluation, scores
from ktrain.readout.adapter_training import AdapterBatch, AdapterJob, AdapterTrainer, curve_of_adapters
from ktrain.readout.job import ReadoutJob
from ktrain.stages import Stage
from ktrain.store.base import FileContent
from ktrain.system.collectives import rank_share
from ktrain.training.artifacts import measurement_files, save_model
from ktrain.training.fit import fit
from ktrain.training.progress import Progress


def ask_network(job: ReadoutJob, prefix: str) -> None:
    """Asks the network as it is; metrics are named `<prefix>/exact_match/test/mean` and so on."""
    if not dist.get_rank():
        _publish_answers(job, job.stages[0], job.network, job.cells[0], prefix, [])


def finetune_network(job: ReadoutJob, prefix: str) -> None:
    """Trains the whole network on the questions of the training half, then asks it."""
    stage, cell = job.stages[0], job.cells[0]
    set_dropout(job.network, cell.readout_dropout)
    rows = _question_rows(job, stage, cell)

    def batches(step: int) -> tuple[Tensor, ...]:
        ids, truth, mask = rows.batch(step)
        # Dividing by the targets of the whole batch makes the mean over ranks the mean over targets.
        weights = mask.float() / mask.sum() * dist.get_world_size()
        return tuple(map(rank_share, (ids, truth, weights) if rows.fill else (ids, weights)))

    module = MaskedTokenLoss(job.network) if rows.fill else next_token_loss(job.network)
    curve = fit(
        module,
        cell.readout,
        batches,
        cell.readout.batch * rows.width,
        job.store.work_dir(stage.key),
        job.runtime,
        job.reporter.for_stage(stage.key),
    )
    if not dist.get_rank():
        _publish_answers(job, stage, job.network, cell, prefix, curve)


def finetune_adapters(job: ReadoutJob, prefix: str) -> None:
    """Trains an adapter for each cell, all on the same questions, then asks each merged network.

    A cell whose loss is no longer finite leaves a line of failure; the others are published.
    """
    cells = dict(zip((stage.key for stage in job.stages), job.cells, strict=True))
    jobs = [
        AdapterJob(stage, AdapterSpec("qa", cell.seed, cell.readout.rank_embedding, cell.readout.rank_qv))
        for stage, cell in zip(job.stages, job.cells, strict=True)
    ]
    rows = _question_rows(job, jobs[0].stage, job.cells[0])

    def batch(adapters: AdapterBatch, step: int) -> tuple[Tensor, ...]:
        return tuple(part[None].expand(len(adapters), *part.shape) for part in rows.targets(step))

    def publish(adapters: AdapterBatch, stack: StackedAdapters, curve: list[Progress]) -> None:
        for k, adapter in enumerate(adapters):
            stage = adapter.stage
            if not math.isfinite(curve[-1].members[k]):
                job.store.note_failure(stage.key, f"Diverged: the loss is {curve[-1].members[k]}")
                continue
            network, tensors = merged(job.network, stack.adapters, k), stack.adapters.tensors(k)
            own_curve = curve_of_adapters(curve, [k])
            _publish_answers(job, stage, network, cells[stage.key], prefix, own_curve, tensors)

    AdapterTrainer(
        network=job.network,
        readout=job.cells[0].readout,
        jobs=jobs,
        batch=batch,
        head=lambda adapters: LanguageHead(job.network),
        width=rows.width,
        dropout=job.cells[0].readout_dropout,
    ).train(job.store, job.runtime, job.reporter, publish)


def _publish_answers(
    job: ReadoutJob,
    stage: Stage,
    network: Any,
    cell: CellConfig,
    prefix: str,
    curve: list[Progress],
    adapters: dict[str, Tensor] | None = None,
) -> None:
    corpus = job.corpus
    groups = scores.asked_groups(corpus, cell.readout.people)
    people = np.flatnonzero(np.any(list(groups.values()), axis=0))
    answers = evaluation.answer(network, corpus, beam=cell.readout.beam, people=people)
    metrics, counts, intervals = scores.score(answers, groups, prefix)
    metrics |= scores.baseline(corpus.people, groups["test"])
    files: dict[str, FileContent] = {
        "model": partial(save_model, network, corpus),
        "predictions.parquet": partial(scores.predictions(answers, corpus, groups).to_parquet, index=False),
        **measurement_files(curve, metrics, counts, intervals),
    }
    if adapters:
        files["adapters.safetensors"] = partial(save_file, adapters)
    job.store.publish_files(stage, files)
    job.store.clear_work(stage.key)


def _question_rows(job: ReadoutJob, stage: Stage, cell: CellConfig) -> QuestionRows:
    """Raises `GuardFailure`."""
    assert stage.parent
    context, fill = cell.train.context, bidirectional(job.network)
    rows = QuestionRows(job.corpus, cell.readout, stage.parent.key, cell.seed, context=context, fill=fill)
    checks.enforce_questions(checks.FinetuningInputs(job.corpus, rows))
    return rows
