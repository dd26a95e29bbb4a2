"""Two processes that make the tables of one database at once, and who waits for them."""

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ktrain.errors import WrongRequest
from sweeps.tracking.schema import await_schema, is_new, schema_lock
from sweeps.tracking.sync import Tracker
from sweeps.tracking.views import links

PATIENCE = 300.0
"""Seconds, for making the tables on a machine that is busy."""


OPENS = """
import sys
import mlflow.store.tracking.sqlalchemy_store
from sweeps.tracking.sync import Tracker

print("ready", flush=True)
input()
print(Tracker.open(sys.argv[1], sys.argv[2]).client.get_experiment_by_name(sys.argv[2]).name)
"""
"""Opens a database once it is told to, with all imported that this needs."""


def test_two_first_runs_on_a_new_store_make_one_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", OPENS, uri]
    processes = [subprocess.Popen([*command, name], text=True, **pipes) for name in ("first", "second")]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
        for process in processes:
            process.stdin.write("now\n")
            process.stdin.flush()
        ends = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [out for out, _ in ends] == ["first\n", "second\n"], ends
    assert links(uri) == {}


def test_one_process_at_a_time_makes_the_tables_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".new.db.lock"

    class Client:
        def __init__(self, uri: str) -> None:
            with lock.open("a") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise RuntimeError("no more of the test")

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    with pytest.raises(WrongRequest, match="no more of the test"):
        Tracker.open(f"sqlite:///{tmp_path / 'new.db'}", "first")
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("reader", [await_schema, links])
def test_a_reader_waits_for_who_makes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[[str], object]
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(
        "sweeps.tracking.schema.locked", lambda folder, name: taken.append(name) or schema_lock("http://")
    )
    monkeypatch.setattr("mlflow.MlflowClient", Client)
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    reader(uri)
    # A command that only reads makes no database.
    assert taken == [] and list(tmp_path.iterdir()) == []
    (tmp_path / "new.db").touch()
    reader(uri)
    assert taken == [".new.db.lock"]


def test_a_store_that_cannot_be_written_to_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "new.db").touch()
    monkeypatch.setattr("sweeps.tracking.schema.locked", refused)
    await_schema(f"sqlite:///{tmp_path / 'new.db'}")
    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]


class Client:
    """MLflow's client, without experiments."""

    def __init__(self, uri: str) -> None:
        pass

    def search_experiments(self) -> list[object]:
        return []


def test_a_database_that_is_still_to_be_made_is_new(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert is_new(f"sqlite:///{tmp_path}/mlflow.db") and is_new(f"sqlite:///{tmp_path}/store/mlflow.db")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "mlflow.db").touch()
    assert not is_new(f"sqlite:///{tmp_path}/mlflow.db") and not is_new("http://127.0.0.1:5000")
    with pytest.raises(WrongRequest, match=r"^MLFLOW_TRACKING_URI=sqlite:////proc/mlflow.db: /proc is not writable: "):
        is_new("sqlite:////proc/mlflow.db")
