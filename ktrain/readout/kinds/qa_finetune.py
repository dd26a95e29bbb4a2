"""QA finetuning: the network is trained on the questions of half of the people, and asked about the other half."""

from typing import TYPE_CHECKING

from ktrain.config import CellConfig, ReadoutConfig
from ktrain.data.token_estimates import questions_per_row
from ktrain.readout.kinds.questions import QuestionKind
from ktrain.readout_registry import register

if TYPE_CHECKING:
    from ktrain.readout.job import ReadoutJob


@register
class QaFinetune(QuestionKind):
    """Of the whole network or of adapters, `readout.method` (paper, section 3.2)."""

    name = "qa_finetune"
    title = "QA finetune"
    prefix = "qa"
    trains = True

    def adapted(self, readout: ReadoutConfig) -> bool:
        """Whether LoRA is trained."""
        return readout.method == "lora"

    def reads(self, field: str, readout: ReadoutConfig) -> bool:
        """A network that is finetuned whole has no adapters."""
        return self.adapted(readout) or field not in ("rank_qv", "rank_embedding", "lora_scale", "modules")

    def check_readout(self, readout: ReadoutConfig) -> None:
        """LoRA needs a rank."""
        if self.adapted(readout) and not (readout.rank_qv or readout.rank_embedding):
            raise ValueError("method=lora: needs rank_qv or rank_embedding above 0")

    def check_cell(self, cell: CellConfig) -> None:
        """Somebody's questions must be left to train on."""
        if not cell.learned_from:
            raise ValueError("corpus.question_share leaves no question to finetune on")

    def row_tokens(self, cell: CellConfig) -> int:
        """A row is a question, or is filled with questions."""
        return cell.train.context if cell.readout.packed else super().row_tokens(cell)

    def passes(self, cell: CellConfig) -> float:
        """Rows of all steps, times the questions in a row, over the questions of the people trained on."""
        in_row = questions_per_row(cell.corpus, cell.train.context) if cell.readout.packed else 1.0
        return cell.readout.steps * cell.readout.batch * in_row / cell.trained_questions

    def read_out(self, job: "ReadoutJob") -> None:
        """Trains, asks, and publishes answers, network and adapters."""
        from ktrain.readout import finetuning

        if self.adapted(job.cells[0].readout):
            finetuning.finetune_adapters(job, self.metric_prefix)
        else:
            finetuning.finetune_network(job, self.metric_prefix)
