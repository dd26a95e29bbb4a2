"""The figure of answers: bars for a few settings, a heat map for many."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pandas as pd
import pytest

from analysis.figures import answer_bars
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Cell, Results
from analysis.paper import tables


@pytest.mark.parametrize("draw", [answer_bars.bars, answer_bars.heat_map])
def test_figures_are_deterministic_text_bearing_svg(draw: Callable[..., Plot], contrast: Results) -> None:
    svg = draw(contrast, tables.figure("fig3")).svg
    assert svg == draw(contrast, tables.figure("fig3")).svg
    words = {"".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert "major" in words and any("recall 71 %" in word for word in words)
    assert any(word.startswith("bioS multi5+permute+fullname") for word in words)


def test_many_settings_become_a_heat_map(make: Callable[..., Cell]) -> None:
    few = Results("s", tuple(make(0.5, multi=m) for m in range(1, 7)))
    many = Results("s", tuple(make(0.5, multi=m) for m in range(1, 8)))
    assert answer_bars.draw_answers(few).svg == answer_bars.bars(few).svg
    assert answer_bars.draw_answers(many).svg == answer_bars.heat_map(many).svg


def test_no_number_of_ours_stands_where_it_could_be_read_as_the_papers(make: Callable[..., Cell]) -> None:
    results = Results("s", (make(0.03), make(0.82, multi=5)))
    axes = answer_bars.bars(results, tables.figure("fig3")).figure.axes[0]
    numbers = [text for text in axes.texts if text.get_text() in ("3.0", "82")]
    assert len(numbers) >= 2 and all(text.get_position()[1] < 0 and text.get_va() == "top" for text in numbers)
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    assert marks and all(line.get_ydata()[0] >= 0 for line in marks)  # type: ignore[index,operator]


def test_the_legend_says_what_the_papers_mark_is(make: Callable[..., Cell]) -> None:
    results = Results("s", (make(0.03), make(0.82, multi=5)))
    assert "the paper (124M, 100,000 people)" in answer_bars.bars(results, tables.figure("fig3")).svg
    both = pd.concat([tables.figure("fig3"), tables.figure("fig12a")])
    free = Results("s", (*results.cells, make(0.4, **{"corpus.kind": "bioR"})))
    assert "the paper (124M and 302M, 100,000 people)" in answer_bars.bars(free, both).svg
    own = Results("s", (make(0.4, multi=7),))
    assert "the paper" not in answer_bars.bars(own, tables.figure("fig3")).svg
