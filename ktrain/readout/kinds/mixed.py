"""Mixed training: questions were read among the biographies, so the pretrained network is asked at once."""

from typing import TYPE_CHECKING

from ktrain.config import CellConfig, ReadoutConfig
from ktrain.readout.kinds.questions import QuestionKind
from ktrain.readout_registry import register

if TYPE_CHECKING:
    from ktrain.readout.job import ReadoutJob


@register
class Mixed(QuestionKind):
    """Asks a network that has been trained on questions of half of the people (paper, section 3.1)."""

    name = "mixed"
    title = "Mixed training"

    def reads(self, field: str, readout: ReadoutConfig) -> bool:
        """Nothing is trained."""
        return field in ("recall_gate", "beam")

    def check_cell(self, cell: CellConfig) -> None:
        """Questions must have been read."""
        if not cell.train.qa_ratio:
            raise ValueError("readout.kind=mixed: needs train.qa_ratio > 0, or the model never sees a question")

    def read_out(self, job: "ReadoutJob") -> None:
        """Asks, and publishes answers and network."""
        from ktrain.readout import finetuning

        finetuning.ask_network(job, self.metric_prefix)
