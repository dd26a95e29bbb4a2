"""Delivery while a sweep runs, and over everything that can break on the way."""

import multiprocessing
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from head import Head
from level import gap
from mlflow import MlflowClient
from ray import tune

from ktrain.restart_policy import Interruption, Kind
from ktrain.store.base import Store
from ktrain.training.progress import Progress, StackProgress, StageLine, as_result
from sweeps import Sweep
from sweeps.execution.restart_log import interruption_result
from sweeps.planning.plan import Plan
from sweeps.tracking import background_sync, sync, views
from sweeps.tracking.background_sync import BackgroundSync
from sweeps.tracking.sync import Tracker, sync_with_retry

Planner = Callable[..., Plan]
Publish = Callable[..., None]
PATIENCE = 300.0


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := true()):
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)
    return value


def end(hear: Callable[..., None], plan: Plan, *numbers: int) -> None:
    """Ray Tune tells that the trials of some cells have ended, each of which has one of its own."""
    for number in numbers:
        hear(1, [], SimpleNamespace(config={"trial": {"name": plan.cells[number].stages.pretrain.key}}))


@pytest.fixture
def sweep(tiny: Callable[..., Sweep], request: pytest.FixtureRequest) -> Sweep:
    """Four settings of two seeds, in an experiment of the test's own."""
    grid = {"corpus.multi": tune.grid_search([1, 2, 3, 4]), "seed": tune.grid_search([0, 1])}
    return tiny(grid, name=request.node.name)


@pytest.fixture
def finish(planned: Planner, publish: Publish, sweep: Sweep) -> Callable[..., Plan]:
    """Finishes cells by their numbers; the plan afterwards."""

    def done(*numbers: int) -> Plan:
        plan = planned(sweep)
        for number in numbers:
            for stage in plan.cells[number].stages:
                publish(stage)
        return planned(sweep)

    return done


# As trials end.


@pytest.fixture
def local(database: str, sweep: Sweep) -> Tracker:
    return Tracker.open(database, sweep.name)


def states(tracker: Tracker) -> dict[str, str]:
    cell_runs = MlflowClient(tracker.uri).search_runs([tracker.experiment], "tags.`ktrain.kind` = 'cell'")
    return {run.data.tags["ktrain.key"]: run.data.tags.get("ktrain.state", "") for run in cell_runs}


def test_a_trial_that_ends_is_in_mlflow_while_others_run(local: Tracker, finish: Callable[..., Plan]) -> None:
    plan = finish()
    with BackgroundSync(local, plan, pytest.fail) as running:
        finish(0, 1)
        end(running.on_trial_complete, plan, 0, 1)
        until(lambda: list(states(local).values()) == ["done", "done"], "two cells")
        finish(2)
        end(running.on_trial_error, plan, 2, 3)
        until(lambda: sorted(states(local).values()) == ["done"] * 3 + ["planned"], "the third")
    assert states(local).keys() == {cell.key for cell in plan.cells[:4]}


def report(hear: Callable[..., None], plan: Plan, number: int, step: int) -> None:
    """A worker reports progress of the pretraining of a cell."""
    key = plan.cells[number].stages.pretrain.key
    trial = SimpleNamespace(config={"trial": {"name": key}})
    hear(1, [], trial, as_result(key, Progress(step, 60, 8.0 / step, 1e-3, 9 * step, step / 10)))


def test_a_stage_that_trains_is_in_mlflow_below_its_cell(
    local: Tracker, finish: Callable[..., Plan], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_sync, "LIVE_SECONDS", 0.05)
    plan = finish()
    cell = plan.cells[0]
    with BackgroundSync(local, plan, pytest.fail) as running, store.lease(cell.stages.pretrain.key):
        report(running.on_trial_result, plan, 0, 1)
        until(lambda: states(local) == {cell.key: "running"}, "the cell")
        running.on_trial_result(1, [], None, interruption_result(Interruption(Kind.PREEMPTED, "its node goes")))
        report(running.on_trial_result, plan, 0, 40)

        def losses() -> list[float]:
            run = local.runs()[cell.stages.pretrain.key]
            return [point.value for point in local.client.get_metric_history(run.info.run_id, "train/loss")]

        until(lambda: losses() == [8.0, 0.2], "the curve")
        known = local.runs()
        run, parent = known[cell.stages.pretrain.key], known[cell.key].info
        assert (run.info.status, parent.status, run.data.tags[sync.PARENT]) == ("RUNNING", "RUNNING", parent.run_id)


def test_adapters_that_are_done_are_delivered_when_the_next_batch_begins(
    local: Tracker, planned: Planner, publish: Publish, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_sync, "LIVE_SECONDS", 0.05)
    ranks = {"corpus__multi": [1], "readout__method": ["lora"], "readout__rank_qv": [2, 4]}
    plan = planned(**ranks)
    first, second = (cell.stages.readout for cell in plan.cells)
    trial = SimpleNamespace(config={"trial": {"name": plan.cells[0].stages.pretrain.key}})

    def trains(key: str) -> dict[str, Any]:
        # Both are reported under the key of the first.
        lines = {key: StageLine(1, 1e-3, 0.1, 3.0)}
        return as_result(first.key, StackProgress(1, 8, 3.0, 1e-3, 9, 0.1, lines=lines))

    with BackgroundSync(local, plan, pytest.fail) as running, store.lease(second.key):
        running.on_trial_result(1, [], trial, trains(first.key))
        until(lambda: first.key in local.runs(), "the first adapter")
        for stage in plan.cells[0].stages:
            publish(stage)
        running.on_trial_result(1, [], trial, trains(second.key))
        until(lambda: local.runs()[first.key].info.status == "FINISHED", "its end")
        until(lambda: second.key in local.runs(), "the second adapter")
        assert local.runs()[second.key].info.status == "RUNNING"
        assert states(local) == {plan.cells[0].key: "done", plan.cells[1].key: "running"}


def test_what_an_earlier_driver_left_is_delivered_at_once(local: Tracker, finish: Callable[..., Plan]) -> None:
    with BackgroundSync(local, finish(0, 5), pytest.fail):
        until(lambda: list(states(local).values()) == ["done", "done"], "both")


def test_a_failure_is_told_once_and_made_up_for(
    local: Tracker, finish: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    whole = MlflowClient.create_run

    def failing(client: MlflowClient, *values: Any, **named: Any) -> Any:
        tries.append(1)
        if len(tries) < 4:
            raise ConnectionError("gone\nfor good")
        return whole(client, *values, **named)

    monkeypatch.setattr(MlflowClient, "create_run", failing)
    warnings: list[str] = []
    plan = finish()
    with BackgroundSync(local, plan, warnings.append) as running:
        for number in (0, 1, 2):
            finish(number)
            end(running.on_trial_complete, plan, number)
            until(lambda number=number: len(tries) > number, "a try")
        finish(3)
        end(running.on_trial_complete, plan, 3)
        until(lambda: list(states(local).values()) == ["done"] * 4, "all four")
    assert len(warnings) == 1 and "(gone)" in warnings[0] and len(warnings[0].splitlines()) == 1


def test_what_failed_is_tried_again_without_any_news(
    local: Tracker, finish: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_sync, "RETRY_SECONDS", 0.05)
    whole, tries = Tracker.sync, []

    def failing(tracker: Tracker, plan: Plan, *, with_curves: bool) -> None:
        assert not with_curves, "runs are not asked for curves while trials run"
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("gone")
        whole(tracker, plan, with_curves=with_curves)

    monkeypatch.setattr(Tracker, "sync", failing)
    with BackgroundSync(local, finish(0), lambda line: None):
        until(lambda: list(states(local).values()) == ["done"], "the cell")


def test_a_server_that_hangs_keeps_no_trial_waiting(
    finish: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    plan, warnings = finish(0), []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hung = Tracker(uri, MlflowClient(uri), "1")
        with BackgroundSync(hung, plan, warnings.append) as running:
            connection, _ = silent.accept()
            begin = time.monotonic()
            for number in range(8):
                report(running.on_trial_result, plan, number, 1)
                end(running.on_trial_complete, plan, number)
            assert time.monotonic() - begin < 1 and not warnings
            connection.close()
        assert len(warnings) == 1 and "does not answer now" in warnings[0]


# Over a real server on PostgreSQL.


@pytest.fixture
def remote(head: Head, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    for name, value in head.login.items():
        monkeypatch.setenv(name, value)
    return Tracker.open(head.uri, sweep.name)


@pytest.fixture
def missing(head: Head) -> Callable[[Plan], list[str]]:
    def compare(plan: Plan) -> list[str]:
        with head.postgres.connect(head.database) as connection:
            return gap(connection, plan)

    return compare


def test_everything_is_in_postgresql_once(
    remote: Tracker, finish: Callable[..., Plan], missing: Callable[[Plan], list[str]]
) -> None:
    plan = finish(*range(7))
    assert len(missing(plan)) > 1000
    for _ in range(2):
        assert sync_with_retry(remote, plan) is None and missing(plan) == []
    links = views.prepare(remote.uri, plan, {"": {cell.key: "row" for cell in plan.cells}})
    assert [link.name for link in links] == [
        "QA finetune (mini)",
        "QA finetune, settings side by side (mini)",
    ]
    (state,) = (run for key, run in remote.runs().items() if key == plan.cells[7].key)
    assert state.data.tags["ktrain.state"] == "planned"
    assert views.links(remote.uri)[plan.sweep.name][0].line(remote.uri).split()[-1].startswith(f"{remote.uri}/#/")


def apart(work: Callable[[], None]) -> Any:
    """A process of its own that does the work, started."""
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    return process


def test_drivers_that_are_killed_in_a_delivery_leave_nothing_doubled(
    head: Head, remote: Tracker, finish: Callable[..., Plan], missing: Callable[[Plan], list[str]]
) -> None:
    plan = finish(*range(8))
    count = f"SELECT count(*) FROM runs WHERE experiment_id = {remote.experiment}".encode()
    with head.postgres.connect(head.database) as connection:
        for runs in (1, 8, 15, 22, 26, 31):
            process = apart(lambda: Tracker.open(head.uri, plan.sweep.name).sync(plan))
            until(lambda runs=runs: (connection.execute(count).fetchone() or (0,))[0] >= runs, f"{runs} runs")
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL and missing(plan)
    assert sync_with_retry(remote, plan) is None and missing(plan) == []


def test_two_drivers_of_one_sweep_write_it_once(
    head: Head, remote: Tracker, finish: Callable[..., Plan], missing: Callable[[Plan], list[str]]
) -> None:
    plan = finish(*range(8))

    def work() -> None:
        assert sync_with_retry(Tracker.open(head.uri, plan.sweep.name), plan) is None

    both = [apart(work) for _ in range(2)]
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0] and missing(plan) == []
    assert len(MlflowClient(head.uri).search_runs([remote.experiment], run_view_type=3)) == 32


def test_a_database_that_restarts_in_a_delivery_loses_and_doubles_nothing(
    head: Head, remote: Tracker, finish: Callable[..., Plan], missing: Callable[[Plan], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sync, "PAUSES", (1.0,) * 100)
    plan, said = finish(*range(8)), []
    delivering = threading.Thread(target=lambda: said.append(sync_with_retry(remote, plan)))
    delivering.start()
    count = f"SELECT count(*) FROM runs WHERE experiment_id = {remote.experiment}".encode()
    for how, runs in ((signal.SIGINT, 4), (signal.SIGQUIT, 12)):
        with head.postgres.connect(head.database) as connection:
            until(lambda runs=runs, c=connection: (c.execute(count).fetchone() or (0,))[0] >= runs, f"{runs} runs")
        head.postgres.stop(how)
        head.postgres.start()
    delivering.join(PATIENCE)
    assert said == [None] and missing(plan) == []


def test_a_server_that_goes_away_in_a_sweep_costs_nothing(
    head: Head, remote: Tracker, finish: Callable[..., Plan], missing: Callable[[Plan], list[str]]
) -> None:
    plan, warnings = finish(), []
    with BackgroundSync(remote, plan, warnings.append) as running:
        finish(0, 1)
        end(running.on_trial_complete, plan, 0, 1)
        until(lambda: list(states(remote).values()).count("done") == 2, "two cells")
        head.kill()
        for number in (2, 3, 4):
            finish(number)
            end(running.on_trial_complete, plan, number)
        until(lambda: warnings, "a word of it")
        head.start()
        finish(5)
        end(running.on_trial_complete, plan, 5)
        until(lambda: list(states(remote).values()).count("done") == 6, "what was missed")
    assert len(warnings) == 1 and "does not answer now" in warnings[0]
    plan = finish(6, 7)
    assert sync_with_retry(remote, plan) is None and missing(plan) == []


def test_what_is_in_a_database_file_is_there_once(local: Tracker, finish: Callable[..., Plan], store: Store) -> None:
    plan = finish(*range(6))
    assert sync_with_retry(local, plan) is None and sync_with_retry(local, plan) is None
    with sqlite3.connect(local.uri.removeprefix("sqlite:///")) as connection:
        assert gap(connection, plan) == []
    assert [path.name for path in (store.root / "leases").iterdir()] == [".lock"]


@pytest.fixture(autouse=True)
def no_fork_of_threads() -> Iterator[None]:
    """A test that leaves a thread behind would take it into the processes of the next one."""
    before = set(threading.enumerate())
    yield
    assert not [t for t in threading.enumerate() if t not in before and t.name == "background-sync"]
