"""Unfinished work outlives the machine: whatever is kept is found on another one, whole or not at all."""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ktrain.store.base import Store, WorkDir
from ktrain.store.checkpoints import Checkpoint, Checkpoints, UploadedCheckpoints
from ktrain.store.object_client import ObjectClient
from ktrain.store.open import store_at
from ktrain.system import retry

KEY = "pretrain-0123abcd"
Machine = Callable[[], Store]


@pytest.fixture
def machine(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The store on another machine."""
    made: list[Store] = []

    def new() -> Store:
        monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path / f"machine-{len(made)}"))
        made.append(store_at(s3))
        return made[-1]

    yield new
    for store in made:
        store.flush_uploads()


@pytest.fixture
def objects(s3: str) -> ObjectClient:
    return ObjectClient(s3)


def point(step: int) -> Checkpoint:
    drawn = torch.Generator().manual_seed(step)
    return Checkpoint(step, {"a": torch.randn(300, generator=drawn)}, {"curve": [{"loss": 0.1 * step}]})


def save(store: Store, *steps: int) -> None:
    place = store.work_dir(KEY)
    points = UploadedCheckpoints(place.folder, place.upload_async)
    for step in steps:
        points.save(point(step))
        store.flush_uploads()


def latest(store: Store) -> int | None:
    found = Checkpoints(store.work_dir(KEY).folder).latest()
    if found is None:
        return None
    wanted = point(found.step)
    assert found.record == wanted.record and torch.equal(found.tensors["a"], wanted.tensors["a"])
    return found.step


def names(objects: ObjectClient) -> list[str]:
    return sorted(entry.name.removeprefix(f"work/{KEY}/") for entry in objects.entries("work"))


def steps(objects: ObjectClient) -> list[int]:
    return [int(name[5:14]) for name in names(objects) if name.endswith("point.json")]


def test_work_is_found_on_another_machine(machine: Machine, objects: ObjectClient) -> None:
    first = machine()
    assert latest(first) is None
    place = first.work_dir(KEY)
    (place.folder / "wave.json").write_text("[4]")
    place.upload_async()
    first.flush_uploads()
    assert names(objects) == ["wave.json"]
    (place.folder / "learning.json").write_text("[1]")
    save(first, 2, 10)
    (place.folder / "learning.json").write_text("[1, 2]")
    save(first, 300, 1000)
    assert steps(objects) == [300, 1000] and len(names(objects)) == 2 + 2 * 2
    other = machine()
    assert latest(other) == 1000
    folder = other.work_dir(KEY).folder
    assert sorted(path.name for path in folder.iterdir()) == ["learning.json", "step-000001000", "wave.json"]
    assert [(folder / name).read_text() for name in ("learning.json", "wave.json")] == ["[1, 2]", "[4]"]
    save(other, 1001)
    assert latest(machine()) == 1001 and steps(objects) == [1000, 1001]
    other.clear_work(KEY)
    assert names(objects) == [] and not folder.exists() and latest(machine()) is None


def test_what_is_kept_already_is_not_sent_again(machine: Machine, proxy: Any) -> None:
    store = machine()
    place = store.work_dir(KEY)
    (place.folder / "wave.json").write_text("[4]")
    save(store, 1)
    proxy.requests.clear()
    for _ in range(3):
        place.upload_async()
        store.flush_uploads()
    assert not [path for method, path in proxy.requests if method == "PUT"]


@pytest.mark.parametrize("name", ["state.safetensors", "point.json"])
@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "gone"])
def test_a_damaged_point_is_passed_over(machine: Machine, objects: ObjectClient, name: str, damage: str) -> None:
    save(machine(), 1, 2)
    (last,) = [entry for entry in objects.entries("work") if "step-000000002" in entry.name and name in entry.name]
    found = objects.get(last.name)
    assert found is not None
    content = bytearray(found[0])
    content[len(content) // 2] ^= 1
    if damage == "gone":
        objects.remove([last.name])
    else:
        objects.put(last.name, {"flipped": bytes(content), "short": found[0][:-1], "empty": b""}[damage])
    assert latest(machine()) == 1


def test_two_who_save_one_step_do_not_mix(machine: Machine, proxy: Any) -> None:
    """One has lost its lease and does not know it; each point is of one of them."""
    one, other = machine(), machine()
    save(one, 5)
    other.work_dir(KEY)
    go, stopped = threading.Event(), threading.Event()

    def slow(method: str, path: str, _: Any) -> None:
        if method == "PUT" and "step-000000006" in path and "point.json" in path and not stopped.is_set():
            stopped.set()
            assert go.wait(60)

    proxy.before = slow
    for store, tensor in ((one, torch.zeros(3)), (other, torch.ones(3))):
        place = store.work_dir(KEY)
        UploadedCheckpoints(place.folder, place.upload_async).save(
            Checkpoint(6, {"a": tensor}, {"who": float(tensor[0])})
        )
        if store is one:
            assert stopped.wait(60)
    other.flush_uploads()
    go.set()
    one.flush_uploads()
    found = Checkpoints(machine().work_dir(KEY).folder).latest()
    assert found is not None and found.step == 6
    assert torch.equal(found.tensors["a"], torch.full((3,), found.record["who"]))


@pytest.mark.parametrize("answered", [False, True])
def test_a_loss_of_the_machine_at_any_request_leaves_a_whole_point(
    machine: Machine, objects: ObjectClient, proxy: Any, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From some request on, nothing comes through any more."""
    monkeypatch.setattr(retry, "PATIENCE", 0.0)
    save(machine(), 1, 2)
    step, seen = 3, set()
    for count in range(40):
        store, left = machine(), [count]
        assert latest(store) == step - 1

        def gone(*_: Any, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        if answered:
            proxy.after = gone
        else:
            proxy.before = lambda *request, gone=gone: 0 if gone(*request) else None
        save(store, step)
        proxy.before = proxy.after = lambda *_: None
        found = latest(machine())
        seen.add(found == step)
        assert found in (step - 1, step)
        step = found + 1
        if left[0] >= 0:
            break
    assert seen == {False, True} and left[0] >= 0
    assert len(steps(objects)) == 2


def test_training_does_not_wait_for_the_storage(machine: Machine, objects: ObjectClient, proxy: Any) -> None:
    """While one point is on its way, later ones are saved; then the newest is sent, and not those between."""
    store, begun, hold = machine(), threading.Event(), threading.Event()
    place = store.work_dir(KEY)
    points = UploadedCheckpoints(place.folder, place.upload_async)

    def slow(method: str, *_: Any) -> None:
        if method == "PUT":
            begun.set()
            assert hold.wait(60)

    proxy.before = slow
    for step in range(1, 6):
        points.save(point(step))
        assert latest(store) == step
        assert begun.wait(60)
    assert steps(objects) == []
    hold.set()
    store.flush_uploads()
    assert steps(objects)[-1] == 5 and len(steps(objects)) <= 2
    assert len([path for method, path in proxy.requests if method == "PUT" and "point.json" in path]) == 2
    assert latest(machine()) == 5


def test_a_point_that_training_removes_before_it_is_sent_gives_way_to_a_newer_one(
    machine: Machine, objects: ObjectClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, link, later = machine(), os.link, iter([2, 3, 4])
    place = store.work_dir(KEY)
    points = Checkpoints(place.folder)

    def removed(path: Path, target: Path) -> None:
        """Between the look for the newest point and the first file of it, training saves three."""
        for step in later:
            points.save(point(step))
        link(path, target)

    monkeypatch.setattr(os, "link", removed)
    save(store, 1)
    assert steps(objects) == [4] and latest(machine()) == 4
    assert not caplog.records


def test_a_point_that_was_cut_short_is_waited_for_by_nobody(machine: Machine, objects: ObjectClient) -> None:
    store = machine()
    save(store, 1)
    (store.work_dir(KEY).folder / "step-000000002").mkdir()
    save(store)
    store.work_dir(KEY).upload_async()
    store.flush_uploads()
    assert steps(objects) == [1]


def test_a_storage_that_refuses_costs_points_and_is_told_once(
    machine: Machine, proxy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.0)
    store, go = machine(), threading.Event()
    save(store, 1)

    def refuse(method: str, *_: Any) -> int | None:
        assert go.wait(60)
        return 503 if method == "PUT" else None

    proxy.before = refuse
    proxy.requests.clear()
    place = store.work_dir(KEY)
    points = UploadedCheckpoints(place.folder, place.upload_async)
    with caplog.at_level(logging.WARNING):
        for step in range(2, 12):
            points.save(point(step))
        go.set()
        store.flush_uploads()
        save(store, 12)
    told = [r.getMessage() for r in caplog.records if "not safe" in r.getMessage()]
    assert len(told) == 1 and told[0].startswith(f"work/{KEY} is not safe from a loss of this machine: ")
    sent = {path for method, path in proxy.requests if method == "PUT"}
    assert len(sent) == 3, "what fell behind is not made up for"
    assert latest(machine()) == 1
    proxy.before = lambda *_: None
    save(store, 13)
    assert latest(machine()) == 13


def test_who_works_together_fetches_once_and_the_next_time_again(
    s3: str, machine: Machine, proxy: Any, objects: ObjectClient
) -> None:
    save(machine(), 1)
    one = machine().with_shared_scratch("word")
    other = store_at(s3).with_shared_scratch("word")
    proxy.requests.clear()
    assert latest(one) == 1 and latest(other) == 1
    assert one.work_dir(KEY).folder == other.work_dir(KEY).folder
    fetched = [path for method, path in proxy.requests if method == "GET" and "state.safetensors" in path]
    assert len(fetched) == 1
    save(machine(), 2)
    assert latest(store_at(s3).with_shared_scratch("another")) == 2


def test_folders_of_those_who_ended_are_removed(machine: Machine, s3: str) -> None:
    store = machine()
    lived, here = store.work_dir(KEY).folder, store_at(s3)
    here.work_dir(KEY)
    dead = lived.parent.parent / "dead"
    (dead / "x").mkdir(parents=True)
    (dead / ".alive").touch()
    here.ready()
    assert lived.is_dir() and here.work_dir(KEY).folder.is_dir() and not dead.exists()


# A disk that refuses.


def test_a_point_that_cannot_be_written_is_told_of_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[int] = []
    place = WorkDir(tmp_path / KEY, lambda: kept.append(1))
    points = UploadedCheckpoints(place.folder, place.upload_async)
    points.save(point(1))

    def refuse(error: Exception) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("ktrain.store.checkpoints.save_file", lambda *_: (_ for _ in ()).throw(error))
            points.save(point(2))

    rust = type("SafetensorError", (Exception,), {})
    with caplog.at_level(logging.WARNING):
        refuse(OSError(28, "No space left on device"))
        refuse(rust("Error while serializing: I/O error: Input/output error (os error 5)"))
    told = [r.getMessage() for r in caplog.records]
    assert told == [f"{KEY}: no checkpoint at step 2: No space left on device"]
    assert [path.name for path in place.folder.iterdir()] == ["step-000000001"] and len(kept) == 1
    points.save(point(3))
    found = points.latest()
    assert found is not None and found.step == 3 and len(kept) == 2
    with pytest.raises(ValueError, match="a fault of ours"):
        refuse(ValueError("a fault of ours"))


def test_the_record_is_verified_too(tmp_path: Path) -> None:
    points = Checkpoints(tmp_path)
    points.save(point(1))
    points.save(point(2))
    file = tmp_path / "step-000000002" / "point.json"
    about = json.loads(file.read_text())
    for changed in ({"step": 3}, {"record": {"curve": [{"loss": 0.21}]}}, {"sha256": "0" * 64}):
        file.write_text(json.dumps(about | changed))
        found = points.latest()
        assert found is not None and found.step == 1 and points.at(2) is None
    file.write_text(json.dumps(about))
    assert points.at(2) is not None and points.at(3) is None
