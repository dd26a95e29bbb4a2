"""The commands that carry out a sweep and show its results: plan, run, status, results, report and ui."""

import json
import os
import sys
import time
from typing import Annotated, Literal

from typer import Option

from ktrain.errors import WrongRequest, shorten
from ktrain.system.home_folder import expanded
from sweeps.console import own_command, store_words, waiting
from sweeps.options import (
    EXIT_DONE,
    EXIT_FAILED,
    AsJson,
    AxisWords,
    CheckpointSeconds,
    ClusterPath,
    GpuMemory,
    HeadAddress,
    ManyCells,
    MostGpus,
    NoCompile,
    ScaleName,
    StoreAddress,
    SweepName,
    Threads,
    Wide,
    Workers,
    planned,
)

MOST_GPUS = 1_000_000


def plan(
    sweep: SweepName,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    as_json: AsJson = False,
    cells: Annotated[bool, Option("--cells", help="List every cell and stage, however many there are.")] = False,
    gpu: Annotated[str, Option("--gpu", help="The GPU to estimate times for, such as h100 or a100.")] = "",
    tokens_per_second: Annotated[
        float | None, Option("--tokens-per-second", help="Its speed in pretraining at 124M, if you measured it.")
    ] = None,
    gpus: Annotated[
        int | None, Option("--gpus", help="How many GPUs, or cores, work at once (1, or every core of this machine).")
    ] = None,
    price: Annotated[
        float | None, Option("--price-per-gpu-hour", metavar="DOLLARS", help="Dollars that an hour of one GPU costs.")
    ] = None,
    departures: Annotated[bool, Option("--departures", help="List the departures from the paper.")] = False,
    wide: Wide = False,
    many_cells: ManyCells = False,
) -> int:
    """List the cells, distinct stages, cost and departures from the paper of a sweep, and touch nothing."""
    from dataclasses import replace

    from analysis.paper import tables
    from sweeps.planning import cost, summary
    from sweeps.show import plan as show_plan

    if gpus is not None and not 1 <= gpus <= MOST_GPUS:
        raise WrongRequest(f"gpus={gpus}: must be at least 1 and at most {MOST_GPUS:,}")
    if price is not None and not 0 < price < float("inf"):
        raise WrongRequest(f"price-per-gpu-hour={price:g}: must be above 0")
    chosen = cost.choose_device(gpu, tokens_per_second)
    made = planned(sweep, axes, scale, store, many_cells=many_cells)
    priced = replace(made, chosen=chosen)
    priced = replace(priced, gpus=gpus or cost.devices_here(priced.device), price_per_hour=price)
    if not as_json:
        show_plan(priced, everything=cells, list_departures=departures, wide=wide)
        return EXIT_DONE
    rows = tables.rows_of({cell.key: cell.axes for cell in priced.cells}, priced.sweep.figures)
    print(json.dumps(summary.as_json(priced) | ({"paper": rows} if rows else {}), indent=1))
    return EXIT_DONE


def run(
    sweep: SweepName,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    workers: Workers = 1,
    threads: Threads = 1,
    checkpoint_seconds: CheckpointSeconds = 900.0,
    no_compile: NoCompile = False,
    gpus_max: MostGpus = None,
    gpu_memory: GpuMemory = None,
    wide: Wide = False,
    many_cells: ManyCells = False,
) -> int:
    """Run whatever a sweep lacks, then report; exit with 1 if a cell failed or is blocked."""
    from rich.console import Console

    from ktrain.config import RuntimeConfig
    from sweeps.execution import summary_lines
    from sweeps.execution.run import check
    from sweeps.planning import reasons
    from sweeps.planning.grid import parse_overrides
    from sweeps.planning.plan import Plan, make
    from sweeps.run_sweep import SweepRun

    began, console = time.monotonic(), Console(stderr=True)
    with waiting(console, f"reading {shorten(sweep, 60)}, its store and MLflow"):
        check(workers, threads, checkpoint_seconds, gpus_max, gpu_memory)
        made = planned(sweep, axes, scale, store, workers=workers, writable=True, many_cells=many_cells)
        runtime = RuntimeConfig(
            store=made.store.address,
            workers=workers,
            threads=threads,
            compile=not no_compile,
            checkpoint_seconds=checkpoint_seconds,
        )

        def again() -> Plan:
            # Not loaded again: the file may have been edited meanwhile.
            return make(made.sweep, scale, parse_overrides(axes), made.store, workers, most=None)

        sweep_run = SweepRun(made, again, runtime, store=store, gpus_most=gpus_max, gpu_gib=gpu_memory)
    outcome = sweep_run(console)
    for line in outcome.failures:
        console.print(line, style="red", markup=False, soft_wrap=True)
    for line in filter(None, (*reasons.reasons(outcome.plan, ("blocked",)), outcome.undelivered)):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    if not outcome.undelivered:
        from sweeps.report import publish

        publish(outcome.plan, wide=wide)
    print(summary_lines.closing(outcome.plan, time.monotonic() - began if sweep_run.to_do else None))
    return EXIT_FAILED if outcome.failures or any(cell.blocked for cell in outcome.plan.cells) else EXIT_DONE


def status(
    sweep: SweepName,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    address: HeadAddress = None,
    cluster: ClusterPath = None,
    wide: Wide = False,
    many_cells: ManyCells = False,
) -> int:
    """Show each cell of a sweep as planned, running, done, failed, blocked or damaged, and why."""
    from sweeps.cluster import jobs
    from sweeps.show import status as show_status

    if address or cluster:
        jobs.show(sweep, scale, address, cluster)
        store = jobs.store_here(store, cluster)
        if not store:
            print("its cells: say where the cluster keeps results, with --store or --cluster")
            return EXIT_DONE
    show_status(planned(sweep, axes, scale, store, many_cells=many_cells), wide=wide)
    return EXIT_DONE


def results(
    sweep: SweepName,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    format: Annotated[Literal["table", "csv", "json", "parquet"], Option("--format")] = "table",
    output: Annotated[str | None, Option("--output", metavar="FILE", help="Write to a file, not the terminal.")] = None,
    wide: Wide = False,
    many_cells: ManyCells = False,
) -> int:
    """Print cells x metrics of a sweep, read from MLflow and compared with the store."""
    from analysis.paper import tables
    from analysis.report import table
    from sweeps.console import print_doubts, table_screen
    from sweeps.results import read
    from sweeps.tracking import address

    made = planned(sweep, axes, scale, store, many_cells=many_cells)
    measured = read(made, address.default_uri(made.store))
    print_doubts((*measured.doubts, *filter(None, [measured.origin])))
    paper = tables.beside(made.sweep.figure)
    width = table_screen(wide or output is not None).width
    text = table.render(measured, format, paper, best_of=made.sweep.best_of, width=width)
    data = text if isinstance(text, bytes) else text.encode()
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return EXIT_DONE
    try:
        expanded(output).write_bytes(data)
    except OSError as e:
        raise WrongRequest(f"output={output}: not writable: {e.strerror}") from e
    return EXIT_DONE


def report(
    sweep: SweepName,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    wide: Wide = False,
    many_cells: ManyCells = False,
) -> int:
    """Write verdicts, tables, figures with their numbers, and one self-contained page, from the results so far."""
    from sweeps.report import publish

    publish(planned(sweep, axes, scale, store, many_cells=many_cells), wide=wide)
    return EXIT_DONE


def ui(
    store: StoreAddress = "results",
    port: Annotated[
        int | None, Option("--port", help="Port of this machine to serve MLflow at (5000, or the next free one).")
    ] = None,
) -> int:
    """Serve MLflow on the tracking store, and print the links of the comparison views."""
    from ktrain.store.open import store_at
    from sweeps.services import application, mlflow_server
    from sweeps.tracking import address, local_port

    opened = store_at(store)
    uri = address.default_uri(opened)
    if port is not None and not 1 <= port <= local_port.LARGEST:
        raise WrongRequest(f"port={port}: must be from 1 to {local_port.LARGEST}")
    if uri.startswith("http"):
        print(f"MLflow is served at {uri}", flush=True)
        _list_views(uri)
        return EXIT_DONE
    file = address.database_file(uri)
    if file is not None and not file.is_file():
        some = own_command("run", "demo", *store_words(opened.address))
        raise WrongRequest(f"store={store}: no results there yet; `{some}` makes some")
    port = local_port.choose_port(uri, port)
    local_port.note_port(uri, port)
    command = mlflow_server.command("--backend-store-uri", uri, "--workers", "1", "--host", "127.0.0.1")
    command += ["--port", str(port)]
    print(f"MLflow at http://127.0.0.1:{port} in a few seconds (Ctrl-C ends it)", flush=True)
    _list_views(uri, port)
    path = os.pathsep.join(filter(None, (str(mlflow_server.ROOT), os.environ.get("PYTHONPATH"))))
    os.execvpe(command[0], command, {**os.environ, **application.ENVIRONMENT, "PYTHONPATH": path})


def _list_views(uri: str, port: int = 5000) -> None:
    """Prints the links of all comparison views; a server that does not answer costs a line, and is no failure."""
    from sweeps.tracking import server_errors, views

    try:
        by_experiment = views.links(uri)
    except Exception as e:
        print(f"ktrain: no links to comparison views: {server_errors.refusal(uri, e)}", file=sys.stderr)
        return
    for experiment, links in by_experiment.items():
        print("\n".join((experiment, *(link.line(uri, port) for link in links))), flush=True)
