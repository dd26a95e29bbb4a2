"""Ray Data workers that write blocks of people, each with its own model."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from ktrain.config import CorpusConfig
from ktrain.generation.drafts import DraftStats, DraftStore, draft_stats
from ktrain.generation.generator import Draft, DraftGenerator, GenerationTask

Batch = dict[str, np.ndarray]
LEVEL = "RAY_BACKEND_LOG_LEVEL"


class GenerationWorker:
    """Loads a model once, then writes block after block."""

    def __init__(self, job: str, threads: int) -> None:
        """`job` is the task and the number of attempts, as `_job` writes them."""
        from ktrain.generation import local_models

        fields = json.loads(job)
        self._attempts = fields.pop("attempts")
        task = GenerationTask(CorpusConfig.model_validate(fields.pop("setting")), **fields)
        self._generator = DraftGenerator(task, local_models.load_model(task.writer, threads))

    def __call__(self, batch: Batch) -> Batch:
        """Maps each row, a block of people and attempts as JSON, to a row with their drafts as JSON."""
        written = []
        for block in batch["block"].tolist():
            drafts = self._generator.write([tuple(pair) for pair in json.loads(block)], self._attempts)
            written.append(json.dumps([asdict(draft) for draft in drafts]))
        return {"drafts": np.array(written, dtype=object)}


@contextmanager
def ray_cluster(address: str) -> Iterator[dict[str, float]]:
    """Connects to Ray at an address and yields its resources. Raises `WrongRequest` if it does not let us in."""
    import ray

    from sweeps.execution.cluster_address import LOCAL
    from sweeps.execution.ray_session import connected

    own = {"include_dashboard": False, "object_store_memory": 100_000_000} if address == LOCAL else {}
    with ExitStack() as stack:
        with _only_fatal() if address == LOCAL else nullcontext():
            stack.enter_context(connected(address, **own))
        yield dict(ray.cluster_resources())


@contextmanager
def _only_fatal() -> Iterator[None]:
    """Starts Ray inside with native logs at level `fatal`, without its warning for each actor that may not restart.

    Ray prints a note about this level while it starts, so stderr goes to the null device meanwhile.
    """
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


def generate_blocks(
    draft_store: DraftStore, blocks: Sequence[Any], attempts: int, models: int, resources: dict[str, float]
) -> Iterator[DraftStats]:
    """Writes blocks in any order, keeps each as soon as it is done, and yields its counts.

    `models` is the number of workers; 0 is one per GPU or core.
    """
    from ray import data

    from sweeps.execution.ray_session import muted

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    gpus = int(resources.get("GPU", 0)) if draft_store.task.writer.backend != "gguf" else 0
    workers = min(models or gpus or max(1, int(resources.get("CPU", 1))), len(blocks))
    rows = [{"block": json.dumps(block)} for block in blocks]
    written = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        GenerationWorker,
        fn_constructor_args=(_job(draft_store.task, attempts), 1),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=workers),
        **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
    )
    with muted():
        for row in written.iter_rows():
            drafts = [Draft(**draft) for draft in json.loads(row["drafts"])]
            draft_store.append(drafts)
            yield draft_stats(drafts)


def _job(task: GenerationTask, attempts: int) -> str:
    setting = task.setting.model_dump(mode="json")
    return json.dumps({"setting": setting, "seed": task.seed, "group": task.group, "m": task.m, "attempts": attempts})
