from collections.abc import Callable
from dataclasses import replace

from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.planning.plan import Plan, make
from sweeps.planning.reasons import NAMED, blocked_lines, reasons

Planner = Callable[..., Plan]


def test_a_reason_stands_once_with_what_to_do_and_a_few_cells(planned: Planner, publish: Callable[..., None]) -> None:
    seeds = list(range(NAMED + 1))
    for cell in planned(seed=seeds, corpus__multi=[1]).cells:
        publish(cell.stages.pretrain, recalled=0.5)
    (line,) = reasons(planned(seed=seeds, corpus__multi=[1]))
    remedy = "more train.steps, or readout.recall_gate=0 to ask all the same"
    assert line == f"4 cells are blocked: recall 50.0%; {remedy}"
    plan = planned(seed=[0], corpus__multi=[1])
    assert list(reasons(plan)) == [f"1 cell is blocked: recall 50.0%; {remedy} ({plan.cells[0].key})"]
    assert blocked_lines(plan.cells) == [f"blocked: recall 50.0%; {remedy}"]
    assert not list(reasons(plan, ("failed",)))


def test_too_few_people_need_more(store: Store) -> None:
    (line,) = reasons(make(Sweep("one", {"readout.kind": "q_probe"}), "mini", {"corpus.people": [100]}, store))
    assert "people_per_class=" in line and "; more corpus.people (" in line


def test_what_a_search_has_stopped_says_so(planned: Planner) -> None:
    plan = planned()
    state = "stopped early: at step 6 of 60 by asha"
    stopped = replace(plan, cells=tuple(replace(cell, state=state) for cell in plan.cells))
    (line,) = reasons(stopped)
    assert line == f"2 cells are {state} ({plan.cells[0].key}, {plan.cells[1].key})"


def test_what_fails_says_why_itself(planned: Planner, store: Store) -> None:
    plan = planned()
    store.note_failure(plan.cells[0].stages.pretrain.key, "LossDiverged: at step 5")
    (line,) = reasons(planned())
    assert line == f"1 cell is failed: LossDiverged: at step 5 ({plan.cells[0].key})"
