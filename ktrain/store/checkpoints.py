"""Checkpoints, from which a stage continues after a crash as if it had never been interrupted."""

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

from ktrain.store.regular_files import open_regular, read_text
from ktrain.system.atomic_write import follow_umask
from ktrain.system.retry import disk_error

KEPT = 2
"""Checkpoints that stay. The last but one is a reserve, in case the disk cut the last one short."""
FIRST = 30.0
"""Seconds until the first checkpoint of a run, before its cost is known."""
POINT = "point.json"
STATE = "state.safetensors"
_log = logging.getLogger("ktrain.resume")


def checkpoint_interval(cost: float | None, between_losses: float, longest: float) -> float:
    """Seconds between checkpoints, where saving one takes `cost` seconds (None: not known yet) and a node is
    lost every `between_losses` seconds on average; never more than `longest`.

    An interval of sqrt(2 * cost * between_losses) minimises the sum of both losses: the share cost / interval of the
    time, spent on saving, and half an interval of work that each lost node throws away. Source: J. W. Young, A first
    order approximation to the optimum checkpoint interval, 1974, doi:10.1145/361147.361115.
    """
    return min(longest, FIRST if cost is None else math.sqrt(2 * cost * between_losses))


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps: the tensors of `Engine.state`, and a `record` of the run so far that JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one stage, in its work folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, point: Checkpoint) -> None:
        """Writes a checkpoint. Its folder is renamed last, so that it appears whole or not at all."""
        partial = self._folder / f"partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(point.tensors, partial / STATE)
        header = {"step": point.step, "record": point.record}
        text = json.dumps({**header, "sha256": _digest(partial / STATE, header)})
        (partial / POINT).write_text(text)
        follow_umask(partial)
        final = self._path(point.step)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in checkpoint_folders(self._folder)[:-KEPT]:
            shutil.rmtree(old)

    def latest(self) -> Checkpoint | None:
        """Returns the newest intact checkpoint; None to start from the beginning."""
        points = (_read(folder) for folder in reversed(checkpoint_folders(self._folder)))
        return next((point for point in points if point), None)

    def at(self, step: int) -> Checkpoint | None:
        """Returns the checkpoint after `step` steps; None where it is missing or damaged."""
        return _read(self._path(step))

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:09d}"


class UploadedCheckpoints(Checkpoints):
    """Checkpoints that `upload` copies to the store. A checkpoint that cannot be written is logged, and training goes
    on: it risks only the work until the next one."""

    def __init__(self, folder: Path, upload: Callable[[], None]) -> None:
        super().__init__(folder)
        self._upload, self._failed = upload, False

    def save(self, point: Checkpoint) -> None:
        """See `Checkpoints`; survives a full or failing disk."""
        try:
            super().save(point)
        except Exception as error:
            reason = disk_error(error)
            if reason is None:
                raise
            if not self._failed:
                _log.warning("%s: no checkpoint at step %d: %s", self._folder.name, point.step, reason)
            self._failed = True
            shutil.rmtree(self._folder / f"partial-{os.getpid()}", ignore_errors=True)
            return
        self._failed = False
        self._upload()


def checkpoint_folders(folder: Path) -> list[Path]:
    """The folders of checkpoints in a work folder, intact or not, the oldest first."""
    return sorted(folder.glob("step-*"))


def _read(folder: Path) -> Checkpoint | None:
    """Reads a checkpoint; None unless tensors and record are those that were saved."""
    try:
        header = json.loads(read_text(folder / POINT, folder.parents[1]))
        digest = header.pop("sha256")
        if digest == _digest(folder / STATE, header):
            return Checkpoint(header["step"], load_file(folder / STATE), header["record"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _digest(state: Path, header: dict[str, Any]) -> str:
    """SHA-256 over the tensors and the header."""
    with open_regular(state, state.parents[2]) as file:
        whole = hashlib.file_digest(file, "sha256")
    whole.update(json.dumps(header).encode())
    return whole.hexdigest()
