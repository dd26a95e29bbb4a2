"""Collects the results that the documentation shows in docs/data: the first part of `make docs-numbers`.

Each command above a table has a file there with the cells that it plans. What the store has finished takes its place in
the file, and the other cells stay, so that long sweeps can be trained in several sittings and on several machines.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fill_tables import ROOT, commands

from ktrain.errors import WrongRequest
from sweeps.exchange import export_runs, import_runs
from sweeps.options import planned
from sweeps.tracking.address import default_uri
from sweeps.tracking.sync import Tracker, sync_with_retry

RESULTS = ROOT / "docs" / "data"


def file_of(command: str, folder: Path = RESULTS) -> Path:
    """Returns the file with the results of `ktrain run SWEEP axis=value`."""
    return folder / f"{command.split()[2]}.json.gz"


def collect(command: str, store: str, folder: Path = RESULTS) -> str:
    """Brings the file of a command up to date, and MLflow in the folder `store` too; returns what hindered it, or an
    empty text."""
    sweep, *axes = command.split()[2:]
    file = file_of(command, folder)
    try:
        if file.is_file():
            import_runs(str(file), store)
        plan = planned(sweep, axes, "mini", store)
        if late := sync_with_retry(Tracker.open(default_uri(plan.store), plan.sweep.name), plan):
            return late
        export_runs(sweep, str(file), axes, "mini", store)
    except WrongRequest as e:
        return str(e)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Collects the results of every command above a table; returns 1 where one has none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=ROOT / "results", help="folder of the store (results)")
    store = str(parser.parse_args(arguments).store)
    hindered = [line for command in commands() if (line := collect(command, store))]
    for line in hindered:
        print(line, file=sys.stderr)
    return 1 if hindered else 0


if __name__ == "__main__":
    sys.exit(main())
