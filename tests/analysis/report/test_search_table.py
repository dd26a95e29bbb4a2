"""Every sample of a search is listed with the number that decided, and nothing of held-out people."""

from collections.abc import Callable
from dataclasses import replace

from analysis.measurements.cells import Axis, Cell, Results, Search
from analysis.measurements.table_rows import row_names, rows
from analysis.presentation.number_format import MISSING
from analysis.report.search_table import sheets
from analysis.report.table import render

RATE, LOSS = "train.learning_rate", "train/loss"
READ = "what pretraining reads"


def search(make: Callable[..., Cell]) -> Results:
    def sample(held_out: float, loss: float, rate: Axis) -> Cell:
        cell = make(held_out, **{RATE: rate})
        return replace(cell, metrics={**cell.metrics, LOSS: loss})

    cells = (sample(0.777, 2.5, 0.001), sample(0.444, 1.25, 0.002), make(state="blocked: recall 71 %", **{RATE: 0.003}))
    return Results("s", cells, searches=(Search((RATE,), LOSS, True, frozenset(cell.key for cell in cells), (), READ),))


def test_each_sample_is_a_line_and_one_is_reported(make: Callable[..., Cell]) -> None:
    (sheet,) = sheets(search(make))
    assert sheet.title == (
        "Search: 3 samples, of which the one with the lowest train/loss, on what pretraining reads, is reported"
    )
    assert sheet.headers == ("setting", "readout", RATE, LOSS, "reported", "state")
    assert sheet.lines == (
        ("bioS single", "qa", "0.001", "2.5", "", "done"),
        ("bioS single", "qa", "0.002", "1.25", "yes", "done"),
        ("bioS single", "qa", "0.003", MISSING, "", "blocked: recall 71 %"),
    )


def test_a_sample_that_was_stopped_has_no_number_and_says_where(make: Callable[..., Cell]) -> None:
    results, state = search(make), "stopped early: at step 10 of 90 by asha"
    stopped = make(state=state, **{RATE: 0.004})
    known = replace(results.searches[0], keys=results.searches[0].keys | {stopped.key})
    (sheet,) = sheets(replace(results, cells=(*results.cells, stopped), searches=(known,)))
    assert sheet.lines[-1] == ("bioS single", "qa", "0.004", MISSING, "", state)


def test_a_table_of_several_settings_says_that_each_has_a_best_sample(make: Callable[..., Cell]) -> None:
    results = search(make)
    more = tuple(
        replace(make(0.5, multi=5, **{RATE: rate}), metrics={LOSS: loss}) for rate, loss in ((0.001, 3.0), (0.002, 4.0))
    )
    cells = (*results.cells, *more)
    found = Search((RATE,), LOSS, True, frozenset(cell.key for cell in cells), (), READ)
    (sheet,) = sheets(replace(results, cells=cells, searches=(found,)))
    title = f"Search: 5 samples at 2 settings; at each the one with the lowest train/loss, on {READ}, is reported"
    assert sheet.title == title and [line[4] for line in sheet.lines] == ["", "yes", "", "yes", ""]


def test_the_table_reports_the_sample_that_was_chosen_and_says_so(make: Callable[..., Cell]) -> None:
    results = search(make)
    (row,) = rows(results)
    assert row.name == "bioS single" and row.value("qa", "mean") == 0.444
    text = render(results, "table", width=200)
    assert "best of 2 (of 3) by train/loss; blocked: recall 71 %" in text and "44.4" in text and "77.7" not in text
    assert len(row_names(results)) == 3, "in MLflow and in the frame every sample has a name"


def test_without_a_search_there_is_no_table(contrast: Results) -> None:
    assert sheets(contrast) == ()
