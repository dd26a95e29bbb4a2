"""The claims file: the paper's conclusions as parts with thresholds, validated strictly."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.measurements.cells import Axis, Cell
from analysis.measurements.names import (
    COLUMNS,
    GROUPS,
    POSITIONS,
    PROBE_TARGETS,
    PROBES,
    QUESTIONS,
    ProbeTarget,
    majority,
)

FILE = Path(__file__).with_name("claims.toml")
READOUT_KINDS = {"qa": "qa_finetune", "mixed": "mixed", "bio": "mixed"} | {name: name for name in PROBES}
"""Readout kind by the first part of a metric's name."""
MEANT: Mapping[str, Axis] = {"model.family": "gpt2", "readout.people": "minority", "train.qa_ratio": 0.0}
"""Values of axes that a selection or a cell omits, so that selections never mix other cells in. Only mixed training
trains on questions during pretraining."""
AXIS = re.compile(r"(corpus|model|train|readout)(\.[a-z_]+)+")
METRICS = (
    *(rf"(?:{'|'.join(QUESTIONS)})/(?:exact_match|first_token)/(?:train|test)", r"bio/first_token/(?:train|test)"),
    *(
        rf"q_probe/(?:{'|'.join(PROBE_TARGETS)})",
        rf"p_probe/(?:{'|'.join(PROBE_TARGETS)})/(?:{'|'.join(map(str, POSITIONS))}|own)",
    ),
)
METRIC = re.compile(rf"(?:{'|'.join(METRICS)})/(?:{'|'.join(COLUMNS)})")


class _Table(BaseModel):
    """A table of the file: rejects unknown keys and never converts text to a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Selection(_Table):
    """The cells of one setting with the given axes, and the metrics whose mean counts."""

    setting: str
    metric: tuple[str, ...] = Field(min_length=1)
    axes: dict[str, Axis] = {}
    learned: float | None = Field(None, gt=0, le=1)
    """Share of the training questions that at least one of the cells must answer for a low number to mean anything; a
    network that has not learned to answer looks like one that knows nothing. Only where the paper presupposes it."""

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, table: Any) -> Any:
        """Collects the axes, which stand beside `setting` and `metric` under their dotted names."""
        if not isinstance(table, Mapping):
            return table
        if "axes" in table:
            raise ValueError("axes: each stands by its own name")
        axes = {name: value for name, value in table.items() if AXIS.fullmatch(name)}
        metric = table.get("metric")
        listed = {"metric": (metric,) if isinstance(metric, str) else tuple(metric)} if metric else {}
        return {name: value for name, value in table.items() if name not in axes} | listed | {"axes": axes}

    @field_validator("metric")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_known, names))

    @model_validator(mode="after")
    def _of_one_readout(self) -> Self:
        kinds = {READOUT_KINDS[name.partition("/")[0]] for name in self.metric}
        stated = self.axes.get("readout.kind")
        if len(kinds | {stated or min(kinds)}) > 1:
            raise ValueError(f"readout.kind={stated}: has no metric {', '.join(self.metric)}")
        if self.learned is not None and not all(name.startswith(tuple(QUESTIONS)) for name in self.metric):
            raise ValueError(f"learned: {', '.join(self.metric)} has no training questions")
        return self

    @property
    def cells(self) -> dict[str, Axis]:
        """Values that a cell must have besides the setting, by axis."""
        kind = READOUT_KINDS[self.metric[0].partition("/")[0]]
        meant = {axis: value for axis, value in MEANT.items() if axis != "train.qa_ratio" or kind != "mixed"}
        return {**meant, "readout.kind": kind, **self.axes}

    @property
    def baselines(self) -> tuple[str, ...]:
        """Metric names of the majority baselines of the same people; raises `ValueError` if there is none."""
        return tuple(map(_baseline, self.metric))

    def __str__(self) -> str:
        """For instance `bioS single, QA finetune, readout.method=lora`."""
        group = self.metric[0].partition("/")[0]
        further = [f"{axis}={value}" for axis, value in self.axes.items() if axis != "readout.kind"]
        return ", ".join([self.setting, GROUPS.get(group, GROUPS["mixed"]), *further])


class Part(_Table):
    """One comparison of an effect with a threshold; effect and threshold are fractions of 1."""

    says: str
    value: Selection | None = None
    minus: Selection | Literal["baseline"] | None = None
    correlation: tuple[str, str] | None = None
    settings: int | None = Field(None, ge=4)
    """Number of settings that a correlation needs; below four it has no interval."""
    lead: tuple[str, str] | None = None
    setting: str | None = None
    """The setting whose curves a lead compares."""
    level: float | None = Field(None, gt=0, lt=1)
    """The accuracy that both curves of a lead have to pass."""
    paper_value: float | None = Field(None, ge=-1, le=1)
    """The paper's value of the effect, for reference; it decides nothing."""
    at_least: float | None = Field(None, ge=-1, le=1)
    at_most: float | None = Field(None, ge=-1, le=1)

    @field_validator("correlation", "lead", mode="before")
    @classmethod
    def _pair(cls, names: Any) -> Any:
        return tuple(names) if isinstance(names, list) else names

    @field_validator("correlation", "lead")
    @classmethod
    def _known(cls, names: tuple[str, str] | None) -> tuple[str, str] | None:
        for name in names or ():
            _known(name)
        return names

    @model_validator(mode="after")
    def _is_one_comparison(self) -> Self:
        kinds = [name for name in ("value", "correlation", "lead") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"has {' and '.join(kinds) or 'none'} of value, correlation and lead: must have one")
        owners = {"minus": "value", "settings": "correlation", "setting": "lead", "level": "lead"}
        for name, owner in owners.items():
            if getattr(self, name) is not None and kinds != [owner]:
                raise ValueError(f"{name}: belongs to {owner}, not to {kinds[0]}")
            if name != "minus" and getattr(self, name) is None and kinds == [owner]:
                raise ValueError(f"{owner}: needs {name}")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("must have one of at_least and at_most")
        if self.value and self.minus == "baseline":
            _ = self.value.baselines
        return self

    @property
    def threshold(self) -> float:
        """The value that the effect must reach (`at_least`) or must not exceed (`at_most`)."""
        return float(self.at_most if self.at_least is None else self.at_least)  # type: ignore[arg-type]


class Claim(_Table):
    """A conclusion of the paper; it holds if all its parts hold."""

    name: str
    says: str
    paper: str
    """Section and figure of the paper."""
    part: tuple[Part, ...] = Field(min_length=1)

    @field_validator("part", mode="before")
    @classmethod
    def _several(cls, parts: Any) -> Any:
        return tuple(parts) if isinstance(parts, list) else parts


class Tuning(_Table):
    """Seeds on which the recipe of a readout was chosen. Their cells are shown and do not count for a verdict."""

    readout: str
    scale: str
    seeds: tuple[int, ...] = Field(min_length=1)
    why: str
    """What was chosen on them."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _several(cls, seeds: Any) -> Any:
        return tuple(seeds) if isinstance(seeds, list) else seeds

    @field_validator("readout")
    @classmethod
    def _of_a_kind(cls, kind: str) -> str:
        if kind not in READOUT_KINDS.values():
            raise ValueError(f"readout={kind}: must be one of {', '.join(dict.fromkeys(READOUT_KINDS.values()))}")
        return kind

    def covers(self, cell: Cell) -> bool:
        """Whether the recipe was tuned on this cell's seed."""
        axes = {**cell.params, **cell.axes}
        return cell.scale == self.scale and axes.get("readout.kind") == self.readout and axes.get("seed") in self.seeds

    def __str__(self) -> str:
        """For instance `the recipe of p_probe at mini was tuned on seed 0`."""
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        return f"the recipe of {self.readout} at {self.scale} was tuned on {seeds}"


class _File(_Table):
    claim: list[Claim] = Field(min_length=1)
    tuned_on: list[Tuning] = []


def load_claims(path: Path = FILE) -> tuple[Claim, ...]:
    """Loads the claims of a file. Raises `ValueError` with one line that names claim, part and field."""
    return tuple(_read(path).claim)


def load_tunings(path: Path = FILE) -> tuple[Tuning, ...]:
    """Loads which seeds the recipes were tuned on. Raises `ValueError` as `load_claims`."""
    return tuple(_read(path).tuned_on)


def _read(path: Path) -> _File:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        file = _File.model_validate(table)
    except tomllib.TOMLDecodeError as e:
        raise ValueError(f"{path.name}: {e}") from e
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path.name}: {_place(table, first['loc'])}: {message}") from e
    names = [claim.name for claim in file.claim]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{path.name}: claim {twice}: the name is there twice")
    return file


def sha256(path: Path = FILE) -> str:
    """The first 12 hex digits of the file's SHA-256; reports show them, so that a changed threshold is visible."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _place(table: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """For instance `claim fullname_helps, part 1, value.metric`."""
    if len(location) < 2 or location[0] != "claim":
        return ".".join(map(str, location))
    words = [f"claim {table['claim'][location[1]].get('name', location[1])}"]
    rest = list(location[2:])
    if len(rest) > 1 and rest[0] == "part":
        words.append(f"part {int(rest[1]) + 1}")
        rest = rest[2:]
    return ", ".join([*words, *([".".join(map(str, rest))] if rest else [])])


def _known(name: str) -> str:
    if not METRIC.fullmatch(name):
        raise ValueError(f"metric {name}: there is none of this name")
    return name


def _baseline(name: str) -> str:
    kind, measure, *_, column = name.split("/")
    if kind in PROBES:
        target: ProbeTarget = "whole" if measure == "whole" else "first"
        return majority(kind, target, column)
    if not name.startswith(tuple(f"{group}/exact_match/test/" for group in QUESTIONS)):
        raise ValueError(f"metric {name}: has no majority baseline")
    return majority(kind, "whole", column)
