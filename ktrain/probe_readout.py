"""P-probes and Q-probes of one pretrained network: eleven tasks a cell, trained as one fleet."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ktrain import evaluation, guards, probe_scores, probes
from ktrain.adapters import Member
from ktrain.config import Cell, Runtime
from ktrain.corpus import Corpus
from ktrain.crew import Asked, Crew, joined, own
from ktrain.errors import WrongRequest
from ktrain.fleet import Fleet
from ktrain.heads import Classifier
from ktrain.probes import Stream, Task
from ktrain.stages import chain
from ktrain.store import Store
from ktrain.training import Diverged, Progress
from ktrain.work import Report, write, write_numbers


def read_out(
    store: Store, network: Any, cells: Sequence[Cell], corpus: Corpus, runtime: Runtime, report: Report
) -> None:
    """Trains the probes of cells that differ in their ranks only and publishes each cell's stage.

    Raises `GuardFailure`, `Diverged`.
    """
    readout = cells[0].readout
    learned, tested_people = corpus.halves(readout.people)
    left_out = probes.refused(
        corpus.people.pools, lambda: corpus.tokenizer, int(learned.sum()), readout.people_per_class
    )
    found = {task: probes.classes(corpus, task) for task in probes.TASKS if task not in left_out}
    if not found:
        raise WrongRequest(f"not enough people: {list(left_out.values())[-1]}")
    rows = probes.rows(corpus, readout, network.config.pad_token_id).kept(learned | tested_people)
    stages = [chain(cell)[2] for cell in cells]
    parent = stages[0].parent
    assert parent is not None
    streams = {
        task: Stream(rows, about, learned, readout.batch, cells[0].seed, f"{parent.key}/{task}")
        for task, about in found.items()
    }
    guards.enforce_probes(guards.InspectedProbes(corpus, tested_people, rows, streams, found))
    asked = [
        Asked(stage, Member(f"{readout.kind}/{task}", c.seed, c.readout.rank_embedding, c.readout.rank_qv), task)
        for stage, c in zip(stages, cells, strict=True)
        for task in found
    ]
    said: dict[str, dict[Task, np.ndarray]] = {stage.key: {} for stage in stages}
    heard: dict[str, list[Progress]] = {}
    tensors: dict[str, dict[str, Tensor]] = {stage.key: {} for stage in stages}
    tested = rows.kept(tested_people)

    def batch(wave: Sequence[Asked], step: int) -> tuple[Tensor, ...]:
        parts = [streams[_task(one)].batch(step) for one in wave]
        return tuple(torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True))

    def head(wave: Sequence[Asked]) -> Classifier:
        sizes = [len(found[_task(one)].names) for one in wave]
        members = [one.member for one in wave]
        return Classifier(members, sizes, network.config.hidden_size, batch_norm=readout.kind == "q_probe")

    def publish(wave: Sequence[Asked], fleet: Fleet, curve: list[Progress]) -> None:
        if odd := [str(one.task) for k, one in enumerate(wave) if not math.isfinite(curve[-1].members[k])]:
            raise Diverged(f"the loss of {', '.join(odd)} is no longer finite")
        predicted = evaluation.classify(fleet, tested, readout.precision)
        for k, one in enumerate(wave):
            task = _task(one)
            said[one.stage.key][task] = predicted[k]
            for name, tensor in {**fleet.adapters.tensors(k), **_of_head(fleet, k, len(found[task].names))}.items():
                tensors[one.stage.key][f"{task}/{name}"] = tensor
        for stage in {one.stage.key: one.stage for one in wave}.values():
            mine = [k for k, one in enumerate(wave) if one.stage.key == stage.key]
            heard[stage.key] = joined(heard.get(stage.key, []), own(curve, mine))
            if len(said[stage.key]) == len(found):
                about = probe_scores.Said(tested, found, said[stage.key])
                result = probe_scores.score(about, tested_people, readout.kind)
                store.finish(stage.key, stage.identity, stage.kind, partial(fill, stage.key, about, result))
                store.clear_work(stage.key)

    def fill(key: str, about: probe_scores.Said, result: probe_scores.Scores, folder: Path) -> None:
        save_file(tensors[key], folder / "adapters.safetensors")
        probe_scores.predictions(about).to_parquet(folder / "predictions.parquet", index=False)
        write(folder / "guards.json", {name: "passed" for name in guards.PROBE_GUARDS})
        write(folder / "refused.json", {str(task): why for task, why in left_out.items()})
        write_numbers(folder, heard[key], *result)

    tokens = None
    if readout.token_share:
        vocabulary = network.config.vocab_size
        tokens = torch.from_numpy(probes.common_tokens(rows, learned, readout.token_share, vocabulary))
    crew = Crew(network, readout, asked, batch, head, rows.ids.shape[1], cells[0].model.dropout, tokens)
    crew.train(store, runtime, report, publish)


def _task(one: Asked) -> Task:
    assert one.task is not None
    return one.task


def _of_head(fleet: Fleet, index: int, classes: int) -> dict[str, Tensor]:
    """The head of one member at its own number of classes, contiguous."""
    found = {}
    for name, tensor in fleet.head.state_dict().items():
        mine = tensor[index]
        found[f"head/{name}"] = (mine[..., :classes] if name in ("weight", "bias") else mine).cpu().contiguous()
    return found
