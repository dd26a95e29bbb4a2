"""Costs: what the finished stages took, at the speed that was measured."""

from collections.abc import Callable

import pytest

from ktrain.store.base import Store
from sweeps.planning.measured_cost import HEADERS, cost_by_kind
from sweeps.planning.plan import Plan


def test_costs_are_of_what_is_done(planned: Callable[..., Plan], publish: Callable[..., None], store: Store) -> None:
    nothing = cost_by_kind(planned())
    assert [cost.kind for cost in nothing] == ["corpus", "pretrain", "qa_finetune", "all"]
    assert all(cost.done == cost.tokens == cost.seconds == 0 for cost in nothing)
    for stage in planned().cells[0].stages[:2]:
        publish(stage)
    corpus, pretrain, _, whole = cost_by_kind(planned())
    assert (pretrain.stages, pretrain.done, pretrain.tokens) == (2, 1, 60 * 4 * 64)
    assert pretrain.seconds == pytest.approx(60 * 4 * 64 / 400) and pretrain.flops > 0
    assert corpus.done == 1 and corpus.seconds == 0 and corpus.line[-1] == "–"  # noqa: RUF001
    assert whole.tokens == corpus.tokens + pretrain.tokens and whole.stages == 6
    assert whole.seconds == pretrain.seconds
    metrics = {"metrics.json": {"speed/tokens_per_second": 50.0}}
    store.publish_files(planned().cells[0].stages.readout, metrics)
    *_, finetuning, whole = cost_by_kind(planned())
    assert finetuning.seconds == pytest.approx(finetuning.tokens / 50)
    assert whole.seconds == pretrain.seconds + finetuning.seconds
    assert len(pretrain.line) == len(HEADERS) and pretrain.line[3] == "15,360"
