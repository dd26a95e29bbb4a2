"""The settings of one cell, all of them identity: whatever stands here can change a result and is hashed.

How and where a cell is run (workers, micro-batch, store) is `Runtime`, which no key ever sees.
"""

import re
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ktrain.errors import nearest

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "company", "company_city")
"""The six attributes in the order of a biography with fixed sentence order (paper, section 2.1)."""


class Settings(BaseModel):
    """Base of all settings: unknown fields are errors, and nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take `True` for 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("a number is wanted")
        return value


class PoolSizes(Settings):
    """How many values of each pool are used: the first k of each file (paper, appendix A.1, has all of them)."""

    first_names: int = Field(400, ge=1)
    middle_names: int = Field(400, ge=1)
    last_names: int = Field(1000, ge=1)
    birth_years: int = Field(200, ge=1, le=200)
    birth_cities: int = Field(200, ge=1)
    universities: int = Field(300, ge=1)
    majors: int = Field(100, ge=1)
    companies: int = Field(263, ge=1)


class Augmentation(Settings):
    """How the biographies of a group of people are written (paper, section 2.1 and appendix A.2)."""

    multi: int = Field(5, ge=1)
    permute: int = Field(1, ge=0)
    fullname: bool = False

    @property
    def entries_per_person(self) -> int:
        """M * max(P, 1)."""
        return self.multi * max(self.permute, 1)


class Writer(Settings):
    """Who writes the biographies of bioR, and how; identity of these alone (paper, appendix A.1).

    How to reach an endpoint and how often to try again is no identity: `ktrain write` takes that.
    """

    backend: Literal["rules", "transformers", "vllm", "http", "gguf"] = "vllm"
    """Phrases put together by rules, which is no language model; a model by `transformers` or vLLM; one behind an
    endpoint that speaks OpenAI's protocol; a GGUF file."""
    model: str = Field("Qwen/Qwen2.5-7B-Instruct", min_length=1)
    """Name of the model, or its folder or GGUF file, whose content is identity and not its path. The paper used
    Llama1-30B and reports that smaller ones do (appendix A.1); which one stands here is an assumption."""
    revision: str = ""
    """Of a model with a name: a commit or tag; empty is the newest."""
    prompt: Literal["plain", "creative"] = "plain"
    """The paper's two ways to ask: facts in any order, or with the wish for a creative order of sentences besides."""
    words: int = Field(50, ge=20)
    """How long a biography is asked for."""
    temperature: float = Field(0.8, ge=0.0)
    top_p: float = Field(0.95, gt=0.0, le=1.0)
    """Not stated in the paper; assumptions, as is the temperature."""
    max_tokens: int = Field(160, ge=40)
    """Of the model; what is cut off after them loses its last sentence."""


class Corpus(Settings):
    """What is read: the people and their biographies (paper, section 2.1 and appendix A)."""

    kind: Literal["bioS", "bioR"] = "bioS"
    """Written from templates, or freely by a writer, which should be a language model."""
    writer: Writer = Writer()
    people: int = Field(100_000, ge=4)
    """The people under test; celebrities are counted besides."""
    multi: int = Field(1, ge=1)
    """M: entries per person whose templates are drawn anew."""
    permute: int = Field(0, ge=0)
    """P: 0 is fixed order; otherwise each of the M drafts is shuffled P times."""
    fullname: bool = False
    """The full name instead of a pronoun in every sentence."""
    couple: int = Field(0, ge=0)
    """C: entries per person whose sentences are three ordered pairs (birth, studies, work) in any order, with templates
    drawn anew; 0 is none. It takes the place of `multi` and `permute` (paper, section 4.3)."""
    celebrity_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    """f: share of all people who are celebrities, N f / (1 - f) of them beside the N under test (paper, section 5)."""
    celebrity: Augmentation = Augmentation()
    """How the biographies of celebrities are written."""
    background: str | None = None
    """A folder of plain text (`*.txt`) that is read besides; its content, not its path, is identity. `?` stands for one
    that is still to be named."""
    background_share: float = Field(0.5, gt=0.0, lt=1.0)
    """Share of the windows that hold background text, where there is some (the paper's `+wiki` has half)."""
    tokenizer: str = Field("gpt2", pattern=r"^(gpt2|bpe-[1-9]\d{2,4})$")
    """`gpt2`, or `bpe-V`: a byte-level BPE of V entries trained on this corpus."""
    question_share: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of the people whose questions may be trained on; the others are the test half."""
    pools: PoolSizes = PoolSizes()
    pools_folder: str | None = None
    """A folder of the user's own pools; its content, not its path, is identity."""
    templates_folder: str | None = None
    """A folder of the user's own templates; its content, not its path, is identity."""

    @model_validator(mode="after")
    def _vocabulary_holds_bytes(self) -> Self:
        size = self.tokenizer.removeprefix("bpe-")
        if size != "gpt2" and not 300 <= int(size) <= 65_536:
            raise ValueError(f"tokenizer={self.tokenizer}: a vocabulary has 300 to 65536 entries")
        return self

    @model_validator(mode="after")
    def _couple_stands_alone(self) -> Self:
        if self.couple and (self.multi > 1 or self.permute):
            raise ValueError(f"couple={self.couple}: says how many entries there are, so multi=1 and permute=0")
        if self.couple and self.kind == "bioR":
            raise ValueError(f"couple={self.couple}: is for kind=bioS, whose sentences tell one attribute each")
        if self.celebrity_fraction and not self.celebrities:
            raise ValueError(f"celebrity_fraction={self.celebrity_fraction:g}: of {self.people} people is not one")
        return self

    @property
    def entries_per_person(self) -> int:
        """C, or M * max(P, 1), of the people under test."""
        return self.couple or self.multi * max(self.permute, 1)

    @property
    def celebrities(self) -> int:
        """How many celebrities there are."""
        return round(self.people * self.celebrity_fraction / (1 - self.celebrity_fraction))

    @property
    def entries(self) -> int:
        """How many biographies there are in all."""
        return self.people * self.entries_per_person + self.celebrities * self.celebrity.entries_per_person


class Model(Settings):
    """Which network is trained from scratch (paper, section 2.2)."""

    family: Literal["gpt2", "llama", "gbert"] = "gpt2"
    """GPT-2 with rotary embedding, Llama of the same layers, heads and width, or GPT-2 with full attention that fills
    masks in instead of continuing."""
    size: Literal["mini", "124m", "302m", "682m"] = "124m"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """On in all training, that of adapters and probes over the frozen network too. Not stated in the paper, which
    says that its probes train with dropout on; an assumption."""


class Train(Settings):
    """Pretraining on biographies, or mixed training with questions (paper, appendix B)."""

    steps: int = Field(80_000, ge=1)
    batch: int = Field(96, ge=1)
    """Windows in a step."""
    context: int = Field(512, ge=16)
    """Tokens in a window."""
    qa_ratio: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of windows that hold questions of the training half; the paper's mixed training has 0.8."""
    learning_rate: float = Field(1e-3, gt=0.0)
    final_learning_rate: float = Field(0.1, ge=0.0, le=1.0)
    """Where the cosine ends, as a fraction of the peak."""
    warmup: int = Field(1000, ge=0)
    weight_decay: float = Field(0.1, ge=0.0)
    epsilon: float = Field(1e-6, gt=0.0)
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    clip: float = Field(1.0, gt=0.0)
    """Largest norm of the gradient; not stated in the paper, an assumption, as are the betas."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 is autocast: weights, optimizer and reductions stay in fp32."""
    zero: int = Field(0, ge=0, le=3)
    """DeepSpeed's ZeRO stage."""

    @model_validator(mode="after")
    def _warm_before_the_end(self) -> Self:
        if self.warmup > self.steps:
            raise ValueError(f"warmup={self.warmup}: more than steps={self.steps}")
        return self


class Readout(Settings):
    """What is asked of a pretrained model (paper, sections 3 and 4)."""

    kind: Literal["qa_finetune", "mixed", "p_probe", "q_probe"] = "qa_finetune"
    """`qa_finetune` trains on the questions of the training half first; `mixed` asks at once; `p_probe` reads the
    states at six places of a biography, `q_probe` those at the end of a name."""
    people: Literal["minority", "celebrity"] = "minority"
    """Who is trained on: half of the people under test, the other half being asked, or all celebrities, and then all
    people under test are asked."""
    method: Literal["full", "lora"] = "lora"
    """Of `qa_finetune`; probes always train adapters."""
    rank_qv: int = Field(8, ge=0)
    """LoRA rank r on the query and value matrices."""
    rank_embedding: int | Literal["full"] = 128
    """Rank r' of the update of the input embedding; `full` trains the whole input embedding."""
    token_share: float = Field(0.0, ge=0.0, le=1.0)
    """A probe's update of the embedding is confined to tokens that this share of the training people have in their
    rows; 0 is all tokens, as in the paper. A rarer token gives people away, and with few people a probe learns them by
    heart instead of reading the network."""
    lora_scale: float = Field(1.0, gt=0.0)
    """What the low-rank products are multiplied by; not stated in the paper, an assumption."""
    steps: int = Field(50_000, ge=1)
    batch: int = Field(48, ge=1)
    """Questions, biographies or names in a step, of each adapter."""
    learning_rate: float = Field(3e-4, gt=0.0)
    decay: Literal["cosine", "linear"] = "cosine"
    final_learning_rate: float = Field(0.1, ge=0.0, le=1.0)
    weight_decay: float = Field(0.01, ge=0.0)
    epsilon: float = Field(1e-6, gt=0.0)
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    clip: float = Field(1.0, gt=0.0)
    """Largest norm of the gradient of each adapter with its head."""
    loss: Literal["answer", "all"] = "answer"
    """Which tokens are learned; not stated in the paper, an assumption."""
    precision: Literal["fp32", "bf16"] = "bf16"
    zero: int = Field(0, ge=0, le=3)
    recall_gate: float = Field(0.99, ge=0.0, le=1.0)
    """A model that recalls a smaller share of the attribute tokens that it has read is not read out."""
    beam: int = Field(1, ge=1, le=16)
    """1 is greedy; the paper generates with beam 4 and reports the same without."""
    entries: int = Field(0, ge=0)
    """Biographies of each person that a P-probe reads, the first ones, in training and in test; 0 is all of them."""
    people_per_class: int = Field(20, ge=0)
    """A probe task with fewer training people for each of its classes, on average, is refused."""

    @field_validator("rank_embedding", mode="before")
    @classmethod
    def _rank(cls, value: Any) -> Any:
        """Pydantic would name the members of the union, not what is allowed."""
        if isinstance(value, bool) or not (value == "full" or re.fullmatch(r"\d+", str(value))):
            raise ValueError(f"must be a whole number from 0, or full{nearest(str(value), ['full'])}")
        return value

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.kind == "qa_finetune" and self.adapted and not (self.rank_qv or self.rank_embedding):
            raise ValueError("method=lora: needs rank_qv or rank_embedding above 0")
        if self.token_share and not (self.probe and self.rank_embedding != "full"):
            raise ValueError(f"token_share={self.token_share:g}: is for probes with rank_embedding a number")
        if self.adapted and self.zero:
            raise ValueError(f"zero={self.zero}: adapters are clipped one by one, which needs whole gradients: zero=0")
        return self

    @property
    def adapted(self) -> bool:
        """Whether adapters are trained over a frozen network, in a fleet."""
        return self.probe or (self.kind == "qa_finetune" and self.method == "lora")

    @property
    def probe(self) -> bool:
        """Whether states are classified."""
        return self.kind in ("p_probe", "q_probe")


class Cell(Settings):
    """One point of a grid; `seed` draws everything: people, texts, split, initial weights, order."""

    corpus: Corpus = Corpus()
    model: Model = Model()
    train: Train = Train()
    readout: Readout = Readout()
    seed: int = Field(0, ge=0, lt=2**31)

    @property
    def learned_from(self) -> int:
        """How many people a readout is trained on."""
        if self.readout.people == "celebrity":
            return self.corpus.celebrities
        return int(self.corpus.people * self.corpus.question_share)

    @model_validator(mode="after")
    def _has_whom_it_trains_on(self) -> Self:
        if self.readout.people == "celebrity":
            if not self.corpus.celebrity_fraction:
                raise ValueError("readout.people=celebrity: needs corpus.celebrity_fraction > 0")
            if self.train.qa_ratio:
                raise ValueError(
                    "readout.people=celebrity: train.qa_ratio > 0 asks half of the people under test already"
                )
        return self

    @model_validator(mode="after")
    def _asks_what_can_be_answered(self) -> Self:
        asked = self.learned_from
        if not asked and self.train.qa_ratio:
            raise ValueError(
                f"train.qa_ratio={self.train.qa_ratio}: corpus.question_share leaves no question to mix in"
            )
        if not asked and self.readout.kind != "mixed":
            lacking = "nobody to train a probe on" if self.readout.probe else "no question to finetune on"
            raise ValueError(f"corpus.question_share leaves {lacking}")
        if self.readout.kind == "mixed" and not self.train.qa_ratio:
            raise ValueError("readout.kind=mixed: needs train.qa_ratio > 0, or the model has never seen a question")
        return self

    @model_validator(mode="after")
    def _fills_masks_in(self) -> Self:
        if self.model.family == "gbert":
            if self.readout.kind == "p_probe":
                raise ValueError("readout.kind=p_probe: model.family=gbert sees what stands after a place")
            if self.readout.beam > 1:
                raise ValueError(f"readout.beam={self.readout.beam}: model.family=gbert fills in, it does not generate")
            if self.readout.loss == "all":
                raise ValueError("readout.loss=all: model.family=gbert learns the answers that it fills in")
        return self


class Runtime(Settings):
    """How a cell is run. Nothing here may change a result beyond the rounding of another order of summation."""

    store: str = "results"
    workers: int = Field(1, ge=1)
    """Data-parallel workers of a trial."""
    threads: int = Field(1, ge=1)
    """CPU threads of a worker."""
    gpu_share: float = Field(1.0, gt=0.0, le=1.0)
    """Share of a GPU's memory that the one worker of a trial may take; others share the rest."""
    compile: bool = True
    checkpoint_seconds: float = Field(900.0, gt=0.0)
    """Longest time between two resume points of a stage; how far apart they are follows from what they cost."""
    between_losses: float = Field(14_400.0, gt=0.0)
    """Seconds that a trial is expected to keep its nodes: a guess of four hours, from which a job moves on with the
    losses that it has seen."""
