"""The order of rows: Kendall's tau against SciPy's, and pairs that are the other way round."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from analysis import paper
from analysis.matching import Match
from analysis.number import Number
from analysis.order import Order, order, signed, spoken
from analysis.percent import MINUS

SINGLE = paper.numbers("fig3")[14]
VALUES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=12)


def rows(values: Sequence[tuple[float, float]], half: float | None = 0.02) -> list[tuple[str, Match]]:
    """Rows `a`, `b`, ... with ours and the paper's."""
    made = []
    for k, (ours, theirs) in enumerate(values):
        number = Number("fig3", "r", "c", SINGLE.metric, theirs, SINGLE.settings, SINGLE.block)
        bounds = None if half is None else (ours - half, ours + half)
        made.append((chr(97 + k), Match(number, "", ours, bounds, 250, 1, 1, "done", ("k",), True)))
    return made


@given(VALUES)
def test_tau_is_kendalls_tau_b(values: list[tuple[int, int]]) -> None:
    found = order("", "c", "m", rows([(a / 20, b / 20) for a, b in values]))
    expected = kendalltau([a for a, _ in values], [b for _, b in values]).statistic
    assert found.n == len(values)
    if expected != expected:
        assert found.tau is None
    else:
        assert found.tau == pytest.approx(expected)


@given(VALUES)
def test_the_same_order_has_no_pair_turned(values: list[tuple[int, int]]) -> None:
    same = order("", "c", "m", rows([(a / 20, a / 20) for a, _ in values], half=0.0))
    assert same.turned == () and same.tau in (None, pytest.approx(1))


def test_a_pair_is_turned_beyond_intervals_and_noise_only() -> None:
    turned = order("", "c", "m", rows([(0.2, 0.9), (0.6, 0.5)]))
    assert turned.turned == ("a 20.0 < b 60.0 (paper 90.0 > 50.0)",) and turned.tau == -1
    assert order("", "c", "m", rows([(0.6, 0.5), (0.2, 0.9)])).turned == ("b 20.0 < a 60.0 (paper 90.0 > 50.0)",)
    assert order("", "c", "m", rows([(0.58, 0.9), (0.61, 0.5)])).turned == (), "intervals overlap"
    assert order("", "c", "m", rows([(0.2, 0.51), (0.6, 0.5)])).turned == (), "nearer than the paper's runs repeat"
    assert order("", "c", "m", rows([(0.2, 0.9), (0.6, 0.5)], half=None)).turned == (), "no interval is known"
    assert order("", "c", "m", rows([(0.2, 0.9), (0.2, 0.5)])).tau is None


def test_few_means_are_told_one_by_one_and_many_columns_together() -> None:
    def made(metric: str, tau: float, turned: tuple[str, ...] = (), column: str = "c") -> Order:
        return Order("", column, metric, tau, 5, turned)

    (one,) = spoken([made("qa/x/mean", 0.5, ("p", "q", "r", "s")), made("qa/x/major", 0.1)])
    assert one == "c: Kendall's tau 0.50 over 5 rows; reversed beyond the 95 % intervals: p; q; r; …."
    (many,) = spoken([made("p/0/major", 0.25), made("p/1/major", -0.5, ("p",)), made("p/2/major", 1.0)])
    assert many.startswith("Kendall's tau of 3 columns, up to 5 rows each: median 0.25, from " + MINUS + "0.50 to 1.00")
    assert "1 pairs of rows" in many
    (grids,) = spoken([made("qa/x/mean", 0.1 * k, column="") for k in range(5)])
    assert "of 5 grids, up to 5 cells each" in grids
    assert not list(spoken([])) and signed(None) != ""
