"""Tables of probes."""

from collections.abc import Callable
from dataclasses import replace

from analysis.measurements.cells import Cell, Results
from analysis.paper import tables
from analysis.presentation.number_format import MISSING
from analysis.report.probe_table import sheets


def test_each_kind_and_what_it_predicts_has_a_table(probes: Results) -> None:
    found = sheets(probes)
    titles = [sheet.title.split(":")[0] for sheet in found]
    assert titles == [
        "Q-probe, first token",
        "Q-probe, whole attribute",
        "P-probe, first token",
        "P-probe, whole attribute",
    ]
    assert all(len(line) == len(sheet.headers) for sheet in found for line in sheet.lines)
    assert all("held-out people" in sheet.title for sheet in found)
    q, whole, p, _ = (dict(zip(sheet.headers, sheet.lines[1], strict=True)) for sheet in found)
    assert q["mean [95 %]"] == "8.1 [5.1, 11.1]" and q["birth month"] == "8.1" and q["company city"] == "13.1"
    assert "birth month" not in whole and whole["n"] == "1,250" and whole["recall"] == "99.1"
    assert p["position 0 [95 %]"] == "5.2 [2.2, 8.2]" and p["own [95 %]"] == "15.2 [12.2, 18.2]"
    assert found[0].lines[0][:2] == ("majority baseline", "3.0")


def test_rows_have_their_names_seeds_and_states(probes: Results) -> None:
    sheet = sheets(probes)[2]
    table = {line[0]: dict(zip(sheet.headers, line, strict=True)) for line in sheet.lines}
    assert list(table) == [
        "majority baseline",
        "bioS single",
        "bioS multi5+permute",
        "bioS multi5",
        "bioS couple2",
    ]
    running = table["bioS multi5"]
    assert (running["state"], running["seeds"], running["own [95 %]"]) == ("running", MISSING, MISSING)


def test_the_papers_means_stand_beside(probes: Results) -> None:
    q, _, p, _ = sheets(probes, tables.beside("fig7"))
    assert q.headers[:3] == ("setting", "mean [95 %]", "paper")
    assert [line[2] for line in q.lines] == ["12.0", "11.2", "99.9"]
    own = p.headers.index("own [95 %]") + 1
    assert p.headers[own] == "paper" and p.lines[1][own] == "99.7" and p.lines[2][own] == MISSING
    assert "paper" not in sheets(probes, tables.figure("fig3"))[0].headers


def test_a_refused_task_is_a_dash(make: Callable[..., Cell]) -> None:
    cell = make(0.5, readout="q_probe")
    kept = {name: value for name, value in cell.metrics.items() if name != "q_probe/first/university"}
    (first, _) = sheets(Results("s", (replace(cell, metrics=kept),)))
    line = dict(zip(first.headers, first.lines[1], strict=True))
    assert line["univ."] == MISSING and line["major"] == "53.0"


def test_without_probes_there_is_no_table(contrast: Results) -> None:
    assert sheets(contrast) == ()
