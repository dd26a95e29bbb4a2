from pathlib import Path
from typing import Any

import pretrained
import pytest

from ktrain.config import CellConfig
from sweeps import Sweep
from sweeps.planning.departures import ASSUMED, RULED, assumptions, departures, published
from sweeps.planning.grid import expand, load


def cell(scale: str = "full", **axes: Any) -> CellConfig:
    (found,) = expand(Sweep("g", {name.replace("__", "."): value for name, value in axes.items()}), scale, {})
    return found


def test_the_papers_own_cell_departs_in_nothing() -> None:
    assert departures([cell()]) == []
    assert departures([cell(corpus__multi=3, corpus__couple=0, seed=4)]) == []
    assert departures([cell(corpus__multi=5, seed=4, readout__rank_qv=2)]) == []


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ({"corpus__people": 5}, "corpus.people: the paper has 100000, here 5"),
        (
            {"corpus__celebrity_fraction": 0.2, "readout__people": "celebrity"},
            "corpus.celebrity_fraction: the paper has 0.5, here 0.2",
        ),
        ({"corpus__kind": "bioR", "train__steps": 150_000}, "model.size: the paper has 302m, here 124m"),
        ({"model__size": "682m"}, "train.steps: the paper has 200000, here 80000"),
        (
            {"model__family": "gbert", "train__steps": 150_000, "readout__kind": "q_probe"},
            "train.learning_rate: the paper has 0.0003, here 0.001",
        ),
        (
            {"readout__method": "full", "readout__learning_rate": 2e-3},
            "readout.learning_rate (qa_finetune): the paper has 0.001, here 0.002",
        ),
    ],
)
def test_a_departure_is_told_with_both_values(axes: dict[str, Any], line: str) -> None:
    assert departures([cell(), cell(**axes)]) == [line]


def test_gbert_is_finetuned_unlike_gpt2() -> None:
    gbert = published(cell(model__family="gbert"))
    assert (gbert["readout.decay"], gbert["readout.final_learning_rate"]) == ("linear", 0.0)
    assert published(cell())["readout.decay"] == "cosine"


def test_six_ways_to_finetune_everything_are_the_papers() -> None:
    for decay in (0.01, 0.001):
        for rate in (1e-3, 3e-4, 1e-4):
            whole: dict[str, Any] = {
                "readout__method": "full",
                "readout__weight_decay": decay,
                "readout__learning_rate": rate,
            }
            assert departures([cell(**whole)]) == []
            if (decay, rate) != (0.01, 3e-4):
                assert departures([cell(**whole | {"readout__method": "lora"})])


WHOLE = {"readout__method": "full"}
MIXED = {"readout__kind": "mixed", "train__qa_ratio": 0.5}


@pytest.mark.parametrize(
    ("axes", "figures", "line"),
    [
        (WHOLE, ["fig2"], ""),
        (WHOLE, ["fig3"], "readout.method (qa_finetune): the paper has lora, here full"),
        (WHOLE | {"corpus__permute": 1}, [], "readout.method (qa_finetune): the paper has lora, here full"),
        (WHOLE | {"model__family": "llama"}, [], "readout.method (qa_finetune): the paper has lora, here full"),
        ({"readout__rank_qv": 4}, ["fig2", "fig3"], ""),
        ({"readout__rank_qv": 16}, ["fig3"], ""),
        ({"readout__rank_qv": 4}, ["fig3"], "readout.rank_qv (qa_finetune): the paper has 8, here 4"),
        ({"readout__people": "celebrity", "corpus__celebrity_fraction": 0.5}, [], ""),
        (
            {"corpus__celebrity_fraction": 0.5},
            [],
            "readout.people (qa_finetune): the paper has celebrity, here minority",
        ),
        (MIXED, [], "train.qa_ratio: the paper has 0.8, here 0.5"),
        (MIXED | {"train__qa_ratio": 0.3}, ["fig10"], ""),
        (MIXED | {"train__qa_ratio": 0.3}, ["fig3"], "train.qa_ratio: the paper has 0.8, here 0.3"),
        ({"train__qa_ratio": 0.8}, [], "train.qa_ratio: the paper has 0.0, here 0.8"),
        ({"readout__kind": "p_probe", "readout__rank_embedding": 4}, [], ""),
        (
            {"readout__kind": "q_probe", "readout__rank_embedding": 32},
            [],
            "readout.rank_embedding (q_probe): the paper has 16, here 32",
        ),
    ],
)
def test_a_cell_is_compared_with_the_recipe_of_its_row(axes: dict[str, Any], figures: list[str], line: str) -> None:
    assert departures([cell(**axes)], figures) == ([line] if line else [])


@pytest.mark.parametrize(
    ("sweep", "line"),
    [
        ("demo", "readout.method (qa_finetune): the paper has lora, here full"),
        ("fig3", "train.qa_ratio: the paper has 0.8, here 0.5"),
        ("fig9", "readout.method (qa_finetune): the paper has lora, here full"),
    ],
)
def test_the_miniature_tells_where_its_recipes_are_not_the_papers(sweep: str, line: str) -> None:
    assert line in departures(expand(load(sweep), "mini", {}), load(sweep).figures)


def test_folders_of_the_user_are_told_once() -> None:
    theirs = cell(corpus__pools_folder="/pools", corpus__templates_folder="/templates")
    assert departures([theirs]) == []
    for mine, name in (("pools of names and values are", "pools"), ("biography templates are", "templates")):
        (line,) = [line for line in assumptions([theirs]) if mine in line]
        assert line.endswith(f"the user's own (corpus.{name}_folder)")
        (line,) = [line for line in assumptions([cell()]) if mine in line]
        assert "this project's own" in line


def test_places_and_pairs_of_probes_are_told() -> None:
    def told(**axes: Any) -> int:
        return sum("special position is" in line or "canonical value" in line for line in assumptions([cell(**axes)]))

    assert told() == told(readout__kind="q_probe", corpus__kind="bioR") == 0
    assert told(readout__kind="p_probe") == 1 and told(readout__kind="p_probe", corpus__kind="bioR") == 2


def test_nothing_is_trained_after_mixed_training_so_it_cannot_depart() -> None:
    mixed: dict[str, Any] = {"readout__kind": "mixed", "train__qa_ratio": 0.8}
    assert departures([cell(**mixed, readout__steps=7, readout__learning_rate=1.0)]) == []
    assert departures([cell(**mixed, readout__recall_gate=0.5)]) == [
        "readout.recall_gate (mixed): the paper has 0.99, here 0.5"
    ]


def test_who_has_written_is_told_where_it_is_no_language_model() -> None:
    ruled = cell(corpus__kind="bioR", corpus__writer__backend="rules", model__size="302m", train__steps=150_000)
    assert departures([cell(), ruled]) == [RULED] and "not by a language model" in RULED
    # A writer says nothing where there is nothing for it to write.
    assert departures([cell(corpus__writer__backend="rules")]) == []
    assert not [line for line in assumptions([ruled]) if "bioR" in line]


def test_values_of_several_cells_stand_in_one_line() -> None:
    assert departures([cell(corpus__people=n) for n in (5, 7, 5)]) == ["corpus.people: the paper has 100000, here 5, 7"]


WORDS: dict[str, dict[str, Any]] = {
    "Llama": {"model__family": "llama"},
    "GBERT": {"model__family": "gbert"},
    "a network of model.config": {"model__family": "hf", "model__config": '{"model_type": "qwen3"}'},
    "couples": {"corpus__couple": 2},
    "celebrities": {"corpus__celebrity_fraction": 0.5},
    "background": {"corpus__background": "?"},
    "bioR": {"corpus__kind": "bioR"},
    "P-probes": {"readout__kind": "p_probe"},
    "Q-probes": {"readout__kind": "q_probe"},
}


@pytest.mark.parametrize("word", WORDS)
def test_an_assumption_is_told_where_it_concerns_a_cell(word: str) -> None:
    def told(*cells: CellConfig) -> list[str]:
        return [line for line in assumptions(cells) if line.startswith(f"assumed: {word}")]

    assert not told(cell()) and told(cell(), cell(**WORDS[word]))


def test_every_assumption_concerns_some_cell(tmp_path: Path) -> None:
    folder = str(pretrained.save(tmp_path))
    cells = [cell(), *(cell(**axes) for axes in WORDS.values())]
    cells.append(cell(corpus__celebrity_fraction=0.5, readout__people="celebrity"))
    cells.append(cell(model__family="gbert", train__qa_ratio=0.2, readout__kind="mixed"))
    cells.append(cell(model__family="gbert", readout__kind="q_probe"))
    cells.append(cell(readout__kind="p_probe", corpus__kind="bioR"))
    cells.append(cell(corpus__pools_folder="/pools", corpus__templates_folder="/templates"))
    cells += [cell(corpus__questions_folder="/questions"), cell(corpus__question_wordings=2)]
    cells.append(cell(model__family="hf", model__start=folder, corpus__tokenizer=folder))
    assert assumptions(cells) == [f"assumed: {text}" for text in ASSUMED]


def test_what_a_miniatures_probes_update_is_told_in_words() -> None:
    (q,) = [line for line in departures([cell("mini", readout__kind="q_probe")]) if "token_share" in line]
    assert q.startswith("readout.token_share (q_probe): the paper has 0.0, here 0.5 (") and "the end token alone" in q
    (p,) = [line for line in departures([cell("mini", readout__kind="p_probe")]) if "token_share" in line]
    assert "here 0.1 (" in p and "about a hundred" in p


def test_dropout_of_probes_is_a_departure_where_it_is_off() -> None:
    assert not any("dropout" in line for line in departures([cell(readout__kind="q_probe")]))
    off = departures([cell(readout__kind="q_probe", readout__dropout=0.0)])
    assert off == ["readout.dropout (q_probe): the paper has 0.1, here 0.0"]
    assert departures([cell(readout__packed=False)]) == ["readout.packed (qa_finetune): the paper has True, here False"]
