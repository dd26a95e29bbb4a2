"""The settings of a cell: its readout, and all of them together with those of its corpus, network and training."""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ktrain.config.corpus_config import CorpusConfig, FrozenConfig
from ktrain.config.model_config import ModelConfig
from ktrain.config.tokenizer_file import read_tokenizer_file
from ktrain.config.train_config import MASKING, TrainConfig
from ktrain.errors import WrongRequest, nearest
from ktrain.readout_registry import kind_of, names


class ReadoutConfig(FrozenConfig):
    """What is read out of a pretrained model, and how (paper, sections 3 and 4)."""

    kind: str = "qa_finetune"
    """`qa_finetune` trains on the questions of the training half, then asks; `mixed` asks at once; `p_probe` classifies
    the states at six places of a biography, `q_probe` those at the end of a name. Others can be registered."""
    people: Literal["minority", "celebrity"] = "minority"
    """Whom it trains on: half of the people under test, and it asks the other half; or all celebrities, and it asks all
    people under test."""
    method: Literal["full", "lora"] = "lora"
    """How `qa_finetune` trains; probes always train adapters."""
    rank_qv: int = Field(8, ge=0)
    """LoRA rank r on the query and value matrices."""
    rank_embedding: int | Literal["full"] = 128
    """Rank r' of the update of the input embedding; `full` trains the whole input embedding."""
    token_share: float = Field(0.0, ge=0.0, le=1.0)
    """A probe updates the embedding only of tokens that occur in the rows of this share of the training people; 0
    means all tokens, as in the paper. A rarer token identifies people, and with few people a probe memorizes them
    instead of reading the network."""
    modules: str | None = None
    """For `model.family=hf`: the last names of the modules that `rank_qv` adapts, such as `q_proj+v_proj`, each of them
    whole; None means those of query and value, where the architecture is known."""
    lora_scale: float = Field(1.0, gt=0.0)
    """Factor of the low-rank products. An assumption: the paper does not state it."""
    dropout: float | None = Field(None, ge=0.0, lt=1.0)
    """Rate in the readout's training, in the frozen network below adapters and probes too; None means `model.dropout`.
    The paper trains probes with dropout on, without stating a rate, and does not mention dropout in finetuning."""
    steps: int = Field(50_000, ge=1)
    """Optimizer steps of finetuning or of a probe (paper, appendix B)."""
    batch: int = Field(48, ge=1)
    """Rows per step, for each adapter: each is a question, a biography or a name, or many questions with `packed`."""
    packed: bool = False
    """Whether a row of `qa_finetune` has `train.context` tokens, filled with whole questions; else it has one question.
    The paper keeps windows of 512 tokens and does not state how questions fill them. Every family can be packed."""
    learning_rate: float = Field(3e-4, gt=0.0)
    """Learning rate at the first step; there is no warm-up."""
    decay: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls."""
    final_learning_rate: float = Field(0.1, ge=0.0, le=1.0)
    """Learning rate at the last step, as a fraction of the first."""
    weight_decay: float = Field(0.01, ge=0.0)
    """AdamW's weight decay."""
    epsilon: float = Field(1e-6, gt=0.0)
    """AdamW's epsilon."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW's decay of the mean of gradients."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """AdamW's decay of the mean of squared gradients."""
    clip: float = Field(1.0, gt=0.0)
    """Largest norm of the gradient of each adapter with its head."""
    loss: Literal["answer", "all"] = "answer"
    """Which tokens have a loss. An assumption: the paper does not state it."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """As in pretraining."""
    zero: int = Field(0, ge=0, le=3)
    """DeepSpeed's ZeRO stage; adapters need 0."""
    recall_gate: float = Field(0.99, ge=0.0, le=1.0)
    """A model that recalls less than this share of the attribute tokens that it was trained on is not read out."""
    beam: int = Field(1, ge=1, le=16)
    """1 is greedy; the paper generates with beam 4 and reports the same result without."""
    entries: int = Field(0, ge=0)
    """How many biographies of each person a P-probe reads, from the first, in training and in test; 0 is all."""
    people_per_class: int = Field(20, ge=0)
    """A probe task with fewer training people per class, on average, is refused."""

    @field_validator("kind")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        """Pydantic's own error for a choice, over the kinds that are registered now."""
        if value not in (registered := names()):
            quoted = [f"'{name}'" for name in registered]
            expected = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value

    @field_validator("rank_embedding", mode="before")
    @classmethod
    def _valid_rank(cls, value: Any) -> Any:
        """Pydantic's own message would list the types of the union instead of what is allowed."""
        if isinstance(value, bool) or not (value == "full" or re.fullmatch(r"\d+", str(value))):
            raise ValueError(f"must be a whole number from 0, or full{nearest(str(value), ['full'])}")
        return value

    @field_validator("modules")
    @classmethod
    def _names_of_modules(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\w{1,60}(\+\w{1,60}){0,9}", value, re.ASCII):
            raise ValueError("must be names of modules, joined by +, such as q_proj+v_proj")
        return value

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        kind_of(self.kind).check_readout(self)
        if self.token_share and not (self.probe and self.rank_embedding != "full"):
            raise ValueError(f"token_share={self.token_share:g}: is for probes with rank_embedding a number")
        if self.adapted and self.zero:
            raise ValueError(f"zero={self.zero}: adapters are clipped one by one, which needs whole gradients: zero=0")
        return self

    @property
    def adapted(self) -> bool:
        """Whether it trains adapters over a frozen network, many at once."""
        return kind_of(self.kind).adapted(self)

    @property
    def probe(self) -> bool:
        """Whether it classifies hidden states."""
        return kind_of(self.kind).probe


class CellConfig(FrozenConfig):
    """One point of a grid. `seed` determines every draw: people, texts, split, initial weights, order."""

    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    readout: ReadoutConfig = Field(default_factory=ReadoutConfig)
    seed: int = Field(0, ge=0, lt=2**31)
    """Determines every draw."""

    @property
    def readout_dropout(self) -> float:
        """The rate of dropout with which the readout trains."""
        return self.model.dropout if self.readout.dropout is None else self.readout.dropout

    @property
    def learned_from(self) -> int:
        """How many people a readout trains on."""
        if self.readout.people == "celebrity":
            return self.corpus.celebrities
        return self.corpus.trained_people

    @property
    def trained_questions(self) -> int:
        """How many questions a readout trains on: one for each attribute of each person, in every wording that is
        trained on."""
        return self.learned_from * len(self.corpus.attributes) * self.corpus.question_wordings

    @classmethod
    def received(cls, content: Mapping[str, Any]) -> Self:
        """Returns the cell that another process has dumped. Raises `WrongRequest`, one line, where a folder or a file
        that it names is not on this machine."""
        try:
            return cls.model_validate(content)
        except ValidationError as e:
            first = e.errors()[0]
            place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise WrongRequest(f"{place}={first['input']}: {message}") from None

    @model_validator(mode="after")
    def _celebrities_exist(self) -> Self:
        if self.readout.people == "celebrity":
            if not self.corpus.celebrity_fraction:
                raise ValueError("readout.people=celebrity: needs corpus.celebrity_fraction > 0")
            if self.train.qa_ratio:
                raise ValueError(
                    "readout.people=celebrity: train.qa_ratio > 0 already trains on half of the people under test"
                )
        return self

    @model_validator(mode="after")
    def _questions_exist(self) -> Self:
        if not self.learned_from and self.train.qa_ratio:
            raise ValueError(
                f"train.qa_ratio={self.train.qa_ratio}: corpus.question_share leaves no question to mix in"
            )
        kind_of(self.readout.kind).check_cell(self)
        return self

    @model_validator(mode="after")
    def _readout_fits_gbert(self) -> Self:
        if self.model.family == "gbert":
            if self.corpus.tokenizer_file is not None:
                named = self.corpus.tokenizer
                raise ValueError(
                    f"corpus.tokenizer={named}: model.family=gbert masks the words of gpt2 and bpe-V alone"
                )
            if self.readout.beam > 1:
                raise ValueError(f"readout.beam={self.readout.beam}: model.family=gbert fills in, it does not generate")
            if self.readout.loss == "all":
                raise ValueError("readout.loss=all: model.family=gbert learns the answers that it fills in")
        for field in MASKING:
            value = getattr(self.train, field)
            if self.model.family != "gbert" and value != TrainConfig.model_fields[field].default:
                raise ValueError(f"train.{field}={value:g}: is for model.family=gbert, which fills in masks")
        if self.train.masked_answers and not self.train.qa_ratio:
            masked = self.train.masked_answers
            raise ValueError(f"train.masked_answers={masked:g}: train.qa_ratio=0 leaves no question to mask")
        return self

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        """A network that is trained already reads texts in its own tokens."""
        start, train = self.model.pretrained, self.train
        if start is None:
            if train.method == "lora":
                raise ValueError("train.method=lora: is for model.start; random weights are trained whole")
            if train.forgetting_text is not None:
                raise ValueError(f"train.forgetting_text={train.forgetting_text}: is for model.start")
            return self
        try:
            own = read_tokenizer_file(start.path)
        except ValueError as e:
            raise ValueError(f"model.start={start.path}: {e}") from None
        corpus = self.corpus.tokenizer_file
        if corpus is None or corpus.identity() != own.identity():
            raise ValueError(
                f"corpus.tokenizer={self.corpus.tokenizer}: is not the tokenizer of model.start; set "
                f"corpus.tokenizer={start.path}"
            )
        if start.vocabulary is not None and own.vocabulary > start.vocabulary:
            raise ValueError(
                f"model.start={start.path}: its tokenizer has {own.vocabulary:,} tokens, its vocab_size is "
                f"{start.vocabulary:,}"
            )
        if train.method == "lora" and self.model.dropout:
            raise ValueError(f"model.dropout={self.model.dropout:g}: train.method=lora trains without dropout; set 0")
        return self

    @model_validator(mode="after")
    def _modules_are_of_hf(self) -> Self:
        if self.readout.modules is not None and self.model.family != "hf":
            raise ValueError(
                f"readout.modules={self.readout.modules}: is for model.family=hf; {self.model.family} has its own"
            )
        return self
