"""Resume points: what a stage needs to continue after a crash as if nothing had happened."""

import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

KEPT = 2
"""Older points are removed; the one before the last stays in case the last was cut short by the disk."""
FIRST = 30.0
"""Seconds to the first point of a start, when nothing is known of what it costs."""


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
        save_file(point.tensors, partial / "state.safetensors")
        digest = hashlib.sha256((partial / "state.safetensors").read_bytes()).hexdigest()
        text = json.dumps({"step": point.step, "sha256": digest, "record": point.record})
        (partial / "point.json").write_text(text)
        final = self._path(point.step)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in self._found()[:-KEPT]:
            shutil.rmtree(old)

    def latest(self) -> Point | None:
        """The newest point that is whole; None to begin at the beginning."""
        for folder in reversed(self._found()):
            try:
                about = json.loads((folder / "point.json").read_text())
                raw = (folder / "state.safetensors").read_bytes()
            except (OSError, ValueError):
                continue
            if hashlib.sha256(raw).hexdigest() == about["sha256"]:
                return Point(about["step"], load_file(folder / "state.safetensors"), about["record"])
        return None

    def _found(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:09d}"
