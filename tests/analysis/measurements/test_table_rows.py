"""Rows: settings under the paper's names, axes that tell them apart, and what belongs to which readout."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.measurements.cells import Axis, Cell, Results
from analysis.measurements.names import PROBES
from analysis.measurements.table_rows import baseline, published, rows, setting
from analysis.paper import tables


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
    assert name in tables.figure("fig3").index or permute == 3


@pytest.mark.parametrize("name", sorted({s for f in tables.figures() for n in tables.numbers(f) for s in n.settings}))
def test_every_text_of_the_paper_has_its_name(name: str, read_axes: Callable[[str], dict[str, Axis]]) -> None:
    axes = read_axes(name)
    assert setting(axes) == name
    given = {axis: value for axis, value in axes.items() if value}
    assert setting(given) == name, "an axis that is not given is off"
    assert setting(axes | {"model.family": "gbert", "corpus.celebrity.fullname": True}) == name


def test_celebrities_are_told_by_the_name_unless_they_differ(make: Callable[..., Cell]) -> None:
    def cell(mean: float, fraction: float, people: str = "celebrity") -> Cell:
        made = make(mean, permute=1)
        more = {"corpus.celebrity_fraction": fraction, "corpus.celebrity.multi": 5 if fraction else 1}
        axes = made.axes | more | {"readout.people": people if fraction else "minority"}
        return replace(made, key=f"{fraction}{people}", axes=axes, params=axes)

    two = rows(Results("s", (cell(0.1, 0.0), cell(0.8, 0.5))))
    assert [row.name for row in two] == ["bioS single+permute1", "bioS single+permute1+CEL"]
    many = rows(Results("s", (cell(0.1, 0.0), cell(0.8, 0.5), cell(0.5, 0.2))))
    assert many[0].name == "bioS single+permute1"
    assert many[2].name == "bioS single+permute1+CEL [corpus.celebrity_fraction=0.2]"
    asked = rows(Results("s", (cell(0.8, 0.5), cell(0.7, 0.5, "minority"))))
    assert [row.name.partition(" [")[2] for row in asked] == ["readout.people=celebrity]", "readout.people=minority]"]


RULES: dict[str, Axis] = {"corpus.kind": "bioR", "corpus.writer.backend": "rules", "corpus.writer.words": 50}


def test_what_no_language_model_has_written_says_so_in_every_row(make: Callable[..., Cell]) -> None:
    def cell(mean: float, **axes: Axis) -> Cell:
        more = {name.replace("__", "."): value for name, value in axes.items()}
        made = make(mean)
        return replace(made, key=str(mean), axes=made.axes | more, params=made.params | more)

    ruled = replace(make(0.1), key="r", axes=make(0.1).axes | RULES, params=make(0.1).params | RULES)
    assert [row.name for row in rows(Results("s", (ruled,)))] == ["bioR single [rules, no LLM]"]
    assert rows(Results("s", (ruled,)))[0].setting == "bioR single", "what finds the paper's numbers"
    plain = cell(0.2, corpus__writer__backend="rules", corpus__writer__words=70)
    other = cell(0.3, corpus__kind="bioR", corpus__writer__backend="http", corpus__writer__words=70)
    names = [row.name for row in rows(Results("s", (ruled, plain, other)))]
    assert names[:2] == ["bioR single [rules, no LLM]", "bioS single"], "who would write says nothing of templates"
    assert names[2] == "bioR single" and len(set(names)) == 3
    more = cell(0.4, corpus__kind="bioR", corpus__writer__backend="http", corpus__writer__words=50)
    names = [row.name for row in rows(Results("s", (ruled, other, more)))]
    assert names[1:] == ["bioR single [corpus.writer.words=70]", "bioR single [corpus.writer.words=50]"]


def test_another_family_finds_its_own_numbers_of_the_paper(make: Callable[..., Cell]) -> None:
    cells = [make(0.1), make(0.2)]
    axes = cells[1].axes | {"model.family": "llama"}
    table = rows(Results("s", (cells[0], replace(cells[1], key="l", axes=axes, params=axes))))
    assert [row.setting for row in table] == ["bioS single", "bioS single (llama)"]
    mean = "qa/exact_match/test/mean"
    assert [published(tables.figure("fig3"), row.setting, mean) for row in table] == [0.097, None]
    assert [published(tables.figure("fig12c"), row.setting, mean) for row in table] == [None, 0.035]


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


def test_answers_and_probes_do_not_name_each_others_rows(make: Callable[..., Cell]) -> None:
    cells = (
        make(0.1),
        make(0.2, readout="q_probe", rank_embedding=16, steps=300),
        make(0.3, readout="q_probe", rank_embedding=4, steps=300),
        make(0.4, readout="p_probe", rank_embedding=2, steps=300),
    )
    assert [row.name for row in rows(Results("s", cells))] == ["bioS single"]
    probed = rows(Results("s", cells), PROBES)
    names = ["bioS single [readout.rank_embedding=16]", "bioS single [readout.rank_embedding=4]", "bioS single"]
    assert [row.name for row in probed] == names
    assert [set(row.replicates) for row in probed] == [{"q_probe"}, {"q_probe"}, {"p_probe"}]


def test_a_baseline_is_of_one_kind_of_readout(probes: Results) -> None:
    table = rows(probes, PROBES)
    assert baseline(table, "baseline/first/major", ("q_probe",)) == pytest.approx(0.03)
    assert baseline(table, "baseline/first/major", ("qa",)) is None


def test_the_axes_of_a_best_name_no_row(make: Callable[..., Cell]) -> None:
    values = {(1, 16): 0.3, (1, 64): 0.2, (5, 16): 0.7, (5, 64): 0.9}
    cells = tuple(make(value, multi=multi, rank_embedding=rank) for (multi, rank), value in values.items())
    table = rows(Results("s", cells), best_of=("readout.rank_embedding",))
    assert [(row.name, row.value("qa", "mean")) for row in table] == [("bioS single", 0.3), ("bioS multi5", 0.9)]
    assert {row.replicates["qa"].compared for row in table} == {2}
