"""The command line: the only place that knows ktrain, sweeps and analysis together."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ktrain.errors import WrongRequest
from ktrain.patience import StorageAway
from sweeps import benches, cluster, dashboard, doctor, jobs, spot, writing

HELP = {
    "plan": "cells, distinct stages, cost, departures from the paper; touches nothing",
    "run": "run what is missing, then report",
    "status": "the state of each cell",
    "why": "what separates the key of a stage or cell from the nearest one: settings, data, code versions",
    "show": "what a model is fed: people, entries, questions, the classes of probes or a window",
    "results": "cells x metrics, read from MLflow",
    "report": "verdicts, tables, figures with their numbers, and one self-contained page",
    "ui": "open MLflow on the tracking store",
    "bench": "speed of training, fleets, corpus, evaluation, a trial or a whole schedule against references, as ratios",
}
EXIT_DONE, EXIT_FAILED, EXIT_WRONG, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2, no usage text: the line names what is wrong."""
        raise WrongRequest(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 some stage failed, 2 the request is wrong."""
    from sweeps import service
    from sweeps.run import Interrupted, prepare

    prepare()
    logging.basicConfig(format="ktrain: %(message)s", level=logging.WARNING)
    # The retries of a server that is away are ours to tell, in one line at the end.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        service.log_in()
        arguments = _parsed(argv)
        handler = getattr(arguments, "handler", None) or globals()[f"_{arguments.command}"]
        code = int(handler(arguments))
        sys.stdout.flush()
        return code
    except WrongRequest as e:
        print(f"ktrain: {' '.join(str(e).split())}", file=sys.stderr)
        return EXIT_WRONG
    except StorageAway as e:
        print(f"ktrain: {' '.join(str(e).split())}; what is done is kept", file=sys.stderr)
        return EXIT_FAILED
    except (Interrupted, KeyboardInterrupt):
        print("ktrain: stopped; what is done is kept, and the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments, with axes allowed after options too."""
    arguments, rest = _parser().parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-") or not hasattr(arguments, "axes")]:
        raise WrongRequest(f"{unknown[0]}: {arguments.command} has no such option")
    if rest:
        arguments.axes = [*arguments.axes, *rest]
    return arguments


def _parser() -> Parser:
    from sweeps import server

    parser = Parser(prog="ktrain", description="When can a language model give back what it has read?")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, *, sweep: bool = True) -> Parser:
        added: Parser = commands.add_parser(name, help=HELP[name], description=HELP[name])
        if sweep:
            added.add_argument("sweep", help="a module in sweeps/ (demo, fig3) or a path to your own file")
            added.add_argument("axes", nargs="*", metavar="axis=v1,v2", help="axes to set or to add to the grid")
            added.add_argument("--scale", default="mini", help="mini (default), small or full")
            _store(added)
        return added

    plan = command("plan")
    plan.add_argument("--json", action="store_true", help="machine-readable")
    plan.add_argument("--cells", action="store_true", help="every cell and stage, however many there are")
    plan.add_argument("--gpu", default="", help="the GPU to take times for, such as h100 or a100")
    plan.add_argument("--tokens-per-second", type=float, help="its speed in pretraining at 124M, where you measured it")
    plan.add_argument("--gpus", type=int, default=1, help="how many work at once; at mini, cores (default: 1)")
    run = command("run")
    run.add_argument("--workers", type=int, default=1, help="least data-parallel workers of a trial (default: 1)")
    run.add_argument("--threads", type=int, default=1, help="CPU threads of a worker (default: 1)")
    run.add_argument(
        "--checkpoint-seconds", type=float, default=900.0, help="longest time between two resume points (default: 900)"
    )
    run.add_argument("--no-compile", action="store_true", help="train without torch.compile")
    run.add_argument("--gpus-max", type=int, help="GPUs that the cluster can grow to, where it does not tell itself")
    run.add_argument("--gpu-memory", type=float, help="GiB of the smallest GPU, where they cannot be asked")
    writing.add(commands)
    _store(commands.choices["write"])
    dashboard.options(command("status"))
    why = command("why", sweep=False)
    why.add_argument("key", help="of a stage in the store, or with --sweep of a stage or cell; or how it begins")
    why.add_argument("axes", nargs="*", metavar="axis=v1,v2", help="axes of the sweep")
    why.add_argument("--sweep", help="a sweep whose stages and cells are known besides those in the store")
    why.add_argument("--scale", default="mini", help="of the sweep: mini (default), small or full")
    _store(why)
    why.add_argument("--json", action="store_true", help="machine-readable")
    show = command("show", sweep=False)
    show.add_argument("what", choices=("people", "entries", "questions", "classes", "window"))
    show.add_argument("axes", nargs="*", metavar="axis=value", help="the setting, such as corpus.multi=5")
    show.add_argument("--scale", default="mini", help="mini (default), small or full")
    _store(show)
    show.add_argument("--kind", help="bioS or bioR, short for corpus.kind=...")
    show.add_argument("-n", type=int, default=3, help="how many (default: 3)")
    show.add_argument("--step", type=int, default=0, help="window: the training step (default: 0)")
    results = command("results")
    results.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    results.add_argument("--output", help="write to a file instead of the terminal")
    command("report")
    ui = command("ui", sweep=False)
    _store(ui)
    ui.add_argument("--port", type=int, default=5000, help="where to serve it (default: 5000)")
    bench = command("bench", sweep=False)
    benches.add(bench)
    jobs.add(commands)
    cluster.add(commands)
    doctor.add(commands)
    server.add(commands)
    spot.add(commands)
    return parser


def _store(command: Parser) -> None:
    named = os.environ.get("KTRAIN_STORE") or "results"
    told = f"folder or s3://, gs://, az:// address of results (default: KTRAIN_STORE, or results; now {named})"
    command.add_argument("--store", default=named, help=told.replace("%", "%%"))


def planned(arguments: argparse.Namespace, *, writable: bool = False) -> Any:
    """The plan of the sweep that the arguments name. Raises `WrongRequest`."""
    from ktrain.store import Store
    from sweeps import plan, sweep

    found = sweep.load(arguments.sweep)
    store = Store.at(arguments.store)
    workers = getattr(arguments, "workers", 1)
    made = plan.make(found, arguments.scale, sweep.overridden(arguments.axes), store, workers)
    if writable:
        Store.open(arguments.store)
    return made


def _plan(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from sweeps import cost, show

    if arguments.gpus < 1:
        raise WrongRequest(f"gpus={arguments.gpus}: must be at least 1")
    chosen = cost.chosen(arguments.gpu, arguments.tokens_per_second)
    plan = replace(planned(arguments), chosen=chosen, gpus=arguments.gpus)
    if not arguments.json:
        show.plan(plan, everything=arguments.cells)
        return EXIT_DONE
    from analysis import paper

    rows = paper.rows_of({cell.key: cell.axes for cell in plan.cells}, plan.sweep.figures)
    print(json.dumps(plan.as_json() | ({"paper": rows} if rows else {}), indent=1))
    return EXIT_DONE


def _status(arguments: argparse.Namespace) -> int:
    from sweeps import show

    if arguments.address or arguments.cluster:
        jobs.show(arguments.sweep, arguments.scale, arguments.address, arguments.cluster)
        store = jobs.store_here(arguments.store, arguments.cluster)
        if not store:
            print("its cells: say where the cluster keeps results, with --store or --cluster")
            return EXIT_DONE
        arguments.store = store
    show.status(planned(arguments))
    return EXIT_DONE


def _why(arguments: argparse.Namespace) -> int:
    from ktrain.store import Store
    from sweeps import why

    if arguments.axes and not arguments.sweep:
        raise WrongRequest(f"{arguments.axes[0]}: axes are those of a sweep, which --sweep names")
    plan = planned(arguments) if arguments.sweep else None
    found = why.answer(arguments.key, Store.at(arguments.store), plan)
    print(json.dumps(found.as_json(), indent=1)) if arguments.json else why.show(found)
    return EXIT_DONE


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ktrain.config import Runtime
    from sweeps import plan as planning
    from sweeps import run, sweep, tracking
    from sweeps.delivery import Delivery

    run.check(arguments.workers, arguments.threads, arguments.checkpoint_seconds)
    plan = planned(arguments, writable=True)
    tracker = tracking.Tracker.open(tracking.default_uri(plan.store), plan.sweep.name)
    console = Console(stderr=True)
    runtime = Runtime(
        store=plan.store.address,
        workers=arguments.workers,
        threads=arguments.threads,
        compile=not arguments.no_compile,
        checkpoint_seconds=arguments.checkpoint_seconds,
    )

    def tell(line: str) -> None:
        console.print(line, style="yellow", markup=False)

    try:
        with Delivery(tracker, plan, tell) as delivery:
            failures = run.run(
                plan, runtime, console, [delivery], gpus_most=arguments.gpus_max, gpu_gib=arguments.gpu_memory
            )
    finally:
        plan = planning.make(plan.sweep, plan.scale, sweep.overridden(arguments.axes), plan.store, arguments.workers)
        warning = tracking.deliver(tracker, plan)
    for line in failures:
        console.print(line, style="red", markup=False)
    if warning:
        tell(warning)
        return EXIT_FAILED if failures else EXIT_DONE
    from sweeps import publication

    publication.publish(plan)
    return EXIT_FAILED if failures else EXIT_DONE


def _report(arguments: argparse.Namespace) -> int:
    from sweeps import publication

    publication.publish(planned(arguments))
    return EXIT_DONE


def _results(arguments: argparse.Namespace) -> int:
    from analysis import paper, table
    from sweeps import publication, tracking

    plan = planned(arguments)
    found = publication.read(plan, tracking.default_uri(plan.store))
    numbers = paper.beside(plan.sweep.figure)
    text = table.render(found, arguments.format, numbers, best_of=plan.sweep.best_of)
    data = text if isinstance(text, bytes) else text.encode()
    if arguments.output:
        try:
            Path(arguments.output).write_bytes(data)
        except OSError as e:
            raise WrongRequest(f"output={arguments.output}: not writable: {e.strerror}") from e
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    return EXIT_DONE


def _show(arguments: argparse.Namespace) -> int:
    from ktrain.store import Store
    from sweeps import Sweep, show
    from sweeps.plan import check
    from sweeps.sweep import expand, overridden

    axes = [*arguments.axes, *([f"corpus.kind={arguments.kind}"] if arguments.kind else [])]
    cells = expand(Sweep("show", {}), arguments.scale, overridden(axes))
    if len(cells) > 1:
        raise WrongRequest(f"{' '.join(axes)}: show takes one setting, these are {len(cells)}")
    if arguments.n < 1 or not 0 <= arguments.step < cells[0].train.steps:
        raise WrongRequest(f"-n {arguments.n} --step {arguments.step}: n from 1, step below {cells[0].train.steps}")
    check(cells[0])
    show.fed(arguments.what, cells[0], arguments.n, arguments.step, Store.at(arguments.store))
    return EXIT_DONE


def _ui(arguments: argparse.Namespace) -> int:
    from ktrain.store import Store
    from sweeps import tracking

    uri = tracking.default_uri(Store.at(arguments.store))
    if uri.startswith("http"):
        print(f"MLflow is served at {uri}", flush=True)
        _list_views(uri)
        return EXIT_DONE
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.is_file():
        raise WrongRequest(f"store={arguments.store}: no results there yet; `ktrain run demo` makes some")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(arguments.port)]
    print(f"MLflow at http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    _list_views(uri, arguments.port)
    os.execvpe(command[0], command, {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


def _list_views(uri: str, port: int = 5000) -> None:
    """Prints the links of all comparison views; a server that does not answer is told, and no failure."""
    from sweeps import tracking, views

    try:
        found = views.links(uri)
    except Exception as e:
        print(f"ktrain: no links to comparison views: {tracking.refusal(uri, e)}", file=sys.stderr)
        return
    for experiment, links in found.items():
        print("\n".join((experiment, *(link.line(uri, port) for link in links))), flush=True)


if __name__ == "__main__":
    sys.exit(main())
