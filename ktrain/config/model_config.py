"""The settings of a network: one of the families with a size, or what a file of `transformers` describes."""

import json
from dataclasses import asdict
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ktrain.config.corpus_config import FrozenConfig
from ktrain.config.network_file import read_network, short_name
from ktrain.config.network_size import SIZES, NetworkSize
from ktrain.config.pretrained_folder import PretrainedFolder, read_pretrained


class ModelConfig(FrozenConfig):
    """The network, trained from scratch (paper, section 2.2)."""

    family: Literal["gpt2", "llama", "gbert", "hf"] = "gpt2"
    """GPT-2 with rotary embedding; Llama with the same layers, heads and width; GPT-2 with full attention, which fills
    in masks instead of continuing; or `hf`, the causal network of `transformers` that `model.config` describes or that
    `model.start` holds."""
    config: str | None = None
    """For `hf`: a `config.json`, or a folder that has one. Weights are random, and the vocabulary is the corpus'. The
    network is known by what the file says, not by where it lies."""
    start: str | None = None
    """For `hf`: a folder with a trained network of `transformers`, whose weights take the place of random ones. It is
    known by the content of its `config.json` and weights, and must lie on every machine that trains. The corpus has to
    have its tokenizer (`corpus.tokenizer`)."""
    size: Literal["mini", "124m", "302m", "682m"] = "124m"
    """Layers x width: 4 x 128, 12 x 768, 12 x 1280 or 12 x 2048. `ktrain plan` prints the parameters."""
    layers: int | None = Field(None, ge=1, le=1024)
    """Layers in place of those of the size."""
    heads: int | None = Field(None, ge=1, le=1024)
    """Heads of each layer in place of those of the size. They divide the width."""
    width: int | None = Field(None, ge=8, le=65_536)
    """Width in place of that of the size."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Rate in pretraining, and in readouts unless `readout.dropout` is set. An assumption, not stated in the paper."""

    @field_validator("config", mode="before")
    @classmethod
    def _content_of_file(cls, value: Any) -> str | None:
        """The file's content takes the place of its path, so that no other machine needs the file."""
        return None if value is None else read_network(value)

    @field_validator("start")
    @classmethod
    def _start_exists(cls, value: str | None) -> str | None:
        if value is not None:
            read_pretrained(value)
        return value

    @model_validator(mode="after")
    def _config_fits(self) -> Self:
        if self.family == "hf" and self.config is None and self.start is None:
            raise ValueError(
                "family=hf: needs model.config, a config.json or a folder that has one; or model.start, a folder with "
                "a trained network"
            )
        if self.family != "hf" and self.config is not None:
            raise ValueError(f"config={self.name_of_config}: is for model.family=hf, this is {self.family}")
        if self.family != "hf" and self.start is not None:
            raise ValueError(f"start={self.start}: is for model.family=hf, this is {self.family}")
        if self.config is not None and self.start is not None:
            raise ValueError(f"start={self.start}: has a config.json of its own, so model.config cannot be set")
        if self.family == "hf" and (set_too := [name for name in ("layers", "heads", "width") if getattr(self, name)]):
            file = "model.config" if self.start is None else "model.start"
            raise ValueError(f"{set_too[0]}={getattr(self, set_too[0])}: {file} says it where model.family=hf")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        """Rotary embedding turns pairs of a head's numbers: of a quarter of them, in Llama of all."""
        if self.family == "hf":
            return self
        width, heads = self.shape.width, self.shape.heads
        if width % heads:
            raise ValueError(f"heads={heads}: does not divide width={width}")
        multiple = 2 if self.family == "llama" else 8
        if (width // heads) % multiple:
            raise ValueError(
                f"width={width}: leaves {width // heads} numbers to each of {heads} heads, which must be a multiple of "
                f"{multiple}"
            )
        return self

    @property
    def shape(self) -> NetworkSize:
        """Layers, heads and width: those of the size, but for what is set beside it. Of `hf`, `sizes.shape_of` knows
        them."""
        size = SIZES[self.size]
        return NetworkSize(self.layers or size.layers, self.heads or size.heads, self.width or size.width)

    @property
    def name(self) -> str:
        """The named size that has this shape, or the shape, such as `8x256h4`; of `hf`, `name_of_config` or
        `name_of_start`."""
        if self.family == "hf":
            return self.name_of_config or self.name_of_start
        return next((name for name, size in SIZES.items() if size == self.shape), str(self.shape))

    @property
    def name_of_config(self) -> str:
        """What a network of `hf` is called, such as `qwen3-1a2b3c4d`; empty for the others."""
        return "" if self.config is None else short_name(self.config)

    @property
    def pretrained(self) -> PretrainedFolder | None:
        """What `start` holds. Raises `ValueError` where that is gone."""
        return None if self.start is None else read_pretrained(self.start)

    @property
    def name_of_start(self) -> str:
        """What a trained network is called, such as `llama-1a2b3c4d`; empty for the others."""
        return "" if self.pretrained is None else self.pretrained.name

    @property
    def settings(self) -> str:
        """The canonical JSON of the `config.json` of a network of `hf`."""
        found = self.config if self.pretrained is None else self.pretrained.settings
        assert found is not None
        return found

    @property
    def axis(self) -> str:
        """The axis by which a network of `hf` is given, for messages."""
        return "model.config" if self.start is None else "model.start"

    def identity(self) -> dict[str, Any]:
        """Returns what identifies the network: the shape of a named size by its name, any other one by its numbers, and
        a network of `hf` by the settings of its file, and by its weights where these are trained already."""
        chosen: dict[str, Any] = {"family": self.family, "dropout": self.dropout}
        if self.family == "llama":
            # The first version never trained the embedding of EOS.
            chosen["version"] = 2
        if self.config is not None:
            return {**chosen, "config": json.loads(self.config)}
        if self.pretrained is not None:
            return {**chosen, "start": self.pretrained.identity()}
        return {**chosen, "size": self.name} if self.name in SIZES else {**chosen, **asdict(self.shape)}
