"""Damages every file of a finished store in every way we know: `python -m tests.damage --share 0.1`."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.damage import damages, finished, trial


def main(words: list[str] | None = None) -> int:
    """Prints a line for each damage that a command took wrongly, and how many there were."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the damages, evenly chosen (default: all)")
    options = parser.parse_args(words)
    folder, began, bad = Path(tempfile.mkdtemp(prefix="ktrain-damage-")), time.monotonic(), 0
    try:
        store = finished.make(folder)
        sound = trial.cells(store, store.store)
        every = list(damages.every(store.store))
        chosen = every[:: max(1, round(1 / options.share))]
        for number, damage in enumerate(chosen):
            if wrong := trial.judge(store, sound, damage, folder / f"copy-{number}"):
                bad += 1
                print(f"{damage.key} {damage.file}: {damage.name}", *wrong, sep="\n  ", flush=True)
            shutil.rmtree(folder / f"copy-{number}")
            if number % 100 == 99:
                print(f"{number + 1} of {len(chosen)} after {time.monotonic() - began:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"{len(chosen)} damages, {bad} taken wrongly, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
