"""What a readout kind is given to read out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ktrain.config import CellConfig, RuntimeConfig
from ktrain.data.corpus import Corpus
from ktrain.stages import Stage, stages_of
from ktrain.store.base import Store
from ktrain.training.progress import Reporter


@dataclass(frozen=True)
class ReadoutJob:
    """The readouts of one group of `stages.grouped`: cells that differ at most in the ranks of their adapters.

    `network` is the pretrained network, a `transformers` model on the CPU.
    """

    store: Store
    network: Any
    cells: Sequence[CellConfig]
    corpus: Corpus
    runtime: RuntimeConfig
    reporter: Reporter

    @property
    def stages(self) -> list[Stage]:
        """The stage of each cell."""
        return [stages_of(cell).readout for cell in self.cells]
