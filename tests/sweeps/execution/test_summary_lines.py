from collections.abc import Callable

import pytest

from ktrain.store.base import Store
from sweeps.execution.summary_lines import closing, header
from sweeps.planning import cost
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]


def test_the_header_has_cells_time_and_store(
    planned: Planner, publish: Callable[..., None], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.root.parent)
    monkeypatch.setattr(cost, "devices_here", lambda device: 2)
    for stage in planned().cells[0].stages:
        publish(stage)
    plan = planned(**{"train.steps": [60, 600_000]})
    cells, time = header(plan, here=True).split(", about ")
    assert cells == "tiny at scale mini: 3 of 4 cells to do" and time.endswith(" hours on 2 cores; store results")
    assert "hours on one core; " in header(plan, here=False)


def test_the_last_line_counts_what_is_done(planned: Planner, publish: Callable[..., None], store: Store) -> None:
    first, second = planned().cells
    for stage in first.stages:
        publish(stage)
    assert closing(planned(), 680.2) == "1 of 2 cells done in 11:20, 1 planned"
    publish(second.stages.pretrain, recalled=0.5)
    assert closing(planned(), None) == "1 of 2 cells done, 1 blocked"
    store.note_failure(second.stages.pretrain.key, "LossDiverged: at step 5")
    assert closing(planned(readout__recall_gate=[0.4]), 5.0) == "0 of 2 cells done in 0:05, 1 planned, 1 failed"
