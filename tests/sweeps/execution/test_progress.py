import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from rich.console import Console

from ktrain.restart_policy import Interruption, Kind
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.system.retry import StorageUnavailable
from ktrain.training.progress import Progress, as_result
from sweeps import Sweep
from sweeps.console import format_duration
from sweeps.execution import progress
from sweeps.execution.progress import ProgressView
from sweeps.execution.restart_log import interruption_result
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]


class Clock:
    """A clock that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    return clock


def trial(name: str) -> Any:
    """What Ray Tune hands to its callbacks."""
    return SimpleNamespace(config={"trial": {"name": name}})


def result(stage: Stage, step: int, steps: int, speed: float = 512.0, loss: float = 1.25) -> dict[str, Any]:
    return as_result(stage.key, Progress(step, steps, loss, 1e-3, tokens=round(10 * speed), seconds=10.0))


def tell(view: ProgressView, event: str, name: str, *result: Any) -> None:
    getattr(view, f"on_trial_{event}")(1, [], trial(name), *result)


def screen(width: int = 160, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def written(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def drawn(view: ProgressView) -> list[str]:
    console = screen()
    console.print(view.render())
    return written(console).splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0:00"), (0.6, "0:01"), (59.4, "0:59"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")],
)
def test_a_clock_reads_hours_minutes_and_seconds(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_trial_goes_from_waiting_to_done_in_the_table(planned: Planner, time: Clock) -> None:
    plan = planned()
    one, two = plan.trials()
    view = ProgressView(plan, screen())
    assert [row.split() for row in drawn(view)[1:3]] == [
        ["single-n60-s0", "waiting"],
        ["multi2-n60-s0", "waiting"],
    ]
    tell(view, "start", one)
    assert drawn(view)[1].split() == ["single-n60-s0", "starting"]
    tell(view, "result", one, result(plan.cells[0].stages.pretrain, 30, 60, speed=1234.4, loss=2.3456))
    row = drawn(view)[1]
    assert row.split()[:2] == ["single-n60-s0", "pretrain"]
    assert "30 / 60" in row and "2.346" in row and "1,234" in row
    tell(view, "complete", one)
    tell(view, "error", two)
    assert [row.split()[1] for row in drawn(view)[1:3]] == ["done", "failed"]
    time.now += 83
    assert drawn(view)[-1] == "1 of 2 trials done, 0 running, 1 failed, 1:23 spent"


def test_the_time_to_go_is_what_is_left_of_the_stage_and_the_stages_after_it(planned: Planner, time: Clock) -> None:
    plan = planned()
    cell = plan.cells[0]
    seconds = {p.stage.kind: p.seconds for p in plan.stages if p.stage in cell.stages}
    view = ProgressView(plan, screen())
    name = cell.stages.pretrain.key
    tell(view, "result", name, result(cell.stages.pretrain, 20, 60, speed=512.0))
    # 40 steps of 4 x 64 tokens at 512 tokens a second, and so much slower than planned is what comes after.
    pace = 60 * 256 / 512 / seconds["pretrain"]
    mine = 40 * 256 / 512 + pace * seconds["qa_finetune"]
    assert view.lines[name].eta == pytest.approx(mine)
    assert (
        f"about {format_duration(max(mine, pace * view.lines[plan.cells[1].stages.pretrain.key].planned))} to go"
        in drawn(view)[-1]
    )
    tell(view, "result", name, result(cell.stages.readout, 15, 20, speed=96.0))
    # 5 steps of 8 questions of 32 tokens with their padding, and nothing after it.
    assert view.lines[name].eta == pytest.approx(5 * 256 / 96)
    tell(view, "complete", name)
    assert view.lines[name].eta == 0.0


def test_stages_of_other_cells_that_the_trial_serves_count(planned: Planner, time: Clock) -> None:
    plan = planned(readout__steps=[20, 40, 80])
    name = plan.cells[0].stages.pretrain.key
    view = ProgressView(plan, screen())
    assert len(view.lines) == 2 and view.lines[name].label.endswith("(+2)")
    tell(view, "result", name, result(plan.cells[0].stages.pretrain, 60, 60))
    mine = [p.seconds for p in plan.stages if p.stage.kind == "qa_finetune" and p.stage.parent.key == name]  # type: ignore[union-attr]
    pace = view.lines[name].pace
    assert pace and len(mine) == 3 and view.lines[name].eta == pytest.approx(pace * sum(mine))


def test_stages_that_are_done_cost_no_time(
    planned: Planner, publish: Callable[..., None], tiny: Callable[..., Sweep]
) -> None:
    first = planned(readout__steps=[20]).cells[0]
    for stage in first.stages:
        publish(stage)
    plan = planned(tiny({}), readout__steps=[20, 40])
    (name,) = plan.trials()
    view = ProgressView(plan, screen())
    todo = plan.cells[1].stages.readout
    tell(view, "result", name, result(todo, 40, 40))
    assert view.lines[name].eta == 0.0


def test_a_speed_that_is_not_known_gives_no_time(planned: Planner) -> None:
    plan = planned()
    name = plan.cells[0].stages.pretrain.key
    view = ProgressView(plan, screen())
    tell(view, "result", name, result(plan.cells[0].stages.pretrain, 1, 60, speed=0.0))
    assert view.lines[name].eta is None
    assert "to go" not in drawn(view)[-1]


def test_without_a_terminal_a_trial_speaks_now_and_then(planned: Planner, time: Clock) -> None:
    plan = planned()
    console = screen()
    one, two = (cell.stages.pretrain for cell in plan.cells)
    with ProgressView(plan, console) as view:
        tell(view, "start", one.key)
        for second in range(50):
            time.now = 1000.0 + second
            tell(view, "result", one.key, result(one, second + 1, 60))
            tell(view, "result", two.key, result(two, second + 1, 60))
        tell(view, "complete", one.key)
    lines = written(console).splitlines()
    mine = [line for line in lines if "single-n60-s0" in line]
    theirs = [line for line in lines if "multi2-n60-s0" in line]
    assert [line[:6] for line in mine] == ["[0:00]", "[0:00]", "[0:20]", "[0:40]", "[0:49]"]
    assert [line[:6] for line in theirs] == ["[0:00]", "[0:20]", "[0:40]"]
    assert mine[0].endswith("starting") and mine[-1].endswith("done")
    assert "pretrain 21/60, loss 1.250, 512 tok/s, ETA 0:2" in mine[2]


def test_where_many_trials_run_each_speaks_less(planned: Planner, time: Clock) -> None:
    plan = planned(seed=list(range(6)))
    console = screen()
    view = ProgressView(plan, console)
    stages = [cell.stages.pretrain for cell in plan.cells]
    for stage in stages:
        tell(view, "start", stage.key)
    for second in range(0, 180, 5):
        time.now = 1000.0 + second
        for stage in stages:
            tell(view, "result", stage.key, result(stage, second // 5 + 1, 60))
    said = [line for line in written(console).splitlines() if "multi2-n60-s0:" in line]
    # Twelve run, three times as many as may speak every 20 seconds.
    assert [line[:6] for line in said] == ["[0:00]", "[0:00]", "[1:00]", "[2:00]"]


def test_a_summary_is_said_every_minute_and_never_on_a_terminal(planned: Planner, time: Clock) -> None:
    plan = planned()
    stage = plan.cells[0].stages.pretrain
    for terminal in (False, True):
        time.now = 1000.0
        console = screen(terminal=terminal)
        view = ProgressView(plan, console, lambda left: 3600.0 * len(left))
        tell(view, "result", stage.key, result(stage, 30, 60))
        before = written(console)
        for second in range(0, 150, 10):
            time.now = 1000.0 + second
            view.on_step_end(1, [])
        said = written(console)[len(before) :].splitlines()
        line = "0 of 2 trials done, 1 running, 1 waiting, {0} spent, about 2:00:00 to go"
        assert said == ([] if terminal else [f"[{at}] {line.format(at)}" for at in ("1:00", "2:00")])


def test_a_small_terminal_shows_what_runs(planned: Planner, time: Clock) -> None:
    plan = planned(seed=list(range(20)))
    view = ProgressView(plan, screen())
    running = plan.cells[30].stages.pretrain
    tell(view, "result", running.key, result(running, 30, 60))
    rows = drawn(view)
    assert len(rows) == 3 and "pretrain" in rows[1] and rows[2].startswith("0 of 40 trials done, 1 running, 39 waiting")


def test_a_new_kind_of_stage_is_told_at_once(planned: Planner, time: Clock) -> None:
    plan = planned()
    console = screen()
    _, pretrain, readout = plan.cells[0].stages
    view = ProgressView(plan, console)
    tell(view, "result", pretrain.key, result(pretrain, 59, 60))
    tell(view, "result", pretrain.key, result(pretrain, 60, 60))
    tell(view, "result", pretrain.key, result(readout, 1, 20))
    tell(view, "result", pretrain.key, result(readout, 2, 20))
    assert [line.split()[2] for line in written(console).splitlines()] == ["pretrain", "qa_finetune"]


def test_on_a_terminal_no_lines_are_said_beside_the_table(planned: Planner, time: Clock) -> None:
    plan = planned()
    console = screen(terminal=True)
    view = ProgressView(plan, console)
    tell(view, "start", plan.cells[0].stages.pretrain.key)
    tell(view, "result", plan.cells[0].stages.pretrain.key, result(plan.cells[0].stages.pretrain, 1, 60))
    assert written(console) == ""


def test_labels_say_what_differs(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    grid = {
        "training": tune.grid_search([{"train.qa_ratio": 0.0}, {"train.qa_ratio": 0.5, "readout.kind": "mixed"}]),
        "seed": tune.grid_search([0, 1]),
    }
    view = ProgressView(planned(tiny(grid)), screen())
    assert sorted(line.label for line in view.lines.values()) == [
        "single-n60-s0 qa_ratio=0.0 kind=qa_finetune",
        "single-n60-s0 qa_ratio=0.5 kind=mixed",
        "single-n60-s1 qa_ratio=0.0 kind=qa_finetune",
        "single-n60-s1 qa_ratio=0.5 kind=mixed",
    ]


def test_the_label_of_a_trial_that_serves_several_cells_leaves_out_where_these_differ(
    planned: Planner, tiny: Callable[..., Sweep]
) -> None:
    grid = {"readout.steps": tune.grid_search([20, 40]), "train.steps": tune.grid_search([60, 70])}
    view = ProgressView(planned(tiny(grid)), screen())
    assert [line.label for line in view.lines.values()] == [
        "single-n60-s0 steps=60 (+1)",
        "single-n60-s0 steps=70 (+1)",
    ]


def test_ray_tune_may_save_the_view(planned: Planner) -> None:
    assert isinstance(pickle.loads(pickle.dumps(ProgressView(planned(), screen()))), ProgressView)


def test_what_is_begun_again_is_said_on_a_terminal_too(planned: Planner, time: Clock) -> None:
    plan = planned()
    one, _ = plan.trials()
    for terminal in (False, True):
        console = screen(terminal=terminal)
        view = ProgressView(plan, console)
        tell(view, "start", one)
        tell(view, "result", one, interruption_result(Interruption(Kind.LOST, "gone")))
        assert "single-n60-s0: node lost: gone" in written(console)
        assert drawn(view)[1].split() == ["single-n60-s0", "starting", "again"]
        tell(view, "result", one, result(plan.cells[0].stages.pretrain, 1, 60))
        tell(view, "recover", one)
        assert "driver lost" in written(console)
        before = written(console)
        tell(view, "result", one, interruption_result(Interruption(Kind.GIVEN_UP, "")))
        assert written(console) == before, "the failure itself is told by Ray Tune"


def test_a_network_below_the_gate_is_blocked_with_the_reason_and_what_to_do(
    planned: Planner, publish: Callable[..., None], time: Clock
) -> None:
    plan = planned(readout__recall_gate=[0.9, 0.4])
    one, two = plan.trials()
    for cell in plan.cells:
        publish(cell.stages.pretrain, recalled=0.5 if cell.stages.pretrain.key == one else 0.95)
    for terminal in (False, True):
        console = screen(terminal=terminal)
        view = ProgressView(plan, console)
        for name in (one, two):
            tell(view, "complete", name)
        said = [line for line in written(console).splitlines() if "blocked" in line]
        assert said == [
            f"[0:00] {view.lines[one].label}: blocked: recall 50.0%; more train.steps, or readout.recall_gate=0 to ask "
            "all the same"
        ]
        assert [row.split()[-1] for row in drawn(view)[1:3]] == ["blocked", "done"]
        assert drawn(view)[-1] == "1 of 2 trials done, 0 running, 1 blocked, 0:00 spent"
        assert all(line.ended and line.eta == 0.0 for line in view.lines.values())


def test_a_trial_of_a_search_pauses_at_its_rung_and_its_divergence_is_no_failure(
    planned: Planner, tiny: Callable[..., Sweep], store: Store, time: Clock
) -> None:
    searched = tiny({"train.learning_rate": tune.loguniform(1e-4, 1e-2)})
    plan = planned(replace(searched, samples=2, scheduler="asha", metric="train/loss"))
    one, two = plan.trials()
    view = ProgressView(plan, screen())
    pretrain = next(p.seconds for p in plan.stages if p.stage.kind == "pretrain")
    assert pretrain * 6 / 60 <= view.lines[one].planned < pretrain
    tell(view, "result", one, result(plan.cells[0].stages.pretrain, 3, 60, speed=512.0))
    assert "3 / 6" in drawn(view)[1] and view.lines[one].eta == pytest.approx(3 * 256 / 512), "to the rung"
    tell(view, "complete", one)
    store.note_failure(two, "Diverged: the loss is nan at step 5")
    tell(view, "complete", two)
    assert [line.state for line in view.lines.values()] == ["paused", "stopped early"]
    assert "failed: Diverged: the loss is nan at step 5" in written(view._console)
    assert drawn(view)[-1] == "0 of 2 trials done, 0 running, 1 paused, 1 stopped early, 0:00 spent"
    assert all(line.ended and line.eta == 0.0 for line in view.lines.values())


def test_a_store_that_is_away_ends_no_run(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned()

    def away(*_: object) -> None:
        raise StorageUnavailable("listing stages: timed out")

    monkeypatch.setattr(type(plan.store), "snapshot", away)
    view = ProgressView(plan, screen())
    tell(view, "complete", plan.cells[0].stages.pretrain.key)
    assert drawn(view)[1].split()[-1] == "done"


def test_a_line_says_how_often_it_is_saved(planned: Planner, time: Clock) -> None:
    plan, console = planned(), screen()
    one, _ = plan.trials()
    view = ProgressView(plan, console)
    tell(view, "result", one, result(plan.cells[0].stages.pretrain, 1, 60) | {"apart": 41.3})
    assert ", saved every 41 s, ETA" in written(console)
