"""A trial: the chain of stages of the cells that share one pretraining, run by every rank of a job.

Rank 0 holds the leases, builds, evaluates and publishes; all ranks train.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from ktrain import corpus as corpora
from ktrain import evaluation, guards, lora, model, scores
from ktrain.config import Cell, Readout, Runtime, Train
from ktrain.corpus import Corpus
from ktrain.engine import Engine, join_alone
from ktrain.errors import WrongRequest
from ktrain.forward import Loss
from ktrain.lease import lease
from ktrain.questions import QuestionRows
from ktrain.resume import Point, ResumePoints
from ktrain.stages import Stage, chain
from ktrain.store import Store
from ktrain.tokenizer import EOS
from ktrain.training import Batches, Progress, Schedule, share, train
from ktrain.windows import Windows

Report = Callable[[str, Progress], None]
"""Called on every rank at the same steps, with the stage's key."""
LINES = 100
"""How many lines a stage's curve has, at most one a step."""


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
    for cell in cells:
        corpus_stage, pretrain_stage, readout_stage = chain(cell)
        with _doing(store, corpus_stage) as missing:
            if missing and not dist.get_rank():
                _build_corpus(store, corpus_stage, cell)
        corpus = corpora.load(_finished(store, corpus_stage), cell.corpus, cell.seed)
        with _doing(store, pretrain_stage) as missing:
            if missing:
                _pretrain(store, pretrain_stage, cell, corpus, runtime, report)
        recalled = store.metrics(pretrain_stage.key)["recall/attribute_tokens"]
        with _doing(store, readout_stage) as missing:
            if missing and recalled >= cell.readout.recall_gate:
                _read_out(store, readout_stage, cell, corpus, runtime, report)


@contextmanager
def _doing(store: Store, stage: Stage) -> Iterator[bool]:
    """Whether the stage is missing, the same answer for every rank, with the lease held by rank 0 meanwhile."""
    if not dist.get_rank():
        with lease(store.root, stage.key):
            missing = _tell(store.find(stage.key) is None)
            store.note_failure(stage.key, None)
            try:
                yield missing
            except Exception as e:
                store.note_failure(stage.key, f"{type(e).__name__}: {(str(e).splitlines() or ['no message'])[0]}")
                raise
    else:
        yield _tell(False)
    dist.barrier()


def _tell(missing: bool) -> bool:
    """Rank 0's word to all."""
    words = [missing]
    dist.broadcast_object_list(words, src=0)
    return words[0]


def _finished(store: Store, stage: Stage) -> Path:
    folder = store.find(stage.key)
    assert folder is not None, stage.key
    return folder


def _build_corpus(store: Store, stage: Stage, cell: Cell) -> None:
    corpus = corpora.build(cell.corpus, cell.seed)
    tokens, entries = len(corpus.entries.ids), len(corpus.entries)
    metrics = {"corpus/entries": entries, "corpus/tokens": tokens, "corpus/tokens_per_entry": tokens / entries}
    with store.publish(stage.key, stage.identity, stage.kind) as folder:
        corpus.save(folder)
        _write(folder / "metrics.json", metrics)


def _pretrain(store: Store, stage: Stage, cell: Cell, corpus: Corpus, runtime: Runtime, report: Report) -> None:
    assert stage.parent
    windows = Windows(corpus, stage.parent.key, cell.train, cell.seed)
    rows = QuestionRows(corpus, cell.readout, stage.key, cell.seed)
    guards.enforce(guards.Inspected(corpus, windows, rows))
    vocabulary = corpus.tokenizer.get_vocab_size()
    network = model.build(cell.model, vocabulary, cell.train.context, corpus.eos, cell.seed)
    targets = cell.train.batch // dist.get_world_size() * (cell.train.context - 1)
    weights = torch.full((cell.train.batch // dist.get_world_size(), cell.train.context), 1 / targets)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        return share(torch.from_numpy(windows.rows(step).astype(np.int64))), weights

    schedule = _schedule(cell.train, cell.train.warmup)
    curve = _fit(store, stage, network, cell.train, schedule, batches, cell.train.context, cell, runtime, report)
    if dist.get_rank():
        return
    metrics = {
        "recall/attribute_tokens": evaluation.recall(network, corpus),
        "speed/tokens_per_second": curve[-1].tokens_per_second,
        "train/loss": curve[-1].loss,
        **scores.baseline(corpus),
    }
    with store.publish(stage.key, stage.identity, stage.kind) as folder:
        _save_model(folder, network, corpus)
        _write(folder / "curve.json", [{**vars(p), "tokens_per_second": p.tokens_per_second} for p in curve])
        _write(folder / "metrics.json", metrics)
        _write(folder / "guards.json", {name: "passed" for name in guards.GUARDS})
    store.clear_work(stage.key)


def _read_out(store: Store, stage: Stage, cell: Cell, corpus: Corpus, runtime: Runtime, report: Report) -> None:
    assert stage.parent
    readout = cell.readout
    network = GPTNeoXForCausalLM.from_pretrained(_finished(store, stage.parent) / "model")
    curve: list[Progress] = []
    trained: dict[str, Tensor] = {}
    if readout.kind == "qa_finetune":
        if readout.method == "lora":
            lora.attach(network, readout, cell.seed)
        curve = _finetune(store, stage, network, cell, corpus, runtime, report)
        if readout.method == "lora":
            trained = lora.adapters(network)
            network = lora.merge(network)
    if dist.get_rank():
        return
    answers = evaluation.answer(network, corpus, beam=readout.beam)
    prefix = "qa" if readout.kind == "qa_finetune" else "mixed"
    metrics, counts, intervals = scores.score(answers, corpus, prefix)
    with store.publish(stage.key, stage.identity, stage.kind) as folder:
        _save_model(folder, network, corpus)
        if trained:
            save_file(trained, folder / "adapters.safetensors")
        scores.predictions(answers, corpus).to_parquet(folder / "predictions.parquet", index=False)
        _write(folder / "curve.json", [{**vars(p), "tokens_per_second": p.tokens_per_second} for p in curve])
        _write(folder / "metrics.json", metrics)
        _write(folder / "counts.json", {"n": counts, "interval": intervals})
    store.clear_work(stage.key)


def _finetune(
    store: Store,
    stage: Stage,
    network: GPTNeoXForCausalLM,
    cell: Cell,
    corpus: Corpus,
    runtime: Runtime,
    report: Report,
) -> list[Progress]:
    assert stage.parent
    rows = QuestionRows(corpus, cell.readout, stage.parent.key, cell.seed)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        ids, mask = rows.batch(step)
        # Dividing by the targets of the whole batch makes the mean over ranks the mean over targets.
        weights = mask.float() / mask.sum() * dist.get_world_size()
        return share(ids), share(weights)

    schedule = _schedule(cell.readout, 0)
    return _fit(store, stage, network, cell.readout, schedule, batches, rows.ids.shape[1], cell, runtime, report)


def _fit(
    store: Store,
    stage: Stage,
    network: GPTNeoXForCausalLM,
    setting: Train | Readout,
    schedule: Schedule,
    batches: Batches,
    width: int,
    cell: Cell,
    runtime: Runtime,
    report: Report,
) -> list[Progress]:
    """Trains `network` in place, from its latest resume point if there is one."""
    points = ResumePoints(store.work(stage.key))
    resumed: Point | None = points.latest()
    module = Loss(network)
    if resumed:
        _load(module, resumed.tensors)
    module.train()
    # Dropout draws from torch's own generator, a stream of its own for each stage and rank.
    torch.manual_seed(int(stage.key[-8:], 16) + dist.get_rank())
    engine = Engine(module, setting, setting.batch // dist.get_world_size(), compile=runtime.compile)
    curve = train(
        engine,
        batches,
        schedule,
        setting.batch * width,
        points,
        lambda progress: report(stage.key, progress),
        resumed=resumed,
        every=max(1, setting.steps // LINES),
        checkpoint_seconds=runtime.checkpoint_seconds,
    )
    final = engine.state()
    engine.close()
    _load(module, final)
    return curve


def _load(module: Loss, tensors: dict[str, Tensor]) -> None:
    weights = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    if trained != set(weights):
        raise ValueError(f"weights of another network: {sorted(trained ^ set(weights))[:3]}")
    module.load_state_dict(weights, strict=False)


def _schedule(setting: Train | Readout, warmup: int) -> Schedule:
    return Schedule(setting.learning_rate, setting.final_learning_rate, warmup, setting.steps)


def _save_model(folder: Path, network: GPTNeoXForCausalLM, corpus: Corpus) -> None:
    network.save_pretrained(folder / "model")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=corpus.tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder / "model")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False))
