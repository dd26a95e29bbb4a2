"""Which cells a number of the paper is about."""

from collections.abc import Callable

import pytest

from analysis.measurements.cells import Axis
from analysis.paper import tables
from analysis.paper.paper_value import PaperValue, label

LORA: dict[str, Axis] = {"readout.kind": "qa_finetune", "readout.method": "lora"}


def number(figure: str, row: str, column: str, metric: str = "") -> PaperValue:
    (found,) = [n for n in tables.numbers(figure) if (n.row, n.column) == (row, column) and metric in n.metric]
    return found


def test_a_cell_is_of_the_row_that_its_text_and_readout_name(read_axes: Callable[[str], dict[str, Axis]]) -> None:
    single = number("fig3", "bioS single", "QA mean acc")
    axes = read_axes("bioS single") | LORA
    assert single.fits(axes) and single.fits(axes | {"readout.method": "full", "corpus.people": 500})
    for other in ("bioS single+fullname", "bioS single+CEL", "bioS couple1", "bioR single", "bioS single+wiki"):
        assert not single.fits(read_axes(other) | LORA)
    for axis, value in (("model.family", "gbert"), ("readout.kind", "mixed"), ("train.qa_ratio", 0.8)):
        assert not single.fits(axes | {axis: value})


def test_celebrities_alone_are_asked_about_in_their_rows(read_axes: Callable[[str], dict[str, Axis]]) -> None:
    axes = read_axes("bioS single+permute1+CEL") | LORA
    asked, probed = number("fig17", "bioS single+permute1+CEL", "QA mean acc"), "bioS single+permute1+CEL"
    assert asked.fits(axes | {"readout.people": "celebrity"}) and not asked.fits(axes | {"readout.people": "minority"})
    for figure, column, kind, rank in (("fig18a", "0-bcity", "p_probe", 2), ("fig19", "Q-first univ", "q_probe", 16)):
        probe = axes | {"readout.kind": kind, "readout.rank_embedding": rank}
        found = number(figure, probed, column)
        assert found.fits(probe | {"readout.people": "minority"}) and found.fits(
            probe | {"readout.people": "celebrity"}
        )
        assert not found.fits(probe | {"readout.rank_embedding": 4})


def test_the_grids_tell_sizes_and_ranks_apart(read_axes: Callable[[str], dict[str, Axis]]) -> None:
    axes = read_axes("bioS single") | LORA | {"readout.rank_qv": 8, "readout.rank_embedding": 64}

    def panels(more: dict[str, Axis]) -> list[tuple[str, str, str]]:
        found = [n for n in tables.numbers("fig2") if "test" in n.metric and n.fits(axes | more)]
        return [(n.panel.split(" ")[0], n.row, n.column) for n in found]

    assert panels({"model.size": "124m"}) == panels({"model.size": "mini"}) == [("124M", "8", "64")]
    assert panels({"model.size": "682m"}) == [("682M", "8", "64")] and panels({"model.size": "302m"}) == []
    full: dict[str, Axis] = {"model.size": "mini", "readout.method": "full"}
    assert panels(full) == [("124M", "train all", "train all")]
    assert panels({"model.size": "mini", "readout.rank_embedding": "full"}) == [("124M", "8", "train all")]
    assert panels({"model.size": "mini", "corpus.kind": "bioR"}) == [("302M", "8", "64")]


def test_ratios_and_families_are_of_their_figures(read_axes: Callable[[str], dict[str, Axis]]) -> None:
    mixed = read_axes("bioS single") | {"readout.kind": "mixed", "train.qa_ratio": 0.3}
    assert [n.column for n in tables.numbers("fig10") if n.fits(mixed)] == ["0.3"]
    assert number("fig3", "bioS single", "MIX mean acc").fits(mixed), "another scale has another ratio"
    for figure, family in (("fig9", "gbert"), ("fig12c", "llama")):
        theirs = number(figure, "bioS single", "MIX mean acc")
        assert theirs.fits(mixed | {"model.family": family}) and not theirs.fits(mixed)


def test_a_range_has_no_difference_within() -> None:
    inside = number("fig15", "bioS couple1", "b_city after univ")
    assert inside.reported_range == (0.017, 0.035)
    assert inside.difference(0.02) == 0 and inside.difference(0.05) == pytest.approx(0.015)
    assert inside.difference(0.0) == pytest.approx(-0.017)
    assert number("fig3", "bioS single", "QA mean acc").difference(0.1) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("qa/exact_match/test/mean", "QA mean acc"),
        ("mixed/exact_match/test/company_city", "MIX c_city"),
        ("q_probe/first/birth_date", "Q-first b_month"),
        ("q_probe/whole/university", "Q-whole univ"),
        ("p_probe/first/0/birth_date", "0-bmonth"),
        ("p_probe/whole/5/company", "5-cname"),
    ],
)
def test_columns_are_labelled_as_printed(metric: str, expected: str) -> None:
    assert label(metric) == expected
