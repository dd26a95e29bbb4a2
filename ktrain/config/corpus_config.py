"""The settings of a corpus: its people, their biographies, and who writes these."""

import re
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ktrain.config.attributes import ATTRIBUTES, own_attributes
from ktrain.config.tokenizer_file import TokenizerFile, read_tokenizer_file
from ktrain.errors import is_text, nearest

LARGEST = 10**12
"""The largest whole number of any setting."""


def is_tokenizer_name(value: str) -> bool:
    """Whether a value of `corpus.tokenizer` is a name, `gpt2` or `bpe-V`, and no path."""
    return re.fullmatch(r"gpt2|bpe-[1-9][0-9]{2,9}", value) is not None


class FrozenConfig(BaseModel):
    """Base of all settings: immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would accept `True` as 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("must be a number")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        """Numbers are small enough to multiply and to plan with, and texts can be written to files and databases."""
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"must be at most {LARGEST:,}")
        if isinstance(value, str) and not is_text(value):
            raise ValueError("must be UTF-8 without NUL")
        return value


class PoolsConfig(FrozenConfig):
    """How many values of each pool are used, from the start of its file (paper, appendix A.1, uses all)."""

    first_names: int = Field(400, ge=1)
    """First names in use."""
    middle_names: int = Field(400, ge=1)
    """Middle names in use."""
    last_names: int = Field(1000, ge=1)
    """Last names in use."""
    birth_years: int = Field(200, ge=1, le=200)
    """Birth years in use."""
    birth_cities: int = Field(200, ge=1)
    """Birth cities in use."""
    universities: int = Field(300, ge=1)
    """Universities in use."""
    majors: int = Field(100, ge=1)
    """Majors in use."""
    companies: int = Field(263, ge=1)
    """Companies in use, each with its city."""


class AugmentationConfig(FrozenConfig):
    """How the biographies of a group of people are written (paper, section 2.1 and appendix A.2)."""

    multi: int = Field(5, ge=1)
    """M: entries per person, each with new templates."""
    permute: int = Field(1, ge=0)
    """P: 0 keeps the fixed order of sentences; otherwise each of the M drafts is shuffled P times."""
    fullname: bool = False
    """The full name instead of a pronoun in every sentence."""

    @property
    def entries_per_person(self) -> int:
        """M * max(P, 1)."""
        return self.multi * max(self.permute, 1)


class WriterConfig(FrozenConfig):
    """Who writes the biographies of bioR, and how (paper, appendix A.1); no other corpus has this in its key.

    How to reach an endpoint and how often to retry are not identity: they are options of `ktrain generate`.
    """

    backend: Literal["rules", "transformers", "vllm", "http", "gguf"] = "vllm"
    """`rules` puts phrases together without a language model; `transformers` and `vllm` run a model; `http` calls an
    endpoint that speaks OpenAI's protocol; `gguf` runs a GGUF file."""
    model: str = Field("Qwen/Qwen2.5-7B-Instruct", min_length=1)
    """Name of the model, or its folder or GGUF file, of which the content is identity, not the path. The paper used
    Llama1-30B and reports that smaller models suffice (appendix A.1); this one is an assumption."""
    revision: str = ""
    """Commit or tag of a named model; empty is the newest."""
    prompt: Literal["plain", "creative"] = "plain"
    """The paper's two prompts: `plain`, or `creative`, which also asks for a creative order of sentences."""
    words: int = Field(50, ge=20)
    """Length of a biography that the prompt asks for."""
    temperature: float = Field(0.8, ge=0.0)
    """Sampling temperature; an assumption, since the paper states none."""
    top_p: float = Field(0.95, gt=0.0, le=1.0)
    """Probability mass that sampling keeps; an assumption too."""
    max_tokens: int = Field(160, ge=40)
    """Most tokens that the model generates; a text cut off there loses its last sentence."""


class CorpusConfig(FrozenConfig):
    """The people and their biographies, from which a network learns (paper, section 2.1 and appendix A)."""

    kind: Literal["bioS", "bioR"] = "bioS"
    """bioS is written from templates, bioR freely by `writer`, which should be a language model."""
    writer: WriterConfig = WriterConfig()
    people: int = Field(100_000, ge=4)
    """People under test, celebrities not included."""
    multi: int = Field(1, ge=1)
    """M: entries per person, each with new templates."""
    permute: int = Field(0, ge=0)
    """P: 0 keeps the fixed order of sentences; otherwise each of the M drafts is shuffled P times."""
    fullname: bool = False
    """The full name instead of a pronoun in every sentence."""
    couple: int = Field(0, ge=0)
    """C: entries per person whose sentences form three ordered pairs (birth, studies, work) in any order, each entry
    with new templates; 0 is none. It replaces `multi` and `permute` (paper, section 4.3)."""
    celebrity_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    """f: share of all people who are celebrities: N f / (1 - f) of them join the N under test (paper, section 5)."""
    celebrity: AugmentationConfig = AugmentationConfig()
    """How the biographies of celebrities are written."""
    background: str | None = None
    """A folder of plain text (`*.txt`) to train on as well; its content, not its path, is identity. `?` stands for a
    folder that is yet to be named."""
    background_share: float = Field(0.5, gt=0.0, lt=1.0)
    """Share of the windows that hold background text, if there is any (half in the paper's `+wiki`)."""
    tokenizer: str = "gpt2"
    """`gpt2`; `bpe-V`, a byte-level BPE of V entries trained on this corpus; or a folder with a `tokenizer.json`, or
    such a file, as a trained network has it (`model.start`): its content and EOS, not its path, are identity."""
    question_share: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of the people whose questions may be trained on; the others are the test half."""
    validation_share: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the test half that is set aside to choose settings by: these people have metrics of their own, such as
    `qa/exact_match/validation/mean`, and those of the test half are about the others alone."""
    pools: PoolsConfig = PoolsConfig()
    pools_folder: str | None = None
    """A folder of the user's own pools; its content, not its path, is identity. A CSV file of another name than the
    pools have is an attribute besides the six, which needs templates and questions of its own."""
    templates_folder: str | None = None
    """A folder of the user's own templates; its content, not its path, is identity."""
    questions_folder: str | None = None
    """A folder of the user's own questions, a wording a line; its content, not its path, is identity. Without it, the
    first wording is the paper's and five more are this project's own."""
    question_wordings: int = Field(1, ge=1)
    """Wordings of each question that are trained on, the first lines; the paper has one."""
    question_unseen: bool = False
    """Whether the network is asked in the next wording, which it was not trained on; else in the first one."""

    @field_validator("tokenizer")
    @classmethod
    def _tokenizer_exists(cls, value: str) -> str:
        if is_tokenizer_name(value):
            if value != "gpt2" and not 300 <= int(value.removeprefix("bpe-")) <= 65_536:
                raise ValueError("a vocabulary has 300 to 65536 entries")
            return value
        if not Path(value).exists() and "/" not in value:
            raise ValueError(f"must be gpt2, bpe-V or a folder with a tokenizer.json{nearest(value, ['gpt2'])}")
        read_tokenizer_file(value)
        return value

    @model_validator(mode="after")
    def _couple_replaces_multi_and_permute(self) -> Self:
        if self.couple and (self.multi > 1 or self.permute):
            raise ValueError(f"couple={self.couple}: sets the number of entries, so it needs multi=1 and permute=0")
        if self.couple and self.kind == "bioR":
            raise ValueError(f"couple={self.couple}: needs kind=bioS, whose sentences state one attribute each")
        if self.celebrity_fraction and not self.celebrities:
            raise ValueError(f"celebrity_fraction={self.celebrity_fraction:g}: adds nobody to {self.people} people")
        return self

    @model_validator(mode="after")
    def _validation_has_people(self) -> Self:
        if self.validation_share and not self.validation_people:
            held_out = self.people - self.trained_people
            raise ValueError(f"validation_share={self.validation_share:g}: sets nobody of {held_out} people aside")
        return self

    @model_validator(mode="after")
    def _own_attributes_are_told_and_asked(self) -> Self:
        own = self.own_attributes
        if not own:
            return self
        brings = f"pools_folder={self.pools_folder}: brings the attribute {own[0]}, which needs"
        if self.kind == "bioR":
            raise ValueError(f"{brings} kind=bioS; writers of bioR tell the six")
        if self.couple:
            raise ValueError(f"{brings} couple=0; the pairs are those of the six")
        for field in ("templates_folder", "questions_folder"):
            if getattr(self, field) is None:
                raise ValueError(f"{brings} corpus.{field} with a file {own[0]}.txt")
        return self

    @property
    def trained_people(self) -> int:
        """How many of the people under test have questions that may be trained on."""
        return int(self.people * self.question_share)

    @property
    def validation_people(self) -> int:
        """How many people of the test half are set aside to choose settings by."""
        return int((self.people - self.trained_people) * self.validation_share)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of every person: the six, then those that `pools_folder` brings."""
        return (*ATTRIBUTES, *self.own_attributes)

    @property
    def own_attributes(self) -> tuple[str, ...]:
        """The attributes besides the six, which `pools_folder` brings."""
        return own_attributes(self.pools_folder)

    @property
    def own_questions(self) -> bool:
        """Whether questions are not asked in the paper's wording alone."""
        return self.questions_folder is not None or self.question_wordings > 1 or self.question_unseen

    @property
    def tokenizer_file(self) -> TokenizerFile | None:
        """The tokenizer of a trained network, if `tokenizer` names one."""
        return None if is_tokenizer_name(self.tokenizer) else read_tokenizer_file(self.tokenizer)

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
