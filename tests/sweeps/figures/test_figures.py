"""The sweeps of the paper's figures against the paper's tables and the counts of its trainings."""

import csv
import itertools
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pretrained
import pytest

from analysis.paper.tables import FOLDER
from ktrain.config import CellConfig
from ktrain.data.corpus import missing_inputs
from ktrain.errors import WrongRequest
from ktrain.stages import stages_of
from sweeps.figures.paper import FIGURES
from sweeps.planning import cost, memory
from sweeps.planning.departures import departures
from sweeps.planning.grid import expand, load
from sweeps.recipes.rows import name_of
from sweeps.recipes.scales import MINIATURES, SCALES

CELLS = {
    "fig1": (2, 2),
    "fig2": (72, 144),
    "fig3": (32, 48),
    "fig5": (16, 16),
    "fig6": (1, 1),
    "fig7": (32, 48),
    "fig8": (5, 10),
    "fig9": (48, 112),
    "fig10": (70, 70),
    "fig11": (432, 432),
    "fig12": (56, 84),
    "fig13": (32, 32),
    "fig14": (12, 12),
    "fig15": (3, 3),
    "fig16": (66, 88),
    "fig17": (12, 24),
    "fig18": (9, 9),
    "fig19": (18, 27),
}
"""Of a miniature, where everything is finetuned once and nothing is larger than the rest, and else."""
FAMILY = {"fig9": "gbert", "fig12b": "llama", "fig12c": "llama"}
RANKS = {
    "fig13b": 4,
    "fig13d": 4,
    "fig14b": 4,
    "fig14d": 4,
    "fig16b": 64,
    "fig16d": 128,
}
"""Of the probes of a table, where it is the control."""

Asked = tuple[object, ...]
"""What a row of a table asks for: family, row, kind of readout and what else tells cells of this kind apart."""


@cache
def cells(name: str, scale: str) -> tuple[CellConfig, ...]:
    return tuple(expand(load(name), scale, {}))


def row(cell: CellConfig) -> str:
    """The paper's name of a cell's text, written here a second time."""
    corpus = cell.corpus
    if corpus.couple:
        return f"{corpus.kind} couple{corpus.couple}"
    name = f"{corpus.kind} " + ("single" if corpus.multi == 1 else f"multi{corpus.multi}")
    if corpus.permute:
        name += "+permute" + (str(corpus.permute) if corpus.multi == 1 else "")
    name += "+fullname" if corpus.fullname else ""
    return name + ("+CEL" if corpus.celebrity_fraction else "+wiki" if corpus.background else "")


def pretrainings(found: tuple[CellConfig, ...]) -> list[CellConfig]:
    """One cell of each pretraining."""
    return list({(c.corpus, c.model, c.train, c.seed): c for c in found}.values())


# Every figure at every scale.


def test_every_figure_with_data_has_a_sweep() -> None:
    assert set(FIGURES) == set(CELLS) == {f"fig{n}" for n in range(1, 20)} - {"fig4"}
    assert all(load(name).figure == load(name).name == name and load(name).question for name in FIGURES)
    assert load("paper").figures == FIGURES and not load("claims").figures


@pytest.mark.parametrize(("name", "scale"), itertools.product(CELLS, SCALES))
def test_a_figure_has_its_cells_at_every_scale(name: str, scale: str) -> None:
    found = cells(name, scale)
    assert len(found) == CELLS[name][scale not in MINIATURES]
    if scale in MINIATURES:
        assert {cell.model.size for cell in found} == {"mini"}
    assert {cell.seed for cell in found} == {0}


@pytest.mark.parametrize("name", [*FIGURES, "claims"])
def test_at_full_scale_nothing_departs_from_the_paper(name: str) -> None:
    assert departures(cells(name, "full")) == departures(cells(name, "full"), load(name).figures) == []


@pytest.mark.parametrize("scale", SCALES)
def test_probes_of_a_figure_have_people_enough(scale: str) -> None:
    """A cell that reads states needs 20 people a class, of whom the miniature has 25."""
    for cell in cells("paper", scale):
        if cell.readout.probe:
            assert cell.corpus.people >= 1000 and cell.readout.people == "minority"


@pytest.mark.parametrize("scale", SCALES)
def test_celebrities_are_what_is_finetuned_on_where_there_are_some(scale: str) -> None:
    famous = [cell for cell in cells("paper", scale) if cell.corpus.celebrity_fraction]
    assert {cell.corpus.celebrities == cell.corpus.people for cell in famous} == {True}
    for cell in cells("paper", scale):
        asks_them = cell.readout.people == "celebrity"
        assert asks_them == (cell.readout.kind == "qa_finetune" and cell.corpus.celebrity_fraction > 0)
        if cell.corpus.celebrity_fraction:
            bior = cell.corpus.kind == "bioR"
            how = (5, int(not bior), bior and cell.corpus.fullname)
            assert (cell.corpus.celebrity.multi, cell.corpus.celebrity.permute, cell.corpus.celebrity.fullname) == how


def test_what_a_row_lacks_is_known_before_it_is_run() -> None:
    for cell in cells("paper", "full"):
        missing = " ".join(missing_inputs(cell.corpus))
        assert ("is not written yet" in missing) == (cell.corpus.kind == "bioR")
        assert ("corpus.background=FOLDER" in missing) == row(cell).endswith("+wiki")


def test_injection_needs_a_trained_network_and_reads_five_ways_by_two_methods(tmp_path: Path) -> None:
    with pytest.raises(WrongRequest, match=r"^model.family=hf: needs model.config, .* or model.start, a folder with a"):
        cells("injection", "mini")
    folder = [str(pretrained.save(tmp_path))]
    with pytest.raises(
        WrongRequest, match=r"^corpus.tokenizer=bpe-2048: is not the tokenizer of model.start; set corp"
    ):
        expand(load("injection"), "mini", {"model.start": folder})
    found = expand(load("injection"), "mini", {"model.start": folder, "corpus.tokenizer": folder})
    asked = {(name_of(cell.corpus), cell.train.qa_ratio, cell.readout.kind, cell.train.method) for cell in found}
    assert len(found) == len(asked) == 10 and {cell.corpus.people for cell in found} == {60}
    rows = {("bioS single", 0.0), ("bioS single", 0.5), ("bioS multi5", 0.0), ("bioS multi5+permute", 0.0)}
    assert {entry[:2] for entry in asked} == rows | {("bioS single+permute5", 0.0)}
    assert not load("injection").figures
    # So large a batch that training takes more memory than answering.
    large = {"model.start": folder, "corpus.tokenizer": folder, "train.batch": [4096]}
    full, lora = expand(load("injection"), "mini", large)[:2]
    flops, peaks = [], []
    for cell in (full, lora):
        stage = stages_of(cell).pretrain
        flops.append(cost.flops(stage, cell))
        peaks.append(memory.estimate(stage, cell, 1, gpu=False))
    assert flops[1] == pytest.approx(flops[0] * 2 / 3) and peaks[1] < peaks[0]


# The tables of the paper.


def wanted(table: str) -> tuple[set[Asked], list[str]]:
    """What a table asks for, and its rows in order."""
    text = (FOLDER / f"{table}.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    family = FAMILY.get(table, "gpt2")
    found: set[Asked] = set()
    names = []
    for line in lines:
        name = line.get("setting") or line["panel"]
        if name == "baseline":
            continue
        size, name = re.fullmatch(r"(?:(\d+M) )?(.*?)(?: \(\d+ passes\))?", name).groups()  # type: ignore[union-attr]
        names.append(name)
        if "rank_qv" in line:
            how = tuple(line[rank].replace("train all", "full") for rank in ("rank_qv", "rank_embedding"))
            found.add((family, name, (size or ("302M" if "bioR" in name else "124M")).lower(), *how))
            continue
        for column in line:
            kind = "p_probe" if column == "seen" else column.partition("/")[0]
            rank = RANKS.get(table) or {"p_probe": 2, "q_probe": 32 if "bioR" in name else 16}.get(kind)
            if kind in ("p_probe", "q_probe"):
                found.add((family, name, kind, rank))
            elif kind in ("qa", "mixed") or re.fullmatch(r"0\.\d", kind):
                found.add((family, name, kind))
    return found, list(dict.fromkeys(names))


def offered(figure: str) -> set[Asked]:
    """What the cells of a figure answer, in the same words."""
    found: set[Asked] = set()
    for cell in cells(figure, "full"):
        family, name, readout = cell.model.family, row(cell), cell.readout
        if figure in ("fig2", "fig11"):
            how = ("full", "full") if readout.method == "full" else (str(readout.rank_qv), str(readout.rank_embedding))
            found.add((family, name, cell.model.size, *how))
        elif readout.probe:
            found.add((family, name, readout.kind, readout.rank_embedding))
        elif figure == "fig10":
            found.add((family, name, f"{cell.train.qa_ratio:g}"))
        else:
            found.add((family, name, {"qa_finetune": "qa"}.get(readout.kind, readout.kind)))
    return found


TABLES = {
    figure: sorted(path.stem for path in FOLDER.glob("*.csv") if re.fullmatch(f"{figure}[a-d]?", path.stem))
    for figure in FIGURES
}


@pytest.mark.parametrize("figure", [figure for figure, tables in TABLES.items() if tables])
def test_every_row_of_a_table_has_its_cells_and_no_cell_is_left_over(figure: str) -> None:
    found = [wanted(table) for table in TABLES[figure]]
    asked = set().union(*(those for those, _ in found))
    # A table may leave a column out that another figure has too.
    kinds = {kind for _, _, kind, *_ in asked}
    assert {answer for answer in offered(figure) if answer[2] in kinds} == asked
    for _, names in found:
        mine = [name for name in dict.fromkeys(map(row, cells(figure, "full"))) if name in names]
        assert mine == names


def test_the_best_of_what_the_paper_tried_is_shown() -> None:
    """Two adapters, or six ways to finetune everything, or GBERT's four adapters and two shares of questions."""
    tried = {cell.readout for cell in cells("fig3", "full") if cell.readout.kind == "qa_finetune"}
    assert {(r.rank_qv, r.rank_embedding, r.learning_rate, r.weight_decay) for r in tried} == {
        (8, 128, 3e-4, 0.01),
        (16, 128, 3e-4, 0.01),
    }
    tried = {cell.readout for cell in cells("fig9", "full") if cell.readout.kind == "qa_finetune"}
    assert {(r.rank_qv, r.rank_embedding) for r in tried} == {(8, 128), (8, "full"), (32, 128), (32, "full")}
    assert {(r.decay, r.final_learning_rate, r.learning_rate) for r in tried} == {("linear", 0.0, 3e-4)}
    assert {cell.train.qa_ratio for cell in cells("fig9", "full")} == {0.0, 0.2, 0.8}
    for name in ("fig3", "fig7", "fig8", "fig9", "fig12", "fig16", "fig17", "fig19"):
        assert "readout.rank_qv" in load(name).best_of


# The trainings of the paper.


def test_the_pretrainings_of_the_whole_paper_are_as_many_as_the_paper_has() -> None:
    found: Counter[tuple[object, ...]] = Counter()
    for cell in pretrainings(cells("paper", "full")):
        corpus, steps = cell.corpus, cell.train.steps
        name = row(cell)
        besides = name.rpartition("+")[2] if name.endswith(("+CEL", "+wiki")) else "couple" if corpus.couple else ""
        usual = cell.train.qa_ratio in (0.0, 0.8) or cell.model.family == "gbert"
        found[corpus.kind, cell.model.family, cell.model.size, steps, besides if usual else "ratio"] += 1
    assert found == {
        # 16 rows, biographies alone and mixed, GPT-2 and Llama: 64 of 124M with 80,000 steps.
        ("bioS", "gpt2", "124m", 80_000, ""): 32,
        ("bioS", "llama", "124m", 80_000, ""): 32,
        # 6 rows likewise: 24 of 302M with 150,000 steps; and one more below.
        ("bioR", "gpt2", "302m", 150_000, ""): 12 + 1,
        ("bioR", "llama", "302m", 150_000, ""): 12,
        # Figure 10: ten rows at six other ratios, 60. Its bioR single+permute5 is no row of Figure 12, so that its
        # training at 0.8 is one more than in the count of facts, which takes all of 0.8 as done.
        ("bioS", "gpt2", "124m", 80_000, "ratio"): 30,
        ("bioR", "gpt2", "302m", 150_000, "ratio"): 30,
        ("bioS", "gpt2", "682m", 200_000, ""): 1,
        ("bioR", "gpt2", "682m", 200_000, ""): 1,
        ("bioS", "gpt2", "124m", 80_000, "couple"): 3,
        ("bioS", "gpt2", "124m", 80_000, "CEL"): 3,
        ("bioR", "gpt2", "302m", 150_000, "CEL"): 2,
        ("bioR", "gpt2", "302m", 150_000, "wiki"): 2,
        # 16 rows, biographies alone and mixed at two ratios.
        ("bioS", "gbert", "124m", 150_000, ""): 48,
    }
    assert found.total() == 64 + 24 + 60 + 1 + 2 + 3 + 5 + 2 + 48


@pytest.mark.parametrize("scale", ["medium", "full"])
def test_claims_are_part_of_the_paper(scale: str) -> None:
    found = set(cells("claims", scale))
    assert found <= set(cells("paper", scale)) and len(pretrainings(tuple(found))) == 12


def test_claims_at_mini_are_the_smallest_set() -> None:
    found = cells("claims", "mini")
    assert len(found) == 24 and len(pretrainings(found)) == 14
    steps = {
        (row(c), c.model.family, c.train.qa_ratio, c.corpus.people, c.train.steps)
        for c in found
        if "+CEL" in row(c) or c.train.qa_ratio or c.model.family == "gbert"
    }
    assert steps == {
        ("bioS single+CEL", "gpt2", 0.0, 500, 16_200),
        ("bioS single+permute1+CEL", "gpt2", 0.0, 500, 16_200),
        ("bioS multi5+permute", "gbert", 0.0, 250, 21_600),
        ("bioS single", "gbert", 0.2, 250, 21_600),
        ("bioS single", "gpt2", 0.5, 1000, 21_600),
    }
    plain = {(c.corpus.people, c.train.steps) for c in found if c.model.family == "gpt2" and not c.train.qa_ratio}
    assert plain == {(1000, 10_800), (500, 5_400), (500, 16_200), (250, 2_700)}
    finetuned = {(c.corpus.people, c.readout.people, c.readout.steps) for c in found if c.readout.kind == "qa_finetune"}
    few = {(500, "minority", 400), (500, "celebrity", 800), (250, "minority", 200)}
    assert finetuned == {(1000, "minority", 800), *few}
    asked = Counter((cell.readout.kind, cell.readout.method) for cell in found)
    assert asked == {
        ("qa_finetune", "full"): 6 + 2 + 1 + 3,
        ("qa_finetune", "lora"): 2,
        ("q_probe", "lora"): 6,
        ("p_probe", "lora"): 2,
        ("mixed", "full"): 2,
    }
