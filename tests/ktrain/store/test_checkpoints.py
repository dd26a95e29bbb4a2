"""Resume points: whole or not there, few, and nothing that could run code when it is read."""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain.store import checkpoints
from ktrain.store.checkpoints import KEPT, Checkpoint, Checkpoints, checkpoint_interval


def point(step: int) -> Checkpoint:
    drawn = torch.Generator().manual_seed(step)
    tensors = {"a": torch.randn(3, 4, generator=drawn), "a/exp_avg": torch.randn(5, generator=drawn)}
    return Checkpoint(step, tensors, {"curve": [{"loss": 0.1 + step}], "seconds": 0.1})


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def assert_found(folder: Path, step: int) -> None:
    found, wanted = Checkpoints(folder).latest(), point(step)
    assert found is not None
    assert (found.step, found.record) == (step, wanted.record)
    assert found.tensors.keys() == wanted.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in wanted.tensors.items())


def test_nothing_is_found_where_nothing_was_saved(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).latest() is None
    assert Checkpoints(tmp_path / "missing").latest() is None


def test_the_newest_point_is_found_and_few_are_kept(tmp_path: Path) -> None:
    """In the order of steps, not of names: 900 comes before 1000."""
    points = Checkpoints(tmp_path)
    for step in (2, 900, 1000, 10_000):
        points.save(point(step))
        assert_found(tmp_path, step)
    assert steps(tmp_path) == [1000, 10_000]
    assert KEPT == 2


def test_a_point_may_be_saved_again(tmp_path: Path) -> None:
    points = Checkpoints(tmp_path)
    points.save(Checkpoint(3, {"a": torch.zeros(1)}, {}))
    points.save(point(3))
    assert steps(tmp_path) == [3]
    assert_found(tmp_path, 3)


@pytest.mark.parametrize("at", ["save_file", "json.dumps", "Path.rename"])
def test_a_save_that_is_cut_short_leaves_the_point_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    points = Checkpoints(tmp_path)
    points.save(point(1))

    def cut(*arguments: object) -> None:
        if at == "save_file":
            Path(str(arguments[1])).write_bytes(b"half")
        raise OSError("the power went out")

    owner = {"save_file": checkpoints, "json.dumps": checkpoints.json, "Path.rename": Path}[at]
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        patch.setattr(owner, at.rpartition(".")[2], cut)
        points.save(point(2))
    assert steps(tmp_path) == [1]
    assert_found(tmp_path, 1)
    points.save(point(2))
    assert_found(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 2, "what the cut left is gone"


def test_a_folder_with_another_name_is_no_point(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(point(9))
    (tmp_path / "step-000000009").rename(tmp_path / "partial-1")
    assert Checkpoints(tmp_path).latest() is None


@settings(max_examples=40, deadline=None)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_wrong_bit_of_the_state_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("points")
    points = Checkpoints(folder)
    points.save(point(1))
    points.save(point(2))
    file = folder / "step-000000002" / "state.safetensors"
    raw = bytearray(file.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    file.write_bytes(raw)
    assert_found(folder, 1)


@pytest.mark.parametrize("name", ["state.safetensors", "point.json"])
@pytest.mark.parametrize("size", [None, 0, 10])
def test_a_point_with_a_missing_or_short_file_is_passed_over(tmp_path: Path, name: str, size: int | None) -> None:
    points = Checkpoints(tmp_path)
    points.save(point(1))
    points.save(point(2))
    file = tmp_path / "step-000000002" / name
    file.unlink() if size is None else file.write_bytes(file.read_bytes()[:size])
    assert_found(tmp_path, 1)


@pytest.mark.parametrize(
    ("cost", "between_losses", "seconds"),
    [(None, 14_400.0, 30.0), (0.5, 14_400.0, 120.0), (2.0, 3_600.0, 120.0), (0.02, 1_000_000.0, 200.0)],
)
def test_points_are_as_far_apart_as_they_cost(cost: float | None, between_losses: float, seconds: float) -> None:
    """By hand: twice the cost times the time between losses, and the root of it."""
    assert checkpoint_interval(cost, between_losses, 900.0) == pytest.approx(seconds)
    assert checkpoint_interval(cost, between_losses, 7.0) == 7.0


@given(cost=st.floats(1e-3, 100.0), between=st.floats(600.0, 1e6), other=st.floats(0.1, 10.0))
def test_no_other_distance_loses_less(cost: float, between: float, other: float) -> None:
    """What is spent in saving, and half of a distance for each loss, as shares of all time."""

    def lost(seconds: float) -> float:
        return cost / seconds + seconds / 2 / between

    chosen = checkpoint_interval(cost, between, math.inf)
    assert lost(chosen) <= lost(chosen * other) * (1 + 1e-9)


def test_nothing_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("pickle")

    for owner, name in [(pickle, n) for n in ("load", "loads", "dump", "dumps", "Unpickler")] + [
        (torch, n) for n in ("load", "save")
    ]:
        monkeypatch.setattr(owner, name, refused)
    Checkpoints(tmp_path).save(point(1))
    assert_found(tmp_path, 1)
    folder = tmp_path / "step-000000001"
    assert sorted(path.name for path in folder.iterdir()) == ["point.json", "state.safetensors"]
    assert json.loads((folder / "point.json").read_text())["step"] == 1
    header = (folder / "state.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")]).keys() >= point(1).tensors.keys()
