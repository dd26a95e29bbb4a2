"""The order of rows: Kendall's tau against a count of pairs, and pairs that are the other way round."""

import math
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.paper import tables
from analysis.paper.matching import MatchedValue
from analysis.paper.paper_value import PaperValue
from analysis.paper.rank_order import RankAgreement, describe_orders, rank_agreement, signed
from analysis.presentation.number_format import MINUS

SINGLE = tables.numbers("fig3")[14]
VALUES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=12)


def rows(values: Sequence[tuple[float, float]], half: float | None = 0.02) -> list[tuple[str, MatchedValue]]:
    """Rows `a`, `b`, ... with ours and the paper's."""
    made = []
    for k, (ours, theirs) in enumerate(values):
        number = PaperValue("fig3", "r", "c", SINGLE.metric, theirs, SINGLE.settings, SINGLE.columns)
        bounds = None if half is None else (ours - half, ours + half)
        made.append((chr(97 + k), MatchedValue(number, "", ours, bounds, 250, 1, 1, "done", ("k",), True)))
    return made


@given(VALUES)
def test_tau_is_kendalls_tau_b(values: list[tuple[int, int]]) -> None:
    found = rank_agreement("", "c", "m", rows([(a / 20, b / 20) for a, b in values]))
    assert found.n == len(values)
    # tau-b = (concordant - discordant) / sqrt(pairs not tied in one * pairs not tied in the other)
    signs = [(sign(a - c), sign(b - d)) for (a, b), (c, d) in combinations(values, 2)]
    untied = math.prod(sum(abs(pair[side]) for pair in signs) for side in (0, 1))
    if not untied:
        assert found.tau is None
    else:
        assert found.tau == pytest.approx(sum(x * y for x, y in signs) / math.sqrt(untied))


def sign(x: int) -> int:
    return (x > 0) - (x < 0)


@given(VALUES)
def test_the_same_order_has_no_pair_turned(values: list[tuple[int, int]]) -> None:
    same = rank_agreement("", "c", "m", rows([(a / 20, a / 20) for a, _ in values], half=0.0))
    assert same.reversed_pairs == () and same.tau in (None, pytest.approx(1))


def test_a_pair_is_turned_beyond_intervals_and_noise_only() -> None:
    agreement = rank_agreement("", "c", "m", rows([(0.2, 0.9), (0.6, 0.5)]))
    assert agreement.reversed_pairs == ("a 20.0 < b 60.0 (paper 90.0 > 50.0)",) and agreement.tau == -1
    assert rank_agreement("", "c", "m", rows([(0.6, 0.5), (0.2, 0.9)])).reversed_pairs == (
        "b 20.0 < a 60.0 (paper 90.0 > 50.0)",
    )
    assert rank_agreement("", "c", "m", rows([(0.58, 0.9), (0.61, 0.5)])).reversed_pairs == (), "intervals overlap"
    assert rank_agreement("", "c", "m", rows([(0.2, 0.51), (0.6, 0.5)])).reversed_pairs == (), (
        "nearer than the paper's runs repeat"
    )
    assert rank_agreement("", "c", "m", rows([(0.2, 0.9), (0.6, 0.5)], half=None)).reversed_pairs == (), (
        "no interval is known"
    )
    assert rank_agreement("", "c", "m", rows([(0.2, 0.9), (0.2, 0.5)])).tau is None


def test_few_means_are_told_one_by_one_and_many_columns_together() -> None:
    def made(metric: str, tau: float, reversed_pairs: tuple[str, ...] = (), column: str = "c") -> RankAgreement:
        return RankAgreement("", column, metric, tau, 5, reversed_pairs)

    (one,) = describe_orders([made("qa/x/mean", 0.5, ("p", "q", "r", "s")), made("qa/x/major", 0.1)])
    assert one == "c: Kendall's tau 0.50 over 5 rows; reversed beyond the 95 % intervals: p; q; r; …."
    (many,) = describe_orders([made("p/0/major", 0.25), made("p/1/major", -0.5, ("p",)), made("p/2/major", 1.0)])
    assert many.startswith("Kendall's tau of 3 columns, up to 5 rows each: median 0.25, from " + MINUS + "0.50 to 1.00")
    assert "1 pairs of rows" in many
    (grids,) = describe_orders([made("qa/x/mean", 0.1 * k, column="") for k in range(5)])
    assert "of 5 grids, up to 5 cells each" in grids
    assert not list(describe_orders([])) and signed(None) != ""
