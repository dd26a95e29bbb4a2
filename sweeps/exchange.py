"""`ktrain export` and `ktrain import`: the results of a sweep as a file, for others and for other machines."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from ktrain.errors import WrongRequest
from ktrain.system.home_folder import expanded
from sweeps.console import shown_path
from sweeps.options import EXIT_DONE, AxisWords, ScaleName, StoreAddress, SweepName, planned

if TYPE_CHECKING:
    from sweeps.tracking.run_file import FileRun
    from sweeps.tracking.sync import Tracker

RunsFile = Annotated[
    str, Argument(metavar="FILE", help="A file of runs; compressed where its name ends in .gz.", show_default=False)
]


def export_runs(
    sweep: SweepName,
    file: RunsFile,
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
) -> int:
    """Write the finished cells of a sweep, with their settings, metrics and curves, to a file for others."""
    from analysis.measurements.recorded import find_runs
    from analysis.measurements.tracking_client import tracking_client
    from sweeps.results import read
    from sweeps.tracking import address, run_file, server_errors
    from sweeps.tracking.sync import KINDS_TAG

    plan = planned(sweep, axes, scale, store)
    uri, path = address.default_uri(plan.store), expanded(file)
    measured = read(plan, uri)
    if measured.doubts:
        raise WrongRequest(f"sweep={sweep}: nothing is exported: {measured.doubts[0]}")
    finished = {cell.key for cell in measured.cells if cell.done}
    if not finished:
        raise WrongRequest(f"sweep={sweep}: no finished cell to export; `ktrain status` shows each")
    name = plan.sweep.name
    try:
        client = tracking_client(uri)
        # The oldest run of a key comes last, and stays.
        stages = {run.data.tags["ktrain.key"]: run for run in find_runs(uri, name, "stage") if _finished(run)}
        cells = {run.data.tags["ktrain.key"]: run for run in find_runs(uri, name, "cell") if _done(run)}
        cells = {key: run for key, run in cells.items() if key in finished}
        stage_keys = {run.info.run_id: key for key, run in stages.items()}
        made = [run_file.exported(run, _points(client, run), stage_keys) for run in cells.values()]
        needed = sorted({key for run in made for key in run.stages.values()})
        made = [run_file.exported(stages[key], _points(client, stages[key]), {}) for key in needed] + made
        experiment = client.get_experiment_by_name(name)
    except Exception as e:
        raise server_errors.refusal(uri, e) from e
    if late := sorted(finished - cells.keys()):
        raise WrongRequest(f"sweep={sweep}: MLflow lacks {late[0]}, which is done; `ktrain report` delivers it")
    tags = {KINDS_TAG: experiment.tags.get(KINDS_TAG, "[]")}
    header = run_file.FileHeader(format=run_file.FORMAT, sweep=name, tags=tags)
    run_file.write(path, header, sorted(made, key=lambda run: (run.kind != "stage", run.key)))
    print(f"{shown_path(path)}: {len(cells)} of {len(plan.cells)} cells, {len(needed)} stages")
    return EXIT_DONE


def import_runs(file: RunsFile, store: StoreAddress = "results") -> int:
    """Add the cells of an exported file to MLflow, where `results` and `report` show them; what is there stays."""
    from analysis.measurements.other_kinds import other_kinds
    from ktrain.store.open import store_at
    from sweeps.tracking import address, run_file, server_errors
    from sweeps.tracking.sync import KINDS_TAG, Tracker

    path = expanded(file)
    header, runs = run_file.read(path)
    try:
        other_kinds(header.tags)
    except ValueError as e:
        raise WrongRequest(f"file={path}: line 1 is none of `ktrain export`: {e}") from e
    opened = store_at(store)
    opened.require_writable(store)
    uri = address.default_uri(opened)
    database = address.database_file(uri)
    if database is not None:
        database.absolute().parent.mkdir(parents=True, exist_ok=True)
    tracker = Tracker.open(uri, header.sweep)
    try:
        kinds = tracker.client.get_experiment(tracker.experiment).tags.get(KINDS_TAG, "[]")
        tracker.client.set_experiment_tag(tracker.experiment, KINDS_TAG, _joined_kinds(kinds, header.tags[KINDS_TAG]))
        added = _add(tracker, path.name, runs)
    except Exception as e:
        raise server_errors.refusal(uri, e) from e
    cells = sum(run.kind == "cell" for run in runs)
    print(f"{header.sweep}: {added} of {cells} cells added to {uri}, {cells - added or 'none'} were there")
    return EXIT_DONE


def _joined_kinds(there: str, file: str) -> str:
    """The readout kinds of an experiment, and those of a file that it lacks."""
    kinds = json.loads(there)
    names = {kind["name"] for kind in kinds}
    return json.dumps(kinds + [kind for kind in json.loads(file) if kind["name"] not in names])


def _add(tracker: "Tracker", file: str, runs: "list[FileRun]") -> int:
    """Writes the runs that the experiment lacks, stages first; returns how many cells are new."""
    from sweeps.tracking import run_writer

    known: dict[str, Any] = tracker.runs()
    ids: dict[str, str] = {key: run.info.run_id for key, run in known.items()}
    added = 0
    for run in sorted(runs, key=lambda run: run.kind != "stage"):
        there = known.get(run.key)
        if there is not None and (_done(there) if run.kind == "cell" else _finished(there)):
            continue
        links: Mapping[str, str] = {kind: ids[key] for kind, key in run.stages.items()}
        record = run.record(file, links)
        ids[run.key] = run_writer.write(tracker.client, tracker.experiment, there, record, run.start)
        added += run.kind == "cell"
    return added


def _points(client: Any, run: Any) -> dict[str, Sequence[Any]]:
    """The points of every metric of a run."""
    return {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}


def _finished(stage_run: Any) -> bool:
    return bool(stage_run.info.status == "FINISHED")


def _done(cell_run: Any) -> bool:
    return bool(cell_run.data.tags.get("ktrain.state") == "done")
