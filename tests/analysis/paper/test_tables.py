"""The paper's numbers: every figure is here, cell by cell, and figures about the same models stand together."""

import re
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from analysis.measurements.cells import Results
from analysis.measurements.names import ATTRIBUTES, p_probe, q_probe
from analysis.measurements.table_rows import published
from analysis.paper import tables

MEAN = "qa/exact_match/test/mean"
SPOT: Mapping[tuple[str, str, str], float] = {
    ("fig5", "bioS single", p_probe("first", 4, "company_city")): 0.691,
    ("fig7", "bioS single+permute1", q_probe("first", "birth_date")): 0.102,
    ("fig13b", "bioS single", p_probe("first", 5, "company_city")): 1.0,
    ("fig13c", "bioS single", p_probe("whole", 2, "university")): 0.549,
    ("fig13d", "bioS multi2", p_probe("whole", 0, "university")): 0.197,
    ("fig14a", "bioR single", p_probe("first", 1, "birth_date")): 0.364,
    ("fig14d", "bioR single", p_probe("whole", 3, "major")): 0.636,
    ("fig16b", "bioS single", q_probe("first", "company_city")): 0.094,
    ("fig16d", "bioR single", q_probe("whole", "university")): 0.007,
    ("fig1a", "bioR single", "mixed/exact_match/test/company_city"): 0.561,
    ("fig7", "bioS multi2", MEAN): 0.411,
    ("fig8", "bioR single+wiki", MEAN): 0.073,
    ("fig9", "bioS single+permute2+fullname (gbert)", "mixed/exact_match/test/major"): 0.78,
    ("fig12b", "bioR multi3 (llama)", "qa/exact_match/test/company_city"): 0.331,
    ("fig12c", "bioS multi5 (llama)", "mixed/exact_match/test/mean"): 0.846,
    ("fig17", "bioR single+fullname+CEL", "qa/exact_match/test/company_city"): 0.602,
    ("fig18a", "bioR single+wiki", p_probe("first", 2, "birth_city")): 0.357,
    ("fig18b", "bioS single+permute1+CEL", p_probe("whole", 0, "university")): 0.539,
    ("fig19", "bioR single+fullname+wiki", q_probe("whole", "major")): 0.258,
}
PLACES: Mapping[tuple[str, str, str, str], tuple[float, ...]] = {
    ("fig2", "682M bioS single (1350 passes)", "2", "128"): (0.163, 0.065),
    ("fig2", "302M bioR single (1000 passes)", "train all", "train all"): (0.99, 0.078),
    ("fig11", "bioS single+permute5", "2", "32"): (0.74, 0.732),
    ("fig11", "bioR multi5", "32", "train all"): (0.986, 0.931),
    ("fig10", "bioR", "bioR single+permute5", "0.4"): (0.815,),
    ("fig6", "", "bioS couple2", "b_city after nothing"): (0.569,),
    ("fig15", "", "bioS couple1", "c_city after b_date, univ"): (),
    ("fig15", "", "bioS couple5", "major after univ, c_name, c_city"): (0.9995,),
}
"""Grids, ratios and sets; nothing where no biography is in such an order."""
COUNTS = {
    **{"fig1a": 21, "fig2": 248, "fig3": 238, "fig5": 522, "fig6": 36, "fig7": 306, "fig8": 42, "fig9": 425},
    **{"fig10": 70, "fig11": 744, "fig12a": 98, "fig12b": 98, "fig12c": 238, "fig15": 108, "fig17": 91, "fig19": 180},
    **{"fig13a": 522, "fig13b": 522, "fig13c": 450, "fig13d": 450, "fig18a": 345, "fig18b": 290},
    **{"fig14a": 252, "fig14b": 252, "fig14c": 210, "fig14d": 210},
    **{"fig16a": 306, "fig16b": 306, "fig16c": 126, "fig16d": 126},
}
"""How many numbers each figure has; an empty place of the paper is none."""
TABLES = [name for name in COUNTS if name not in ("fig2", "fig6", "fig10", "fig11", "fig15")]
LENGTHS = {"fig1a": 3, "fig8": 6, "fig17": 13, "fig18a": 10, "fig18b": 10, "fig19": 10}
"""Rows of the tables that are not the 16 of bioS or the 6 of bioR, baseline included."""


ROWS = 3 + 24 + 10 + 72 + 17 * 11 + 7 * 8 + 6 + 13 + 10 * 3 + 3 + 1
"""Figures 1a, 2, 10 and 11; bioS, bioR; Figures 8, 17, 18 and 19; 15 and 6."""


def test_the_papers_numbers() -> None:
    frame = tables.figure("fig3")
    assert len(frame) == 17 and "2309.14316" in frame.attrs["sources"][MEAN]
    assert published(frame, "bioS multi5+permute", MEAN) == 0.966
    assert published(frame, "baseline", "mixed/exact_match/test/company_city") == 0.137
    assert published(frame, "bioS single+permute7", MEAN) is None
    # A slip in copying would show: the printed means are within 1.3 points of the mean of the six beside them.
    for group in ("qa", "mixed"):
        columns = [name for name in frame.columns if name.startswith(group)]
        assert (frame[columns[1:]].mean(axis="columns") - frame[columns[0]]).abs().max() < 0.013
    with pytest.raises(KeyError, match="fig3"):
        tables.figure("fig99")


@pytest.mark.parametrize(("name", "row", "column"), SPOT)
def test_probes_as_printed(name: str, row: str, column: str) -> None:
    assert published(tables.figure(name), row, column) == SPOT[name, row, column]


@pytest.mark.parametrize(("name", "panel", "row", "column"), PLACES)
def test_grids_ratios_and_sets_as_printed(name: str, panel: str, row: str, column: str) -> None:
    place = (panel, row, column)
    found = [n.value for n in tables.numbers(name) if (n.panel, n.row, n.column) == place]
    assert found == pytest.approx(PLACES[name, panel, row, column])


def test_every_number_of_the_paper_is_here() -> None:
    assert {name: len(tables.numbers(name)) for name in tables.figures()} == COUNTS
    for name in tables.figures():
        numbers = tables.numbers(name)
        assert {n.figure for n in numbers} == {name} and all(0 <= n.value <= 1 for n in numbers)
        assert f"Figure {name.removeprefix('fig')}:" in tables.source(name)
        places = Counter((n.panel, n.row, n.column, n.metric) for n in numbers)
        assert max(places.values()) == 1, "a number twice in one place"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_made_of_fractions_and_names_its_place(name: str) -> None:
    frame = tables.figure(name)
    assert frame.index[0] == "baseline" and frame.index.is_unique and frame.columns.is_unique
    bio_r = all(row.startswith("bioR") for row in frame.index[1:])
    assert len(frame) == LENGTHS.get(name, 7 if bio_r else 17)
    assert ((frame >= 0) & (frame <= 1) | frame.isna()).all(axis=None)
    number = re.sub(r"\D*", "", name, count=1)
    assert all(f"Figure {number}:" in source for source in frame.attrs["sources"].values())
    printed = {(n.row, n.metric): n.value for n in tables.numbers(name) if n.row != "baseline"}
    family = frame.index[-1].partition(" (")[1] + frame.index[-1].partition(" (")[2]
    assert all(published(frame, row + family, column) == value for (row, column), value in printed.items())


def test_parts_of_a_figure() -> None:
    assert tables.parts("fig13") == ("fig13a", "fig13b", "fig13c", "fig13d")
    assert tables.parts("fig3") == ("fig3",) and tables.parts("fig1") == ("fig1a",) and tables.parts("fig4") == ()
    assert len(tables.numbers("fig12")) == 98 + 98 + 238
    with pytest.raises(KeyError, match="fig3"):
        tables.numbers("fig4")
    with pytest.raises(KeyError, match="no table of 'fig2'"):
        tables.figure("fig2")


def test_what_can_stand_before_the_second_of_a_pair() -> None:
    columns = [n.column for n in tables.numbers("fig6") if n.column.startswith("major")]
    assert columns == [
        "major after nothing",
        "major after b_date, b_city",
        "major after c_name, c_city",
        "major after b_date, b_city, c_name, c_city",
        "major after b_date",
        "major after b_date, c_name, c_city",
        "major after c_name",
        "major after b_date, b_city, c_name",
        "major after univ",
        "major after b_date, b_city, univ",
        "major after univ, c_name, c_city",
        "major after b_date, b_city, univ, c_name, c_city",
    ]
    ranges = {n.column: n.reported_range for n in tables.numbers("fig6")}
    assert ranges["major after c_name"] == (0.858, 0.884) and ranges["major after nothing"] is None


def test_a_fixed_order_is_a_triangle() -> None:
    frame = tables.figure("fig5")
    for k, name in enumerate(ATTRIBUTES):
        for i in range(6):
            number = published(frame, "bioS single", p_probe("first", i, name))
            assert (number is None) == (k < i), (i, name)
            assert published(frame, "bioS single+permute1", p_probe("first", i, name)) is not None


def test_means_of_probes_leave_out_the_birth_date() -> None:
    frame = tables.beside("fig5")
    expected = (0.059 + 0.38 + 0.047 + 0.015 + 0.154) / 5
    assert published(frame, "bioS single", p_probe("first", 0, "mean")) == pytest.approx(expected, abs=1e-6)
    assert published(frame, "bioS single", p_probe("first", 4, "mean")) == pytest.approx((0.995 + 0.691) / 2)
    own = (0.937 + 0.549 + 0.836 + 0.95 + 1.0) / 5
    assert published(frame, "bioS single", p_probe("whole", "own", "mean")) == pytest.approx(own, abs=1e-6)
    assert published(frame, "bioS single+permute1", p_probe("first", "own", "mean")) is None
    whole = (0.011 + 0.003 + 0.014 + 0.001 + 0.116) / 5
    assert published(frame, "bioS single", q_probe("whole", "mean")) == pytest.approx(whole, abs=1e-6)


def test_figures_about_the_same_models_stand_together() -> None:
    for name in ("fig3", "fig5", "fig7"):
        frame = tables.beside(name)
        assert frame is not None and frame.columns.is_unique
        assert {column.split("/")[0] for column in frame.columns} == {"qa", "mixed", "q_probe", "p_probe"}
        assert published(frame, "bioS multi5+permute", MEAN) == 0.966
    strong = tables.beside("fig16b")
    assert published(strong, "bioS single", p_probe("first", 0, "birth_city")) == 0.062, "rank 4 beside rank 64"
    assert strong is not None and "Figure 13b" in strong.attrs["sources"][p_probe("first", 0, "birth_city")]
    other = tables.beside("fig14")
    assert other is not None and {row.split(" ")[0] for row in other.index} == {"baseline", "bioR"}
    assert published(other, "bioR multi3", MEAN) == 0.885
    assert tables.beside("fig99") is None and tables.beside("fig2") is None


def test_every_row_is_of_some_cell_and_every_cell_of_some_row(regenerate: Callable[..., Results]) -> None:
    cells = {cell.key: cell.axes for cell in regenerate(*tables.figures()).cells}
    entries = tables.rows_of(cells)
    assert all(entry["cells"] and entry["columns"] for entry in entries)
    assert {key for entry in entries for key in entry["cells"]} == set(cells)
    rows = {(entry["figure"], entry.get("panel", ""), entry["row"]) for entry in entries}
    assert rows == {(n.figure, n.panel, n.row) for name in tables.figures() for n in tables.numbers(name)}
    assert len(rows) == ROWS
    columns = sum(len(entry["columns"]) for entry in entries)
    # Each place of a grid is two numbers.
    assert columns == sum(COUNTS.values()) - (COUNTS["fig2"] + COUNTS["fig11"]) // 2


def test_a_row_without_a_cell_is_listed_without_one(regenerate: Callable[..., Results]) -> None:
    cells = {cell.key: cell.axes for cell in regenerate("fig12c").cells if cell.axes["readout.kind"] == "mixed"}
    entries = tables.rows_of(cells, ["fig12", "fig12c", "fig4"])
    assert [entry["figure"] for entry in entries] == ["fig12a"] * 14 + ["fig12b"] * 14 + ["fig12c"] * 34
    found = {(entry["figure"], entry["row"], entry["readout"]): entry["cells"] for entry in entries}
    assert found["fig12c", "bioS single", "Mixed training"] and not found["fig12c", "bioS single", "QA finetune"]
    assert not found["fig12a", "bioR single", "Mixed training"], "GPT-2's row is none of Llama's"
    assert len(found["fig12c", "baseline", "Mixed training"]) == 16 and "panel" not in entries[0]


def test_figures_come_in_the_papers_order() -> None:
    names = tables.figures()
    assert names[:4] == ("fig1a", "fig2", "fig3", "fig5") and names[-3:] == ("fig18a", "fig18b", "fig19")
