"""Figures, the finding and the page."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from analysis.claims.claim_file import Claim, Part, sha256
from analysis.claims.judge import judge
from analysis.claims.verdict import Verdict
from analysis.figures import answer_bars, draw
from analysis.measurements.cells import Cell, Results
from analysis.paper import tables
from analysis.presentation.number_format import MISSING, percent, points, ranged
from analysis.presentation.section import Picture, Section, Sheet
from analysis.report import answer_sheets, probe_table
from analysis.report import page as report_page
from analysis.report.headline import find_headline

HOSTILE = '<script>alert("x")</script> $\\frac{$ --> &amp;'


def page(results: Results, folder: Path, scale: str = "mini", **more: Any) -> str:
    published = tables.figure("fig3")
    drawn = {
        "By attribute": answer_bars.draw_answers(results, published).svg,
        "Map": answer_bars.heat_map(results, published).svg,
    }
    pictures = tuple(Picture(caption, svg, ("figure.svg", "figure.csv")) for caption, svg in drawn.items())
    sheets = (*answer_sheets.sheets(results, published), *probe_table.sheets(results, published))
    path = report_page.write(
        folder / "new" / "report.html",
        results.sweep,
        results,
        scale=scale,
        finding=find_headline(results, published),
        sections=(Section("Figure 3", pictures, sheets),),
        provenance={"python": "3.11", HOSTILE: HOSTILE},
        departures=["dropout is 0", HOSTILE],
        mlflow_hint="ktrain ui",
        **more,
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
    assert "This run, at scale mini, departs from the paper's experiment" in text and "ktrain ui" in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower().replace("provenance", "")
    assert "departs from the paper" in page(contrast, tmp_path, scale="full"), "nothing was recorded of departures"
    same = tuple(replace(cell, departures=()) for cell in contrast.cells)
    assert "departs from the paper" not in page(replace(contrast, cells=same), tmp_path, scale="full")


def test_the_page_loads_nothing(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path)
    assert not re.search(r"https?:|//[a-z]|@import|src=", text)
    elements = Elements(text).found
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in elements}
    references = [a[name] or "" for _, a in elements for name in ("href", "xlink:href") if name in a]
    inside = {reference[1:] for reference in references if reference.startswith("#")}
    beside = {reference for reference in references if not reference.startswith("#")}
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids)) and inside <= set(ids) and beside == {"figure.svg", "figure.csv"}


def test_a_hostile_name_is_only_text(make: Callable[..., Cell], tmp_path: Path) -> None:
    cells = (make(0.1, kind=HOSTILE), make(state=f"failed: {HOSTILE}", multi=5))
    text = page(Results(HOSTILE, cells), tmp_path)
    assert "<script" not in text and "&lt;script&gt;" in text


def test_a_sweep_without_results_has_a_page(tmp_path: Path) -> None:
    text = page(Results("demo", (Cell(key="a", axes={"seed": 0}, params={"seed": 0}),)), tmp_path)
    assert "No result yet" in text and "1 of 1 cells have no final number: 1 missing." in text


def test_the_finding_compares_intervals(make: Callable[..., Cell]) -> None:
    near = find_headline(Results("s", (make(0.50), make(0.52, multi=5))), tables.figure("fig3"))
    assert "the 95 % intervals overlap" in near.remarks[0] and "reports 9.7 % and 41.0 %" in near.remarks[0]
    far = find_headline(Results("s", (make(0.9, multi=5, permute=1), make(0.02))))
    assert far.headline == "QA finetune: bioS single 2.0 % vs bioS multi5+permute 90.0 % on held-out people"
    assert "do not overlap" in far.remarks[0] and "7.0 %" in far.remarks[1]
    assert find_headline(Results("s", (make(0.5),))).headline == "QA finetune: bioS single 50.0 % on held-out people"


def test_probes_are_found_and_shown(probes: Results, contrast: Results, tmp_path: Path) -> None:
    alone = find_headline(probes, tables.beside("fig7"))
    assert alone.headlines == (
        "Q-probe, first token: bioS single 8.1 % vs bioS multi5+permute 70.2 % on held-out people",
        "P-probe at position 0, first token: bioS single 5.2 % vs bioS multi5+permute 60.4 % on held-out people",
    )
    assert "reports 11.2 % and 99.9 %" in alone.remarks[0] and "score 3.0 %." in alone.remarks[2]
    both = find_headline(Results("s", contrast.cells + probes.cells))
    assert len(both.headlines) == 3 and both.headlines[0] == find_headline(contrast).headlines[0]
    assert "7.0 % (QA finetune); 3.0 % (Q-probe" in " ".join(both.remarks)
    assert alone.question != both.question == find_headline(contrast).question
    text = report_of(probes, tmp_path)
    assert "8.1 [5.1, 11.1]" in text and "P-probe, whole attribute" in text and "Exact match" not in text
    assert "Figure 7" in text and "departs from the paper's experiment" in text
    assert "Probes" not in report_of(contrast, tmp_path)


def report_of(results: Results, folder: Path) -> str:
    numbers = tables.beside("fig3")
    pictures = tuple(Picture(drawing.caption, drawing.svg) for drawing in draw.draw_figures(results, numbers))
    path = report_page.write(
        folder / "report.html",
        results.sweep,
        results,
        scale="mini",
        finding=find_headline(results, numbers),
        sections=(Section("", pictures, probe_table.sheets(results, numbers)),),
        provenance={},
        mlflow_hint="ktrain ui",
    )
    return path.read_text("utf-8")


def verdicts(results: Results, text: str) -> tuple[Verdict, ...]:
    value = 'value = { setting = "bioS single", metric = "qa/exact_match/test/mean" }'
    part = Part.model_validate({"says": f"a part {HOSTILE}"} | tomllib.loads(f"x = {{ {value}, {text} }}")["x"])
    return judge(results, None, [Claim(name="c", says=f"a claim {HOSTILE}", paper="section 3", part=(part,))])


def test_verdicts_come_first_and_are_counted(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path, verdicts=verdicts(contrast, "at_most = 0.10"))
    assert "<title>demo: 1 holds</title>" in text and "Which of the paper" in text and "a claim" in text
    body = text[text.index("<main>") :]
    order = [body.index(f'id="{name}"') for name in ("verdicts", "figures", "tables", "settings")]
    assert order == sorted(order) and body.index("a claim") < order[1]
    assert "2.1 [0.0, 5.1]" in body and "at most 10.0" in body and sha256() in body
    assert "<strong>At scale mini, with the" in body and "2 of 4 cells have no final number" in text
    assert "<script" not in text
    same = replace(contrast, cells=tuple(replace(cell, departures=()) for cell in contrast.cells))
    failing = page(same, tmp_path, scale="full", verdicts=verdicts(same, "at_least = 0.10"))
    assert "1 fails</p>" in failing and "At scale" not in failing


def test_the_page_of_an_own_sweep_asks_its_question_and_has_the_claims_last(contrast: Results, tmp_path: Path) -> None:
    holding = verdicts(contrast, "at_most = 0.10")
    text = page(contrast, tmp_path, verdicts=holding, question="How many <wordings>?", claims_first=False)
    assert "<h1>How many &lt;wordings&gt;?</h1>" in text and "1 holds</p>" not in text
    headlines = text[: text.index("<main>")]
    assert all(line in headlines for line in find_headline(contrast).headlines)
    body = text[text.index("<main>") :]
    order = [body.index(f'id="{name}"') for name in ("figures", "tables", "verdicts", "settings")]
    assert order == sorted(order) and body.count('id="verdicts"') == 1


def test_a_sweep_without_claims_has_its_finding_alone(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path)
    assert 'id="verdicts"' not in text and "claims.toml" not in text and find_headline(contrast).question in text
    other = Results("demo", contrast.cells[1:2])
    text = page(other, tmp_path, verdicts=verdicts(other, "at_most = 0.10"))
    assert 'id="verdicts"' not in text and find_headline(other).question in text


def test_claims_in_part_are_shown_under_the_finding(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path, verdicts=judge(contrast))
    assert find_headline(contrast).question in text and "not enough data" in text
    assert "in 1 of 1 tested parts; 4 are not in this sweep" in text
    assert "no such cell" not in text and "bidirectional" not in text


def test_lines_of_one_name_stand_together_and_a_short_line_says_why(tmp_path: Path) -> None:
    lines = (("a+b", "ours", "1.0 [0.5, 1.5]"), ("", "paper", "2.0"), ("c", "running"))
    sheet = Sheet("Title", ("setting", "", "mean"), lines, "A note.", quiet=(1,))
    results = Results("s", (Cell(key="a", axes={"seed": 0}, params={"seed": 0}),))
    text = page(results, tmp_path, costs=Sheet("Costs", ("kind", "tokens"), (("corpus", "5"),)))
    assert "Costs" in text and text.index("Versions") < text.index("Costs")
    path = report_page.write(
        tmp_path / "x.html",
        "s",
        results,
        scale="mini",
        finding=find_headline(results),
        sections=(Section("S", (), (sheet, sheet)),),
        provenance={},
        mlflow_hint="",
    )
    text = path.read_text("utf-8")
    assert '<th scope="rowgroup" rowspan="2">a+<wbr>b</th>' in text and 'colspan="2">running</td>' in text
    assert (
        '1.0<br><span class="interval">[0.5, 1.5]</span>' in text
        and '<tr class="quiet"><td class="which">paper' in text
    )
    assert text.count("A note.") == 1, "what is noted alike is said once"
    assert 'id="figures"' not in text


def test_figures_link_to_the_files_beside_the_page(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path)
    assert '<a href="figure.svg">SVG</a>' in text and '<a href="figure.csv">CSV</a>' in text


def test_questions_stand_between_figures_and_tables_and_stages_last(contrast: Results, tmp_path: Path) -> None:
    samples = Sheet(
        "Six questions", ("question", "right answer"), ((f"Who? {HOSTILE}", "Nobody"),), "Note.", words=True
    )
    stages = Sheet("How each stage was made", ("stage", "seconds"), (("pretrain-1", "125"),))
    text = page(contrast, tmp_path, samples=samples, stages=stages)
    order = [text.index(part) for part in ('id="figures"', 'id="samples"', 'id="tables"', "How each stage was made")]
    assert order == sorted(order) and '<a href="#samples">' in text and 'class="numbers words"' in text
    assert "<script" not in text and "125" in text
    assert 'id="samples"' not in page(contrast, tmp_path)


def test_a_figure_that_is_wider_than_a_phone_says_that_it_scrolls(contrast: Results, tmp_path: Path) -> None:
    text = page(contrast, tmp_path)
    assert text.count("scroll sideways to see all of it") == 2 and "@media (max-width: 480px)" in text
    small = Section("", (Picture("Small", '<svg width="200pt" height="100pt" viewBox="0 0 200 100"></svg>'),))
    path = report_page.write(
        tmp_path / "x.html",
        "s",
        contrast,
        scale="mini",
        finding=find_headline(contrast),
        sections=(small,),
        provenance={},
        mlflow_hint="",
    )
    assert "scroll sideways" not in path.read_text("utf-8")


def test_answers_stand_beside_the_papers(contrast: Results) -> None:
    ours, beside = answer_sheets.sheets(contrast, tables.figure("fig3"))
    assert ours.lines[0][:2] == ("majority baseline", "7.0") and ours.quiet == (0,)
    assert ours.lines[1][:2] == ("bioS single", "2.1 [0.0, 5.1]")
    assert ours.headers[-2:] == ("recall", "nameless") and ours.lines[1][-2:] == ("99.1", MISSING)
    read = replace(contrast.cells[0], metrics={**contrast.cells[0].metrics, "windows/nameless_attribute_tokens": 0.284})
    (alone, *_) = answer_sheets.sheets(replace(contrast, cells=(read,)))
    assert alone.lines[1][-2:] == ("99.1", "28.4") and "Nameless: " in alone.note
    assert all(len(line) in (2, len(ours.headers)) for line in ours.lines)
    assert ours.lines[3] == ("bioS multi5", "blocked: recall 71 % [gate 97.0]")
    assert [line[1:3] for line in beside.lines[:3]] == [("ours", "2.1"), ("paper", "9.7"), ("difference", "−7.6")]  # noqa: RUF001
    assert "Figure 3" in beside.note and len(answer_sheets.sheets(contrast)) == 1


def test_percent() -> None:
    assert (percent(0.701), percent(1.0), percent(None), percent(float("nan"))) == ("70.1", "100.0", MISSING, MISSING)
    assert ranged(0.701, (0.668, 0.733)) == "70.1 [66.8, 73.3]" and ranged(None, (0.1, 0.2)) == MISSING
    assert [points(v) for v in (0.032, -0.076, 0.0001, -0.0001, None)] == ["+3.2", "−7.6", "0.0", "0.0", MISSING]  # noqa: RUF001
