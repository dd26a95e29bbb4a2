"""`ktrain write`: has a language model write the biographies of bioR that a sweep needs, before it is run.

A command of its own and no part of `run`: it wants another machine (GPUs for inference, or none and an endpoint), it
costs by the token, and what it makes is shared by all cells and sweeps whose people are the same.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ktrain.errors import WrongRequest

if TYPE_CHECKING:
    from rich.console import Console

    from ktrain.ledger import Ledger, Tally
    from ktrain.scribe import Task
    from ktrain.stages import Stage
    from ktrain.store import Store
    from sweeps.plan import Plan
    from sweeps.writing_view import View

HELP = "have a language model write the biographies of bioR that a sweep needs; what is there is kept and continued"
KEY = "KTRAIN_ENDPOINT_KEY"
"""The environment variable that holds the key of an endpoint."""
LISTED = 5
"""People who are named of those whom nobody could write about, and reasons that are told."""


@dataclass(frozen=True)
class Ways:
    """How it is written, none of which can change what an accepted draft says."""

    endpoint: str = ""
    concurrency: int = 16
    batch: int = 64
    attempts: int = 20
    models: int = 0
    prices: tuple[float, float] = (0.0, 0.0)
    """Dollars for a million tokens read and written."""


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser("write", help=HELP, description=HELP)
    parser.add_argument("sweep", help="a module in sweeps/ (demo, fig3) or a path to your own file")
    parser.add_argument("axes", nargs="*", metavar="axis=v1,v2", help="axes to set or to add to the grid")
    parser.add_argument("--scale", default="mini", help="mini (default), small or full")
    parser.add_argument("--endpoint", default="", help="address of an OpenAI-compatible endpoint, mostly ending in /v1")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once (default: 16)")
    parser.add_argument("--batch", type=int, default=64, help="people of a batch, the most that is lost (default: 64)")
    parser.add_argument("--attempts", type=int, default=20, help="drafts of a biography, at most (default: 20)")
    parser.add_argument("--models", type=int, default=0, help="models at once (default: one for each GPU or core)")
    parser.add_argument("--price", default="0,0", help="dollars for a million tokens read,written (default: 0,0)")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Handles the command: 0 where all is written, 1 where somebody has no biography or the endpoint is away."""
    from ktrain.endpoint import EndpointFailure
    from sweeps.cli import EXIT_DONE, EXIT_FAILED, planned
    from sweeps.show import Screen

    for name in ("concurrency", "batch", "attempts"):
        if getattr(arguments, name) < 1:
            raise WrongRequest(f"{name}={getattr(arguments, name)}: must be at least 1")
    told = vars(arguments)
    names = ("endpoint", "concurrency", "batch", "attempts", "models")
    ways = Ways(**{name: told[name] for name in names}, prices=_prices(arguments.price))
    plan = planned(arguments, writable=True)
    console = Screen(soft_wrap=True, highlight=False)
    wanted = missing(plan)
    if not wanted:
        console.print("nothing to write: no cell lacks text of a language model")
        return EXIT_DONE
    if not ways.endpoint and any(task.writer.backend == "http" for _, task in wanted):
        raise WrongRequest("endpoint: corpus.writer.backend=http needs --endpoint ADDRESS")
    try:
        written = [write(stage, task, plan.store, ways, console) for stage, task in wanted]
    except EndpointFailure as e:
        console.print(f"{e}; what is written is kept, and the same command continues", style="yellow", markup=False)
        return EXIT_FAILED
    return EXIT_DONE if all(written) else EXIT_FAILED


def missing(plan: "Plan") -> list[tuple["Stage", "Task"]]:
    """The text stages that cells of a plan need and that are not done, each once, with what is to be written."""
    from ktrain.ledger import tasks

    found = {key: both for cell in plan.cells for key, both in tasks(cell.cell).items()}
    return [found[writing.stage] for writing in plan.writing()]


def write(stage: "Stage", task: "Task", store: "Store", ways: Ways, console: "Console") -> bool:
    """Writes what is left of one stage; returns whether everyone has a biography now, and tells of those who do not.

    Raises `EndpointFailure` where the endpoint is away.
    """
    from ktrain.endpoint import EndpointFailure
    from ktrain.ledger import Ledger, tally
    from sweeps.writing_view import View

    with store.lease(stage.key):
        ledger = Ledger(store.place(stage.key), task)
        before = ledger.drafts()
        left = [(person, attempt) for person, attempt in ledger.todo(before) if attempt < ways.attempts]
        blocks = [left[i : i + ways.batch] for i in range(0, len(left), ways.batch)]
        view = View(stage.key, ledger.task.people, tally(before), ways.prices, console)
        work = _asked if ledger.task.writer.backend == "http" else _run_here
        try:
            with view:
                for told in work(ledger, blocks, ways, view) if blocks else ():
                    view.add(told)
        except EndpointFailure:
            view.summary(tally(ledger.drafts()))
            raise
        finally:
            ledger.note(view.run)
            store.settle()
        drafts = ledger.drafts()
        view.summary(tally(drafts))
        lacking = [person for person, _ in ledger.todo(drafts)]
        if not lacking:
            ledger.seal(store, stage)
    if lacking:
        names = [about.name for about in ledger.task.everyone()]
        listed = ", ".join(f"{names[p]} (person {p})" for p in lacking[:LISTED]) + (", ..." if lacking[LISTED:] else "")
        few = (
            f"{len(lacking)} of {len(names)} people have no accepted biography after {ways.attempts} attempts: {listed}"
        )
        console.print(f"{few}; a higher --attempts goes on from here", style="yellow", markup=False)
    return not lacking


def _asked(ledger: "Ledger", blocks: Sequence[Any], ways: Ways, view: "View") -> Iterator["Tally"]:
    """Blocks by an endpoint, one after the other, each with many requests at once."""
    from ktrain.endpoint import Endpoint
    from ktrain.ledger import tally
    from ktrain.scribe import Scribe

    model = Endpoint(ways.endpoint, ledger.task.writer, key=os.environ.get(KEY, ""), concurrency=ways.concurrency)
    scribe = Scribe(ledger.task, model)
    view.troubles = model.troubles
    for block in blocks:
        drafts = scribe.write(block, ways.attempts)
        ledger.keep(drafts)
        yield tally(drafts)


def _run_here(ledger: "Ledger", blocks: Sequence[Any], ways: Ways, view: "View") -> Iterator["Tally"]:
    """Blocks by models that run here or on a cluster, through Ray Data: a model for each GPU or core."""
    from sweeps.clerk import cluster, work

    with cluster() as resources:
        yield from work(ledger, blocks, ways.attempts, ways.models, resources)


def _prices(text: str) -> tuple[float, float]:
    try:
        read, written = (float(price) for price in text.split(","))
        if read < 0 or written < 0:
            raise ValueError
    except ValueError:
        raise WrongRequest(f"price={text}: must be two numbers, dollars for a million tokens read,written") from None
    return read, written
