"""The work under fault: a tiny form of the sweep `demo`, done by all of ktrain or by its core alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ktrain.store.open import store_at
from sweeps.planning import grid as grids
from sweeps.planning import plan as planning
from sweeps.planning.plan import Plan

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0
"""Seconds to wait for what takes about twenty on an idle machine."""
AXES: Mapping[str, Any] = {
    "corpus.people": 60,
    "corpus.tokenizer": "bpe-600",
    "corpus.pools.birth_years": 5,
    "corpus.pools.birth_cities": 5,
    "model.layers": 1,
    "model.heads": 1,
    "model.width": 32,
    "train.warmup": 10,
    "train.batch": 4,
    "train.context": 64,
    "train.windows": "cut",
    "readout.steps": 20,
    "readout.batch": 8,
    "readout.recall_gate": 0.0,
}


class Wrong(AssertionError):
    """A result that no fault may cause."""


@dataclass(frozen=True)
class Work:
    """`demo` with `steps` steps of pretraining in each of its two cells."""

    steps: int

    @property
    def axes(self) -> list[str]:
        """As on the command line."""
        return [f"{name}={value}" for name, value in {**AXES, "train.steps": self.steps}.items()]

    def plan(self, store: str) -> Plan:
        """Plans the sweep against a store."""
        overrides = {name: [value] for name, value in {**AXES, "train.steps": self.steps}.items()}
        return planning.make(grids.load("demo"), "mini", overrides, store_at(store))


@dataclass
class Run:
    """A running process, and every child that it ever had."""

    process: subprocess.Popen[bytes]
    log: Path
    family: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it has not ended. Its children are remembered, because they may outlive it."""
        if self.process.poll() is not None:
            return False
        with suppress(psutil.NoSuchProcess):
            self.family |= {child.pid: child for child in psutil.Process(self.process.pid).children(recursive=True)}
        return True

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code."""
        until(lambda: not self.runs, "the end of the run", patience=patience)
        return int(self.process.returncode)

    def kill(self) -> None:
        """Kills the process, but not its children."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Kills the process and its remaining children, by their ids."""
        if self.runs:
            self.kill()
        for child in self.family.values():
            with suppress(psutil.NoSuchProcess):
                child.kill()


def begin(command: list[str], log: Path, environment: Mapping[str, str]) -> Run:
    """Starts Python with `command` in the folder of its log, in a group of its own."""
    own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "KTRAIN_CACHE": str(ROOT / ".cache")}
    surroundings = {**os.environ, **own, **environment}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=log.parent,
            env={name: value for name, value in surroundings.items() if value},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Run(process, log)


def until(true: Callable[[], Any], what: str, run: Run | None = None, patience: float = PATIENCE) -> Any:
    """Waits until `true()` is true, and returns its value. Raises `Wrong` if the run or the patience ends before."""
    end = time.monotonic() + patience
    while not (value := true()):
        if run is not None and not run.runs:
            raise Wrong(f"the run ended with {run.process.returncode} before {what}:\n{run.said[-3000:]}")
        if time.monotonic() > end:
            raise Wrong(f"not within {patience:.0f} s: {what}\n{run.said[-3000:] if run else ''}")
        time.sleep(0.05)
    return value


def pause(seconds: float, run: Run) -> None:
    """Waits, but not for what has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and run.runs:
        time.sleep(0.05)
