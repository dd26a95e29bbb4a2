"""The frame behind a figure: a line for each number."""

import pytest

from analysis.measurements.cells import Results
from analysis.measurements.table_rows import rows
from analysis.measurements.tidy_frame import tidy


def test_numbers_as_data_have_a_line_each(contrast: Results) -> None:
    frame = tidy(rows(contrast))
    assert len(frame) == 2 * 7 + 2 and set(frame["group"]) == {"qa"}
    first = frame[frame["metric"] == "qa/exact_match/test/mean"].iloc[0]
    assert (first["row"], first["n"], first["seeds"], first["state"]) == ("bioS single", 1500, 1, "done")
    assert first[["value", "low", "high"]].tolist() == pytest.approx([0.021, 0.0, 0.051])
    assert frame["metric"].tolist()[-2:] == ["", ""] and frame["state"].iloc[-2] == "blocked: recall 71 %"
    assert len(tidy(rows(Results("s", ())))) == 0
