"""Row names, the comparison, and the formats of `ktrain results`."""

import io
import json
from collections.abc import Callable

import pandas as pd
import pytest

from analysis import paper
from analysis.results import Axis, Cell, Results
from analysis.table import comparison, published, render, rows, setting

MEAN = "qa/exact_match/test/mean"


@pytest.mark.parametrize(
    ("multi", "permute", "fullname", "name"),
    [
        (1, 0, False, "bioS single"),
        (1, 0, True, "bioS single+fullname"),
        (1, 1, False, "bioS single+permute1"),
        (1, 2, False, "bioS single+permute2"),
        (1, 5, True, "bioS single+permute5+fullname"),
        (5, 0, False, "bioS multi5"),
        (2, 1, False, "bioS multi2+permute"),
        (5, 1, True, "bioS multi5+permute+fullname"),
        (5, 3, True, "bioS multi5+permute3+fullname"),
    ],
)
def test_rows_are_named_as_in_the_paper(multi: int, permute: int, fullname: bool, name: str) -> None:
    axes: dict[str, Axis] = {"corpus.multi": multi, "corpus.permute": permute, "corpus.fullname": fullname}
    assert setting(axes) == name
    assert name in paper.figure("fig3").index or permute == 3


def test_a_further_axis_is_told_only_where_it_differs(make: Callable[..., Cell]) -> None:
    same = rows(Results("s", (make(0.1), make(0.2, multi=5))))
    assert [row.name for row in same] == ["bioS single", "bioS multi5"]
    table = rows(Results("s", (make(0.1), make(0.2, steps=1500), make(0.3, steps=1500, seed=1))))
    assert [row.name for row in table] == ["bioS single [train.steps=900]", "bioS single [train.steps=1500]"]
    assert {row.setting for row in table} == {"bioS single"}


def test_mixed_training_is_a_column_group_not_a_row(make: Callable[..., Cell]) -> None:
    both = (make(0.1), make(0.8, readout="mixed", qa_ratio=0.8))
    (row,) = rows(Results("s", both))
    assert row.name == "bioS single"
    assert row.value("qa", "mean") == pytest.approx(0.1) and row.value("mixed", "mean") == pytest.approx(0.8)
    ratios = rows(Results("s", (*both, make(0.7, readout="mixed", qa_ratio=0.2))))
    names = ["bioS single", "bioS single [train.qa_ratio=0.8]", "bioS single [train.qa_ratio=0.2]"]
    assert [row.name for row in ratios] == names


def test_comparison_with_the_paper(contrast: Results) -> None:
    frame = comparison(contrast, paper.figure("fig3"))
    assert list(frame.index)[:2] == ["baseline", "bioS single"]
    assert frame.loc["baseline", MEAN] == pytest.approx(0.07)
    assert frame.loc["bioS single", f"difference/{MEAN}"] == pytest.approx(0.021 - 0.097)
    assert frame.loc["bioS single", f"{MEAN}/n"] == 1500
    assert frame.loc["bioS multi5", f"{MEAN}/state"] == "blocked: recall 71 %"
    assert frame.loc[["bioS multi5", "bioS single+permute2"], MEAN].isna().all()
    assert frame.loc["bioS multi5", f"paper/{MEAN}"] == pytest.approx(0.41)


def test_table_shows_intervals_recall_and_states_but_no_nan(contrast: Results) -> None:
    text = render(contrast, "table", paper.figure("fig3"))
    assert isinstance(text, str)
    assert "78.4 [75.4, 81.4]" in text and "bioS multi5+permute+fullname" in text
    assert "blocked: recall 71 %" in text and "71.0" in text and "missing" in text
    assert "1,500" in text and "majority baseline" in text and "nan" not in text.lower()


def test_json_contract(contrast: Results) -> None:
    cells = json.loads(render(contrast, "json"))["cells"]
    assert [set(cell) for cell in cells] == [{"key", "axes", "metrics", "n", "interval", "state", "stages"}] * 4
    assert cells[0]["axes"]["corpus.fullname"] is False
    assert cells[0]["metrics"][MEAN] == pytest.approx(0.021) and cells[0]["n"][MEAN] == 1500
    assert cells[0]["interval"][MEAN] == pytest.approx([0.0, 0.051])
    assert cells[0]["stages"] == {"pretrain": "pretrain-1"}
    assert cells[2]["state"] == "blocked: recall 71 %" and MEAN not in cells[2]["metrics"]
    assert cells[3]["state"] == "missing" and cells[3]["metrics"] == {}


def test_csv_and_parquet_hold_the_same_rows(contrast: Results) -> None:
    text, data = render(contrast, "csv"), render(contrast, "parquet")
    assert isinstance(text, str) and isinstance(data, bytes)
    read, stored = pd.read_csv(io.StringIO(text)), pd.read_parquet(io.BytesIO(data))
    assert list(read.columns) == list(stored.columns) and list(read["key"]) == list(stored["key"])
    assert stored[MEAN].dropna().tolist() == pytest.approx(read[MEAN].dropna().tolist())


def test_parquet_takes_an_axis_of_mixed_types(make: Callable[..., Cell]) -> None:
    data = render(Results("s", (make(0.1, people="all"), make(0.2, people=500))), "parquet")
    assert isinstance(data, bytes)
    assert pd.read_parquet(io.BytesIO(data))["corpus.people"].tolist() == ["all", "500"]


def test_an_unknown_format_names_those_that_there_are(contrast: Results) -> None:
    with pytest.raises(ValueError, match="table, csv, json, parquet"):
        render(contrast, "yaml")  # type: ignore[arg-type]


def test_the_papers_numbers() -> None:
    frame = paper.figure("fig3")
    assert len(frame) == 17 and "2309.14316" in frame.attrs["source"]
    assert published(frame, "bioS multi5+permute", MEAN) == 0.966
    assert published(frame, "baseline", "mixed/exact_match/test/company_city") == 0.137
    assert published(frame, "bioS single+permute7", MEAN) is None
    # A slip in copying would show: the printed means are within 1.3 points of the mean of the six beside them.
    for group in ("qa", "mixed"):
        columns = [name for name in frame.columns if name.startswith(group)]
        assert (frame[columns[1:]].mean(axis="columns") - frame[columns[0]]).abs().max() < 0.013
    with pytest.raises(KeyError, match="fig3"):
        paper.figure("fig99")
