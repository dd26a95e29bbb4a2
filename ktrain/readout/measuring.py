"""Readouts that train nothing: measure the pretrained network and publish what was found."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from ktrain.config import CellConfig
from ktrain.data.corpus import Corpus
from ktrain.readout.job import ReadoutJob
from ktrain.readout.measured import Measured
from ktrain.system.device import training_device
from ktrain.training.artifacts import measurement_files

V = TypeVar("V")
Measure = Callable[[Any, Corpus, CellConfig], Measured]


def measure_and_publish(job: ReadoutJob, prefix: str, measure: Measure) -> None:
    """Publishes for each cell what `measure(network, corpus, cell)` returns; rank 0 measures alone."""
    if dist.get_rank():
        return
    network = job.network.to(training_device()).eval()
    for cell, stage in zip(job.cells, job.stages, strict=True):
        measured = measure(network, job.corpus, cell)

        def named(values: Any) -> dict[str, Any]:
            return {f"{prefix}/{column}": value for column, value in values.items()}

        parts = named(measured.metrics), named(measured.counts), named(measured.intervals)
        job.store.publish_files(stage, measurement_files([], *parts))
        job.store.clear_work(stage.key)
