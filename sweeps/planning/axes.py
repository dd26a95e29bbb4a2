"""Axes: the identity fields of a cell under names such as `corpus.multi`, and cells with some of them changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ktrain.config import CellConfig
from ktrain.config.corpus_config import is_tokenizer_name
from ktrain.data.background import UNNAMED
from ktrain.errors import WrongRequest, is_text, nearest, shorten
from ktrain.stages import axes
from ktrain.system.home_folder import expanded

AXES = tuple(axes(CellConfig()))
"""The names of all axes."""
ALIASES = {
    "lr": ("train.learning_rate", "readout.learning_rate"),
    "wd": ("train.weight_decay", "readout.weight_decay"),
    "eps": ("train.epsilon", "readout.epsilon"),
    "bs": ("train.batch", "readout.batch"),
    "batch_size": ("train.batch", "readout.batch"),
    "epochs": ("train.steps", "readout.steps"),
    "max_steps": ("train.steps", "readout.steps"),
    "warmup_steps": ("train.warmup",),
    "block_size": ("train.context",),
    "seq_len": ("train.context",),
    "grad_clip": ("train.clip", "readout.clip"),
    "model": ("model.family", "model.size"),
    "arch": ("model.family",),
    "depth": ("model.layers",),
    "n_layer": ("model.layers",),
    "num_hidden_layers": ("model.layers",),
    "n_head": ("model.heads",),
    "num_attention_heads": ("model.heads",),
    "n_embd": ("model.width",),
    "d_model": ("model.width",),
    "hidden_size": ("model.width",),
    "n": ("corpus.people",),
    "m": ("corpus.multi",),
    "p": ("corpus.permute",),
    "templates": ("corpus.multi", "corpus.templates_folder"),
    "questions": ("corpus.question_wordings", "corpus.questions_folder"),
    "shuffle": ("corpus.permute",),
    "celebrities": ("corpus.celebrity_fraction",),
    "qa": ("train.qa_ratio",),
    "r": ("readout.rank_qv", "readout.rank_embedding"),
    "lora_rank": ("readout.rank_qv", "readout.rank_embedding"),
    "probe": ("readout.kind",),
    "architecture": ("model.family", "model.config"),
    "target_modules": ("readout.modules",),
    "checkpoint": ("model.start",),
    "pretrained": ("model.start",),
}
"""What the field or the paper calls an axis, by the name's last part in small letters."""
BACKGROUND = "corpus.background"
MODEL = "corpus.writer.model"
FOLDERS = (
    "corpus.pools_folder", "corpus.templates_folder", "corpus.questions_folder", BACKGROUND, "model.start",
    "train.forgetting_text",
)  # fmt: skip
NAMED = (MODEL, "corpus.tokenizer")
"""Axes whose value is a path, or a name."""


def check_axis(axis: str) -> None:
    """Raises `WrongRequest` for a name that is no axis, with what it probably means."""
    if axis not in AXES:
        name = shorten(axis)
        raise WrongRequest(f"axis {name}: no such axis{_meant(name)} (`ktrain axes` lists all)")


def _meant(name: str) -> str:
    """`; did you mean X or Y?`: the axes of a common other name, those that end in `name`, or the nearest one."""
    last = name.rpartition(".")[2]
    candidates = ALIASES.get(last.lower()) or tuple(axis for axis in AXES if axis.rpartition(".")[2] == last)
    same_part = tuple(axis for axis in candidates if axis.split(".")[0] == name.split(".")[0])
    candidates = same_part or candidates
    return f"; did you mean {' or '.join(candidates)}?" if candidates else nearest(name, AXES)


def with_axes(cell: CellConfig, changes: Mapping[str, Any]) -> CellConfig:
    """Returns the cell with some axes changed. Raises `WrongRequest` naming the axis of a forbidden value."""
    tree = cell.model_dump()
    for axis, value in changes.items():
        *path, last = axis.split(".")
        node = tree
        for part in path:
            node = node[part]
        node[last] = _absolute(axis, value)
    try:
        changed = CellConfig.model_validate(tree)
    except ValidationError as e:
        raise WrongRequest(_line(e)) from e
    if changed.model.family == "hf" and "model.size" in changes:
        size, file = shorten(changes["model.size"]), changed.model.axis
        raise WrongRequest(f"model.size={size}: {file} says it where model.family=hf")
    return changed


def _absolute(axis: str, value: Any) -> Any:
    """The value of an axis; a path is made absolute, because workers run in other working directories."""
    if axis not in (*FOLDERS, *NAMED) or not isinstance(value, str | Path) or not str(value) or value == UNNAMED:
        return value
    if not is_text(str(value)):
        raise WrongRequest(f"{axis}={shorten(value)}: must be UTF-8 without NUL")
    path = expanded(value).absolute()
    # A language model or a tokenizer may be known by its name, too.
    named = axis in NAMED and (not path.exists() or is_tokenizer_name(str(value)))
    return value if named else str(path)


def _line(error: ValidationError) -> str:
    """Formats the first error of pydantic as one line with field, value and what is allowed."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    if first["type"] == "value_error" and (not place or isinstance(first["input"], dict | BaseModel)):
        return f"{place}.{message}" if place else message
    allowed = str(first.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
    value = shorten(first["input"])
    return f"{place}={value}: {message}{nearest(value, allowed)}"
