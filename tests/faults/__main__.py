"""Injects faults and compares the results with a calm run: `python -m tests.faults nodes-removed --kills 10`."""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "parts"))
from tests.faults import core_scenarios as core
from tests.faults import kills, scenarios
from tests.faults.disks import NotHere
from tests.faults.scenarios import Extent
from tests.faults.site import Event, Site, Undisturbed
from tests.faults.work import Work, Wrong

CLUSTER = {
    "nodes-removed": scenarios.nodes_removed,
    "preempted": scenarios.preempted,
    "shrunk": scenarios.shrunk,
    "driver-killed": scenarios.driver_killed,
    "waiter-killed": scenarios.waiter_killed,
    "two-drivers": scenarios.two_drivers,
    "tracking-away": scenarios.tracking_away,
    "postgres-restarted": scenarios.postgres_restarted,
    "storage-away": scenarios.storage_away,
    "everything": scenarios.everything,
}
CORE = {
    "flipped-byte": core.flipped_byte,
    "two-processes": core.two_processes,
    "clock-jump": core.clock_jump,
    "disk-full": core.disk_full,
    "worker-disk-full": core.worker_disk_full,
    "folder-away": core.folder_away,
}
ALL = CLUSTER | CORE | kills.SCENARIOS


STEPS = 4_000
"""Steps of pretraining in a scenario on a cluster: half a minute in which faults are injected."""
ALONE = 1_000
"""Steps of pretraining in a run on this machine that is ended."""
FEW = 400
"""Steps of pretraining without a cluster."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a scenario, and when its faults were injected."""

    scenario: str
    seed: int
    state: str
    """`well`, `WRONG`, or `not here` where this machine does not allow it."""
    end: str
    seconds: float
    events: list[Event]


def main(words: list[str] | None = None) -> int:
    """Runs scenarios one after another and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(ALL)}, or kills (default: all)"
    )
    parser.add_argument("--kills", type=int, default=10, help="nodes removed (default: 10)")
    parser.add_argument("--away", type=float, default=120.0, help="seconds that a service is away (default: 120)")
    parser.add_argument("--steps", type=int, default=0, help="of pretraining on a cluster (default: enough)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--keep", action="store_true", help="leave folders and logs, and say where")
    options = parser.parse_args(words)
    options.scenarios = [
        name for word in options.scenarios for name in (kills.SCENARIOS if word == "kills" else [word])
    ]
    if unknown := [name for name in options.scenarios if name not in ALL]:
        parser.error(f"{unknown[0]}: there are {', '.join(ALL)}")
    extent = Extent(options.kills, options.away)
    works = {name: Work(_steps(name, options.steps)) for name in options.scenarios or ALL}
    if "nodes-removed" in works and not options.steps:
        works["nodes-removed"] = Work(STEPS + 700 * options.kills)
    # SIGTERM must not leave a cluster behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="ktrain-faults-"))
    undisturbed = Undisturbed(folder / "undisturbed")
    outcomes = []
    try:
        for work in works.values():
            undisturbed.begin(work)
        for name, work in works.items():
            outcome = run(name, folder / name, work, extent, options.seed, undisturbed)
            outcomes.append(outcome)
            if not options.json:
                show(outcome)
    finally:
        undisturbed.end()
        if options.keep:
            print(folder, file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return 0 if not any(outcome.state == "WRONG" for outcome in outcomes) else 1


def _steps(name: str, wanted: int) -> int:
    """Steps of pretraining in a scenario: `wanted` on a cluster, if that is not 0."""
    if name in CORE:
        return FEW
    return wanted or (ALONE if name in kills.SCENARIOS else STEPS)


def run(name: str, folder: Path, work: Work, extent: Extent, seed: int, undisturbed: Undisturbed) -> Outcome:
    """Runs one scenario; the seed determines the moments of its faults."""
    began = time.monotonic()
    with Site(folder, work, undisturbed) as site:
        try:
            end, state = ALL[name](site, extent, random.Random(f"{name}-{seed}")), "well"
        except NotHere as reason:
            end, state = str(reason), "not here"
        except Wrong as wrong:
            end, state = str(wrong), "WRONG"
        except Exception:
            end, state = traceback.format_exc(), "WRONG"
        return Outcome(name, seed, state, end, round(time.monotonic() - began, 1), site.events)


def show(outcome: Outcome) -> None:
    """Prints a line for each fault and one for the outcome."""
    print(f"{outcome.scenario} (seed {outcome.seed})")
    for event in outcome.events:
        print(f"  {event.at:8.1f} s  {event.what:<44} {event.then}")
    print(f"  {outcome.seconds:8.1f} s  {outcome.state}: {outcome.end}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
