"""How counts are written."""

from analysis.presentation.number_format import span


def test_counts_that_differ_are_a_span() -> None:
    assert [span(counts) for counts in ([], [250], [250, 250], [1500, 250])] == ["", "250", "250", "250 to 1,500"]
