"""Clerks: workers of Ray Data, each with a model of its own, which write blocks of people."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from ktrain.config import Corpus
from ktrain.ledger import Ledger, Tally, tally
from ktrain.scribe import Draft, Scribe, Task

Batch = dict[str, np.ndarray]
LEVEL = "RAY_BACKEND_LOG_LEVEL"


class Clerk:
    """Loads the model once and writes block after block."""

    def __init__(self, told: str, threads: int) -> None:
        """`told` is the task as JSON."""
        from ktrain import local_models

        about = json.loads(told)
        task = Task(Corpus.model_validate(about["setting"]), about["seed"], about["group"], about["m"])
        self._attempts = about["attempts"]
        self._scribe = Scribe(task, local_models.load(task.writer, threads))

    def __call__(self, batch: Batch) -> Batch:
        """Rows of people and attempts as JSON to one row with the drafts, as JSON."""
        written = []
        for block in batch["block"].tolist():
            drafts = self._scribe.write([tuple(pair) for pair in json.loads(block)], self._attempts)
            written.append(json.dumps([asdict(draft) for draft in drafts]))
        return {"drafts": np.array(written, dtype=object)}


@contextmanager
def cluster() -> Iterator[dict[str, float]]:
    """Ray, as `sweeps.run` has it, and what it has to compute on. Raises `WrongRequest` where it does not answer."""
    import ray

    from sweeps.run import connected

    address = os.environ.get("RAY_ADDRESS") or "local"
    own = {"include_dashboard": False, "object_store_memory": 100_000_000} if address == "local" else {}
    with ExitStack() as stack:
        with _only_fatal() if address == "local" else nullcontext():
            stack.enter_context(connected(address, **own))
        yield dict(ray.cluster_resources())


@contextmanager
def _only_fatal() -> Iterator[None]:
    """Ray that is started inside says below Python nothing but why it dies; otherwise it says of each actor of Ray Data
    that it might not be started again. That it was told so it says too, and that goes nowhere."""
    before, real = os.environ.get(LEVEL), os.dup(2)
    os.environ.setdefault(LEVEL, "fatal")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(real, 2)
        os.close(real)
        if before is None:
            del os.environ[LEVEL]


def work(
    ledger: Ledger, blocks: Sequence[Any], attempts: int, models: int, resources: dict[str, float]
) -> Iterator[Tally]:
    """What each block came to, kept as soon as it is done, in any order."""
    from ray import data

    from sweeps.run import muted

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    gpus = int(resources.get("GPU", 0)) if ledger.task.writer.backend != "gguf" else 0
    many = min(models or gpus or max(1, int(resources.get("CPU", 1))), len(blocks))
    task = ledger.task
    told = json.dumps(
        {
            "setting": task.setting.model_dump(mode="json"),
            "seed": task.seed,
            "group": task.group,
            "m": task.m,
            "attempts": attempts,
        }
    )
    rows = [{"block": json.dumps(block)} for block in blocks]
    done = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Clerk,
        fn_constructor_args=(told, 1),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=many),
        **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
    )
    with muted():
        for row in done.iter_rows():
            drafts = [Draft(**draft) for draft in json.loads(row["drafts"])]
            ledger.keep(drafts)
            yield tally(drafts)
