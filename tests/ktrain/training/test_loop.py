"""The training loop: what an interruption anywhere may change is the clock, and not one bit of anything else."""

import dataclasses
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain.config import TrainConfig
from ktrain.model.forward import LanguageModelLoss
from ktrain.store.base import no_upload
from ktrain.store.checkpoints import Checkpoint, Checkpoints, UploadedCheckpoints
from ktrain.training import pacing
from ktrain.training.deepspeed_engine import Engine
from ktrain.training.learning_rate import LearningRateSchedule
from ktrain.training.loop import Diverged, Preempted, train
from ktrain.training.progress import Progress, Reporter

STEPS, ROWS, WIDTH = 10, 2, 16
SETTING = TrainConfig(batch=ROWS, context=WIDTH, steps=STEPS, warmup=2, precision="fp32", clip=0.5)
SCHEDULE = LearningRateSchedule(1e-2, 0.1, 2, STEPS)
ALWAYS = 1e-9
Make = Callable[..., GPTNeoXForCausalLM]
Batch = Callable[..., tuple[Tensor, Tensor]]
Stop = tuple[int, str]


class Killed(Exception):
    """Stands for whatever ends a process."""


class RecordedCheckpoints(UploadedCheckpoints):
    """Remembers the steps of those that were saved."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, no_upload)
        self.saved: list[int] = []

    def save(self, point: Checkpoint) -> None:
        super().save(point)
        self.saved.append(point.step)


class Runs:
    """Runs of one training in one work folder, each a start of its own that goes on from the latest checkpoint."""

    def __init__(self, small: Make, random_batch: Batch, folder: Path, dropout: float = 0.0, every: int = 1) -> None:
        self.make, self.batch, self.folder, self.dropout, self.every = small, random_batch, folder, dropout, every
        self.trained_steps: list[int] = []
        self.saved: list[int] = []
        self.lines: list[Progress] = []

    def start(
        self,
        stop: Stop | None = None,
        *,
        seconds: float = ALWAYS,
        poison: int | None = None,
        leave: int | None = None,
        apart: Callable[[float | None], float] | None = None,
    ) -> tuple[list[Progress], dict[str, Tensor]]:
        """Curve and final state. `stop` kills it in the batch or in the report of a step; `poison` spoils a batch; it
        has to leave from step `leave` on."""

        def batches(step: int) -> tuple[Tensor, Tensor]:
            self.trained_steps.append(step)
            if stop == (step, "batch"):
                raise Killed
            ids, weights = self.batch(step, rows=ROWS, width=WIDTH)
            return ids, weights * (math.nan if step == poison else 1.0)

        def sink(stage: str, progress: Progress) -> bool:
            self.lines.append(progress)
            if stop is not None and stop[1] == "report" and progress.step > stop[0]:
                raise Killed
            return leave is not None and progress.step >= leave

        checkpoints = RecordedCheckpoints(self.folder)
        self.saved = checkpoints.saved
        resumed = checkpoints.latest()
        module = LanguageModelLoss(self.make(dropout=self.dropout))
        if resumed:
            module.load_state_dict({k: v for k, v in resumed.tensors.items() if "/" not in k}, strict=False)
        module.train()
        torch.manual_seed(5)
        self.trained_steps, self.lines = [], []
        engine = Engine(module, SETTING, ROWS, compile=False)
        try:
            curve = train(
                engine, batches, SCHEDULE, ROWS * WIDTH, checkpoints, Reporter(sink),
                resumed=resumed, every=self.every, interval=apart or (lambda cost: seconds),
            )  # fmt: skip
            return curve, engine.state()
        finally:
            engine.close()


def untimed(curve: list[Progress]) -> list[Progress]:
    """`tokens` are those of `seconds`, which leave out the first step of each start."""
    return [dataclasses.replace(progress, tokens=0, seconds=0.0, apart=0.0) for progress in curve]


def assert_same(
    found: tuple[list[Progress], dict[str, Tensor]], wanted: tuple[list[Progress], dict[str, Tensor]]
) -> None:
    assert untimed(found[0]) == untimed(wanted[0])
    assert found[1].keys() == wanted[1].keys()
    assert all(torch.equal(found[1][name], tensor) for name, tensor in wanted[1].items())


@pytest.fixture(scope="session")
def wanted(small: Make, random_batch: Batch) -> Callable[[float, int], tuple[list[Progress], dict[str, Tensor]]]:
    """What nothing has interrupted, by dropout and by how often a line is written."""
    done: dict[tuple[float, int], tuple[list[Progress], dict[str, Tensor]]] = {}

    def run(dropout: float, every: int) -> tuple[list[Progress], dict[str, Tensor]]:
        if (dropout, every) not in done:
            with tempfile.TemporaryDirectory() as folder:
                done[dropout, every] = Runs(small, random_batch, Path(folder), dropout, every).start(seconds=1e9)
        return done[dropout, every]

    return run


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0), (4, 2.0), (8, 1.1), (11, 0.2 + 0.9 * (1 - math.cos(math.pi / 8)))],
)
def test_the_rate_warms_up_and_follows_a_cosine(step: int, rate: float) -> None:
    """By hand: peak 2, a tenth of it at the end, 4 steps of warm-up and 8 of the cosine, whose middle is step 8."""
    assert LearningRateSchedule(peak=2.0, final=0.1, warmup=4, steps=12).rate(step) == pytest.approx(rate, rel=1e-12)


def test_a_schedule_may_have_no_warm_up_or_nothing_else() -> None:
    assert LearningRateSchedule(peak=2.0, final=0.1, warmup=0, steps=12).rate(0) == 2.0
    assert LearningRateSchedule(peak=2.0, final=0.1, warmup=0, steps=1).rate(0) == 2.0
    assert [LearningRateSchedule(peak=2.0, final=0.1, warmup=4, steps=4).rate(step) for step in range(4)] == [
        0.5,
        1.0,
        1.5,
        2.0,
    ]


def test_a_constant_rate_is_a_cosine_that_ends_at_its_peak() -> None:
    schedule = LearningRateSchedule(peak=3.0, final=1.0, warmup=0, steps=7)
    assert [schedule.rate(step) for step in range(7)] == [3.0] * 7


@pytest.mark.parametrize("stop", range(STEPS))
def test_a_run_killed_at_any_step_ends_as_if_it_had_not_been(
    small: Make, random_batch: Batch, tmp_path: Path, wanted: Callable, stop: int
) -> None:
    runs = Runs(small, random_batch, tmp_path, dropout=0.25)
    with pytest.raises(Killed):
        runs.start((stop, "batch"))
    found = runs.start()
    assert runs.trained_steps == list(range(stop, STEPS)), "not one step is done again"
    assert_same(found, wanted(0.25, 1))


@settings(max_examples=12, deadline=None)
@given(
    stops=st.lists(st.tuples(st.integers(0, STEPS - 1), st.sampled_from(["batch", "report"])), min_size=1, max_size=3),
    every=st.sampled_from([1, 3, 4]),
    dropout=st.sampled_from([0.0, 0.25]),
)
@example(stops=[(STEPS - 1, "report")], every=1, dropout=0.25)
@example(stops=[(4, "batch"), (4, "batch"), (8, "report")], every=3, dropout=0.25)
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    small: Make, random_batch: Batch, wanted: Callable, stops: list[Stop], every: int, dropout: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(small, random_batch, Path(folder), dropout, every)
        for stop in [*stops, None]:
            # A stop that an earlier start has left behind is never reached.
            try:
                found = runs.start(stop)
            except Killed:
                continue
            break
        assert_same(found, wanted(dropout, every))


def test_dropout_takes_part(wanted: Callable) -> None:
    """Or the tests above would not see a generator that is not restored."""
    assert wanted(0.0, 1)[0][0].loss != wanted(0.25, 1)[0][0].loss


@pytest.mark.parametrize(("damaged", "first"), [(1, 5), (2, 0)])
def test_a_damaged_resume_point_costs_only_the_way_from_the_one_before(
    small: Make, random_batch: Batch, tmp_path: Path, wanted: Callable, damaged: int, first: int
) -> None:
    runs = Runs(small, random_batch, tmp_path, dropout=0.25)
    with pytest.raises(Killed):
        runs.start((6, "report"))
    states = sorted(tmp_path.glob("step-*/state.safetensors"))
    assert [path.parent.name for path in states] == ["step-000000005", "step-000000006"]
    for path in states[-damaged:]:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 100)
    found = runs.start()
    assert runs.trained_steps[0] == first
    assert_same(found, wanted(0.25, 1))


@pytest.mark.parametrize(("every", "noticed", "kept"), [(1, 5, 4), (3, 6, 3)])
def test_a_loss_that_is_no_number_ends_the_run(
    small: Make, random_batch: Batch, tmp_path: Path, every: int, noticed: int, kept: int
) -> None:
    """And no checkpoint has it, or every later start would end the same way."""
    runs = Runs(small, random_batch, tmp_path, every=every)
    with pytest.raises(Diverged, match=f"nan at step {noticed}$"):
        runs.start(poison=4)
    point = Checkpoints(tmp_path).latest()
    assert point is not None
    assert point.step == kept
    assert all(tensor.isfinite().all() for tensor in point.tensors.values())
    assert [line.step for line in runs.lines] == list(range(every, noticed, every))


def test_every_line_is_reported_and_the_last_step_has_one(small: Make, random_batch: Batch, tmp_path: Path) -> None:
    runs = Runs(small, random_batch, tmp_path, every=4)
    curve, _ = runs.start(seconds=1e9)
    assert [line.step for line in curve] == [4, 8, 10]
    assert runs.lines == curve
    assert [line.learning_rate for line in curve] == [SCHEDULE.rate(step) for step in (3, 7, 9)]
    assert {line.steps for line in curve} == {STEPS}
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{STEPS:09d}"]


def test_the_reported_loss_is_that_of_the_step(small: Make, random_batch: Batch, tmp_path: Path) -> None:
    curve, _ = Runs(small, random_batch, tmp_path).start()
    ids, _ = random_batch(0, rows=ROWS, width=WIDTH)
    assert curve[0].loss == pytest.approx(float(small()(input_ids=ids, labels=ids).loss.detach()), rel=1e-6)
    assert curve[-1].loss != curve[0].loss


class Clock:
    """A second for every batch that is asked for."""

    def __init__(self, batch: Batch) -> None:
        self.now, self.inner = 0.0, batch

    def monotonic(self) -> float:
        return self.now

    def batch(self, step: int, **shape: int) -> tuple[Tensor, Tensor]:
        self.now += 1.0
        return self.inner(step, **shape)


@pytest.fixture
def clock(random_batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(random_batch)
    monkeypatch.setattr(pacing, "time", clock)
    return clock


def test_resume_points_are_some_time_apart(small: Make, clock: Clock, tmp_path: Path) -> None:
    """The clock starts after the first step, at second 1."""
    Runs(small, clock.batch, tmp_path).start(seconds=2.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000007", "step-000000010"]


def test_how_far_apart_follows_from_what_the_last_one_took(
    small: Make, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every line of the curve says how far that is."""
    save, asked = Checkpoints.save, list[float | None]()

    def slow(points: Checkpoints, point: Checkpoint) -> None:
        clock.now += 0.5
        save(points, point)

    def apart(cost: float | None) -> float:
        asked.append(cost)
        return 1.5 if cost is None else 4 * cost

    monkeypatch.setattr(Checkpoints, "save", slow)
    runs = Runs(small, clock.batch, tmp_path)
    curve, _ = runs.start(apart=apart)
    assert set(asked) == {None, 0.5}
    assert [line.apart for line in curve] == [1.5] * 3 + [2.0] * 7
    assert runs.saved == [3, 6, 9, 10]


def test_a_disk_that_fails_costs_a_resume_point_and_not_the_training(
    small: Make, random_batch: Batch, tmp_path: Path, wanted: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def full(points: Checkpoints, point: Checkpoint) -> None:
        if point.step in (3, 4, 10):
            raise OSError(28, "No space left on device")
        save(points, point)

    monkeypatch.setattr(Checkpoints, "save", full)
    assert_same(Runs(small, random_batch, tmp_path, dropout=0.25).start(), wanted(0.25, 1))
    found = Checkpoints(tmp_path).latest()
    assert found is not None and found.step == 9


@pytest.mark.parametrize("every", [1, 4, 100])
def test_a_run_that_has_to_leave_saves_at_once_and_goes_on_elsewhere(
    small: Make, random_batch: Batch, tmp_path: Path, wanted: Callable, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Also between the lines of its curve, where these lie far apart."""
    monkeypatch.setattr(pacing, "FIRST_SYNC", 3)
    runs = Runs(small, random_batch, tmp_path, dropout=0.25, every=every)
    with pytest.raises(Preempted, match=r"at step 3$"):
        runs.start(leave=3, apart=lambda cost: 1e9)
    assert runs.saved == [3]
    found = runs.start(apart=lambda cost: 1e9)
    assert runs.trained_steps[0] == 3 and runs.saved == [10]
    assert_same(found, wanted(0.25, every))


def test_syncs_between_lines_are_some_seconds_apart(
    small: Make, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second for every step: the first sync is early, the others are as far apart as they should be."""
    monkeypatch.setattr(pacing, "FIRST_SYNC", 2)
    monkeypatch.setattr(pacing, "SYNC_SECONDS", 3.0)
    runs = Runs(small, clock.batch, tmp_path, every=100)
    curve, _ = runs.start(apart=lambda cost: 1e9)
    assert [line.step for line in runs.lines] == [2, 5, 8, 10]
    assert [line.step for line in curve] == [10]


def test_speed_leaves_out_the_first_step_of_each_start(small: Make, clock: Clock, tmp_path: Path) -> None:
    runs = Runs(small, clock.batch, tmp_path)
    with pytest.raises(Killed):
        runs.start((7, "report"))
    curve, _ = runs.start()
    assert runs.trained_steps[0] == 7
    assert [line.seconds for line in curve] == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8]
    assert [line.tokens for line in curve] == [ROWS * WIDTH * line.seconds for line in curve]
    assert [line.tokens_per_second for line in curve] == [0.0] + [ROWS * WIDTH] * 9


def test_saving_does_not_count_as_training(
    small: Make, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(points: Checkpoints, point: Checkpoint) -> None:
        clock.now += 100.0

    monkeypatch.setattr(Checkpoints, "save", slow)
    curve, _ = Runs(small, clock.batch, tmp_path).start()
    assert [line.seconds for line in curve] == list(range(STEPS))
