"""The figure of answers: bars for a few settings, a heat map for many."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from analysis import figure, paper
from analysis.cells import Cell, Results
from analysis.drawing import Plot


@pytest.mark.parametrize("draw", [figure.bars, figure.heat_map])
def test_figures_are_deterministic_text_bearing_svg(draw: Callable[..., Plot], contrast: Results) -> None:
    svg = draw(contrast, paper.figure("fig3")).svg
    assert svg == draw(contrast, paper.figure("fig3")).svg
    words = {"".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert "major" in words and any("recall 71 %" in word for word in words)
    assert any(word.startswith("bioS multi5+permute+fullname") for word in words)


def test_many_settings_become_a_heat_map(make: Callable[..., Cell]) -> None:
    few = Results("s", tuple(make(0.5, multi=m) for m in range(1, 7)))
    many = Results("s", tuple(make(0.5, multi=m) for m in range(1, 8)))
    assert figure.draw(few).svg == figure.bars(few).svg
    assert figure.draw(many).svg == figure.heat_map(many).svg
