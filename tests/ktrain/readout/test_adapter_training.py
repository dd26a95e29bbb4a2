"""The curves of stages whose adapters train together, as far as they have come."""

import math
from dataclasses import replace

import pytest

from ktrain.config import CellConfig
from ktrain.model.lora import AdapterSpec
from ktrain.readout.adapter_training import AdapterJob, StageCurves, concatenated, curve_of_adapters
from ktrain.readout.probes import TASKS
from ktrain.stages import Stage, stages_of
from ktrain.training.progress import Progress, StageLine

READOUT = stages_of(CellConfig()).readout
A, B, C = (Stage(READOUT.kind, f"qa-finetune-{name}", READOUT.identity) for name in "abc")
ALONE = [AdapterJob(stage, AdapterSpec("qa", 0, 0, rank)) for stage, rank in ((A, 2), (B, 4), (C, 8))]
PROBES = [AdapterJob(stage, AdapterSpec(f"p_probe/{task}", 0, 2, 0), task) for stage in (A, B) for task in TASKS[:3]]


def line(step: int, *members: float) -> Progress:
    """Of a training of 200 steps, whose curve has a line every two."""
    return Progress(step, 200, sum(members) / len(members), 1e-3, 9 * step, step / 10, members=members)


def test_each_stage_gets_the_loss_of_its_own_adapter() -> None:
    curves = StageCurves(ALONE)
    assert curves.lines(ALONE[:2], line(2, 3.0, 5.0)) == {
        A.key: StageLine(2, 1e-3, 0.2, 3.0),
        B.key: StageLine(2, 1e-3, 0.2, 5.0),
    }
    curves.add(ALONE[:2], [line(2, 3.0, 5.0)])
    assert curves.lines(ALONE[2:], line(2, 7.0)) == {C.key: StageLine(2, 1e-3, 0.2, 7.0)}


def test_between_the_lines_of_the_curve_there_is_none() -> None:
    assert StageCurves(ALONE).lines(ALONE, line(3, 3.0, 5.0, 7.0)) == {}


def test_an_adapter_that_has_diverged_has_no_more_lines() -> None:
    curves = StageCurves(ALONE)
    assert curves.lines(ALONE, line(2, 3.0, math.nan, math.inf)) == {A.key: StageLine(2, 1e-3, 0.2, 3.0)}


def test_the_mean_over_tasks_is_known_once_the_last_of_them_trains() -> None:
    curves, names = StageCurves(PROBES), [str(task) for task in TASKS[:3]]
    first, second = PROBES[:2], PROBES[2:4]
    assert curves.lines(first, line(2, 3.0, 5.0)) == {
        A.key: StageLine(2, 1e-3, 0.2, None, {names[0]: 3.0, names[1]: 5.0})
    }
    done = [line(2, 3.0, 5.1), line(4, 2.0, 4.1)]
    curves.add(first, done)
    # The third task of one stage and the first of the other.
    now = line(4, 1.7, 6.0)
    lines = curves.lines(second, now)
    (stored,) = concatenated(curve_of_adapters(done[1:], [0, 1]), curve_of_adapters([now], [0]))
    assert lines[A.key].loss == stored.loss == pytest.approx((2.0 + 4.1 + 1.7) / 3)
    assert lines[A.key] == StageLine(4, 1e-3, stored.seconds, stored.loss, {names[2]: 1.7})
    assert lines[B.key] == StageLine(4, 1e-3, 0.4, None, {names[0]: 6.0})


def test_a_stage_with_a_task_that_has_diverged_has_no_mean() -> None:
    curves = StageCurves(PROBES)
    lines = curves.lines(PROBES[:3], replace(line(2, 3.0, math.nan, 5.0), loss=4.0))
    assert lines[A.key].loss is None and lines[A.key].tasks == {str(TASKS[0]): 3.0, str(TASKS[2]): 5.0}
