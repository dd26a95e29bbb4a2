from collections.abc import Callable
from typing import Any

import pytest

from ktrain.config import CorpusConfig
from ktrain.model import networks as built
from sweeps.planning import cost
from sweeps.planning.network_summary import NetworkSummary, bits_of_facts, networks
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]


def test_the_papers_people_have_46_6_bits_each() -> None:
    """By hand: log2 of 12 * 28 * 200 dates, 200 cities, 300 universities, 100 majors, 263 companies."""
    assert bits_of_facts(CorpusConfig()) / 100_000 == pytest.approx(46.6, abs=0.05)
    with_celebrities = CorpusConfig.model_validate({"celebrity_fraction": 0.5})
    assert bits_of_facts(with_celebrities) == 2 * bits_of_facts(CorpusConfig())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_a_shape_of_ones_own_has_the_parameters_that_are_told(planned: Planner, family: str) -> None:
    sizes: dict[str, Any] = {"model__layers": [2], "model__heads": [2], "model__width": [32]}
    plan = planned(model__family=[family], model__size=["mini"], **sizes)
    cell = plan.cells[0].cell
    ((name, summary),) = networks(plan).items()
    network = built.build_network(cell.model, cost.vocabulary(cell), cell.train.context, 0, 0)
    assert name.startswith(f"{family} 2x32h2, tokenizer ")
    assert summary.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_facts_that_do_not_fit_are_said() -> None:
    """Of the paper's: 100,000 people in 124M parameters fit fifty times."""
    fits = NetworkSummary(parameters=124_000_000, flops_per_token=8 * 10**8, bytes=25 * 10**9, bits=4.66e6)
    assert fits.line("gpt2 124m") == "gpt2 124m: 124,000,000 parameters, 800.0 MFLOP a token, 25.0 GB to train"
    small = NetworkSummary(parameters=1_000_000, flops_per_token=1, bytes=1, bits=4.66e6)
    assert small.line("").endswith("; too small: the facts are 4.66 Mbit, and 2 bits a parameter hold 2.00")
