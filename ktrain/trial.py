"""A trial: the chain of stages of the cells that share one pretraining, run by every rank of a job.

Rank 0 holds the leases, builds, evaluates and publishes; all ranks train.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ktrain import corpus as corpora
from ktrain import evaluation, guards, ledger, model, readouts, scores
from ktrain.config import Cell, Runtime
from ktrain.corpus import Corpus
from ktrain.engine import join_alone
from ktrain.errors import WrongRequest
from ktrain.forward import Loss, bidirectional
from ktrain.learning import LearningCurves
from ktrain.lease import lease
from ktrain.masking import Filling, Masker, evenly
from ktrain.questions import QuestionRows
from ktrain.stages import Stage, chain, grouped, lowest_recall
from ktrain.store import Store
from ktrain.training import Batches, share
from ktrain.windows import Windows
from ktrain.work import Report, fit, lines, save_model, write


def run(cells: list[Cell], runtime: Runtime, report: Report) -> None:
    """Does what is missing of the stages of `cells`, which share their pretraining.

    Raises what a stage raises, after leaving a line about it in the stage's work folder. A model below the recall gate
    is not read out: its readout stays undone.
    """
    join_alone()
    torch.set_num_threads(runtime.threads)
    if dist.get_world_size() > 1 and cells[0].train.batch % dist.get_world_size():
        raise WrongRequest(f"workers={dist.get_world_size()}: does not divide train.batch={cells[0].train.batch}")
    store = Store.open(runtime.store)
    corpus_stage, pretrain_stage, _ = chain(cells[0])
    assert all(chain(cell)[1] == pretrain_stage for cell in cells)
    with _doing(store, corpus_stage) as missing:
        if missing and not dist.get_rank():
            _build_corpus(store, corpus_stage, cells[0])
    corpus = corpora.load(_finished(store, corpus_stage), cells[0].corpus, cells[0].seed)
    with _doing(store, pretrain_stage) as missing:
        if missing:
            _pretrain(store, pretrain_stage, cells[0], corpus, runtime, report)
    recalled = lowest_recall(store.metrics(pretrain_stage.key))
    readable = [cell for cell in cells if recalled >= cell.readout.recall_gate]
    for group in grouped(readable):
        stages = {chain(cell)[2].key: chain(cell)[2] for cell in group}
        with _doing(store, *stages.values()) as missing:
            left = {chain(cell)[2].key: cell for cell in group if chain(cell)[2].key in missing}
            if left:
                folder = _finished(store, pretrain_stage) / "model"
                readouts.read_out(store, folder, list(left.values()), corpus, runtime, report)


@contextmanager
def _doing(store: Store, *stages: Stage) -> Iterator[list[str]]:
    """The keys of the stages that are missing, the same answer for every rank; rank 0 holds their leases meanwhile."""
    if not dist.get_rank():
        with ExitStack() as held:
            # In one order everywhere, or two drivers would wait for each other.
            for stage in sorted(stages, key=lambda stage: stage.key):
                held.enter_context(lease(store.root, stage.key))
            missing = _tell([stage.key for stage in stages if store.find(stage.key) is None])
            for stage in stages:
                store.note_failure(stage.key, None)
            try:
                yield missing
            except Exception as e:
                for key in missing:
                    store.note_failure(key, f"{type(e).__name__}: {(str(e).splitlines() or ['no message'])[0]}")
                raise
    else:
        yield _tell([])
    dist.barrier()


def _tell(missing: list[str]) -> list[str]:
    """Rank 0's word to all."""
    words = [missing]
    dist.broadcast_object_list(words, src=0)
    return words[0]


def _finished(store: Store, stage: Stage) -> Path:
    folder = store.find(stage.key)
    assert folder is not None, stage.key
    return folder


def _build_corpus(store: Store, stage: Stage, cell: Cell) -> None:
    corpus = corpora.build(cell.corpus, cell.seed, ledger.reader(store, cell))
    tokens, entries = len(corpus.entries.ids), len(corpus.entries)
    metrics = {"corpus/entries": entries, "corpus/tokens": tokens, "corpus/tokens_per_entry": tokens / entries}
    if corpus.texts is not None:
        metrics["corpus/acceptance"] = corpus.texts.acceptance
    with store.publish(stage.key, stage.identity, stage.kind) as folder:
        corpus.save(folder)
        write(folder / "metrics.json", metrics)


def _pretrain(store: Store, stage: Stage, cell: Cell, corpus: Corpus, runtime: Runtime, report: Report) -> None:
    assert stage.parent
    windows = Windows(corpus, stage.parent.key, cell.train, cell.seed)
    vocabulary = corpus.tokenizer.get_vocab_size()
    network = model.build(cell.model, vocabulary, cell.train.context, corpus.eos, cell.seed)
    rows = QuestionRows(corpus, cell.readout, stage.key, cell.seed, fill=bidirectional(network))
    guards.enforce(guards.Inspected(corpus, rows, windows))
    module, batches = _objective(network, windows, corpus, stage.parent.key, cell)
    tokens = cell.train.batch * cell.train.context
    folder = store.work(stage.key)
    learning = LearningCurves(corpus, network, folder) if "question" in windows.streams else None
    watch = learning.watch if learning else None
    curve = fit(module, cell.train, batches, tokens, folder, runtime, lambda p: report(stage.key, p), watch=watch)
    if dist.get_rank():
        return
    recalled = evaluation.recall(network, corpus)
    metrics = {
        "recall/attribute_tokens": recalled.share(np.ones(len(corpus.people), dtype=bool)),
        "speed/tokens_per_second": curve[-1].tokens_per_second,
        "train/loss": curve[-1].loss,
        **scores.baseline(corpus.people, corpus.halves("minority")[1]),
    }
    if corpus.celebrity.any():
        metrics["recall/minority"] = recalled.share(~corpus.celebrity)
        metrics["recall/celebrity"] = recalled.share(corpus.celebrity)
    with store.publish(stage.key, stage.identity, stage.kind) as published:
        if learning:
            points = learning.points()
            metrics |= {name: value for name, value in points["curve"][-1].items() if name.startswith("bio/")}
            write(published / "learning.json", points)
        save_model(published, network, corpus)
        write(published / "curve.json", lines(curve))
        write(published / "metrics.json", metrics)
        write(published / "guards.json", {name: "passed" for name in guards.GUARDS})
    store.clear_work(stage.key)


def _objective(network: Any, windows: Windows, corpus: Corpus, key: str, cell: Cell) -> tuple[nn.Module, Batches]:
    """What is minimised, and the batch of this rank at a step: continue, or fill in."""
    ranks = dist.get_world_size()
    if bidirectional(network):
        masker = Masker(corpus.tokenizer, key, cell.seed)

        def masked(step: int) -> tuple[Tensor, ...]:
            rows = windows.rows(step)
            ids, chosen = masker.masked(rows, step)
            truth = torch.from_numpy(rows.astype(np.int64))
            return share(torch.from_numpy(ids)), share(truth), share(evenly(chosen, ranks))

        return Filling(network), masked
    mine = cell.train.batch // ranks
    weights = torch.full((mine, cell.train.context), 1 / (mine * (cell.train.context - 1)))

    def batches(step: int) -> tuple[Tensor, ...]:
        return share(torch.from_numpy(windows.rows(step).astype(np.int64))), weights

    return Loss(network), batches
