"""The figure of learning curves: a panel for each mixed training, whatever has become of it."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from analysis.figures import curve_figure
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Cell, Results
from analysis.measurements.curves import CURVE_COLUMNS, wilson
from analysis.measurements.names import LEARNING

TEXT = "{http://www.w3.org/2000/svg}text"
MIXED = {"readout": "mixed", "qa_ratio": 0.5}


def words(plot: Plot | None) -> Counter[str]:
    assert plot is not None
    return Counter("".join(element.itertext()) for element in ET.fromstring(plot.svg).iter(TEXT))


def curves(*cells: Cell, ends: float = 0.9, upto: float = 1.0) -> pd.DataFrame:
    """Straight lines from 0 to `ends`, less 0.1 for each metric after the first."""
    lines = []
    for cell in cells:
        whole = cell.params["train.steps"]
        assert isinstance(whole, int)
        for k, name in enumerate(LEARNING):
            for fraction in (0.0, upto / 2, upto):
                value = (ends - 0.1 * k) * fraction
                about = [cell.key, "", cell.params["train.qa_ratio"], cell.params["seed"], f"run of {cell.key}", name]
                lines.append([*about, round(whole * fraction), fraction, value, 250, *wilson(value, 250)])
    return pd.DataFrame(lines, columns=list(CURVE_COLUMNS)).astype({"n": "Int64"})


def test_none_without_curves(make: Callable[..., Cell], contrast: Results) -> None:
    assert curve_figure.draw_curves(contrast, curves()) is None
    finetuned = make(0.1)
    assert curve_figure.draw_curves(Results("s", (finetuned,)), curves(finetuned)) is None, "only of mixed training"
    assert curve_figure.draw_curves(Results("s", (make(0.8, **MIXED),)), curves()) is None


def test_each_mixed_training_is_a_panel_with_its_state(make: Callable[..., Cell]) -> None:
    done, running = make(0.8, **MIXED), make(state="running", multi=5, **MIXED)
    blocked = make(state="blocked: recall 71 %", multi=2, **MIXED)
    cells = Results("s", (done, running, blocked, make(0.1)))
    points = pd.concat([curves(done), curves(blocked, upto=0.5)])
    told = words(curve_figure.draw_curves(cells, points))
    assert (told["bioS single"], told["bioS multi5"], told["bioS multi2"]) == (1, 1, 1)
    assert told["running"] == 1
    assert told["n = 250"] == 1
    assert told["n = 250, curves up to 50 % of training, blocked: recall 71 %"] == 1
    assert all(sum(label in word for word in told) == 1 for label in LEARNING.values())
    assert [told[number] for number in ("90", "80", "70", "60")] == [1, 1, 1, 1], "where the lines end"


def test_seeds_are_one_panel(make: Callable[..., Cell]) -> None:
    first, second = make(0.8, **MIXED), make(0.8, seed=1, **MIXED)
    points = pd.concat([curves(first), curves(second, ends=0.88)])
    told = words(curve_figure.draw_curves(Results("s", (first, second)), points))
    assert told["bioS single"] == 1 and told["n = 500, 2 seeds"] == 1 and told["89"] == 1


def test_epochs_are_those_of_the_paper_and_only_of_its_experiment(make: Callable[..., Cell]) -> None:
    cell = make(0.8, steps=80_000, **MIXED)
    for departures, count in (((), 1), (("train.batch: the paper has 96, here 8",), 0), (None, 0)):
        recorded = replace(cell, scale="full", departures=departures)
        told = words(curve_figure.draw_curves(Results("s", (recorded,)), curves(cell)))
        assert told["epochs of 500 steps, as in the paper"] == count and told["160"] == count
        assert told["80,000"] == 1


def test_more_panels_than_can_be_read_are_said(make: Callable[..., Cell]) -> None:
    cells = tuple(make(0.8, multi=m, fullname=f, **MIXED) for m in range(1, 9) for f in (False, True))
    told = words(curve_figure.draw_curves(Results("s", cells), curves(*cells)))
    assert sum(word.startswith("bioS ") for word in told) == 12
    assert sum("the first 12 of 16 trainings" in word for word in told) == 1


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([99.6, 99.2, 84.0], [(84.0, "84"), (99.4, "99\N{EN DASH}100")]),
        ([50.0, 50.2], [(50.1, "50")]),
        ([10.0, 20.0], [(10.0, "10"), (20.0, "20")]),
    ],
)
def test_lines_that_end_together_share_a_number(ends: list[float], said: list[tuple[float, str]]) -> None:
    found = curve_figure._together(ends)
    assert [text for _, text in found] == [text for _, text in said]
    assert [height for height, _ in found] == pytest.approx([height for height, _ in said])
