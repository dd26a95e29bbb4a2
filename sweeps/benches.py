"""`ktrain bench`: each benchmark with the settings of a scale."""

import argparse
import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ktrain.errors import WrongRequest
from sweeps import bench_schedule

if TYPE_CHECKING:
    from ktrain.config import Cell

WHAT = ("train", "fleet", "corpus", "evaluate", "trial", "schedule", "profile")


def add(bench: argparse.ArgumentParser) -> None:
    """The options of the command."""
    bench.add_argument("what", choices=WHAT)
    bench.add_argument("--json", action="store_true", help="machine-readable")
    bench.add_argument("--scale", help="mini, small or full (default: mini, of schedule full)")
    bench.add_argument("--seconds", type=float, help="measured seconds of each loop (5), or earliest end of all (500)")
    bench_schedule.add(bench)
    bench.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Handles the command."""
    from sweeps.scales import SCALES

    if arguments.scale not in (None, *SCALES):
        raise WrongRequest(f"scale={arguments.scale}: must be one of {', '.join(SCALES)}")
    if arguments.what == "schedule":
        return bench_schedule.command(arguments)
    seconds = 5.0 if arguments.seconds is None else arguments.seconds
    if not seconds > 0:
        raise WrongRequest(f"seconds={seconds:g}: must be above 0")
    scale = arguments.scale or "mini"
    if arguments.what == "train" and find_spec("accelerate") is None:
        raise WrongRequest(
            "bench train: the Trainer needs accelerate, which is not installed (pip install 'ktrain[bench]')"
        )
    found, shown = _measured(arguments.what, scale, SCALES[scale], seconds)
    print(json.dumps(found, indent=1, default=vars) if arguments.json else shown)
    return 0


def _measured(what: str, scale: str, cell: "Cell", seconds: float) -> tuple[dict[str, Any], str]:
    """What was found, and how it is shown."""
    from ktrain.bench import corpus, evaluate, fleet, profile, train, turns
    from sweeps import bench_trial
    from sweeps.scales import base

    vocabulary = train.VOCABULARY.get(cell.model.size, train.GPT2)
    if what == "train":
        found = train.train(cell.train, cell.model, seconds=seconds)
        return found, train.text(found)
    if what == "profile":
        found = profile.step(cell.train, cell.model, vocabulary)
        return found, profile.text(found)
    if what == "fleet":
        readouts = {kind: base(scale, kind).readout for kind in ("qa_finetune", "p_probe", "q_probe")}
        found = fleet.fleet(readouts, cell.model, vocabulary, seconds=seconds)
    elif what == "corpus":
        found = corpus.corpus(seconds=seconds)
    elif what == "evaluate":
        found = evaluate.evaluate(cell.corpus, cell.model, context=cell.train.context, seconds=seconds)
    else:
        found = bench_trial.trial()
    return found, turns.text(found)
