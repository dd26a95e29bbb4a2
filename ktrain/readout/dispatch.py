"""Reading out one pretrained network, by the kind that the cells ask for."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForCausalLM

from ktrain.config import CellConfig, RuntimeConfig
from ktrain.data.corpus import Corpus
from ktrain.model.network_parts import train_padding
from ktrain.readout.job import ReadoutJob
from ktrain.readout.kinds.base import kind_of
from ktrain.store.base import Store
from ktrain.system import gpu_memory
from ktrain.training.progress import Reporter


def read_out(
    store: Store, folder: Path, cells: Sequence[CellConfig], corpus: Corpus, runtime: RuntimeConfig, reporter: Reporter
) -> None:
    """Does the readouts of one group of `stages.grouped`, whose network lies in `folder`, and publishes each.

    Raises `GuardFailure`, `Diverged`.
    """
    gpu_memory.reset_peak()
    network = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    train_padding(network)
    kind_of(cells[0].readout.kind).read_out(ReadoutJob(store, network, cells, corpus, runtime, reporter))
