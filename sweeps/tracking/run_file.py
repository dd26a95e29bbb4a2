"""Files with the runs of a sweep, by which results travel without their store.

A file has one JSON object a line: first what it is, then the stages, then the cells. It is compressed where its name
ends in `.gz`. Run ids, folders and the names of accounts stay behind: they mean nothing elsewhere.
"""

import gzip
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ktrain.errors import WrongRequest
from ktrain.system.atomic_write import atomic_write
from sweeps.tracking.run_record import LINK, Point, RunRecord

FORMAT: Literal["ktrain runs 1"] = "ktrain runs 1"
IMPORTED = "ktrain.imported"
"""Tag of a run with the name of the file that it came from."""
_LEFT_OUT = ("ktrain.stages", "ktrain.view.", LINK, IMPORTED)
"""Beginnings of tags that mean nothing elsewhere: folders, run ids, and the rows of comparison views."""
_KEPT = ("mlflow.note.content", "mlflow.source.name", "mlflow.source.git.commit", "mlflow.source.git.dirty")
_LONGEST_MESSAGE = 200
M = TypeVar("M", bound=BaseModel)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[float, AfterValidator(_finite)]


class FileHeader(BaseModel):
    """The first line of a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["ktrain runs 1"]
    sweep: str
    tags: dict[str, str]
    """Tags of the experiment, which the analysis reads."""


class FileRun(BaseModel):
    """A finished run, as a file has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["stage", "cell"]
    key: str
    name: str
    start: int
    end: int | None
    """Milliseconds since the epoch."""
    params: dict[str, str]
    tags: dict[str, str]
    stages: dict[str, str]
    """Of a cell, the keys of its stages by kind."""
    metrics: dict[str, list[tuple[int, Number, Number]]]
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
        # Without a time in it, the same runs make the same file.
        atomic_write(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as e:
        raise WrongRequest(f"file={path}: not writable: {e.strerror}") from e


def read(path: Path) -> tuple[FileHeader, list[FileRun]]:
    """Reads a file whole. Raises `WrongRequest` that names the line if it is none of `write`, or is damaged."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, ValueError) as e:
        raise WrongRequest(f"file={path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    lines = text.splitlines()
    if not lines:
        raise WrongRequest(f"file={path}: is empty; must be a file of `ktrain export`")
    header = _parsed(path, 1, lines[0], FileHeader)
    runs = [_parsed(path, number, line, FileRun) for number, line in enumerate(lines[1:], start=2)]
    stages = {run.key for run in runs if run.kind == "stage"}
    for number, run in enumerate(runs, start=2):
        if lacking := sorted(set(run.stages.values()) - stages):
            raise WrongRequest(f"file={path}: line {number}: the run of {run.key} needs that of {lacking[0]}")
    return header, runs


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
