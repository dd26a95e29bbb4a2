"""The settings of pretraining: on biographies, with questions among them, from random weights or from trained ones."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ktrain.config.corpus_config import FrozenConfig
from ktrain.config.text_file import text_file_fault
from ktrain.fingerprint import file_digest

MASKING = ("mask_share", "masked_answers")
"""Settings of training that only a network that fills in masks reads."""
LORA = ("method", "rank_qv")
"""Settings of training that only a network that is trained already reads, besides `forgetting_text`."""
NEWER = (*MASKING, *LORA, "forgetting_text")
"""Settings of training that are newer than many keys, which do not have them where they change nothing."""


class TrainConfig(FrozenConfig):
    """Pretraining on biographies, or mixed training with questions (paper, appendix B)."""

    steps: int = Field(80_000, ge=1)
    """Optimizer steps (paper, appendix B)."""
    batch: int = Field(96, ge=1)
    """Windows per step."""
    context: int = Field(512, ge=16)
    """Tokens per window."""
    windows: Literal["cut", "whole"] = "cut"
    """Where windows begin: `cut` cuts the stream of texts every `context` tokens, as in the paper; `whole` begins each
    window with the text that the window before cut, so that every text is read whole. Background text is always cut."""
    qa_ratio: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of windows that hold questions of the training half; 0.8 in the paper's mixed training."""
    mask_share: float = Field(0.15, gt=0.0, lt=1.0)
    """Share of the words that GBERT has to fill in; 0.15 is the paper's. A larger share teaches more facts a step."""
    masked_answers: float = Field(0.0, ge=0.0, le=1.0)
    """Share of these questions whose whole answer GBERT has to fill in, as it is asked afterwards, besides
    `mask_share` of all words. The paper masks no whole answers in training."""
    method: Literal["full", "lora"] = "full"
    """How a network of `model.start` is trained further: all its weights, or LoRA, whose updates are merged into the
    network that is published."""
    rank_qv: int = Field(8, ge=1)
    """LoRA rank r on the query and value matrices, with `method=lora`."""
    forgetting_text: str | None = None
    """A UTF-8 text on which a network of `model.start` is measured before and after training: the mean loss of a token,
    in nats. Its content, not its path, is identity."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Peak of AdamW's learning rate, after the warm-up."""
    final_learning_rate: float = Field(0.1, ge=0.0, le=1.0)
    """Learning rate at the end of the cosine, as a fraction of the peak."""
    warmup: int = Field(1000, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.1, ge=0.0)
    """AdamW's weight decay, of every parameter."""
    epsilon: float = Field(1e-6, gt=0.0)
    """AdamW's epsilon."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW's decay of the mean of gradients."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """AdamW's decay of the mean of squared gradients."""
    clip: float = Field(1.0, gt=0.0)
    """Largest norm of the gradient. An assumption, as are the betas: the paper does not state them."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 means autocast: weights, optimizer and reductions stay in fp32. A device without bf16 instructions
    multiplies in fp32 instead; the manifest of each stage says which it was."""
    zero: int = Field(0, ge=0, le=3)
    """DeepSpeed's ZeRO stage."""

    @field_validator("forgetting_text")
    @classmethod
    def _is_a_text(cls, value: str | None) -> str | None:
        if value is not None and (fault := text_file_fault(Path(value))):
            raise ValueError(fault)
        return value

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup > self.steps:
            raise ValueError(f"warmup={self.warmup}: more than steps={self.steps}")
        return self

    @model_validator(mode="after")
    def _adapters_train(self) -> Self:
        if self.method == "lora" and self.zero:
            raise ValueError(f"zero={self.zero}: method=lora trains few weights, which are not divided: zero=0")
        return self

    def identity(self) -> dict[str, Any]:
        """Returns what identifies the training; `NEWER` settings only where they are not as in the paper."""
        as_in_paper = {name for name in MASKING if getattr(self, name) == type(self).model_fields[name].default}
        unsaid = as_in_paper | {"forgetting_text"} | (set(LORA) if self.method == "full" else set())
        said = self.model_dump(exclude=unsaid)
        if self.forgetting_text is not None:
            said["forgetting_content"] = file_digest(Path(self.forgetting_text))
        return said
