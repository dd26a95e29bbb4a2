"""The core of ktrain at work without Ray: `python -m tests.faults.alone STORE STEPS SECONDS` does both cells of `demo`.

It is what nothing has disturbed, and in short forms what is disturbed. `SECONDS` lie between two resume points at most.
"""

import logging
import sys

from ktrain import trial
from ktrain.config import Runtime
from ktrain.training import Progress
from sweeps.run import cache
from tests.faults.work import ROOT, Work


def main(store: str, steps: int, seconds: float) -> None:
    """Says a line for every line of a curve, so that others know how far it is."""
    cache(ROOT / ".cache")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)

    def report(key: str, progress: Progress) -> None:
        print(f"{key} {progress.step}", flush=True)

    runtime = Runtime(store=store, compile=False, checkpoint_seconds=seconds)
    for cells in Work(steps).plan(store).trials().values():
        trial.run(cells, runtime, report)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
