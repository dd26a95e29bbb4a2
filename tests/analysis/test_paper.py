"""The paper's numbers: every figure loads, and figures about the same models stand together."""

import re
from collections.abc import Mapping

import pytest

from analysis import paper
from analysis.names import ATTRIBUTES, p_probe, q_probe
from analysis.rows import published

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
}


def test_the_papers_numbers() -> None:
    frame = paper.figure("fig3")
    assert len(frame) == 17 and "2309.14316" in frame.attrs["sources"][MEAN]
    assert published(frame, "bioS multi5+permute", MEAN) == 0.966
    assert published(frame, "baseline", "mixed/exact_match/test/company_city") == 0.137
    assert published(frame, "bioS single+permute7", MEAN) is None
    # A slip in copying would show: the printed means are within 1.3 points of the mean of the six beside them.
    for group in ("qa", "mixed"):
        columns = [name for name in frame.columns if name.startswith(group)]
        assert (frame[columns[1:]].mean(axis="columns") - frame[columns[0]]).abs().max() < 0.013
    with pytest.raises(KeyError, match="fig3"):
        paper.figure("fig99")


@pytest.mark.parametrize(("name", "row", "column"), SPOT)
def test_probes_as_printed(name: str, row: str, column: str) -> None:
    assert published(paper.figure(name), row, column) == SPOT[name, row, column]


@pytest.mark.parametrize("name", paper.figures())
def test_every_figure_is_made_of_fractions_and_names_its_place(name: str) -> None:
    frame = paper.figure(name)
    assert frame.index[0] == "baseline" and frame.index.is_unique and frame.columns.is_unique
    assert len(frame) == (7 if set(frame.attrs["sources"].values()) & BIO_R else 17)
    assert ((frame >= 0) & (frame <= 1) | frame.isna()).all(axis=None)
    number = re.sub(r"\D*", "", name, count=1)
    assert all(f"Figure {number}:" in source for source in frame.attrs["sources"].values())


BIO_R = {s for name in paper.figures() for s in paper.figure(name).attrs["sources"].values() if "bioR" in s}


def test_a_fixed_order_is_a_triangle() -> None:
    frame = paper.figure("fig5")
    for k, name in enumerate(ATTRIBUTES):
        for i in range(6):
            number = published(frame, "bioS single", p_probe("first", i, name))
            assert (number is None) == (k < i), (i, name)
            assert published(frame, "bioS single+permute1", p_probe("first", i, name)) is not None


def test_means_of_probes_leave_out_the_birth_date() -> None:
    frame = paper.beside("fig5")
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
        frame = paper.beside(name)
        assert frame is not None and frame.columns.is_unique
        assert {column.split("/")[0] for column in frame.columns} == {"qa", "mixed", "q_probe", "p_probe"}
        assert published(frame, "bioS multi5+permute", MEAN) == 0.966
    strong = paper.beside("fig16b")
    assert published(strong, "bioS single", p_probe("first", 0, "birth_city")) == 0.062, "rank 4 beside rank 64"
    assert strong is not None and "Figure 13b" in strong.attrs["sources"][p_probe("first", 0, "birth_city")]
    other = paper.beside("fig14a")
    assert other is not None and {row.split(" ")[0] for row in other.index} == {"baseline", "bioR"}
    assert paper.beside("fig99") is None


def test_figures_come_in_the_papers_order() -> None:
    names = paper.figures()
    assert names[:4] == ("fig3", "fig5", "fig7", "fig13a") and names[-1] == "fig16d"
