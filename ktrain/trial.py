"""A trial: the chain of stages of the cells that share one pretraining, run by every rank of a job.

Rank 0 holds the leases, builds, evaluates and publishes; all ranks train.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ktrain import corpus as corpora
from ktrain import evaluation, guards, ledger, memory, model, readouts, scores
from ktrain.config import Cell, Runtime
from ktrain.corpus import Corpus
from ktrain.device import device
from ktrain.engine import join_alone
from ktrain.errors import WrongRequest
from ktrain.forward import Loss, bidirectional
from ktrain.learning import LearningCurves
from ktrain.lease import LeaseLost
from ktrain.masking import Filling, Masker, evenly
from ktrain.patience import PATIENCE
from ktrain.questions import QuestionRows
from ktrain.resident import Resident
from ktrain.stages import Stage, chain, grouped, lowest_recall
from ktrain.store import Store
from ktrain.training import Batches, Leaving, Progress, share
from ktrain.windows import Windows
from ktrain.work import Report, fit, lines, save_model, write

READOUTS = ("qa_finetune", "mixed", "p_probe", "q_probe")
T = TypeVar("T")


def run(cells: list[Cell], runtime: Runtime, report: Report) -> None:
    """Does what is missing of the stages of `cells`, which share their pretraining.

    Raises what a stage raises, after leaving a line about it in the stage's work folder; and without one `Leaving` and
    `LeaseLost`, after which the same call goes on. A model below the recall gate is not read out: its readout stays
    undone.
    """
    join_alone()
    torch.set_num_threads(runtime.threads)
    memory.confine(runtime.gpu_share)
    if dist.get_world_size() > 1 and cells[0].train.batch % dist.get_world_size():
        raise WrongRequest(f"workers={dist.get_world_size()}: does not divide train.batch={cells[0].train.batch}")
    store = Store.open(runtime.store, patience=PATIENCE).together(_tell(uuid.uuid4().hex))
    corpus_stage, pretrain_stage, _ = chain(cells[0])
    assert all(chain(cell)[1] == pretrain_stage for cell in cells)
    with _doing(store, report, corpus_stage) as (missing, _):
        if missing and not dist.get_rank():
            _build_corpus(store, corpus_stage, cells[0])
    corpus = corpora.load(_finished(store, corpus_stage), cells[0].corpus, cells[0].seed)
    with _doing(store, report, pretrain_stage) as (missing, told):
        if missing:
            _pretrain(store, pretrain_stage, cells[0], corpus, runtime, told)
    recalled = lowest_recall(store.metrics(pretrain_stage.key))
    readable = [cell for cell in cells if recalled >= cell.readout.recall_gate]
    for group in grouped(readable):
        stages = {chain(cell)[2].key: chain(cell)[2] for cell in group}
        with _doing(store, report, *stages.values()) as (missing, told):
            left = {chain(cell)[2].key: cell for cell in group if chain(cell)[2].key in missing}
            if left:
                folder = _finished(store, pretrain_stage) / "model"
                readouts.read_out(store, folder, list(left.values()), corpus, runtime, told)


@contextmanager
def _doing(store: Store, report: Report, *stages: Stage) -> Iterator[tuple[list[str], Report]]:
    """The keys of the stages that are missing, the same answer for every rank, and whom to report to; rank 0 holds
    their leases meanwhile, and its report raises `LeaseLost` when they are gone."""
    if not dist.get_rank():
        with ExitStack() as stack:
            # In one order everywhere, or two drivers would wait for each other.
            for stage in sorted(stages, key=lambda stage: stage.key):
                stack.enter_context(store.lease(stage.key))

            def told(key: str, progress: Progress) -> bool | None:
                for stage in stages:
                    store.require(stage.key)
                return report(key, progress)

            missing = _tell([stage.key for stage in stages if not _done(store, stage)])
            for stage in stages:
                store.note_failure(stage.key, None)
            try:
                yield missing, told
            except (Leaving, LeaseLost):
                raise
            except Exception as e:
                # A disk that is full must not hide what happened.
                with suppress(OSError):
                    for key in missing:
                        store.note_failure(key, f"{type(e).__name__}: {(str(e).splitlines() or ['no message'])[0]}")
                raise
            finally:
                store.settle()
    else:
        yield _tell([]), report
    dist.barrier()


def _done(store: Store, stage: Stage) -> bool:
    """Whether a stage is complete. Of a readout nothing is read after this, so its files stay where they are."""
    return store.sound(stage.key) if stage.kind in READOUTS else store.find(stage.key) is not None


def _tell(word: T) -> T:
    """Rank 0's word to all."""
    words = [word]
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

    def fill(folder: Path) -> None:
        corpus.save(folder)
        write(folder / "metrics.json", metrics)

    store.finish(stage.key, stage.identity, stage.kind, fill)


def _pretrain(store: Store, stage: Stage, cell: Cell, corpus: Corpus, runtime: Runtime, report: Report) -> None:
    assert stage.parent
    memory.watch()
    windows = Windows(corpus, stage.parent.key, cell.train, cell.seed)
    vocabulary = corpus.tokenizer.get_vocab_size()
    network = model.build(cell.model, vocabulary, cell.train.context, corpus.eos, cell.seed)
    rows = QuestionRows(corpus, cell.readout, stage.key, cell.seed, fill=bidirectional(network))
    guards.enforce(guards.Inspected(corpus, rows, windows))
    module, batches = _objective(network, windows, corpus, stage.parent.key, cell)
    tokens = cell.train.batch * cell.train.context
    place = store.place(stage.key)
    learning = LearningCurves(corpus, network, place.folder) if "question" in windows.streams else None
    watch = learning.watch if learning else None
    curve = fit(module, cell.train, batches, tokens, place, runtime, lambda p: report(stage.key, p), watch=watch)
    if dist.get_rank():
        return
    recalled = evaluation.recall(network, corpus)
    metrics = {
        "recall/attribute_tokens": recalled.share(np.ones(len(corpus.people), dtype=bool)),
        "speed/tokens_per_second": curve[-1].tokens_per_second,
        **memory.numbers(),
        "train/loss": curve[-1].loss,
        **scores.baseline(corpus.people, corpus.halves("minority")[1]),
    }
    if corpus.celebrity.any():
        metrics["recall/minority"] = recalled.share(~corpus.celebrity)
        metrics["recall/celebrity"] = recalled.share(corpus.celebrity)
    points = learning.points() if learning else None
    if points:
        metrics |= {name: value for name, value in points["curve"][-1].items() if name.startswith("bio/")}

    def fill(folder: Path) -> None:
        if points:
            write(folder / "learning.json", points)
        save_model(folder, network, corpus)
        write(folder / "curve.json", lines(curve))
        write(folder / "metrics.json", metrics)
        write(folder / "guards.json", {name: "passed" for name in guards.GUARDS})

    store.finish(stage.key, stage.identity, stage.kind, fill)
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
    mine, resident = cell.train.batch // ranks, Resident(windows, device())
    weights = torch.full((mine, cell.train.context), 1 / (mine * (cell.train.context - 1)), device=device())

    def batches(step: int) -> tuple[Tensor, ...]:
        return share(resident.rows(step)), weights

    return Loss(network), batches
