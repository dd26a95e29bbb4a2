"""Resume points: what a stage needs to continue after a crash as if nothing had happened."""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ktrain.patience import disk

KEPT = 2
"""Older points are removed; the one before the last stays in case the last was cut short by the disk."""
FIRST = 30.0
"""Seconds to the first point of a start, when nothing is known of what it costs."""
POINT = "point.json"
STATE = "state.safetensors"
_log = logging.getLogger("ktrain.resume")


def apart(cost: float | None, between_losses: float, longest: float) -> float:
    """Seconds from one resume point to the next, where saving one takes `cost` seconds (None: not known yet) and a node
    is lost every `between_losses` seconds on average; never more than `longest`.

    The root of 2 * cost * between_losses makes the least of both losses together: the share cost / apart of the time
    that goes into saving, and half of apart that each loss throws away. Source: J. W. Young, A first order
    approximation to the optimum checkpoint interval, 1974, doi:10.1145/361147.361115.
    """
    return min(longest, FIRST if cost is None else math.sqrt(2 * cost * between_losses))


@dataclass(frozen=True)
class Point:
    """State after `step` steps: tensors of `Engine.state` and a JSON-able `record` of the run so far."""

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


class ResumePoints:
    """The resume points of one stage, in its work folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, point: Point) -> None:
        """Writes a point; it exists only when whole, because the folder is renamed last."""
        partial = self._folder / f"partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(point.tensors, partial / STATE)
        about = {"step": point.step, "record": point.record}
        text = json.dumps({**about, "sha256": _digest(partial / STATE, about)})
        (partial / POINT).write_text(text)
        final = self._path(point.step)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in found(self._folder)[:-KEPT]:
            shutil.rmtree(old)

    def latest(self) -> Point | None:
        """The newest point that is whole; None to begin at the beginning."""
        points = (_read(folder) for folder in reversed(found(self._folder)))
        return next((point for point in points if point), None)

    def at(self, step: int) -> Point | None:
        """The point after so many steps, where it is here and whole."""
        return _read(self._path(step))

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:09d}"


class KeptPoints(ResumePoints):
    """Resume points that are kept elsewhere too, by `keep`. One that cannot be written is told of, and training goes
    on: it costs what would be lost until the next."""

    def __init__(self, folder: Path, keep: Callable[[], None]) -> None:
        super().__init__(folder)
        self._keep, self._failed = keep, False

    def save(self, point: Point) -> None:
        """As in `ResumePoints`, but for a disk that refuses."""
        try:
            super().save(point)
        except Exception as error:
            reason = disk(error)
            if reason is None:
                raise
            if not self._failed:
                _log.warning("%s: no resume point at step %d: %s", self._folder.name, point.step, reason)
            self._failed = True
            shutil.rmtree(self._folder / f"partial-{os.getpid()}", ignore_errors=True)
            return
        self._failed = False
        self._keep()


def found(folder: Path) -> list[Path]:
    """The resume points in a work folder, whole or not, the oldest first."""
    return sorted(folder.glob("step-*"))


def _read(folder: Path) -> Point | None:
    """A point, if tensors and record are those that were saved."""
    try:
        about = json.loads((folder / POINT).read_text())
        digest = about.pop("sha256")
        if digest == _digest(folder / STATE, about):
            return Point(about["step"], load_file(folder / STATE), about["record"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _digest(state: Path, about: dict[str, Any]) -> str:
    """SHA-256 over the tensors and what is said of them."""
    with state.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256")
    whole.update(json.dumps(about).encode())
    return whole.hexdigest()
