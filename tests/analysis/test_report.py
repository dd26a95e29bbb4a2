"""Figures, the finding and the page."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from analysis import figure, figures, paper, report
from analysis.cells import Cell, Results
from analysis.finding import find
from analysis.percent import MISSING, percent, points, ranged

HOSTILE = '<script>alert("x")</script> $\\frac{$ --> &amp;'


def page(results: Results, folder: Path, scale: str = "mini") -> str:
    published = paper.figure("fig3")
    path = report.write(
        folder / "new" / "report.html",
        results.sweep,
        results,
        scale=scale,
        figures={"By attribute": figure.draw(results, published).svg, "Map": figure.heat_map(results, published).svg},
        paper=published,
        provenance={"python": "3.11", HOSTILE: HOSTILE},
        departures=["dropout is 0", HOSTILE],
        mlflow_hint="ktrain ui",
    )
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text("utf-8")


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_says_what_was_found(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path)
    assert "bioS single 2.1 % vs bioS multi5+permute+fullname 78.4 %" in text
    assert "2 of 4 cells have no final number: 1 blocked, 1 missing." in text
    assert "blocked: recall 71 %" in text and "gate 97.0" in text
    assert "another scale (mini)" in text and "ktrain ui" in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower().replace("provenance", "")
    assert "another scale" not in page(contrast, tmp_path, scale="full")


def test_the_page_loads_nothing(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path)
    assert not re.search(r"https?:|//[a-z]|@import|src=", text)
    elements = Elements(text).found
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in elements}
    references = [a[name] or "" for _, a in elements for name in ("href", "xlink:href") if name in a]
    assert references and all(reference.startswith("#") for reference in references)
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids)) and {r[1:] for r in references} <= set(ids)


def test_a_hostile_name_is_only_text(make: Callable[..., Cell], tmp_path: Path) -> None:
    cells = (make(0.1, kind=HOSTILE), make(state=f"failed: {HOSTILE}", multi=5))
    text = page(Results(HOSTILE, cells), tmp_path)
    assert "<script" not in text and "&lt;script&gt;" in text


def test_a_sweep_without_results_has_a_page(tmp_path: Path) -> None:
    text = page(Results("demo", (Cell(key="a", axes={"seed": 0}, params={"seed": 0}),)), tmp_path)
    assert "No result yet" in text and "1 of 1 cells have no final number: 1 missing." in text


def test_the_finding_compares_intervals(make: Callable[..., Cell]) -> None:
    near = find(Results("s", (make(0.50), make(0.52, multi=5))), paper.figure("fig3"))
    assert "the 95 % intervals overlap" in near.remarks[0] and "reports 9.7 % and 41.0 %" in near.remarks[0]
    far = find(Results("s", (make(0.9, multi=5, permute=1), make(0.02))))
    assert far.headline == "QA finetune: bioS single 2.0 % vs bioS multi5+permute 90.0 % on held-out people"
    assert "do not overlap" in far.remarks[0] and "7.0 %" in far.remarks[1]
    assert find(Results("s", (make(0.5),))).headline == "QA finetune: bioS single 50.0 % on held-out people"


def test_probes_are_found_and_shown(probes: Results, contrast: Results, tmp_path: Path) -> None:
    alone = find(probes, paper.beside("fig7"))
    assert alone.headlines == (
        "Q-probe, first token: bioS single 8.1 % vs bioS multi5+permute 70.2 % on held-out people",
        "P-probe at position 0, first token: bioS single 5.2 % vs bioS multi5+permute 60.4 % on held-out people",
    )
    assert "reports 11.2 % and 99.9 %" in alone.remarks[0] and "score 3.0 %." in alone.remarks[2]
    both = find(Results("s", contrast.cells + probes.cells))
    assert len(both.headlines) == 3 and both.headlines[0] == find(contrast).headlines[0]
    assert "7.0 % (QA finetune); 3.0 % (Q-probe" in " ".join(both.remarks)
    assert alone.question != both.question == find(contrast).question
    text = report_of(probes, tmp_path)
    assert "8.1 [5.1, 11.1]" in text and "P-probe, whole attribute" in text and "Exact match" not in text
    assert "Figure 7" in text and "another scale" in text
    assert "Probes" not in report_of(contrast, tmp_path)


def report_of(results: Results, folder: Path) -> str:
    numbers = paper.beside("fig3")
    path = report.write(
        folder / "report.html",
        results.sweep,
        results,
        scale="mini",
        figures={drawing.caption: drawing.svg for drawing in figures.draw(results, numbers)},
        paper=numbers,
        provenance={},
        departures=(),
        mlflow_hint="ktrain ui",
    )
    return path.read_text("utf-8")


def test_percent() -> None:
    assert (percent(0.701), percent(1.0), percent(None), percent(float("nan"))) == ("70.1", "100.0", MISSING, MISSING)
    assert ranged(0.701, (0.668, 0.733)) == "70.1 [66.8, 73.3]" and ranged(None, (0.1, 0.2)) == MISSING
    assert [points(v) for v in (0.032, -0.076, 0.0001, -0.0001, None)] == ["+3.2", "−7.6", "0.0", "0.0", MISSING]  # noqa: RUF001
