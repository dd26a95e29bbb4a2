"""The paper's figures with ours: order, what is blank, hatched and said."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.figures import paper_figure
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Axis, Results
from analysis.paper.comparison import Comparison, compare

REGENERATE = Callable[..., Results]


def drawn(results: Results, figure: str, scale: str = "mini") -> Plot:
    plot = paper_figure.draw_comparison(one(results, figure, scale))
    assert plot is not None
    return plot


def texts(plot: Plot) -> list[tuple[float, float, str]]:
    """Every text of the figure with its place: x, y (downwards), text."""
    placed = [(axes.transData.transform(text.get_position()), text) for axes in plot.figure.axes for text in axes.texts]
    return [(round(x), -round(y), " ".join(text.get_text().split())) for (x, y), text in placed]


def words(plot: Plot) -> Counter[str]:
    return Counter(text for _, _, text in texts(plot))


def hatched(plot: Plot) -> int:
    return sum(patch.get_hatch() is not None for axes in plot.figure.axes for patch in axes.patches)


def one(results: Results, figure: str, scale: str = "mini") -> Comparison:
    departures = () if scale == "full" else ("corpus.people: the paper has 100000, here 500",)
    recorded = tuple(replace(cell, departures=departures) for cell in results.cells)
    (found,) = compare(replace(results, cells=recorded), [figure], scale=scale)
    return found


def test_rows_stand_in_the_papers_order(regenerate: REGENERATE) -> None:
    results = regenerate("fig9")
    found = texts(drawn(Results("s", results.cells[::-1]), "fig9"))
    names = [text for _, text in sorted((y, text) for _, y, text in found if text.startswith("bioS "))]
    assert names[:3] == ["bioS single", "bioS single+fullname", "bioS single+permute1+fullname"]
    assert names[:16] == names[16:] and len(set(names)) == 16, "ours above, the paper's below"


def test_columns_stand_in_the_papers_order(regenerate: REGENERATE) -> None:
    found = texts(drawn(regenerate("fig5"), "fig5"))
    heads = ["birth month", "birth city", "university", "major", "company", "company city"]
    shown = [text for _, _, text in sorted((y, x, text) for x, y, text in found if text in heads)]
    assert shown == heads * 2
    positions = [text for _, _, text in sorted((y, x, text) for x, y, text in found if text and text in "012345")]
    assert positions == list("012345") * 12


def test_every_number_is_drawn_with_ours_and_the_papers(regenerate: REGENERATE) -> None:
    counted = words(drawn(regenerate("fig12a", shift=0.001), "fig12a"))
    assert counted["56.1"] == 1 and counted["56.2"] == 1, "bioR single, company city"
    assert counted["10.1 [8.1, 12.1]"] == 1 and counted["10.0"] == 1, "a mean has its interval"
    assert counted["majority baseline"] == 2 and counted["5.0"] == 2 * 7
    assert counted["Figure 12a: ours at scale mini"] == 1 and counted["Figure 12a: the paper"] == 1
    (note,) = [text for text in counted if text.startswith("exact match")]
    assert "n = 250; 95 % interval of the others up to ±2.0 points" in note and "complete" not in note
    assert words(drawn(regenerate("fig12a"), "fig12a", scale="full"))["Figure 12a: ours"] == 1


def test_a_half_finished_sweep_says_so(regenerate: REGENERATE) -> None:
    results = regenerate("fig7", running=["bioS single", "bioS multi5"])
    plot = drawn(results, "fig7")
    counted = words(plot)
    # Once for the answers, once for both groups of probes.
    assert counted["running"] == 2 * 2 and hatched(plot) == 2 * (7 + 6 + 5)
    assert any("14 of 16 rows complete" in told for told in counted)
    assert hatched(drawn(regenerate("fig7"), "fig7")) == 0


def test_one_seed_of_two_is_marked(regenerate: REGENERATE) -> None:
    done, later = regenerate("fig8"), regenerate("fig8", running=["bioR single"], also={"seed": 1})
    counted = words(drawn(Results("s", done.cells + later.cells), "fig8"))
    assert counted["bioR single *"] == 1 and counted["bioR single+CEL"] == 1
    assert any("* may change" in told and "4 of 5 rows complete" in told for told in counted)


def test_further_rows_of_ours_are_one_of_the_papers(regenerate: REGENERATE) -> None:
    people: dict[str, Axis] = {"corpus.people": 1000}
    results = Results("s", regenerate("fig8").cells + regenerate("fig8", also=people).cells)
    counted = words(drawn(results, "fig8"))
    assert counted["bioR single [corpus.people=500]"] == counted["bioR single [corpus.people=1000]"] == 1
    assert counted["bioR single"] == 1 and counted["56.6"] == 2 + 1, "twice ours, once the paper's"
    assert one(results, "fig8").counts == (10, 10, 5, 5)


def test_rows_that_no_language_model_has_written_are_marked_and_the_papers_are_not(regenerate: REGENERATE) -> None:
    results = regenerate("fig8", also={"corpus.writer.backend": "rules"})
    counted = words(drawn(results, "fig8"))
    for row in ("bioR single", "bioR single+wiki", "bioR single+CEL"):
        assert counted[f"{row} [rules, no LLM]"] == 1 and counted[row] == 1, counted
    assert counted["bioS single+permute1"] == 2
    compared = one(results, "fig8")
    ours = [line[0] for sheet in compared.sheets() for line in sheet.lines if line[0].startswith("bioR single")]
    assert ours and all("[rules, no LLM]" in name for name in ours)
    frame = compared.frame()
    assert frame[frame.row.str.startswith("bioR") & frame.ours.notna()].row.str.endswith(" [rules, no LLM]").all()


def test_what_the_paper_leaves_blank_is_blank(regenerate: REGENERATE) -> None:
    results = regenerate("fig13a", running=["bioS multi2"])
    assert hatched(drawn(results, "fig13a")) == 21, "a fixed order is a triangle"


def test_grids_have_both_accuracies_and_say_what_is_missing(regenerate: REGENERATE) -> None:
    found = words(drawn(regenerate("fig2", shift=0.001), "fig2"))
    assert found["(26.2) 7.8"] == 1 and found["(26.3) 7.9"] == 1 and found["(98.9) 7.5"] == 1
    assert found["q/v rank"] == 4 and found["embedding rank"] == 8 and found["train all"] == 2 * 4 + 4
    half = drawn(regenerate("fig2", running={"bioR single"}), "fig2")
    assert hatched(half) == 2 * 31
    told = " ".join(text for _, _, text in texts(half))
    assert told.count("hatched: 31 running") == 2 and "0 of 6 rows complete" in told


def test_ratios_are_two_maps(regenerate: REGENERATE) -> None:
    found = words(drawn(regenerate("fig10", running=["bioR multi3"]), "fig10"))
    assert found["Figure 10, bioS: the paper"] == 1 and found["Figure 10, bioR: ours at scale mini"] == 1
    assert found["0.1"] == 4 and found["24.5"] == 1 and found["24.5 [22.5, 26.5]"] == 1
    assert any("hatched: 7 running" in text for text in found)


@pytest.mark.parametrize("figure", ["fig6", "fig15"])
def test_sets_are_no_heat_map(figure: str, regenerate: REGENERATE) -> None:
    assert paper_figure.draw_comparison(one(regenerate(figure), figure)) is None


def test_the_picture_is_the_same_again_and_a_png(regenerate: REGENERATE) -> None:
    results = regenerate("fig1a")
    plot = drawn(results, "fig1a")
    assert plot.svg == drawn(results, "fig1a").svg and plot.png.startswith(b"\x89PNG")
