"""The comparison, the tables of mixed readouts, and the formats of `ktrain results`."""

import io
import json
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from analysis.measurements.cells import Cell, Results
from analysis.measurements.names import ATTRIBUTES, COLUMNS
from analysis.paper import tables
from analysis.report.answer_sheets import sheets
from analysis.report.table import comparison, everything, render

MEAN = "qa/exact_match/test/mean"


def test_comparison_with_the_paper(contrast: Results) -> None:
    frame = comparison(contrast, tables.figure("fig3"))
    assert list(frame.index)[:2] == ["baseline", "bioS single"]
    assert frame.loc["baseline", MEAN] == pytest.approx(0.07)
    assert frame.loc["bioS single", f"difference/{MEAN}"] == pytest.approx(0.021 - 0.097)
    assert frame.loc["bioS single", f"{MEAN}/n"] == 1500
    assert frame.loc["bioS multi5", f"{MEAN}/state"] == "blocked: recall 71 %"
    assert frame.loc[["bioS multi5", "bioS single+permute2"], MEAN].isna().all()
    assert frame.loc["bioS multi5", f"paper/{MEAN}"] == pytest.approx(0.41)


def test_table_shows_intervals_recall_and_states_but_no_nan(contrast: Results) -> None:
    text = render(contrast, "table", tables.figure("fig3"))
    assert isinstance(text, str)
    assert "78.4 [75.4, 81.4]" in text and "bioS multi5+permute+fullname" in text
    assert "blocked: recall 71 %" in text and "71.0" in text and "missing" in text
    assert "1,500" in text and "majority baseline" in text and "nan" not in text.lower()


def test_what_a_trained_network_knew_before_is_a_line_of_its_own(make: Callable[..., Cell]) -> None:
    without = make(0.2)
    assert "before training" not in str(render(Results("s", (without,)), "table"))
    known = {f"start/exact_match/test/{column}": 0.125 for column in COLUMNS}
    started = replace(without, metrics={**without.metrics, **known})
    text = str(render(Results("s", (started,)), "table"))
    line = next(line for line in text.splitlines() if "before training" in line)
    assert line.count("12.5") == 1 + len(ATTRIBUTES)
    (sheet,) = sheets(Results("s", (started,)))
    assert sheet.lines[1][:2] == ("before training", "12.5") and sheet.quiet == (0, 1)
    learned = f"{100 * (started.metrics[MEAN] - 0.125):+.1f}"
    assert sheet.lines[2][sheet.headers.index("learned")] == learned
    row = next(line for line in text.splitlines() if line.lstrip().startswith("bioS"))
    assert "learned" in text and learned in row and "learned" not in str(render(Results("s", (without,)), "table"))
    assert "Before training" in sheet.note and "Before training" not in sheets(Results("s", (without,)))[0].note


def test_several_trained_networks_have_a_line_each(make: Callable[..., Cell]) -> None:
    cells = []
    for network, known in (("one", 0.125), ("other", 0.5)):
        cell = make(0.8)
        start = {f"start/exact_match/test/{column}": known for column in COLUMNS}
        params = {**cell.params, "model.start": network, "model.size": network}
        axes = {**cell.axes, "model.start": network, "model.size": network}
        cells.append(replace(cell, key=network, params=params, axes=axes, metrics={**cell.metrics, **start}))
    lines = str(render(Results("s", tuple(cells)), "table")).splitlines()
    shown = {line.split("]")[0].split("=")[1]: line for line in lines if "before training [" in line}
    assert shown.keys() == {"one", "other"} and "12.5" in shown["one"] and "50.0" in shown["other"]
    (sheet,) = sheets(Results("s", tuple(cells)))
    assert [line[:2] for line in sheet.lines[1:3]] == [
        ("before training [model.start=one]", "12.5"),
        ("before training [model.start=other]", "50.0"),
    ]


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


def test_readouts_of_several_kinds_share_one_print(contrast: Results, probes: Results) -> None:
    both = text_of(Results("s", contrast.cells + probes.cells))
    assert both == text_of(contrast) + text_of(probes), "the tables of one kind must not depend on the others"
    assert "exact match" not in text_of(probes) and "robe" not in text_of(contrast)
    assert "QA finetune" in both and both.index("QA finetune") < both.index("Q-probe") < both.index("P-probe")


def test_the_best_of_several_readouts_is_one_row(make: Callable[..., Cell]) -> None:
    cells = tuple(make(0.3 + 0.1 * k, rank_embedding=rank) for k, rank in enumerate((16, 64)))
    apart = render(Results("s", cells), "table")
    assert isinstance(apart, str) and "[readout.rank_embedding=16]" in apart and "best of" not in apart
    chosen = render(Results("s", cells), "table", best_of=("readout.rank_embedding",))
    assert isinstance(chosen, str) and "40.0 [" in chosen and "best of 2" in chosen
    assert "rank_embedding" not in chosen and "30.0 [" not in chosen


def test_a_paper_without_these_numbers_takes_no_columns(contrast: Results) -> None:
    assert text_of(contrast, tables.figure("fig5")) == text_of(contrast)


def text_of(results: Results, numbers: pd.DataFrame | None = None) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(everything(results, numbers))
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines() if line.strip())  # type: ignore[attr-defined]
