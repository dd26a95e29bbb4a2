"""Files with the runs of a sweep, by which results travel without their store.

A file has one JSON object a line: first what it is, then the stages, then the cells. It is compressed where its name
ends in `.gz`. Run ids, folders and the names of accounts stay behind: they mean nothing elsewhere.
"""

import gzip
import math
import posixpath
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ktrain.errors import WrongRequest, is_text
from ktrain.fingerprint import checked_key, regular_file
from ktrain.system.atomic_write import atomic_write
from sweeps.planning.sweep import LONGEST_NAME, NAME
from sweeps.tracking.run_record import LINK, Point, RunRecord
from sweeps.tracking.sync import KINDS_TAG

FORMAT: Literal["ktrain runs 1"] = "ktrain runs 1"
IMPORTED = "ktrain.imported"
"""Tag of a run with the name of the file that it came from."""
_LEFT_OUT = ("ktrain.stages", "ktrain.view.", LINK, IMPORTED)
"""Beginnings of tags that mean nothing elsewhere: folders, run ids, and the rows of comparison views."""
_KEPT = ("mlflow.note.content", "mlflow.source.name", "mlflow.source.git.commit", "mlflow.source.git.dirty")
LARGEST = 500_000_000
"""Bytes of a file, or of what it holds compressed."""
LONGEST_TEXT = 8_000
"""Characters; MLflow keeps no longer tag."""
_LONGEST_MESSAGE = 200
M = TypeVar("M", bound=BaseModel)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _storable(text: str) -> str:
    if not is_text(text) or len(text) > LONGEST_TEXT:
        raise ValueError(f"must be at most {LONGEST_TEXT:,} characters of UTF-8 without NUL")
    return text


def _name(text: str) -> str:
    """MLflow takes names for paths."""
    if not re.fullmatch(r"[\w./: -]{1,250}", text) or posixpath.normpath(text) != text or text[0] in "./":
        raise ValueError("must be 1 to 250 letters, digits, or `_./: -`")
    return text


def _tag(name: str) -> str:
    if not _travels(_name(name)):
        raise ValueError("is no tag that `ktrain export` writes")
    return name


def _experiment_tag(name: str) -> str:
    if name != KINDS_TAG:
        raise ValueError("is no tag that `ktrain export` writes")
    return name


Number = Annotated[float, AfterValidator(_finite)]
Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[str, AfterValidator(_name)]
Key = Annotated[str, AfterValidator(checked_key)]
Moment = Annotated[int, Field(ge=0, lt=10**15)]
"""Milliseconds since the epoch."""
Step = Annotated[int, Field(ge=0, lt=10**15)]
Seconds = Annotated[Number, Field(gt=-(10**12), lt=10**12)]


class FileHeader(BaseModel):
    """The first line of a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["ktrain runs 1"]
    sweep: str = Field(pattern=f"^{NAME}$", max_length=LONGEST_NAME)
    tags: dict[Annotated[str, AfterValidator(_experiment_tag)], str] = Field(min_length=1)
    """Tags of the experiment, which the analysis reads."""


class FileRun(BaseModel):
    """A finished run, as a file has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["stage", "cell"]
    key: Key
    name: Text
    start: Moment
    end: Moment | None
    params: dict[Name, Text]
    tags: dict[Annotated[str, AfterValidator(_tag)], Text]
    stages: dict[Name, Key]
    """Of a cell, the keys of its stages by kind."""
    metrics: dict[Name, list[tuple[Step, Number, Seconds]]]
    """Of each metric its points: step, value, and seconds since the start."""

    def record(self, file: str, links: Mapping[str, str]) -> RunRecord:
        """Returns the run as MLflow is to have it. `links` are the run ids of its stages by kind."""
        points = tuple(
            Point(name, value, step, seconds) for name, line in self.metrics.items() for step, value, seconds in line
        )
        initial = {"ktrain.key": self.key, "ktrain.kind": self.kind, IMPORTED: file}
        tags = {**self.tags, **{f"{LINK}{kind}": run for kind, run in links.items()}}
        if self.kind == "stage":
            # The end of a stage's run completes it; tags that come last do so for a cell.
            initial, tags = initial | tags, {}
        return RunRecord(self.key, self.name, "FINISHED", initial, self.start, self.end, points, self.params, tags)


def exported(run: Any, points: Mapping[str, Sequence[Any]], stage_keys: Mapping[str, str]) -> FileRun:
    """Returns a run of MLflow as a file has it.

    `points` are its metrics with their history, `stage_keys` the keys of all stages by run id.
    """
    tags = run.data.tags
    links = {name.removeprefix(LINK): text for name, text in tags.items() if name.startswith(LINK)}
    return FileRun(
        kind=tags["ktrain.kind"],
        key=tags["ktrain.key"],
        name=run.info.run_name,
        start=run.info.start_time,
        end=run.info.end_time,
        params=dict(run.data.params),
        tags={name: text for name, text in tags.items() if _travels(name)},
        stages={kind: stage_keys[run_id] for kind, run_id in links.items() if run_id in stage_keys},
        metrics={
            name: [(p.step, p.value, (p.timestamp - run.info.start_time) / 1000) for p in history]
            for name, history in sorted(points.items())
        },
    )


def write(path: Path, header: FileHeader, runs: Iterable[FileRun]) -> None:
    """Writes a file at once, or not at all. Raises `WrongRequest` where it cannot be written."""
    lines = [header.model_dump_json(), *(run.model_dump_json() for run in runs)]
    data = ("\n".join(lines) + "\n").encode()
    try:
        if path.exists() and not path.is_file():
            # A file in its place would take away a device or a pipe.
            raise WrongRequest(f"file={path}: not writable: is no regular file")
        # Without a time in it, the same runs make the same file.
        atomic_write(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as e:
        raise WrongRequest(f"file={path}: not writable: {e.strerror}") from e


def read(path: Path) -> tuple[FileHeader, list[FileRun]]:
    """Reads a file whole. Raises `WrongRequest` that names the line if it is none of `write`, or is damaged."""
    # Not `splitlines`: a text may hold other ends of lines, which JSON does not escape.
    lines = _content(path).removesuffix("\n").split("\n")
    header = _parsed(path, 1, lines[0], FileHeader)
    runs = [_parsed(path, number, line, FileRun) for number, line in enumerate(lines[1:], start=2)]
    stages = {run.key for run in runs if run.kind == "stage"}
    times = Counter(run.key for run in runs)
    for number, run in enumerate(runs, start=2):
        place = f"file={path}: line {number}: the run of {run.key}"
        if times[run.key] > 1:
            raise WrongRequest(f"{place} is there {times[run.key]} times")
        if lacking := sorted(set(run.stages.values()) - stages):
            raise WrongRequest(f"{place} needs that of {lacking[0]}")
        if run.kind == "stage" and run.stages:
            raise WrongRequest(f"{place} is a stage, which has no stages")
    return header, runs


def _content(path: Path) -> str:
    """The text of a file. Raises `WrongRequest` where it has none."""
    try:
        with gzip.open(regular_file(path)) if path.suffix == ".gz" else regular_file(path).open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode()
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise WrongRequest(f"file={path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    if len(data) > LARGEST:
        raise WrongRequest(f"file={path}: has more than {LARGEST:,} bytes, which no file of `ktrain export` has")
    if not text:
        raise WrongRequest(f"file={path}: is empty; must be a file of `ktrain export`")
    return text


def _travels(tag: str) -> bool:
    own = tag.startswith("ktrain.") and not tag.startswith(_LEFT_OUT)
    return tag in _KEPT or (own and tag not in ("ktrain.key", "ktrain.kind"))


def _parsed(path: Path, number: int, line: str, model: type[M]) -> M:
    try:
        return model.model_validate_json(line)
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(map(str, first["loc"]))[:_LONGEST_MESSAGE]
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise WrongRequest(f"file={path}: line {number} is none of `ktrain export`: {said}") from e
