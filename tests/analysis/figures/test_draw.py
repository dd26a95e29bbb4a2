"""Which figures there are."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis.figures import answer_bars, draw, probe_figure
from analysis.measurements.cells import Cell, Results
from analysis.measurements.curves import CURVE_COLUMNS, wilson
from analysis.measurements.names import LEARNING
from analysis.paper import tables
from analysis.paper.comparison import compare


def test_figures_follow_the_readouts(contrast: Results, probes: Results, make: Callable[..., Cell]) -> None:
    def names(results: Results) -> list[str]:
        return [drawing.name for drawing in draw.draw_figures(results, tables.beside("fig3"))]

    assert names(contrast) == ["figure"]
    assert names(Results("s", (make(0.2, readout="q_probe"),))) == ["probes"]
    assert names(probes) == ["probes", "seen", "sets"]
    assert names(Results("s", contrast.cells + probes.cells)) == ["figure", "probes", "seen", "sets"]
    assert names(Results("s", ())) == ["figure"]


def test_each_is_drawn_from_its_own_cells(contrast: Results, probes: Results) -> None:
    both = draw.draw_figures(Results("s", contrast.cells + probes.cells), question="Which?")
    assert both[0].svg == answer_bars.draw_answers(contrast).svg and both[1].svg == probe_figure.draw_probes(probes).svg
    assert both[0].caption == "Which?" and len({drawing.caption for drawing in both}) == 4
    assert draw.draw_figures(probes, question="Which?")[0].caption.startswith("Which? ")


def test_a_sweep_that_regenerates_a_figure_has_the_papers(regenerate: Callable[..., Results], tmp_path: Path) -> None:
    results = regenerate("fig3", "fig12c")
    compared = compare(results, ["fig3", "fig12", "fig6"], scale="mini")
    drawn = draw.draw_figures(results, tables.beside("fig3"), question="Which?", comparisons=compared)
    assert [drawing.name for drawing in drawn] == ["fig3", "fig12c"]
    assert drawn[0].caption.startswith("Which? arXiv 2309.14316v3, Figure 3: ") and "scale mini" in drawn[1].caption
    written = drawn[0].write(tmp_path)
    assert [path.name for path in written] == list(drawn[0].files) == ["fig3.svg", "fig3.png", "fig3.csv"]
    assert written[0].read_text("utf-8") == drawn[0].svg and written[1].read_bytes()[:4] == b"\x89PNG"
    data = pd.read_csv(written[2])
    assert len(data) == len(tables.numbers("fig3")) and data["ours"].sum() > 0
    made = draw.sections(drawn, compared)
    assert [section.title for section in made] == ["Figure 3", "Figure 12c"]
    assert made[0].pictures[0].files == drawn[0].files and len(made[0].sheets) == 2
    assert "not the same experiment" in made[0].note and "Kendall's tau" in made[0].note


def test_cells_of_no_figure_are_drawn_as_those_of_any_sweep(regenerate: Callable[..., Results]) -> None:
    results, others = regenerate("fig8"), regenerate("fig13b")
    compared = compare(Results("s", results.cells + others.cells), ["fig8"], scale="mini")
    drawn = draw.draw_figures(Results("s", results.cells + others.cells), comparisons=compared)
    assert [drawing.name for drawing in drawn] == ["fig8", "probes"]
    assert set(drawn[1].data["group"]) == {"p_probe"}
    made = draw.sections(drawn, compared)
    assert [(section.title, len(section.pictures)) for section in made] == [("", 1), ("Figure 8", 1)]


def test_set_diagrams_are_the_papers_figure_where_the_sweep_regenerates_it(regenerate: Callable[..., Results]) -> None:
    results = regenerate("fig15")
    compared = compare(results, ["fig6", "fig15"], scale="mini")
    drawn = draw.draw_figures(results, comparisons=compared)
    assert [drawing.name for drawing in drawn][-1] == "fig15"
    assert len(drawn[-1].data) == len(tables.numbers("fig15")) == 9 * 12
    assert {section.title: len(section.pictures) for section in draw.sections(drawn, compared)}["Figure 15"] == 1


def test_two_rows_of_sixteen_are_no_figure_of_the_paper(contrast: Results) -> None:
    compared = compare(contrast, ["fig3"], scale="mini")
    drawn = draw.draw_figures(contrast, tables.beside("fig3"), comparisons=compared)
    assert [drawing.name for drawing in drawn] == ["figure"] and len(compared) == 1
    assert drawn[0].svg == answer_bars.bars(contrast, tables.beside("fig3")).svg


def test_learning_curves_are_a_figure_with_their_numbers(make: Callable[..., Cell]) -> None:
    cell = make(0.8, readout="mixed", qa_ratio=0.5)
    lines = [
        [cell.key, "bioS single", 0.5, 0, "run", name, step, step / 900, step / 1000, 200, *wilson(step / 1000, 200)]
        for name in LEARNING
        for step in (0, 450, 900)
    ]
    curves = pd.DataFrame(lines, columns=list(CURVE_COLUMNS)).astype({"n": "Int64"})
    drawings = draw.draw_figures(Results("s", (cell,)), curves=curves)
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
        (drawn,) = draw.draw_figures(Results("s", cells), best_of=over)
        assert "best of 2" in drawn.svg and "rank_embedding" not in drawn.svg
