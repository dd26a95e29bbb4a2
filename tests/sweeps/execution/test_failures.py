import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import tune

from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.execution.failures import (
    CELLS_SHOWN,
    FIRST_TRIALS,
    CircuitBreaker,
    Failure,
    common_axes,
    failure_lines,
    failure_of,
)
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]
DIVERGED = "Diverged: the loss is nan at step 6"


@pytest.fixture
def six(planned: Planner, tiny: Callable[..., Sweep]) -> Plan:
    """Six trials: two families, three seeds."""
    family = tune.grid_search(["gpt2", "gbert"])
    return planned(tiny({"model.family": family, "seed": tune.grid_search([0, 1, 2])}))


@pytest.fixture
def happen(tmp_path: Path) -> Callable[..., None]:
    """Tells a breaker, as Ray Tune would, that a trial begins, is done, or fails with an error."""

    def tell(breaker: CircuitBreaker, name: str, event: str, text: str = "") -> None:
        file = tmp_path / "error.txt"
        file.write_text(f"Failure # 1 (occurred at noon)\nTraceback:\n{text}\n")
        trial = SimpleNamespace(config={"trial": {"name": name}}, error_file=str(file))
        getattr(breaker, f"on_trial_{event}")(1, [], trial)

    return tell


def one(error: str) -> Failure:
    return Failure(error, ())


# Which errors are one.


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (DIVERGED, "Diverged: the loss is -inf at step 12"),
        ("ValueError: 3 of 500 rows", "ValueError: 1,024 of 5e-4 rows"),
        ("FileNotFoundError: /a/b.json: no such file", "FileNotFoundError: results/c-3/d.json: no such file"),
        ("KeyError: qa-finetune-mini-single-n60-0b7b806c", "KeyError: pretrain-mini-multi5.permute1-n500-90e455e6"),
        ("object at 0x7f8fa87aa700", "object at 0x7f8fa87ab7e0"),
        ("GuardFailure: guard spans: Ann of entry 1", "GuardFailure: guard spans: Bob of entry 2"),
    ],
)
def test_numbers_paths_and_keys_make_no_other_error(a: str, b: str) -> None:
    assert one(a).signature == one(b).signature


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (DIVERGED, "ValueError: the loss is nan at step 6"),
        ("KeyError: 'names'", "KeyError: 'people'"),
        ("GuardFailure: guard spans: Ann of entry 1", "GuardFailure: guard halves: Ann of entry 1"),
    ],
)
def test_other_words_are_another_error(a: str, b: str) -> None:
    assert one(a).signature != one(b).signature


# What a trial died of.


def test_the_word_of_a_stage_is_the_error_and_its_cells_are_lost(
    planned: Planner, tiny: Callable[..., Sweep], store: Store
) -> None:
    plan = planned(tiny({}), readout__steps=[20, 30])
    (name,) = plan.trials()
    store.note_failure(plan.cells[1].stages.readout.key, DIVERGED)
    text = f"Traceback\nktrain.training.{DIVERGED}\nThe above was raised in a worker\n"
    assert failure_of(plan, name, text) == Failure(DIVERGED, plan.cells[1:])
    # Word of an earlier run is none of this one.
    assert failure_of(plan, name, "Traceback\n\nWorkerDied: signal 9 \n") == Failure("WorkerDied: signal 9", plan.cells)
    assert failure_of(plan, name, " \n") == Failure("no message", plan.cells)


def test_cells_that_were_done_before_are_not_lost(
    planned: Planner, tiny: Callable[..., Sweep], publish: Callable[..., None]
) -> None:
    for stage in planned(tiny({}), readout__steps=[20]).cells[0].stages:
        publish(stage)
    plan = planned(tiny({}), readout__steps=[20, 30])
    (name,) = plan.trials()
    assert failure_of(plan, name, "x").cells == plan.cells[1:]


# What failed cells share.


def test_axes_that_only_the_failed_cells_have_are_told(six: Plan) -> None:
    failed = [c for c in six.cells if c.axes["model.family"] == "gbert"]
    assert common_axes(six, failed) == ["all have, and no other cell has: model.family=gbert"]
    assert common_axes(six, failed[:2]) == ["all have, and so do 1 of the 4 other cells: model.family=gbert"]


def test_the_rarest_of_what_others_have_too_comes_first(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    grid = {axis: tune.grid_search(values) for axis, values in {"seed": [0, 1], "train.steps": [60, 61, 62]}.items()}
    plan = planned(tiny(grid), readout__steps=[20, 21])
    failed = [c for c in plan.cells if c.axes["seed"] == 0 and c.axes["train.steps"] == 61]
    # Both are shared, neither alone; the readouts differ.
    assert common_axes(plan, failed) == [
        "all have, and so do 2 of the 10 other cells: train.steps=61",
        "all have, and so do 4 of the 10 other cells: seed=0",
    ]


def test_a_single_cell_and_the_whole_sweep_share_nothing(six: Plan) -> None:
    assert common_axes(six, six.cells[:1]) == [] and common_axes(six, six.cells) == []


# What is told.


def test_an_error_is_told_once_with_its_cells(six: Plan) -> None:
    a, b, c, *_ = six.cells
    lines = failure_lines(
        six, [Failure(DIVERGED, (a,)), Failure("Other: x", (b,)), Failure(DIVERGED.replace("6", "9"), (c,))]
    )
    assert lines[:3] == [f"2 cells failed: {DIVERGED}", f"  {a.key}", f"  {c.key}"]
    assert lines[-2:] == ["1 cell failed: Other: x", f"  {b.key}"]


def test_many_cells_are_counted(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    plan = planned(tiny({}), readout__steps=list(range(20, 23 + CELLS_SHOWN)))
    lines = failure_lines(plan, [Failure(DIVERGED, plan.cells)])
    assert lines[0] == f"{CELLS_SHOWN + 3} cells failed: {DIVERGED}" and lines[-1] == "  and 3 more"
    assert len(lines) == CELLS_SHOWN + 2


# The breaker.


def begun(plan: Plan, happen: Callable[..., None], ends: Sequence[str | None], ahead: int = 1) -> CircuitBreaker:
    """A breaker that has heard how trials ended, None being well, with `ahead` of them running beside; stops asking
    as Ray Tune would."""
    breaker, names = CircuitBreaker(plan), list(plan.trials())
    for name in names[:ahead]:
        happen(breaker, name, "start")
    for k, end in enumerate(ends):
        assert not breaker.stop_all()
        happen(breaker, names[k], "error" if end else "complete", end or "")
        if not breaker.stop_all():
            for name in names[k + ahead : k + ahead + 1]:
                happen(breaker, name, "start")
    return breaker


def test_it_stops_all_when_the_first_trials_die_of_one_error(six: Plan, happen: Callable[..., None]) -> None:
    breaker = begun(six, happen, ["E: at 1", "E: at 2", "E: at 3"], ahead=2)
    assert breaker.stop_all()
    lines = breaker.report()
    assert lines[0] == "3 cells failed: E: at 1" and sum("E: at" in line for line in lines) == 1
    assert [line.strip() for line in lines[1:4]] == [c.key for c in six.cells[:3]]
    assert lines[-2].startswith("stopped, because the first 3 trials to end all failed with this error; ")
    assert lines[-2].endswith("; 1 more had begun and were stopped, 2 not started")
    assert "the same command continues" in lines[-1]


def test_what_they_share_is_told(six: Plan, happen: Callable[..., None]) -> None:
    breaker = CircuitBreaker(six)
    for cell in six.cells:
        if cell.axes["model.family"] == "gbert":
            happen(breaker, cell.stages.pretrain.key, "start")
            happen(breaker, cell.stages.pretrain.key, "error", "NotImplementedError: masks")
    assert breaker.stop_all()
    assert "  all have, and no other cell has: model.family=gbert" in breaker.report()


@pytest.mark.parametrize(
    "ends",
    [
        ["E", "E"],
        [None, "E", "E", "E", "E"],
        ["E", None, "E", "E", "E"],
        ["E", "F", "E", "E", "E"],
        ["E", "E", "F", "E", "E", "E"],
        [None, None, None, None, None, None],
    ],
)
def test_it_goes_on_where_not_all_of_the_first_died_of_one_error(
    six: Plan, happen: Callable[..., None], ends: list[str | None]
) -> None:
    breaker = begun(six, happen, ends)
    assert not breaker.stop_all() and not any("stopped" in line for line in breaker.report())
    assert sum("failed" in line for line in breaker.report()) == len({end for end in ends if end})


def test_where_nothing_is_left_to_stop_each_error_is_told(planned: Planner, happen: Callable[..., None]) -> None:
    plan = planned(seed=[0, 1, 2], corpus__multi=[1])
    assert len(plan.trials()) == FIRST_TRIALS
    breaker = begun(plan, happen, ["E"] * FIRST_TRIALS)
    assert not breaker.stop_all() and breaker.report()[0] == "3 cells failed: E"


@given(ends=st.lists(st.sampled_from([None, "E: 1", "E: 2", "F"]), min_size=FIRST_TRIALS, max_size=6))
def test_only_the_first_ends_decide(ends: list[str | None]) -> None:
    breaker = CircuitBreaker.__new__(CircuitBreaker)
    breaker._trials, breaker._ended = {str(k) for k in range(9)}, [one(end) if end else None for end in ends]
    alike = {end and end[0] for end in ends[:FIRST_TRIALS]}
    assert breaker.stop_all() is (len(alike) == 1 and None not in alike)


def test_no_result_stops_a_trial_and_ray_tune_may_save_it(six: Plan) -> None:
    breaker = CircuitBreaker(six)
    assert breaker("trial", {"loss": float("nan")}) is False
    assert isinstance(pickle.loads(pickle.dumps(breaker)), CircuitBreaker)
