"""An attribute besides the six stands in every table and figure under its own name; the six stand as ever."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable

import pandas as pd
import pytest

from analysis.claims.judge import judge
from analysis.figures import answer_bars, prefix_heatmap, probe_figure
from analysis.figures.draw import draw_figures
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Axis, Cell, Results, group_replicates
from analysis.measurements.compact_frame import compact
from analysis.measurements.names import ATTRIBUTES, attributes_of, in_order, p_probe_after
from analysis.measurements.table_rows import attributes, baseline, rows
from analysis.paper import tables
from analysis.paper.matching import candidates_by_place
from analysis.presentation.number_format import MISSING
from analysis.report import answer_sheets, headline, probe_table, sample_answers, table

Make = Callable[..., Cell]
OWN = ("favourite_colour", "hobby")
BEST = {"multi": 5, "permute": 1}
TEXT = "{http://www.w3.org/2000/svg}text"


def words(svg: str) -> Counter[str]:
    """The texts of a figure; the lines of a label are texts of their own."""
    return Counter("".join(element.itertext()) for element in ET.fromstring(svg).iter(TEXT))


def unmeasured(make: Make, **axes: Axis) -> Cell:
    """A planned cell: nothing tells which attributes its people have."""
    return Cell(**vars(make(0.1, state="planned", **axes)) | {"metrics": {}, "n": {}, "interval": {}})


@pytest.fixture
def answers(make: Make) -> Results:
    """Two settings, of which the first has people with the six attributes alone."""
    return Results("s", (make(0.2), make(0.8, own=OWN, **BEST)))


def test_attributes_are_those_with_a_baseline_and_the_six_come_first() -> None:
    assert attributes_of(["baseline/test/hobby", "baseline/first/club", "baseline/test/mean", "qa/x/test/no"]) == (
        *ATTRIBUTES, "club", "hobby",
    )  # fmt: skip
    assert attributes_of([]) == ATTRIBUTES and in_order(["hobby", "major", "club"]) == ("major", "club", "hobby")
    after = p_probe_after("first", ["hobby", "birth_date"], "major")
    assert after == "p_probe/seen/first/birth_date-hobby/major"


def test_a_blocked_cell_has_it_and_a_readout_of_the_users_own_does_not(make: Make) -> None:
    known = make(state="blocked: recall 71 %", own=OWN, **BEST)
    blocked = Cell(**vars(known) | {"metrics": known.metrics | {"baseline/test/hobby": 0.2}})
    assert attributes(rows(Results("s", (blocked,)))) == (*ATTRIBUTES, "hobby")
    axes = {"readout.kind": "other"}
    other = Cell(key="o", axes=axes, params=axes, state="done", metrics={"baseline/test/hobby": 0.2})
    assert "hobby" not in compact(Results("s", (make(0.2), other)))


def test_tables_have_a_column_of_it(answers: Results) -> None:
    text = str(table.render(answers, "table", width=200))
    heads = [line for line in text.splitlines() if "colour" in line]
    assert len(heads) == 1 and "hobby" in heads[0] and heads[0].index("colour") < heads[0].index("hobby")
    # 0.8 and 2.5, 3.5, 4.5 points of each more; the six of the first setting have no such number.
    assert "83.5" in text and "84.5" in text and "_" not in heads[0]
    frame = table.comparison(answers)
    assert frame.at["bioS multi5+permute", "qa/exact_match/test/hobby"] == pytest.approx(0.845)
    assert pd.isna(frame.at["bioS single", "qa/exact_match/test/hobby"])
    assert frame.at["baseline", "qa/exact_match/test/hobby"] == 0.07
    (sheet,) = answer_sheets.sheets(answers)
    assert sheet.headers[8:10] == ("favourite colour", "hobby") and len({*map(len, sheet.lines)}) == 1
    place = sheet.headers.index("hobby")
    assert [line[place] for line in sheet.lines] == ["7.0", MISSING, "84.5"]


def test_a_short_frame_has_it_under_its_name_or_beside_a_column_of_that_name(make: Make) -> None:
    frame = compact(Results("s", (make(0.2), make(0.8, own=("hobby", "state"), **BEST))))
    assert frame["hobby"].tolist()[1] == pytest.approx(0.835) and pd.isna(frame["hobby"][0])
    assert frame["attribute.state"].tolist()[1] == pytest.approx(0.845) and frame["state"].tolist() == ["done"] * 2


@pytest.mark.parametrize("draw", [answer_bars.bars, answer_bars.heat_map])
def test_figures_of_answers_draw_it_where_there_is_one(make: Make, draw: Callable[..., Plot], answers: Results) -> None:
    svg = draw(answers).svg
    assert words(svg)["hobby"] == 1 and "url(#h" not in svg
    assert ("mean of eight" in svg) == (draw is answer_bars.bars)
    assert words(draw(answers, tables.figure("fig3")).svg)["hobby"] == 1
    plain = draw(Results("s", (make(0.2),))).svg
    assert "hobby" not in plain and ("mean of six" in plain) == (draw is answer_bars.bars)


def test_figures_of_probes_have_its_positions(make: Make) -> None:
    cells = [make(0.5, own=("hobby",), readout=kind, **BEST) for kind in ("q_probe", "p_probe")]
    svg = probe_figure.draw_probes(Results("s", tuple(cells))).svg
    # In each position, for first tokens and whole attributes; and in both maps of names.
    assert words(svg)["hobby"] == 7 * 2 + 2 and words(svg)["position 6"] == 2 and "url(#h" not in svg
    # Beside people with six attributes, these have no seventh position, and no hobby at any.
    both = Results("s", (cells[1], make(0.3, readout="p_probe", multi=2, permute=1)))
    assert "url(#h" not in probe_figure.draw_probes(both).svg
    fixed = probe_figure.draw_probes(Results("s", (make(0.5, own=("hobby",), readout="p_probe"),))).svg
    assert [words(fixed)[f"{50 + 2 * i}.0"] for i in range(7)] == [7 + 6, 6 + 6, 5 + 5, 4 + 4, 3 + 3, 2 + 2, 1 + 1]


def test_heat_maps_by_what_was_read_have_it_as_target_and_as_read(make: Make) -> None:
    cell = make(0.5, own=("hobby",), readout="p_probe", **BEST)
    sets = {p_probe_after("first", (), "hobby"): 0.1, p_probe_after("first", ("major", "company"), "hobby"): 0.9}
    sets[p_probe_after("first", ("hobby",), "birth_city")] = 0.4
    plot = prefix_heatmap.draw_prefix_heatmaps(
        Results("s", (Cell(**vars(cell) | {"metrics": dict(cell.metrics) | sets}),))
    )
    assert plot is not None
    texts = words(plot.svg)
    assert sum("P-probe of hobby" in text for text in texts) == 1 and {"10.0", "90.0", "40.0"} <= texts.keys()
    assert texts["hobby"] == 1 and texts["major"] == 2


def test_more_sets_than_a_map_has_room_for_are_not_drawn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make(0.5, own=("hobby",), readout="p_probe", **BEST)
    sets = {p_probe_after("first", chosen, "hobby"): 0.1 for chosen in ((), ("major",), ("company",))}
    results = Results("s", (Cell(**vars(cell) | {"metrics": dict(cell.metrics) | sets}),))
    for most, drawn in ((3, True), (2, False)):
        monkeypatch.setattr(prefix_heatmap, "MOST_SETS", most)
        assert (prefix_heatmap.draw_prefix_heatmaps(results) is not None) == drawn


def test_tables_of_probes_have_it(make: Make) -> None:
    first, whole = probe_table.sheets(Results("s", (make(0.5, own=("hobby",), readout="q_probe", **BEST),)))
    assert first.headers[8] == whole.headers[7] == "hobby" and first.lines[1][8] == "56.0"


def test_a_question_about_it_is_shown() -> None:
    frame = pd.DataFrame(
        {"person": 1, "attribute": a, "split": "test", "prompt": f"What is the {a}? Answer:", "expected": " x.",
         "predicted": "x.", "exact": True}
        for a in ("hobby", *ATTRIBUTES)
    )  # fmt: skip
    shown = sample_answers.sheet([("best", frame)])
    assert shown and shown.title == "Seven questions about people never asked about" and "Of the three" in shown.note
    assert [line[0] for line in shown.lines][-1] == "What is the hobby?" and len(shown.lines) == 7


def test_no_number_of_the_paper_stands_beside_people_with_more_attributes(answers: Results) -> None:
    """The mean would be over other attributes, of biographies with more sentences."""
    paper = tables.figure("fig3")
    less, more = rows(answers)
    assert less.setting in paper.index and more.setting == "bioS multi5+permute with favourite_colour and hobby"
    assert more.setting not in paper.index and more.name == "bioS multi5+permute"
    numbers = tables.numbers("fig3")
    matched = {r.keys for place in candidates_by_place(group_replicates(answers), numbers).values() for r in place}
    assert matched == {(answers.cells[0].key,)}
    assert [drawing.name for drawing in draw_figures(answers, paper)] == ["figure"]


def test_a_row_that_is_not_measured_yet_has_gaps(make: Make) -> None:
    """In a report on a sweep that has not ended."""
    probed = make(0.5, own=("hobby",), readout="p_probe", **BEST)
    svg = probe_figure.draw_probes(Results("s", (probed, unmeasured(make, readout="p_probe")))).svg
    assert words(svg)["hobby"] == 7 * 2 and "url(#h" in svg


def test_figures_have_room_for_as_many_as_rows_have_together(make: Make) -> None:
    cells = make(0.2, own=("a", "b", "c")), make(0.8, own=("d", "e", "f"), **BEST)
    assert "mean of 12" in answer_bars.bars(Results("s", cells)).svg


def test_no_number_of_the_paper_stands_in_a_row_whose_first_readout_is_not_measured(make: Make) -> None:
    (row,) = rows(Results("s", (unmeasured(make, **BEST), make(0.8, own=("hobby",), readout="mixed", **BEST))))
    assert row.setting == "bioS multi5+permute with hobby"


def test_a_baseline_is_not_a_mean_over_different_attributes(make: Make, answers: Results) -> None:
    name = "baseline/test/mean"
    assert baseline(rows(answers), name) is None and baseline(rows(answers), "baseline/test/major") == 0.07
    alike = Results("s", (make(0.2, own=OWN), make(0.8, own=OWN, **BEST)))
    assert baseline(rows(alike), name) == 0.07
    frame = table.comparison(alike, tables.figure("fig3"))
    plain = table.comparison(Results("s", (make(0.2),)), tables.figure("fig3"))
    beside = "paper/qa/exact_match/test/mean"
    assert pd.isna(frame.at["baseline", beside]) and plain.at["baseline", beside] > 0


def test_a_headline_contrasts_the_plainest_setting_as_ever(make: Make) -> None:
    cells = make(0.5, own=OWN), make(0.2, own=OWN, multi=2), make(0.8, own=OWN, **BEST)
    assert "bioS single 50.0 % vs bioS multi5+permute 80.0 %" in headline.find_headline(Results("s", cells)).headline


def test_no_claim_is_judged_on_it(make: Make) -> None:
    """A claim is about means over the six."""
    cells = [make(0.05), make(0.9, **BEST)]
    own = [make(0.05, own=OWN), make(0.9, own=OWN, **BEST)]
    judged = [judge(Results("s", tuple(some))) for some in (cells, own)]
    assert [any(part.covered for verdict in every for part in verdict.parts) for every in judged] == [True, False]
