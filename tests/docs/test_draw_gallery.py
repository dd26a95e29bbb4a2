"""The gallery shows the figures that a store has, from finished cells alone, and says what trains them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import draw_gallery
import pandas as pd
import pytest
from draw_gallery import Candidate

from analysis.figures.drawing import PAGE
from analysis.measurements.cells import Axis, Cell, Results
from analysis.measurements.names import COLUMNS, LEARNING
from ktrain.store.open import store_at
from sweeps.planning import plan as planning
from sweeps.planning.grid import load
from sweeps.planning.plan import Plan
from sweeps.planning.sweep import FIGURES

ROOT = Path(__file__).parents[2]
NO_CURVES = pd.DataFrame(columns=["key", "metric"])


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a shipped sweep against an empty store."""

    def plan(name: str, **overrides: Sequence[Axis]) -> Plan:
        return planning.make(load(name), "mini", overrides, store_at(tmp_path / "results"))

    return plan


def results(plan: Plan, value: float = 0.5, done: Callable[[Cell], bool] = lambda cell: True) -> Results:
    """Answers of all cells of a plan; those that are not `done` are still running."""
    cells = []
    for planned in plan.cells:
        prefix = {"qa_finetune": "qa"}.get(planned.cell.readout.kind, planned.cell.readout.kind)
        metrics = {f"{prefix}/exact_match/{half}/{c}": value for half in ("train", "test") for c in COLUMNS}
        metrics |= {f"{prefix}/first_token/train/{c}": value for c in COLUMNS}
        metrics |= {f"baseline/test/{c}": 0.06 for c in COLUMNS}
        known = Cell(key=planned.key, axes=planned.axes, params=planned.axes, metrics=metrics, scale="mini")
        cells.append(replace(known, state="done", departures=("fewer people",)))
    return Results(plan.sweep.name, tuple(c if done(c) else replace(c, state="running", metrics={}) for c in cells))


def found(plan: Plan, command: str, curves: pd.DataFrame = NO_CURVES, **of: object) -> list[Candidate]:
    return list(draw_gallery.candidates(plan, results(plan, **of), curves, command))  # type: ignore[arg-type]


def test_a_figure_has_finished_cells_alone(planned: Callable[..., Plan]) -> None:
    plan = planned("demo", seed=[0, 1])
    half = found(plan, "ktrain run demo", done=lambda cell: cell.axes["corpus.multi"] == 5 and cell.axes["seed"] == 0)
    (one,) = draw_gallery.chosen(half)
    assert one.figure == "fig3" and {m.row for m in one.comparison.planned} == {"baseline", "bioS multi5+permute"}
    assert one.comparison.counts.planned == 1 and {m.seeds for m in one.comparison.planned} <= {0, 1}
    assert not draw_gallery.chosen(found(plan, "ktrain run demo", done=lambda cell: False))


def test_most_numbers_win_and_then_the_quicker_sweep(planned: Callable[..., Plan]) -> None:
    demo, full, claims = planned("demo"), planned("fig3"), planned("claims")
    two_rows = found(full, "fig3", done=lambda cell: cell.key in {c.key for c in demo.cells})
    every = [*two_rows, *found(demo, "demo")]
    assert [(one.figure, one.command) for one in draw_gallery.chosen(every)] == [("fig3", "demo")]
    every += found(claims, "claims")
    assert {one.figure: one.command for one in draw_gallery.chosen(every)}["fig3"] == "claims"
    every += found(full, "all of fig3")
    assert {one.figure: one.command for one in draw_gallery.chosen(reversed(every))}["fig3"] == "all of fig3"


def test_claims_have_rows_of_seven_figures(planned: Callable[..., Plan]) -> None:
    plan = planned("claims")
    keys = draw_gallery.keys_by_figure(plan)
    assert set().union(*keys.values()) < {cell.key for cell in plan.cells} and all(keys.values())
    assert {part for parts in draw_gallery.CLAIMED.values() for part in parts} < {
        part.name for part in plan.sweep.parts
    }
    celebrities = found(plan, "ktrain run claims", done=lambda cell: cell.key in keys["fig8"])
    assert [one.figure for one in draw_gallery.chosen(celebrities)] == ["fig8"]


def test_the_page_shows_pictures_commands_and_what_is_missing(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned("fig1")
    curves = pd.DataFrame(
        {"key": plan.cells[0].key, "setting": "bioS single", "train.qa_ratio": 0.5, "seed": 0, "run": "r"}
        | {"metric": metric, "step": step, "fraction": step / 5, "value": step / 10, "n": 9, "low": 0.0, "high": 1.0}
        for step in (1, 5)
        for metric in LEARNING
    )
    shown = draw_gallery.chosen([*found(planned("demo"), "ktrain run demo"), *found(plan, "ktrain run fig1", curves)])
    (tmp_path / "gallery.md").write_text("# G\n\n<!-- figures -->\nold\n<!-- end -->\nmore\n")
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "fig9.svg").touch()
    draw_gallery.write(tmp_path, shown)
    page = (tmp_path / "gallery.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.M) == ["Figure 1a", "Figure 3", "Not there yet"]
    assert "`ktrain run fig1` trains all rows." in page and "`ktrain run demo` trains 2 of the 16 rows." in page
    assert page.startswith("# G\n\n<!-- figures -->\n## ") and page.endswith("|\n<!-- end -->\nmore\n")
    assert {word for word in re.findall(r"\(gallery/(\w+)\.svg\)", page)} == {"fig1a", "fig1bc", "fig3"}
    assert {f"ktrain run {name}" for name in FIGURES} - set(re.findall(r"`(.*?)`", page)) == {"ktrain run fig3"}
    pictures = list((tmp_path / "gallery").iterdir())
    assert {path.name for path in pictures} == {"fig1a.svg", "fig1bc.svg", "fig3.svg"}
    for path in pictures:
        (ground, *_) = (e for e in ElementTree.parse(path).getroot() if e.tag.endswith(("}rect", "}g")))
        assert ground.attrib == {"width": "100%", "height": "100%", "fill": PAGE}
        assert path.stat().st_size < 60_000


def test_figures_that_a_store_lacks_stay_as_they_were(planned: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "gallery.md").write_text("<!-- figures -->\n<!-- end -->\n")
    claims = planned("claims")
    keys = draw_gallery.keys_by_figure(claims)
    celebrities, demo = (
        draw_gallery.chosen(found(claims, "ktrain run claims", done=lambda cell: cell.key in keys["fig8"])),
        draw_gallery.chosen(found(planned("demo"), "ktrain run demo")),
    )
    draw_gallery.write(tmp_path, celebrities)
    picture = (tmp_path / "gallery" / "fig8.svg").read_bytes()
    for _ in range(2):
        draw_gallery.write(tmp_path, demo)
        page = (tmp_path / "gallery.md").read_text()
        assert re.findall(r"^## (.*)$", page, re.M) == ["Figure 3", "Figure 8", "Not there yet"]
        assert "`ktrain run claims` trains" in page and "`ktrain run fig8`" not in page
        assert (tmp_path / "gallery" / "fig8.svg").read_bytes() == picture


@pytest.mark.parametrize(("seeds", "command"), [([0], "ktrain run demo"), ([0, 2], "ktrain run demo seed=0,2")])
def test_the_command_trains_the_seeds_that_a_store_has(
    seeds: list[Axis], command: str, planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = results(planned("demo", seed=[*seeds, 7]), done=lambda cell: cell.axes["seed"] in seeds)
    monkeypatch.setattr(draw_gallery, "builtin", lambda: ["demo", "fig3"])
    monkeypatch.setattr(draw_gallery, "load_results", lambda _, name: recorded if name == "demo" else Results(name, ()))
    monkeypatch.setattr(draw_gallery, "read", lambda plan, _: results(plan))
    monkeypatch.setattr(draw_gallery, "read_curves", lambda *_: (NO_CURVES, ()))
    (one,) = draw_gallery.candidates_of_store(tmp_path)
    assert (one.figure, one.command, one.cells) == ("fig3", command, 2 * len(seeds))


def test_a_store_without_results_has_no_figure(tmp_path: Path) -> None:
    assert list(draw_gallery.candidates_of_store(tmp_path)) == []


def test_the_gallery_of_this_repository_is_whole_and_small() -> None:
    page, files = (ROOT / "docs" / "gallery.md").read_text(), list((ROOT / "docs" / "gallery").iterdir())
    assert {path.name for path in files} == set(re.findall(r"\(gallery/([\w.]+)\)", page))
    assert draw_gallery.BLOCK.search(page) and sum(path.stat().st_size for path in files) < 1_000_000
