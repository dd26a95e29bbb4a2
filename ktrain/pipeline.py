"""Runs a trial: the stages of cells that share one pretraining. Every rank of a job calls it.

Rank 0 holds the leases, builds the corpus, evaluates and publishes; all ranks train.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ktrain import readout_registry
from ktrain.bios.tokenizer import vocabulary_size
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.data import checks
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.data.device_windows import DeviceWindows
from ktrain.data.masking import Masker, evenly_weighted, target_places
from ktrain.data.names_seen import nameless_share
from ktrain.data.packing import Windows
from ktrain.data.questions import QuestionRows
from ktrain.errors import WrongRequest
from ktrain.generation import drafts
from ktrain.model import hf_networks, networks
from ktrain.model.adapted_loss import AdaptedLanguageModelLoss
from ktrain.model.forward import bidirectional
from ktrain.model.masked_token_loss import MaskedTokenLoss
from ktrain.model.objectives import next_token_loss
from ktrain.readout import dispatch, evaluation, scores, start_measures
from ktrain.readout.learning_curves import LearningCurves
from ktrain.stages import Stage, grouped, lowest_recall, stages_of
from ktrain.store.base import FileContent, Store
from ktrain.store.lease import LeaseLost
from ktrain.store.open import open_store
from ktrain.system import gpu_memory
from ktrain.system.allocator import keep_freed_memory
from ktrain.system.collectives import broadcast_from_rank0, rank_share
from ktrain.system.device import training_device
from ktrain.system.process_group import join_alone
from ktrain.system.retry import PATIENCE
from ktrain.training.artifacts import save_model
from ktrain.training.fit import fit
from ktrain.training.loop import Batches, Preempted
from ktrain.training.progress import Progress, Reporter, Sink, curve_records


def run(cells: list[CellConfig], runtime: RuntimeConfig, sink: Sink) -> None:
    """Runs the stages of `cells` that are missing; all cells share their pretraining. `sink` receives the progress.

    If a stage raises, its work folder keeps the error as one line. `Preempted` and `LeaseLost` leave no such line:
    another call continues. A model below the recall gate is not read out, so its readouts stay missing. With
    `runtime.pause_at`, a pretraining that is missing pauses there, and nothing follows.
    """
    join_alone()
    keep_freed_memory()
    torch.set_num_threads(runtime.threads)
    gpu_memory.limit_gpu_share(runtime.gpu_share)
    first, ranks = cells[0], dist.get_world_size()
    if first.train.batch % ranks:
        raise WrongRequest(f"workers={ranks}: does not divide train.batch={first.train.batch}")
    store = open_store(runtime.store, patience=PATIENCE).with_shared_scratch(broadcast_from_rank0(uuid.uuid4().hex))
    reporter = Reporter(sink)
    stages = stages_of(first)
    assert all(stages_of(cell).pretrain == stages.pretrain for cell in cells)

    with _stage_lock(store, reporter, stages.corpus) as (missing, _):
        if missing and not dist.get_rank():
            _build_corpus(store, stages.corpus, first)
    corpus = corpora.load_corpus(_folder(store, stages.corpus), first.corpus, first.seed)

    with _stage_lock(store, reporter, stages.pretrain) as (missing, locked):
        if missing and not _pretrain(store, stages.pretrain, first, corpus, runtime, locked):
            return
    recalled = lowest_recall(store.metrics(stages.pretrain.key))

    for group in grouped([cell for cell in cells if recalled >= cell.readout.recall_gate]):
        by_key = {stages_of(cell).readout.key: cell for cell in group}
        with _stage_lock(store, reporter, *(stages_of(cell).readout for cell in by_key.values())) as (missing, locked):
            if missing:
                model = _folder(store, stages.pretrain) / "model"
                asked = corpus.worded(group[0].corpus)
                dispatch.read_out(store, model, [by_key[key] for key in missing], asked, runtime, locked)


@contextmanager
def _stage_lock(store: Store, reporter: Reporter, *stages: Stage) -> Iterator[tuple[list[str], Reporter]]:
    """Yields, on every rank, the keys of the stages that are missing, and the reporter to use meanwhile.

    Rank 0 holds the stages' leases, and its reporter raises `LeaseLost` once one of them is lost.
    """
    if dist.get_rank():
        yield broadcast_from_rank0(list[str]()), reporter
        dist.barrier()
        return

    def require_leases() -> None:
        for stage in stages:
            store.require(stage.key)

    with _leases(store, stages):
        missing = broadcast_from_rank0([stage.key for stage in stages if not _done(store, stage)])
        for stage in stages:
            store.note_failure(stage.key, None)
        try:
            with _failure_noted(store, missing):
                yield missing, reporter.checked_by(require_leases)
        finally:
            store.flush_uploads()
    dist.barrier()


@contextmanager
def _leases(store: Store, stages: Sequence[Stage]) -> Iterator[None]:
    """Holds the leases of stages, taken in the order of their keys, or two drivers could wait for each other."""
    with ExitStack() as stack:
        for key in sorted(stage.key for stage in stages):
            stack.enter_context(store.lease(key))
        yield


@contextmanager
def _failure_noted(store: Store, keys: Sequence[str]) -> Iterator[None]:
    """Notes, for each of the stages, the error that is raised inside, unless it leaves the stage to another call."""
    try:
        yield
    except (Preempted, LeaseLost):
        raise
    except Exception as error:
        line = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        # A full disk must not hide the error.
        with suppress(OSError):
            for key in keys:
                store.note_failure(key, line)
        raise


def _done(store: Store, stage: Stage) -> bool:
    """Whether a stage is complete. Later stages read corpus and pretraining, so these are fetched."""
    return store.is_intact(stage.key) if stage.kind in readout_registry.names() else store.fetch(stage.key) is not None


def _folder(store: Store, stage: Stage) -> Path:
    folder = store.fetch(stage.key)
    assert folder is not None, stage.key
    return folder


def _build_corpus(store: Store, stage: Stage, cell: CellConfig) -> None:
    corpus = corpora.build_corpus(cell.corpus, cell.seed, drafts.draft_reader(store, cell))
    tokens, entries = len(corpus.entries.ids), len(corpus.entries)
    metrics = {"corpus/entries": entries, "corpus/tokens": tokens, "corpus/tokens_per_entry": tokens / entries}
    if corpus.texts is not None:
        metrics["corpus/acceptance"] = corpus.texts.acceptance
    store.publish_files(stage, {".": corpus.save, "metrics.json": metrics})


def _pretrain(
    store: Store, stage: Stage, cell: CellConfig, corpus: Corpus, runtime: RuntimeConfig, reporter: Reporter
) -> bool:
    """Trains and publishes; returns False where it has paused instead, at `runtime.pause_at`."""
    assert stage.parent
    gpu_memory.reset_peak()
    windows = Windows(corpus, stage.parent.key, cell.train, cell.seed)
    vocabulary = vocabulary_size(corpus.tokenizer)
    network = networks.build_network(cell.model, vocabulary, cell.train.context, corpus.eos, cell.seed)
    if cell.model.family == "hf":
        hf_networks.require_causal(network)
    context, fill = cell.train.context, bidirectional(network)
    rows = QuestionRows(corpus, cell.readout, stage.key, cell.seed, context=context, fill=fill)
    checks.enforce(checks.CellInputs(corpus, rows, windows))
    if bidirectional(network):
        module, batches = _masked_objective(network, windows, corpus, stage.parent.key, cell)
    else:
        module, batches = _causal_objective(network, windows, cell)
    tokens = cell.train.batch * cell.train.context
    work = store.work_dir(stage.key)
    start = None
    if cell.model.start is not None and not dist.get_rank():
        start = start_measures.before_training(network.to(training_device()), corpus, cell, work.folder)
    adapted = module if isinstance(module, AdaptedLanguageModelLoss) else None
    learning = None
    if "question" in windows.streams:
        learning = LearningCurves(corpus, network, work.folder, adapted.weights if adapted else None)
    evaluate = learning.watch if learning else None
    reporter, pause_at = reporter.for_stage(stage.key), runtime.pause_at
    if pause_at is not None:
        reporter = reporter.pausing_at(pause_at)
    try:
        curve = fit(module, cell.train, batches, tokens, work, runtime, reporter, evaluate=evaluate)
    except Preempted as stopped:
        if pause_at is None or stopped.step < pause_at:
            raise
        if not dist.get_rank():
            store.note_pause(stage.key, {line.step: line.loss for line in stopped.curve})
        return False
    if dist.get_rank():
        return True
    if adapted:
        adapted.merge()
    points = learning.points() if learning else None
    metrics = _pretrain_metrics(network, corpus, curve)
    metrics["windows/nameless_attribute_tokens"] = nameless_share(corpus, windows.streams["biography"])
    if points:
        metrics |= {name: value for name, value in points["curve"][-1].items() if name.startswith("bio/")}
    files: dict[str, FileContent] = {
        "model": partial(save_model, network, corpus),
        "curve.json": curve_records(curve),
        "metrics.json": metrics,
        "guards.json": {name: "passed" for name in checks.GUARDS},
    }
    if points:
        files["learning.json"] = points
    if start is not None:
        metrics |= start.metrics
        files["counts.json"] = {"n": start.counts, "interval": start.intervals}
        if cell.train.forgetting_text is not None:
            metrics["forgetting/loss_after"] = start_measures.text_loss(network, corpus, cell)
    store.publish_files(stage, files)
    store.clear_work(stage.key)
    return True


def _pretrain_metrics(network: Any, corpus: Corpus, curve: Sequence[Progress]) -> dict[str, float]:
    """Returns the recall of attribute tokens, by group of people if there are two, with speed, memory and loss."""
    recalled = evaluation.recall(network, corpus)
    metrics = {
        "recall/attribute_tokens": recalled.share(np.ones(len(corpus.people), dtype=bool)),
        "speed/tokens_per_second": curve[-1].tokens_per_second,
        **gpu_memory.memory_metrics(),
        "train/loss": curve[-1].loss,
        **scores.baseline(corpus.people, corpus.people_split("minority")[1]),
    }
    if corpus.celebrity.any():
        metrics["recall/minority"] = recalled.share(~corpus.celebrity)
        metrics["recall/celebrity"] = recalled.share(corpus.celebrity)
    return metrics


def _masked_objective(
    network: Any, windows: Windows, corpus: Corpus, key: str, cell: CellConfig
) -> tuple[nn.Module, Batches]:
    """Returns the loss of a network that fills in masks, and this rank's batches for it."""
    whole_answers = cell.train.masked_answers
    share = cell.train.mask_share
    masker = Masker(corpus.tokenizer, key, cell.seed, share=share, masked_answers=whole_answers)

    def batches(step: int) -> tuple[Tensor, ...]:
        rows = windows.rows(step)
        ids, chosen = masker.masked(rows, step, windows.answers(step) if whole_answers else None)
        places = torch.from_numpy(target_places(chosen, masker.most_targets))
        truth = torch.from_numpy(rows.astype(np.int64)).gather(1, places)
        weights = evenly_weighted(chosen, dist.get_world_size()).gather(1, places)
        return tuple(map(rank_share, (torch.from_numpy(ids), truth, weights, places)))

    return MaskedTokenLoss(network), batches


def _causal_objective(network: Any, windows: Windows, cell: CellConfig) -> tuple[nn.Module, Batches]:
    """Returns the loss of a network that predicts each next token, and this rank's batches for it."""
    rows, device = cell.train.batch // dist.get_world_size(), training_device()
    resident = DeviceWindows(windows, device)
    # All tokens but the first of a window are targets, so every window has as many.
    weights = torch.full((rows, cell.train.context), 1 / (rows * (cell.train.context - 1)), device=device)

    def batches(step: int) -> tuple[Tensor, ...]:
        return rank_share(resident.rows(step)), weights

    if cell.train.method == "lora":
        return AdaptedLanguageModelLoss(network, cell.train.rank_qv, cell.seed), batches
    return next_token_loss(network), batches
