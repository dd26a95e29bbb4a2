"""The core of ktrain at work without Ray: `python -m tests.faults.alone STORE STEPS SECONDS` does both cells of `demo`.

It is what nothing has disturbed, and in short forms what is disturbed. `SECONDS` lie between two resume points at most.
"""

import logging
import os
import sys
import time
from pathlib import Path

from ktrain import pipeline
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.restart_policy import Interruption, Kind, RestartPolicy
from ktrain.store.lease import LeaseLost
from ktrain.training.progress import Progress
from sweeps.execution.ray_session import prepare
from tests.faults.work import Work

CLOCK = "FAULTS_CLOCK"
"""Names the file by which the clock is off."""
SIGNAL = "FAULTS_SIGNAL"
"""Names the file whose appearance starts the work."""


def main(store: str, steps: int, seconds: float) -> None:
    """Does what is missing."""
    prepare()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    runtime = RuntimeConfig(store=store, compile=False, checkpoint_seconds=seconds)
    for cells in Work(steps).plan(store).trials().values():
        _fit([planned.cell for planned in cells], runtime)


def _wrong_clock(file: Path) -> None:
    """The time of day is off by as many seconds as a file says, which others may change."""
    right = time.time
    time.time = lambda: right() + float(file.read_text() or 0)


def _fit(cells: list[CellConfig], runtime: RuntimeConfig) -> None:
    """What `ktrain.ray_job.fit` does around a trial, in this process."""
    policy = RestartPolicy()
    while True:
        try:
            return pipeline.run(cells, runtime, _say)
        except LeaseLost as lost:
            interruption = Interruption(Kind.LEASE_LOST, str(lost))
        except OSError as error:
            interruption = Interruption(Kind.ERROR, str(error), storage=True)
            if not policy.should_restart(interruption, 0.0):
                raise
            time.sleep(policy.pause / 10)
        print(interruption.text, flush=True)


def _say(key: str, progress: Progress) -> None:
    print(f"{key} {progress.step}", flush=True)


if __name__ == "__main__":
    if CLOCK in os.environ:
        _wrong_clock(Path(os.environ[CLOCK]))
    while SIGNAL in os.environ and not Path(os.environ[SIGNAL]).exists():
        time.sleep(0.05)
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
