"""Tables of README and docs are written from a store, and only where it has every cell."""

import re
from itertools import product
from pathlib import Path

import collect_results
import doc_tables
import fill_tables
import pandas as pd
import pytest

from analysis.measurements import names
from analysis.measurements.cells import Axis, Cell, Results
from analysis.measurements.curves import wilson
from analysis.measurements.table_rows import setting
from sweeps.exchange import import_runs

ROOT = Path(__file__).parents[2]
NO_CURVES = pd.DataFrame(columns=["key", "step", "metric", "value", "n", "low", "high"])


def cell(row: str, kind: str, seed: int = 0, people: int = 1000, base: float = 0.5, **axes: Axis) -> Cell:
    """A finished cell of the paper's row `row`, whose every accuracy is `base` and a little by column."""
    texts: dict[str, dict[str, Axis]] = {
        "single": {"corpus.multi": 1},
        "multi5": {"corpus.multi": 5},
    }
    name, *flags = row.split("+")
    params: dict[str, Axis] = {"corpus.kind": "bioS", "corpus.permute": 0, "corpus.fullname": False, **texts[name]}
    for flag in flags:
        params |= {
            "permute": {"corpus.permute": 1},
            "permute1": {"corpus.permute": 1},
            "permute5": {"corpus.permute": 5},
            "fullname": {"corpus.fullname": True},
            "CEL": {"corpus.celebrity_fraction": 0.5},
        }[flag]
    params |= {"corpus.people": people, "model.family": "gpt2", "readout.kind": kind, "readout.method": "full"}
    params |= {name.replace("__", "."): value for name, value in axes.items()} | {"seed": seed}
    metrics = {"recall/attribute_tokens": 0.99, **{f"baseline/test/{column}": 0.07 for column in names.COLUMNS}}
    group = "qa" if kind == "qa_finetune" else kind
    for k, column in enumerate(names.COLUMNS):
        value = base + k / 100
        metrics |= {names.q_probe("first", column): value, names.majority("q_probe", "first", column): 0.14}
        metrics |= {names.p_probe("first", at, column): value for at in (0, "own")}  # type: ignore[arg-type]
        metrics |= {f"{group}/exact_match/{half}/{column}": value for half in ("train", "test")}
    return Cell(
        key=f"{row}-{kind}-{people}-{seed}-{axes}",
        axes=params,
        params=params,
        metrics=metrics,
        interval={name: wilson(value, 500) for name, value in metrics.items()},
        state="done",
    )


def demo(seeds: int = 3) -> list[Cell]:
    shown = (("single", 0.05), ("multi5+permute", 0.8))
    return [
        cell(row, "qa_finetune", seed, 300, base + seed / 100) for (row, base), seed in product(shown, range(seeds))
    ]


def claims() -> list[Cell]:
    rows = ("single", "single+permute1", "single+fullname", "single+permute5", "multi5", "multi5+permute")
    cells = [cell(row, kind, 1, 1000, k / 10) for k, row in enumerate(rows) for kind in ("qa_finetune", "q_probe")]
    cells += [cell(row, "p_probe", 1, 1000, 0.3) for row in ("single", "multi5+permute")]
    cells += [
        cell("single", "qa_finetune", 1, 1000, 0.04, readout__method="lora", readout__rank_qv=rank) for rank in (8, 16)
    ]
    cells += [cell("single", "mixed", 1, 1000, 0.158)]
    cells += [
        cell(f"{row}{flag}", "qa_finetune", 1, 500, 0.2, readout__people="celebrity" if flag else "minority")
        for row, flag in product(("single", "single+permute1"), ("", "+CEL"))
    ]
    return cells


def test_rows_are_those_of_the_paper() -> None:
    assert {setting(c.params) for c in claims()} >= {"bioS multi5+permute", "bioS single+permute1+CEL", "bioS single"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_demo_is_a_mean_of_its_seeds(seeds: int) -> None:
    numbers = doc_tables.Numbers(Results("demo", tuple(demo(seeds))))
    header, _, baseline, single, augmented = doc_tables.demo(numbers).splitlines()
    assert header.startswith("| mean of seeds 0, 1, 2;" if seeds == 3 else "| seed 0;")
    assert baseline.startswith("| always the most common value | 7.0 | 7.0 |")
    middle = "6.0" if seeds == 3 else "5.0"
    assert re.match(rf"\| one wording \(`single`\) \| \*\*{middle}\*\* \[\d", single)
    assert augmented.endswith("| 87.0 |" if seeds == 3 else "| 86.0 |")
    by_seed = doc_tables.demo_by_seed(numbers).splitlines()
    assert len(by_seed) == 2 + 2 * seeds and by_seed[2].startswith("| single | 0 | 5.0 | 6.0 |")


def test_each_table_of_claims_has_its_numbers() -> None:
    numbers = doc_tables.Numbers(Results("claims", tuple(claims())))
    wordings = doc_tables.wordings(numbers)
    assert "| single | 0.0 [" in wordings and "| multi5+permute | 50.0 [" in wordings
    assert "| single, mixed training | 15.8 [" in wordings and "| seed 1; 1,000 people |" in wordings
    assert "| single, adapters of rank 16 | 4.0 [" in wordings
    assert doc_tables.celebrities(numbers).count("20.0 [") == 4
    probes = doc_tables.probes(numbers)
    assert "| P-probe right before the attribute, single | 30.0 | 31.0 |" in probes
    assert "| Q-probe, multi5+permute | 50.0 |" in probes and "| majority baseline | 14.0 |" in probes


def test_the_claims_table_says_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_tables.curves, "read_curves", lambda *_: NO_CURVES)
    family = {"model__family": "gbert"}
    bidirectional = [
        cell("multi5+permute", "qa_finetune", 1, 250, 0.1, **family),
        cell("single", "mixed", 1, 250, **family),
    ]
    compared = cell("multi5+permute", "qa_finetune", 1, 250, 0.8)
    table = doc_tables.claims(doc_tables.Numbers(Results("claims", (*claims(), *bidirectional, compared))))
    lines = table.splitlines()
    assert len(lines) == 2 + 11 and "seed 1" in lines[0]
    assert any("| holds: 20.0 %, with pronouns 0.0 % |" in line for line in lines)
    with pytest.raises(doc_tables.Missing, match="not every part"):
        doc_tables.claims(doc_tables.Numbers(Results("claims", tuple(claims()))))


def test_a_table_that_the_store_cannot_fill_stays_and_is_named() -> None:
    page = "a\n<!-- numbers: demo, by ktrain run demo seed=0,1,2 -->\n| old |\n<!-- end -->\nb\n"
    unfinished = doc_tables.Numbers(Results("demo", tuple(demo()[:3])))
    text, missing = fill_tables.rewrite(page, lambda command: unfinished)
    assert text == page and len(missing) == 1
    assert missing[0].startswith("demo: 0 finished settings") and missing[0].endswith(
        "first: ktrain run demo seed=0,1,2"
    )
    text, missing = fill_tables.rewrite(page, lambda command: doc_tables.Numbers(Results("demo", tuple(demo()))))
    assert (
        not missing
        and text.startswith(page.split("| old")[0])
        and text.endswith("<!-- end -->\nb\n")
        and "old" not in text
    )


def test_every_table_stands_on_a_page_once() -> None:
    blocks = [block for page in fill_tables.PAGES for block in fill_tables.BLOCK.finditer((ROOT / page).read_text())]
    assert sorted(block["name"] for block in blocks) == sorted(doc_tables.TABLES)
    commands = [block["command"] for block in blocks]
    assert all(re.fullmatch(r"ktrain run (demo|claims)( seed=[\d,]+)?", command) for command in commands)


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [(ROOT / page).read_text() for page in fill_tables.PAGES]
    assert fill_tables.main(["--store", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(doc_tables.TABLES)
    assert [(ROOT / page).read_text() for page in fill_tables.PAGES] == before


@pytest.mark.parametrize("command", fill_tables.commands())
def test_the_pages_show_what_their_results_say(command: str, tmp_path: Path) -> None:
    """A table whose cells are not all in docs/data is of an earlier collection, and cannot be compared."""
    file = collect_results.file_of(command)
    if not file.is_file():
        pytest.skip(f"{file.name} is not collected yet")
    import_runs(str(file), str(tmp_path))
    for page in fill_tables.PAGES:
        text = (ROOT / page).read_text()
        mine = "".join(m[0] for m in fill_tables.BLOCK.finditer(text) if m["command"] == command)
        written, _ = fill_tables.rewrite(mine, lambda command: fill_tables.numbers_of(command, tmp_path))
        assert written == mine, f"{page}: run make docs-numbers"
