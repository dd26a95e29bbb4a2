from pathlib import Path
from typing import Any

import pytest

from ktrain.config import Cell
from ktrain.errors import WrongRequest
from ktrain.shapes import SHAPES, parameters
from ktrain.stages import chain
from sweeps import Sweep, cost
from sweeps.sweep import expand


def cell(scale: str = "full", **axes: Any) -> Cell:
    (found,) = expand(Sweep("g", {name.replace("__", "."): value for name, value in axes.items()}), scale, {})
    return found


def test_a_gpu_is_a_share_of_its_peak() -> None:
    assert cost.gpu("h100").speed == 0.4 * 989e12 and cost.gpu("h100").name == "H100"
    assert cost.gpu("a100").told == "40 % of its peak of 312 TFLOP/s, assumed"
    with pytest.raises(WrongRequest, match=r"gpu=h1000: must be one of h100, .*; did you mean h100"):
        cost.gpu("h1000")


def test_a_measured_speed_goes_before_an_assumed_one() -> None:
    assert cost.chosen("", None) is None
    assert cost.chosen("a100", None) == cost.gpu("a100")
    found = cost.chosen("a100", 100_000.0)
    assert found is not None and found.name == "A100"
    pretrain = chain(cell())[1]
    # 80,000 steps of 96 x 512 tokens.
    assert cost.seconds(pretrain, cell(), found.speed) == pytest.approx(80_000 * 96 * 512 / 100_000)
    for speed in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(WrongRequest, match=r"tokens-per-second=.*: must be above 0"):
            cost.chosen("", speed)


def test_celebrities_are_written_and_asked_about_too() -> None:
    plain, famous = cell(), cell(corpus__celebrity_fraction=0.5)
    entry, asked = 73, 6 * 24
    assert cost.tokens(chain(plain)[0], plain) == 100_000 * (entry + asked)
    assert cost.tokens(chain(famous)[0], famous) == 100_000 * (entry + asked) + 100_000 * (5 * entry + asked)
    assert cost.tokens(chain(famous)[1], famous) == cost.tokens(chain(plain)[1], plain)


def test_couples_have_as_many_entries_as_their_name_says() -> None:
    found = cell(corpus__couple=5)
    assert cost.tokens(chain(found)[0], found) == 100_000 * (5 * 73 + 6 * 24)


def test_background_text_is_counted_where_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 4000)
    plain, unnamed = cell(), cell(corpus__background="?")
    named = cell(corpus__background=str(tmp_path))
    texts = [cost.tokens(chain(c)[0], c) for c in (plain, unnamed, named)]
    assert texts[0] == texts[1] == texts[2] - 1000


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_a_pretraining_keeps_its_network_and_costs_six_operations_a_weight(family: str) -> None:
    found = cell(model__family=family)
    pretrain = chain(found)[1]
    weights, shape = parameters(found.model, 50_257), SHAPES["124m"]
    assert cost.size(pretrain, found) == 4 * weights
    multiplied = weights - (50_257 * shape.width if family == "llama" else 0)
    each = 6 * multiplied + 12 * shape.layers * shape.width * 512
    assert cost.flops(pretrain, found) == 80_000 * 96 * 512 * each


def test_probes_keep_their_adapters_and_a_line_for_every_example() -> None:
    p, q = cell(readout__kind="p_probe", corpus__multi=5), cell(readout__kind="q_probe", corpus__multi=5)
    assert cost.size(chain(p)[2], p) == 11 * (4 * 50_257 * 2 + 16 * 500_000)
    assert cost.size(chain(q)[2], q) == 11 * (4 * 50_257 * 16 + 16 * 100_000)
    whole = cell(readout__kind="q_probe", readout__rank_embedding="full")
    assert cost.size(chain(whole)[2], whole) == 11 * (4 * 50_257 * 768 + 16 * 100_000)
    # Of a probe's cell, the pretrained network is kept like any other.
    assert cost.size(chain(q)[1], q) == 4 * parameters(q.model, 50_257)


def test_what_trains_nothing_takes_a_moment() -> None:
    found = cell(readout__kind="mixed", train__qa_ratio=0.8)
    corpus, _, mixed = chain(found)
    assert cost.flops(corpus, found) == cost.flops(mixed, found) == 0.0
    assert 0 < cost.seconds(mixed, found, 1e12) < 10
