"""Writes one run to MLflow: continues the one that exists, or replaces it where it holds what is not so."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sweeps.tracking.run_record import Point, RunRecord, differ

ENDED = ("FINISHED", "FAILED", "KILLED")


def write(client: Any, experiment: str, run: Any, record: RunRecord, now: int) -> str:
    """Makes a run of the record, or completes `run`, which has its key. Returns the id of the run.

    `now` is the start of a new run whose record says none, in milliseconds since the epoch. Raises MLflow's errors.
    """
    claimed = run is not None and record.is_claimed_by(run)
    if claimed and record.is_in(run):
        return str(run.info.run_id)
    delivered = _curves(client, run, record)
    wrong = claimed or (run is not None and record.contradicts(run)) or not _stays(delivered, record)
    if run is None or wrong:
        if run is not None:
            client.delete_run(run.info.run_id)
        run, delivered = create(client, experiment, record, now), []
    else:
        _add_tags(client, run, record)
    points = tuple(point for point in record.points if point[:3] not in set(delivered))
    # The last write completes a run: its tags, or the status of one that has none.
    if record.tags and record.status != run.info.status:
        _set_status(client, run, record)
    log(client, run, replace(record, points=points), params="ktrain.state" not in run.data.tags)
    if not record.tags:
        _set_status(client, run, record)
    return str(run.info.run_id)


def create(client: Any, experiment: str, record: RunRecord, now: int) -> Any:
    """Makes a run with the first tags of a record, which MLflow takes for running."""
    return client.create_run(experiment, record.start or now, dict(record.initial_tags), record.name)


def log(client: Any, run: Any, record: RunRecord, *, params: bool = True) -> None:
    """Sends the points, params and tags of a record to its run."""
    from mlflow.entities import Param, RunTag

    for points, named, tags in record.batches():
        client.log_batch(
            run.info.run_id,
            metrics=metrics(run, points),
            params=[Param(*param) for param in named if params],
            tags=[RunTag(*tag) for tag in tags],
        )


def metrics(run: Any, points: Iterable[Point]) -> list[Any]:
    """Points as MLflow has them, each at its time in the run."""
    from mlflow.entities import Metric

    start = run.info.start_time
    return [Metric(p.name, p.value, start + round(1000 * p.seconds), p.step) for p in points]


def has_curves(client: Any, run: Any, record: RunRecord) -> bool:
    """Whether a finished run holds the record's curves, each point once. Raises MLflow's errors."""
    delivered = _curves(client, run, record)
    recorded = {(name, step): value for name, value, step in delivered}
    stored = {(point.name, point.step): point.value for point in record.points if point.step}
    return len(delivered) == len(stored) and recorded.keys() == stored.keys() and not differ(recorded, stored)


def _curves(client: Any, run: Any, record: RunRecord) -> list[tuple[str, float, int]]:
    """What a run holds of the record's curves: all, or what was streamed or is from a delivery that broke off."""
    names = {point.name for point in record.points if point.step} if run is not None else set()
    return [
        (name, point.value, point.step)
        for name in sorted(names & run.data.metrics.keys() if names else ())
        for point in client.get_metric_history(run.info.run_id, name)
    ]


def _stays(delivered: list[tuple[str, float, int]], record: RunRecord) -> bool:
    """Whether these points are the record's, each once: a stage that went back to a checkpoint may have others."""
    return len(set(delivered)) == len(delivered) and set(delivered) <= {point[:3] for point in record.points}


def _add_tags(client: Any, run: Any, record: RunRecord) -> None:
    """Adds those of the first tags that a run lacks; one that has been edited stays."""
    from mlflow.entities import RunTag

    lacking = record.initial_tags.items() if "ktrain.state" not in run.data.tags else ()
    if tags := [RunTag(name, text) for name, text in lacking if name not in run.data.tags]:
        client.log_batch(run.info.run_id, tags=tags)


def _set_status(client: Any, run: Any, record: RunRecord) -> None:
    if record.status in ENDED:
        end = None if record.end is None else max(record.end, run.info.start_time)
        client.set_terminated(run.info.run_id, record.status, end)
    else:
        client.update_run(run.info.run_id, record.status)
