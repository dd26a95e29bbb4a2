"""Which figures there are."""

from collections.abc import Callable

import pandas as pd

from analysis import figure, figures, paper, probe_figure
from analysis.cells import Cell, Results
from analysis.learning import COLUMNS, wilson
from analysis.names import LEARNING


def test_figures_follow_the_readouts(contrast: Results, probes: Results, make: Callable[..., Cell]) -> None:
    def names(results: Results) -> list[str]:
        return [drawing.name for drawing in figures.draw(results, paper.beside("fig3"))]

    assert names(contrast) == ["figure"]
    assert names(Results("s", (make(0.2, readout="q_probe"),))) == ["probes"]
    assert names(probes) == ["probes", "seen", "sets"]
    assert names(Results("s", contrast.cells + probes.cells)) == ["figure", "probes", "seen", "sets"]
    assert names(Results("s", ())) == ["figure"]


def test_each_is_drawn_from_its_own_cells(contrast: Results, probes: Results) -> None:
    both = figures.draw(Results("s", contrast.cells + probes.cells), question="Which?")
    assert both[0].svg == figure.draw(contrast).svg and both[1].svg == probe_figure.draw(probes).svg
    assert both[0].caption == "Which?" and len({drawing.caption for drawing in both}) == 4
    assert figures.draw(probes, question="Which?")[0].caption.startswith("Which? ")


def test_learning_curves_are_a_figure_with_their_numbers(make: Callable[..., Cell]) -> None:
    cell = make(0.8, readout="mixed", qa_ratio=0.5)
    lines = [
        [cell.key, "bioS single", 0.5, 0, "run", name, step, step / 900, step / 1000, 200, *wilson(step / 1000, 200)]
        for name in LEARNING
        for step in (0, 450, 900)
    ]
    curves = pd.DataFrame(lines, columns=list(COLUMNS)).astype({"n": "Int64"})
    drawings = figures.draw(Results("s", (cell,)), curves=curves)
    assert [drawing.name for drawing in drawings] == ["figure", "curves"]
    data = drawings[1].data
    assert len(data) == 15 and data["value"].max() == 0.9 and set(data["n"]) == {200}
    assert "out of distribution" in drawings[1].caption


def test_the_best_of_is_said_in_either_form(make: Callable[..., Cell]) -> None:
    over = ("readout.rank_embedding",)
    for many in (1, 4):
        cells = tuple(
            make(0.2 + 0.1 * k, rank_embedding=k, multi=m, permute=p)
            for m in range(1, many + 1)
            for p in (0, 1)
            for k in (0, 1)
        )
        (drawn,) = figures.draw(Results("s", cells), best_of=over)
        assert "best of 2" in drawn.svg and "rank_embedding" not in drawn.svg
