"""The claims file: the paper's conclusions as parts with thresholds, read strictly."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.cells import Axis
from analysis.names import COLUMNS, GROUPS, OFS, POSITIONS, PROBES, QUESTIONS, Of, majority

FILE = Path(__file__).with_name("claims.toml")
KINDS = {"qa": "qa_finetune", "mixed": "mixed", "bio": "mixed"} | {name: name for name in PROBES}
"""The readout behind a metric, by what the metric's name begins with."""
MEANT: Mapping[str, Axis] = {"model.family": "gpt2", "readout.people": "minority", "train.qa_ratio": 0.0}
"""What a selection means where it does not say, and a cell has that does not say; so nothing else is mixed in. Only a
model that is asked at once was trained on questions before."""
AXIS = re.compile(r"(corpus|model|train|readout)(\.[a-z_]+)+")
METRICS = (
    *(rf"(?:{'|'.join(QUESTIONS)})/(?:exact_match|first_token)/(?:train|test)", r"bio/first_token/(?:train|test)"),
    *(rf"q_probe/(?:{'|'.join(OFS)})", rf"p_probe/(?:{'|'.join(OFS)})/(?:{'|'.join(map(str, POSITIONS))}|own)"),
)
METRIC = re.compile(rf"(?:{'|'.join(METRICS)})/(?:{'|'.join(COLUMNS)})")


class _Table(BaseModel):
    """A table of the file: unknown keys are errors, and text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Selection(_Table):
    """The cells of one setting that have the axes given, and the metrics whose mean is meant."""

    setting: str
    metric: tuple[str, ...] = Field(min_length=1)
    axes: dict[str, Axis] = {}

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, table: Any) -> Any:
        """Axes stand beside `setting` and `metric` in the file, by their dotted names."""
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
        kinds = {KINDS[name.partition("/")[0]] for name in self.metric}
        told = self.axes.get("readout.kind")
        if len(kinds | {told or min(kinds)}) > 1:
            raise ValueError(f"readout.kind={told}: has no metric {', '.join(self.metric)}")
        return self

    @property
    def cells(self) -> dict[str, Axis]:
        """All that a cell must have besides the setting, by axis."""
        kind = KINDS[self.metric[0].partition("/")[0]]
        meant = {axis: value for axis, value in MEANT.items() if axis != "train.qa_ratio" or kind != "mixed"}
        return {**meant, "readout.kind": kind, **self.axes}

    @property
    def baselines(self) -> tuple[str, ...]:
        """Metric names of the majority baselines of the same people; raises `ValueError` where there is none."""
        return tuple(map(_baseline, self.metric))

    def __str__(self) -> str:
        """For instance `bioS single, QA finetune, readout.method=lora`."""
        group = self.metric[0].partition("/")[0]
        told = [f"{axis}={value}" for axis, value in self.axes.items() if axis != "readout.kind"]
        return ", ".join([self.setting, GROUPS.get(group, GROUPS["mixed"]), *told])


class Part(_Table):
    """One comparison of an effect with a threshold; effect and threshold are fractions of 1."""

    says: str
    value: Selection | None = None
    minus: Selection | Literal["baseline"] | None = None
    correlation: tuple[str, str] | None = None
    settings: int | None = Field(None, ge=2)
    """How many settings a correlation needs."""
    lead: tuple[str, str] | None = None
    setting: str | None = None
    """Whose curves a lead compares."""
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
        told = [name for name in ("value", "correlation", "lead") if getattr(self, name) is not None]
        if len(told) != 1:
            raise ValueError(f"has {' and '.join(told) or 'none'} of value, correlation and lead: must have one")
        for name, owner in (("minus", "value"), ("settings", "correlation"), ("setting", "lead")):
            if getattr(self, name) is not None and told != [owner]:
                raise ValueError(f"{name}: belongs to {owner}, not to {told[0]}")
            if name != "minus" and getattr(self, name) is None and told == [owner]:
                raise ValueError(f"{owner}: needs {name}")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("must have one of at_least and at_most")
        if self.value and self.minus == "baseline":
            _ = self.value.baselines
        return self

    @property
    def threshold(self) -> float:
        """What the effect must reach, or must not exceed."""
        return float(self.at_most if self.at_least is None else self.at_least)  # type: ignore[arg-type]


class Claim(_Table):
    """A conclusion of the paper; it holds if all its parts hold."""

    name: str
    says: str
    paper: str
    """Where the paper concludes it."""
    part: tuple[Part, ...] = Field(min_length=1)

    @field_validator("part", mode="before")
    @classmethod
    def _several(cls, parts: Any) -> Any:
        return tuple(parts) if isinstance(parts, list) else parts


class _File(_Table):
    claim: list[Claim] = Field(min_length=1)


def load(path: Path = FILE) -> tuple[Claim, ...]:
    """The claims of a file. Raises `ValueError` with one line that names claim, part and field."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        claims = tuple(_File.model_validate(table).claim)
    except tomllib.TOMLDecodeError as e:
        raise ValueError(f"{path.name}: {e}") from e
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path.name}: {_place(table, first['loc'])}: {message}") from e
    names = [claim.name for claim in claims]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{path.name}: claim {twice}: the name is there twice")
    return claims


def sha256(path: Path = FILE) -> str:
    """The first 12 hex digits of the file's SHA-256, which say whether thresholds were touched since."""
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
        of: Of = "whole" if measure == "whole" else "first"
        return majority(kind, of, column)
    if not name.startswith(tuple(f"{group}/exact_match/test/" for group in QUESTIONS)):
        raise ValueError(f"metric {name}: has no majority baseline")
    return majority(kind, "whole", column)
