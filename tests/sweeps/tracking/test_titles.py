"""What runs are called, and what is said of them."""

from collections.abc import Callable
from typing import Any

import pytest

from sweeps.planning.plan import Plan
from sweeps.tracking import titles

Planner = Callable[..., Plan]


def names(plan: Plan, cell: int = 0) -> list[str]:
    return [titles.stage_name(plan, plan.cells[cell], stage) for stage in plan.cells[cell].stages]


def test_a_stage_is_called_by_what_it_is_and_whatever_else_varies(planned: Planner) -> None:
    assert names(planned()) == [
        "corpus · bioS single · s0",
        "pretrain · bioS single · s0",
        "QA finetune · bioS single · s0",
    ]
    plan = planned(train__learning_rate=[0.001, 0.002], readout__beam=[1, 2], corpus__people=[60, 80])
    assert names(plan, len(plan.cells) - 1) == [
        "corpus · bioS multi2 · people=80 · s0",
        "pretrain · bioS multi2 · people=80 learning_rate=0.002 · s0",
        "QA finetune · bioS multi2 · people=80 learning_rate=0.002 beam=2 · s0",
    ]


def test_a_part_of_a_plan_has_the_names_of_the_whole(planned: Planner) -> None:
    plan = planned(train__learning_rate=[0.001, 0.002])
    assert names(plan.refreshed([plan.cells[0].key])) == names(plan)


def test_what_is_said_of_a_run_names_its_work_and_its_key(planned: Planner) -> None:
    plan = planned()
    cell = plan.cells[1]
    corpus, pretrain, readout = (titles.stage_note(cell, stage) for stage in cell.stages)
    assert corpus.startswith("120 biographies of 60 people, bioS multi2, seed 0.")
    assert "bioS multi2 for 60 steps of 4 windows of 64 tokens; seed 0." in pretrain
    assert "20 steps of 8 rows; seed 0." in readout and cell.stages.readout.key in readout
    assert "sweep `tiny` at scale mini" in titles.cell_note(plan, cell)


@pytest.mark.parametrize(
    ("versions", "tags"),
    [
        ({}, {}),
        ({"commit": "ab12"}, {"mlflow.source.git.commit": "ab12"}),
        ({"commit": "ab12-dirty"}, {"mlflow.source.git.commit": "ab12", "mlflow.source.git.dirty": "true"}),
    ],
)
def test_the_commit_is_tagged_as_mlflow_does(planned: Planner, versions: dict[str, Any], tags: dict[str, str]) -> None:
    made = titles.source_tags(planned(), versions)
    assert {name: text for name, text in made.items() if ".git." in name} == tags
    assert made["mlflow.source.name"] == "ktrain run tiny"
