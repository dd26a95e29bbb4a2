"""How and where a cell runs. No key ever contains these settings."""

from pydantic import Field

from ktrain.config.corpus_config import FrozenConfig
from ktrain.readout_registry import KindSource


class RuntimeConfig(FrozenConfig):
    """How a cell runs. Nothing here may change a result beyond the rounding of another order of summation."""

    store: str = "results"
    workers: int = Field(1, ge=1)
    """Data-parallel workers per trial."""
    threads: int = Field(1, ge=1)
    """CPU threads per worker."""
    gpu_share: float = Field(1.0, gt=0.0, le=1.0)
    """Share of a GPU's memory that the only worker of a trial may use; other trials share the rest."""
    compile: bool = True
    checkpoint_seconds: float = Field(900.0, gt=0.0)
    """Longest time between two checkpoints of a stage; the actual time follows from what a checkpoint costs."""
    between_losses: float = Field(14_400.0, gt=0.0)
    """Seconds for which a trial is expected to keep its nodes: four hours at first, then what `RestartPolicy` estimates
    from the nodes that the trial has lost."""
    pause_at: int | None = Field(None, ge=1)
    """Steps after which the pretraining of a trial pauses, with nothing done after it; None for its end."""
    readout_kinds: tuple[KindSource, ...] = ()
    """The user's own readout kinds, for workers, which have not run the user's file."""
