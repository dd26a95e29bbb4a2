"""Readouts of one pretrained network: adapters trained together in fleets, whole networks one by one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from ktrain import evaluation, guards, memory, probe_readout, scores
from ktrain.adapters import Member, merged
from ktrain.config import Cell, Runtime
from ktrain.corpus import Corpus
from ktrain.crew import Asked, Crew, own
from ktrain.fleet import Fleet
from ktrain.forward import Loss, bidirectional
from ktrain.heads import LanguageHead
from ktrain.masking import Filling
from ktrain.questions import QuestionRows
from ktrain.stages import Stage, chain
from ktrain.store import Store
from ktrain.training import Progress, share
from ktrain.work import Report, fit, save_model, write_numbers


def read_out(
    store: Store, folder: Path, cells: Sequence[Cell], corpus: Corpus, runtime: Runtime, report: Report
) -> None:
    """Does the readouts of one group of `stages.grouped`, whose network lies in `folder`, and publishes each.

    Raises `GuardFailure`, `Diverged`.
    """
    readout = cells[0].readout
    memory.watch()
    network = AutoModelForCausalLM.from_pretrained(folder)
    if readout.probe:
        probe_readout.read_out(store, network, cells, corpus, runtime, report)
    elif readout.adapted:
        _finetune_fleet(store, network, cells, corpus, runtime, report)
    else:
        stage, curve = chain(cells[0])[2], []
        if readout.kind == "qa_finetune":
            curve = _finetune_whole(store, stage, network, cells[0], corpus, runtime, report)
        if not dist.get_rank():
            _publish_answers(store, stage, network, cells[0], corpus, curve, {})


def _finetune_whole(
    store: Store, stage: Stage, network: Any, cell: Cell, corpus: Corpus, runtime: Runtime, report: Report
) -> list[Progress]:
    rows = _question_rows(stage, network, cell, corpus)

    def batches(step: int) -> tuple[Tensor, ...]:
        ids, truth, mask = rows.batch(step)
        # Dividing by the targets of the whole batch makes the mean over ranks the mean over targets.
        weights = mask.float() / mask.sum() * dist.get_world_size()
        return tuple(map(share, (ids, truth, weights) if rows.fill else (ids, weights)))

    tokens = cell.readout.batch * rows.ids.shape[1]
    place, module = store.place(stage.key), Filling(network) if rows.fill else Loss(network)
    return fit(module, cell.readout, batches, tokens, place, runtime, lambda p: report(stage.key, p))


def _finetune_fleet(
    store: Store, network: Any, cells: Sequence[Cell], corpus: Corpus, runtime: Runtime, report: Report
) -> None:
    asked = [Asked(chain(c)[2], Member("qa", c.seed, c.readout.rank_embedding, c.readout.rank_qv)) for c in cells]
    owner = dict(zip((a.stage.key for a in asked), cells, strict=True))
    rows = _question_rows(asked[0].stage, network, cells[0], corpus)

    def batch(wave: Sequence[Asked], step: int) -> tuple[Tensor, ...]:
        return tuple(part[None].expand(len(wave), *part.shape) for part in rows.targets(step))

    def head(wave: Sequence[Asked]) -> LanguageHead:
        return LanguageHead(network)

    def publish(wave: Sequence[Asked], fleet: Fleet, curve: list[Progress]) -> None:
        for k, one in enumerate(wave):
            if not math.isfinite(curve[-1].members[k]):
                store.note_failure(one.stage.key, f"Diverged: the loss is {curve[-1].members[k]}")
                continue
            plain, tensors = merged(network, fleet.adapters, k), fleet.adapters.tensors(k)
            _publish_answers(store, one.stage, plain, owner[one.stage.key], corpus, own(curve, [k]), tensors)

    Crew(network, cells[0].readout, asked, batch, head, rows.ids.shape[1], cells[0].model.dropout).train(
        store, runtime, report, publish
    )


def _publish_answers(
    store: Store,
    stage: Stage,
    network: Any,
    cell: Cell,
    corpus: Corpus,
    curve: list[Progress],
    adapters: dict[str, Tensor],
) -> None:
    halves = corpus.halves(cell.readout.people)
    people = np.flatnonzero(halves[0] | halves[1])
    answers = evaluation.answer(network, corpus, beam=cell.readout.beam, people=people)
    metrics, counts, intervals = scores.score(answers, halves, "qa" if cell.readout.kind == "qa_finetune" else "mixed")

    def fill(folder: Path) -> None:
        save_model(folder, network, corpus)
        if adapters:
            save_file(adapters, folder / "adapters.safetensors")
        scores.predictions(answers, corpus, halves).to_parquet(folder / "predictions.parquet", index=False)
        write_numbers(folder, curve, metrics | scores.baseline(corpus.people, halves[1]), counts, intervals)

    store.finish(stage.key, stage.identity, stage.kind, fill)
    store.clear_work(stage.key)


def _question_rows(stage: Stage, network: Any, cell: Cell, corpus: Corpus) -> QuestionRows:
    """Raises `GuardFailure`."""
    assert stage.parent
    rows = QuestionRows(corpus, cell.readout, stage.parent.key, cell.seed, fill=bidirectional(network))
    guards.enforce_questions(guards.InspectedQuestions(corpus, rows))
    return rows
