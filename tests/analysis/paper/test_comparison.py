"""A figure of the paper beside ours, as numbers, as text and in words."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.measurements.cells import Cell, Results
from analysis.paper import tables
from analysis.paper.comparison import Comparison, compare
from analysis.paper.matching import ABSENT
from analysis.presentation.number_format import MISSING

REGENERATE = Callable[..., Results]


def as_in_the_paper(results: Results) -> Results:
    """The same cells, recorded without any departure."""
    return replace(results, cells=tuple(replace(cell, departures=()) for cell in results.cells))


def one(results: Results, figure: str, scale: str = "mini") -> Comparison:
    (found,) = compare(results, [figure], scale=scale)
    return found


def test_every_number_has_a_line(regenerate: REGENERATE) -> None:
    frame = one(regenerate("fig3", shift=0.05), "fig3").frame()
    assert len(frame) == len(tables.numbers("fig3"))
    line = frame[(frame["row"] == "bioS multi5") & (frame["column"] == "QA mean acc")].iloc[0]
    assert line[["ours", "paper", "difference"]].tolist() == pytest.approx([0.46, 0.41, 0.05])
    assert line[["low", "high"]].tolist() == pytest.approx([0.44, 0.48])
    assert (line["n"], line["seeds"], line["state"], line["metric"]) == (250, 1, "done", "qa/exact_match/test/mean")
    assert line["keys"].startswith("bioS multi5 qa_finetune") and line["figure"] == "fig3"
    assert frame["paper_low"].isna().all()


def test_rows_that_are_not_planned_are_in_the_data_and_not_in_the_table(make: Callable[..., Cell]) -> None:
    found = one(Results("s", (make(0.3), make(0.6, multi=5))), "fig3")
    assert found.counts == (2, 2, 2, 16)
    frame = found.frame()
    assert set(frame[frame["row"] == "bioS multi2"]["state"]) == {ABSENT}
    (sheet,) = found.sheets()
    assert [line[0] for line in sheet.lines if line[0]] == ["baseline", "bioS single", "bioS multi5"]
    assert not any("MIX" in header for header in sheet.headers), "a readout that is not planned has no columns"
    assert found.remarks()[:2] == (
        "2 of the 16 rows of Figure 3 are in this plan.",
        "Not in this plan: Mixed training.",
    )


def test_the_table_has_ours_the_papers_and_the_difference(regenerate: REGENERATE) -> None:
    found = one(as_in_the_paper(regenerate("fig3", shift=0.05, running=["bioS multi2"])), "fig3", scale="full")
    (sheet,) = found.sheets()
    assert "Figure 3" in sheet.title and "arXiv" in sheet.note and len(sheet.lines) == 3 * 17
    at = next(k for k, line in enumerate(sheet.lines) if line[0] == "bioS single")
    ours, theirs, difference = (dict(zip(sheet.headers, line, strict=True)) for line in sheet.lines[at : at + 3])
    assert (ours["QA mean acc"], theirs["QA mean acc"], difference["QA mean acc"]) == (
        "14.7 [12.7, 16.7]",
        "9.7",
        "+5.0",
    )
    assert (ours["MIX c_city"], ours["n"], ours["seeds"], ours["state"]) == ("58.4", "250", "1", "done")
    running = next(k for k, line in enumerate(sheet.lines) if line[0] == "bioS multi2")
    assert sheet.lines[running] == ("bioS multi2", "ours", "running") and sheet.lines[running + 1][2] == "41.1"
    assert sheet.lines[running + 2][2] == MISSING
    assert found.remarks() == ("15 of 16 rows have all their cells done; the others may change.",)
    assert found.agreement() == () and all(line[0] == "" for line in sheet.lines[1::3])
    assert set(sheet.quiet) == set(range(2, 51, 3))


def test_another_scale_is_said_and_orders_are_compared(regenerate: REGENERATE) -> None:
    found = one(regenerate("fig12c", shift=-0.03), "fig12c")
    assert "not the same experiment" in found.remarks()[-1] and "scale mini" in found.remarks()[-1]
    assert found.sheets()[0].lines[3][1] == "ours, mini" and len(found.sheets()) == 2
    assert [o.tau for o in found.orders() if o.column == "MIX mean acc"] == pytest.approx([1.0])
    assert len(found.agreement()) == 2 and "QA mean acc: Kendall's tau 1.00 over 16 rows" in found.agreement()[0]


def test_the_order_of_fewer_than_four_rows_says_nothing(make: Callable[..., Cell]) -> None:
    written = [{"multi": 1}, {"multi": 2}, {"multi": 5}, {"multi": 5, "permute": 1}]
    cells = tuple(make(0.1 * k, **axes) for k, axes in enumerate(written, 1))
    three, four = (one(Results("s", cells[:count]), "fig3") for count in (3, 4))
    assert len(three.sheets()) == 1 and not three.orders() and not three.agreement()
    _, ordered = four.sheets()
    assert ordered.lines[0][0] == "QA mean acc" and ordered.lines[0][2] == "4" and "over 4 rows" in four.agreement()[0]


def test_what_was_recorded_decides_and_not_the_name_of_the_scale(regenerate: REGENERATE) -> None:
    """Full scale with other people, steps or pools is another experiment; without departures any scale is the same."""
    results = regenerate("fig12c")
    departing = one(results, "fig12c", scale="full")
    assert not departing.same and departing.sheets()[0].lines[3][1] == "ours, full" and departing.agreement()
    assert "scale full" in departing.remarks()[-1] and "the paper has 100000, here 500" in departing.remarks()[-1]
    same = one(as_in_the_paper(results), "fig12c", scale="full")
    assert same.same and same.sheets()[0].lines[3][1] == "ours" and same.remarks() == () == same.agreement()
    unknown = replace(results, cells=tuple(replace(cell, departures=None) for cell in results.cells))
    assert "were not recorded" in one(unknown, "fig12c", scale="full").remarks()[-1]
    first, *others = as_in_the_paper(results).cells
    many = replace(first, departures=tuple(f"axis{k}" for k in range(5)))
    remark = one(replace(results, cells=(many, *others)), "fig12c", scale="full").remarks()[-1]
    assert "(axis0; axis1; axis2; and 2 more)" in remark, "one cell is enough"
    assert one(replace(results, cells=(replace(many, state="missing"), *others)), "fig12c").same, "it has no number"


def test_grids_have_a_table_for_each_panel_and_metric(regenerate: REGENERATE) -> None:
    found = one(regenerate("fig2"), "fig2")
    assert len(found.sheets()) == 4 * 2 + 1
    sheet = found.sheets()[1]
    assert "124M bioS single" in sheet.title and "exact_match/test" in sheet.title
    assert sheet.headers[2:8] == ("0", "16", "32", "64", "128", "train all") and sheet.lines[0][0] == "train all"
    assert sheet.lines[3][:3] == ("32", "ours, mini", "7.8 [5.8, 9.8]") and sheet.lines[0][7] == "7.5 [5.5, 9.5]"
    assert {(o.panel.split(" ")[0], o.n) for o in found.orders()} == {("124M", 31), ("302M", 31), ("682M", 31)}


def test_ranges_stand_as_ranges(regenerate: REGENERATE) -> None:
    found = one(regenerate("fig15", shift=-0.3), "fig15")
    sheet = found.sheets()[0]
    texts = dict(zip(sheet.headers, sheet.lines[1], strict=True))
    assert texts["b_city after univ"] == "1.7 to 3.5" and texts["b_city after nothing"] == "3.4"
    frame = found.frame().set_index(["row", "column"])
    assert frame.loc[("bioS couple2", "major after b_date"), "difference"] == pytest.approx(-0.287)
    assert frame.loc[("bioS couple2", "major after b_date"), "paper_high"] == 0.884


def test_figures_are_those_of_which_there_is_a_cell(regenerate: REGENERATE) -> None:
    results = regenerate("fig16a", "fig12b")
    assert [c.figure for c in compare(results, ["fig12", "fig16", "fig4", "fig16a"], scale="full")] == [
        "fig12b",
        "fig16a",
        "fig16b",
    ]
    assert compare(results, ["fig9"], scale="full") == ()
    keys = {key for c in compare(results, ["fig12", "fig16"], scale="full") for key in c.keys}
    assert keys == {cell.key for cell in results.cells}


def test_a_figure_of_a_whole_is_compared_to_its_own_cells(regenerate: REGENERATE) -> None:
    plain, larger = regenerate("fig3"), regenerate("fig7", also={"corpus.people": 1000, "train.steps": 1800})
    both = Results("paper", plain.cells + larger.cells)
    parts = {"fig3": {cell.key for cell in plain.cells}, "fig7": {cell.key for cell in larger.cells}}
    mixed = compare(both, ["fig3", "fig7"], scale="mini")
    assert [c.counts.shown for c in mixed] == [32, 32]
    apart = compare(both, ["fig3", "fig7"], scale="mini", parts=parts)
    assert [c.counts for c in apart] == [(16, 16, 16, 16)] * 2
    assert [c.keys for c in apart] == [parts["fig3"], parts["fig7"]]
