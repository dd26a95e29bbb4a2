"""The settings of a cell, all of them identity: each can change a result, so the keys of results hash them all.

Only `RuntimeConfig` is not: it says how and where a cell runs (workers, threads, store).
"""

from ktrain.config.attributes import ATTRIBUTES
from ktrain.config.cell_config import CellConfig, ReadoutConfig
from ktrain.config.corpus_config import AugmentationConfig, CorpusConfig, FrozenConfig, PoolsConfig, WriterConfig
from ktrain.config.model_config import ModelConfig
from ktrain.config.runtime_config import RuntimeConfig
from ktrain.config.train_config import MASKING, NEWER, TrainConfig

__all__ = [
    "ATTRIBUTES", "MASKING", "NEWER", "AugmentationConfig", "CellConfig", "CorpusConfig", "FrozenConfig",
    "ModelConfig", "PoolsConfig", "ReadoutConfig", "RuntimeConfig", "TrainConfig", "WriterConfig",
]  # fmt: skip
