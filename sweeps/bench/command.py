"""`ktrain bench`: each benchmark with the settings of a scale."""

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from typer import Argument, Option

from ktrain.errors import WrongRequest
from sweeps.bench import schedule
from sweeps.options import EXIT_DONE, EXIT_FAILED, AsJson

if TYPE_CHECKING:
    from ktrain.config import CellConfig

Benchmark = Literal["train", "fleet", "corpus", "evaluate", "trial", "schedule", "profile"]


def bench(
    what: Annotated[Benchmark, Argument(metavar="WHAT", help="What to measure.")],
    as_json: AsJson = False,
    scale: Annotated[
        str | None,
        Option("--scale", metavar="SCALE", help="mini, small, medium or full; else mini, and for schedule full."),
    ] = None,
    seconds: Annotated[
        float | None,
        Option("--seconds", help="Measured seconds of each loop (5); schedule: earliest end of all trials (500)."),
    ] = None,
    gpus: Annotated[int, Option("--gpus", help="schedule: GPUs to declare.")] = 64,
    trials: Annotated[
        int | None, Option("--trials", help="schedule: trials, with as many seeds as that takes; without it, one seed.")
    ] = None,
) -> int:
    """Measure the speed of training, adapters, corpus, evaluation, a trial or a schedule, as ratios to references."""
    from sweeps.recipes.scales import SCALES

    if scale not in (None, *SCALES):
        raise WrongRequest(f"scale={scale}: must be one of {', '.join(SCALES)}")
    if what == "schedule":
        measured = schedule.schedule(
            "paper",
            scale or "full",
            gpus=gpus,
            trials=trials,
            seconds=schedule.SECONDS if seconds is None else seconds,
            console=None if as_json else Console(stderr=True),
        )
        print(json.dumps(measured, indent=1) if as_json else schedule.text(measured))
        return EXIT_FAILED if measured["failed"] else EXIT_DONE
    seconds = 5.0 if seconds is None else seconds
    if not seconds > 0:
        raise WrongRequest(f"seconds={seconds:g}: must be above 0")
    scale = scale or "mini"
    if what == "train" and find_spec("accelerate") is None:
        raise WrongRequest(
            "bench train: the Trainer needs accelerate, which is not installed (pip install 'ktrain[bench]')"
        )
    measured, text = _measured(what, scale, SCALES[scale], seconds)
    print(json.dumps(measured, indent=1, default=vars) if as_json else text)
    return EXIT_DONE


def _measured(what: str, scale: str, cell: "CellConfig", seconds: float) -> tuple[dict[str, Any], str]:
    """Runs a benchmark; returns its result and the text that shows it."""
    from ktrain.bench import adapters, corpus_build, evaluate, interleaved, profile, train
    from sweeps.bench import trial
    from sweeps.recipes.scales import base

    vocabulary = train.VOCABULARY.get(cell.model.size, train.GPT2)
    if what == "train":
        measured = train.train(cell.train, cell.model, seconds=seconds)
        return measured, train.text(measured)
    if what == "profile":
        measured = profile.step(cell.train, cell.model, vocabulary)
        return measured, profile.text(measured)
    if what == "fleet":
        readouts = {kind: base(scale, kind).readout for kind in ("qa_finetune", "p_probe", "q_probe")}
        measured = adapters.fleet(readouts, cell.model, vocabulary, seconds=seconds)
    elif what == "corpus":
        measured = corpus_build.corpus(seconds=seconds)
    elif what == "evaluate":
        measured = evaluate.evaluate(cell.corpus, cell.model, context=cell.train.context, seconds=seconds)
    else:
        measured = trial.trial()
    return measured, interleaved.text(measured)
