"""Keys: what can change a result changes the keys of the stages whose result it can change, and of no other."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain import stages
from ktrain.bios import pools, templates
from ktrain.config import CellConfig, ModelConfig, RuntimeConfig
from ktrain.errors import WrongRequest
from ktrain.fingerprint import NAME
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import QUESTION_AXES, SHAPE_AXES, active_axes, axes, cell_key, lowest_recall, stages_of

STAGES = ("corpus", "pretrain", "readout")
FOLDERS = {
    "corpus.pools_folder", "corpus.templates_folder", "corpus.questions_folder", "corpus.background", "model.start",
    "train.forgetting_text",
}  # fmt: skip
"""Axes whose content is identity, not their value."""
GUARANTEED = {
    "corpus.kind", "corpus.people", "corpus.multi", "corpus.permute", "corpus.fullname", "corpus.couple",
    "corpus.celebrity_fraction", "corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname",
    "corpus.background", "corpus.tokenizer",
    "model.family", "model.size", "train.qa_ratio", "train.steps", "train.learning_rate", "train.windows", "seed",
    "readout.kind", "readout.rank_qv", "readout.rank_embedding", "readout.people",
}  # fmt: skip
"""The names that users and checks rely on."""
OTHER: dict[str, Any] = {
    "corpus.kind": "bioR", "corpus.people": 77, "corpus.multi": 5, "corpus.permute": 2, "corpus.fullname": True,
    "corpus.tokenizer": "bpe-600", "corpus.question_wordings": 3,
    "corpus.question_unseen": True, "corpus.question_share": 0.25, "corpus.validation_share": 0.5,
    "corpus.pools.first_names": 99,
    "corpus.pools.middle_names": 99, "corpus.pools.last_names": 99, "corpus.pools.birth_years": 99,
    "corpus.pools.birth_cities": 99, "corpus.pools.universities": 99, "corpus.pools.majors": 99,
    "corpus.pools.companies": 99, "corpus.couple": 2, "corpus.celebrity_fraction": 0.25, "corpus.celebrity.multi": 2,
    "corpus.celebrity.permute": 0, "corpus.celebrity.fullname": True, "corpus.background_share": 0.25,
    "corpus.writer.backend": "http", "corpus.writer.model": "m", "corpus.writer.revision": "r",
    "corpus.writer.prompt": "creative", "corpus.writer.words": 70, "corpus.writer.temperature": 0.5,
    "corpus.writer.top_p": 0.5, "corpus.writer.max_tokens": 99,
    "model.family": "llama", "model.config": '{"model_type": "qwen3"}',
    "model.size": "302m", "model.layers": 6, "model.heads": 6, "model.width": 384,
    "model.dropout": 0.1,
    "train.steps": 5000, "train.batch": 7, "train.context": 256, "train.windows": "whole", "train.qa_ratio": 0.8,
    "train.learning_rate": 0.5, "train.final_learning_rate": 0.5, "train.warmup": 5, "train.weight_decay": 0.5,
    "train.epsilon": 0.5, "train.beta1": 0.5, "train.beta2": 0.5, "train.clip": 0.5, "train.precision": "fp32",
    "train.zero": 1, "train.mask_share": 0.4, "train.masked_answers": 0.5,
    "readout.kind": "mixed", "readout.method": "full", "readout.rank_qv": 3, "readout.rank_embedding": 3,
    "readout.lora_scale": 0.5, "readout.steps": 7, "readout.batch": 7, "readout.learning_rate": 0.5,
    "readout.final_learning_rate": 0.5, "readout.weight_decay": 0.5, "readout.epsilon": 0.5, "readout.beta1": 0.5,
    "readout.beta2": 0.5, "readout.clip": 0.5, "readout.loss": "all", "readout.precision": "fp32", "readout.zero": 1,
    "readout.recall_gate": 0.5, "readout.beam": 4, "readout.decay": "linear", "readout.token_share": 0.1,
    "readout.entries": 2, "readout.people_per_class": 7, "readout.people": "celebrity", "readout.dropout": 0.2,
    "readout.packed": True, "readout.modules": "q_proj",
    "train.method": "lora", "train.rank_qv": 3,
    "seed": 1,
}  # fmt: skip
"""Another value for each axis; a new field needs a line here, and its stages are then checked."""
WRITER = {axis for axis in OTHER if axis.startswith("corpus.writer.")}
CELEBRITY = {"corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname"}
TRAINED = {"train.method", "train.rank_qv"}
"""Axes of a network of `model.start`; test_start.py changes them."""
NEEDING = {
    "readout.zero", "readout.method", "readout.kind", "readout.token_share", "readout.people", "corpus.couple",
    "corpus.background_share", "readout.modules", "train.mask_share", "train.masked_answers",
    *TRAINED, *CELEBRITY, *WRITER, *SHAPE_AXES,
}  # fmt: skip
"""Axes whose other value needs, or refuses, another axis, or says nothing without one."""


def with_axes(cell: CellConfig, changes: dict[str, Any]) -> CellConfig:
    """The cell with some axes at other values."""
    tree = cell.model_dump()
    for axis, value in changes.items():
        *path, last = axis.split(".")
        inner = tree
        for part in path:
            inner = inner[part]
        inner[last] = value
    return CellConfig.model_validate(tree)


def base(axis: str) -> CellConfig:
    """A mixed readout is only allowed of a model that has seen questions, sharding only of a whole network.

    How celebrities are written says something where there are some, as does how much text is read besides, and who
    writes where anybody does.
    """
    other_network = {"model.family": "hf", "model.config": '{"model_type": "llama"}'}
    needed: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("model.config", "readout.modules"), other_network),
        **{axis: {"corpus.kind": "bioR"} for axis in WRITER},
        **{axis: {"corpus.celebrity_fraction": 0.5} for axis in CELEBRITY | {"readout.people"}},
        "corpus.background_share": {"corpus.background": str(templates.BUILTIN)},
        "readout.kind": {"train.qa_ratio": 0.5},
        "train.mask_share": {"model.family": "gbert"},
        "train.masked_answers": {"model.family": "gbert", "train.qa_ratio": 0.5},
        "readout.zero": {"readout.method": "full"},
        "readout.token_share": {"readout.kind": "q_probe"},
    }
    return with_axes(CellConfig(), needed.get(axis, {}))


def changed(before: CellConfig, after: CellConfig) -> set[str]:
    """Which stages have another key."""
    pairs = zip(STAGES, stages_of(before), stages_of(after), strict=True)
    return {name for name, old, new in pairs if old.key != new.key}


def reached(axis: str) -> set[str]:
    """Which stages an axis can change, by the section that it is in."""
    if axis in QUESTION_AXES:
        return {STAGES[2]}
    first = {"corpus": 0, "seed": 0, "model": 1, "train": 1, "readout": 2}[axis.partition(".")[0]]
    return set(STAGES[first:])


def test_axes_are_all_fields_by_flat_names() -> None:
    found = axes(CellConfig())
    assert set(found) == OTHER.keys() | FOLDERS
    assert found.keys() >= GUARANTEED
    assert found["corpus.people"] == 100_000
    assert found["corpus.pools.companies"] == 263
    assert found["seed"] == 0
    free = {axis: value for axis, value in OTHER.items() if axis not in NEEDING}
    assert axes(with_axes(CellConfig(), free)) == found | free


@pytest.mark.parametrize("axis", sorted(OTHER.keys() - TRAINED))
def test_an_axis_changes_the_keys_that_it_reaches(axis: str) -> None:
    before = base(axis)
    after = with_axes(before, {axis: OTHER[axis]})
    assert axes(before)[axis] != OTHER[axis]
    assert changed(before, after) == reached(axis)
    assert cell_key(before) != cell_key(after)


@settings(deadline=None)
@given(changes=st.dictionaries(st.sampled_from(sorted(OTHER.keys() - NEEDING)), st.none(), min_size=1))
def test_several_axes_change_what_any_of_them_reaches(changes: dict[str, None]) -> None:
    """No two changes undo each other."""
    after = with_axes(CellConfig(), {axis: OTHER[axis] for axis in changes})
    assert changed(CellConfig(), after) == set().union(*map(reached, changes))
    assert stages_of(after) == stages_of(
        with_axes(CellConfig(), {axis: OTHER[axis] for axis in reversed(list(changes))})
    )


@pytest.mark.parametrize("axis", sorted(CELEBRITY | WRITER | {"corpus.background_share"}))
def test_how_something_would_be_that_is_not_there_is_no_identity(axis: str) -> None:
    after = with_axes(CellConfig(), {axis: OTHER[axis]})
    assert stages_of(after) == stages_of(CellConfig()) and cell_key(after) == cell_key(CellConfig())


def test_what_is_absent_has_no_place_in_an_identity() -> None:
    """Keys from before these settings are found again."""
    corpus, pretrain, readout = (stage.identity for stage in stages_of(CellConfig()))
    assert corpus["corpus"].keys() == {
        "kind", "people", "multi", "permute", "fullname", "tokenizer", "question_share", "pools",
        "pools_content", "templates_content", "tokenizer_content",
    }  # fmt: skip
    assert pretrain["model"].keys() == {"family", "size", "dropout"}
    newer = {"mask_share", "masked_answers", "method", "rank_qv", "forgetting_text"}
    assert not newer & pretrain["train"].keys()
    fields = {n.partition(".")[2] for n in OTHER if n.startswith("readout.")}
    assert readout["readout"].keys() == fields - {"people", "dropout", "packed", "modules"}


@pytest.mark.parametrize(
    ("changes", "inactive"),
    [
        ({}, CELEBRITY | WRITER | {"corpus.background_share"}),
        ({"corpus.celebrity_fraction": 0.5, "corpus.background": "?"}, WRITER),
        ({"corpus.kind": "bioR"}, CELEBRITY | {"corpus.background_share"}),
        (
            {"corpus.kind": "bioR", "corpus.writer.backend": "rules"},
            CELEBRITY | WRITER - {"corpus.writer.backend"} | {"corpus.background_share"},
        ),
    ],
)
def test_axes_of_what_is_absent_are_inactive(changes: dict[str, Any], inactive: set[str]) -> None:
    cell = with_axes(CellConfig(), changes)
    off = {*QUESTION_AXES, *SHAPE_AXES, *TRAINED, "train.forgetting_text", "train.mask_share", "train.masked_answers"}
    off |= {"readout.modules", "corpus.validation_share"}
    assert axes(cell).keys() - active_axes(cell).keys() == inactive | off
    assert active_axes(cell).items() <= axes(cell).items()


def test_axes_that_a_readout_does_not_read_are_inactive() -> None:
    def inactive(**readout: Any) -> set[str]:
        ratio = 0.5 if readout["kind"] == "mixed" else 0.0
        cell = with_axes(CellConfig(), {"train.qa_ratio": ratio} | {f"readout.{k}": v for k, v in readout.items()})
        return {a for a in axes(cell).keys() - active_axes(cell).keys() if a.startswith("readout.")}

    assert inactive(kind="qa_finetune") == {"readout.modules"}
    full = {"readout.modules", "readout.rank_qv", "readout.rank_embedding", "readout.lora_scale"}
    assert inactive(kind="qa_finetune", method="full") == full
    assert inactive(kind="p_probe") == {"readout.method", "readout.packed", "readout.modules"}
    asked = {"readout.kind", "readout.recall_gate", "readout.beam"}
    assert inactive(kind="mixed") == {axis for axis in axes(CellConfig()) if axis.startswith("readout.")} - asked


def test_a_readout_that_has_its_networks_dropout_has_the_key_of_one_that_sets_none() -> None:
    for rate in (0.0, 0.3):
        unset = with_axes(CellConfig(), {"model.dropout": rate})
        same = with_axes(unset, {"readout.dropout": rate})
        assert stages_of(same) == stages_of(unset) and cell_key(same) == cell_key(unset)
        assert axes(unset)["readout.dropout"] == rate and axes(same) == axes(unset)
        for other in {0.0, 0.1, 0.3} - {rate}:
            assert changed(unset, with_axes(unset, {"readout.dropout": other})) == {"readout"}


def test_what_a_readout_does_not_read_is_not_in_its_key() -> None:
    mixed = with_axes(CellConfig(), {"train.qa_ratio": 0.5, "readout.kind": "mixed"})
    assert stages_of(with_axes(mixed, {"readout.dropout": 0.2, "readout.packed": True})) == stages_of(mixed)
    probe = with_axes(CellConfig(), {"readout.kind": "q_probe"})
    assert stages_of(with_axes(probe, {"readout.packed": True})) == stages_of(probe)


def test_of_a_writer_by_rules_only_that_is_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the content of its phrases, of the customary names, and the version of what it is written with."""
    ruled = with_axes(CellConfig(), {"corpus.kind": "bioR", "corpus.writer.backend": "rules"})
    (identity, keys) = stages_of(ruled).corpus.identity["corpus"], [stage.key for stage in stages_of(ruled)]
    assert identity["writer"].keys() == {"backend", "version", "phrases_content", "forms_content"}
    for axis in WRITER - {"corpus.writer.backend"}:
        assert stages_of(with_axes(ruled, {axis: OTHER[axis]})) == stages_of(ruled)
    monkeypatch.setitem(stages.VERSIONS, "biographies", 99)
    assert not {stage.key for stage in stages_of(ruled)} & set(keys)
    assert "writer" not in stages_of(CellConfig()).corpus.identity["corpus"]


def test_what_is_operational_is_no_axis() -> None:
    """`chain` is not even given a `Runtime`; `test_trial` runs a cell again with another one."""
    names = {axis.rpartition(".")[2] for axis in axes(CellConfig())}
    assert names.isdisjoint(RuntimeConfig.model_fields)


def test_cells_that_differ_in_the_readout_share_their_pretraining() -> None:
    one, other = CellConfig(), with_axes(CellConfig(), {"readout.rank_qv": 2, "readout.steps": 9})
    assert stages_of(one)[:2] == stages_of(other)[:2]
    assert stages_of(one).readout.key != stages_of(other).readout.key
    assert stages_of(one).readout.parent == stages_of(one).pretrain
    assert stages_of(one).pretrain.parent == stages_of(one).corpus
    assert stages_of(one).corpus.parent is None


def test_a_key_says_what_its_stage_is() -> None:
    small = {"corpus.people": 500, "corpus.multi": 5, "corpus.permute": 1, "model.size": "mini", "train.qa_ratio": 0.8}
    corpus, pretrain, readout = stages_of(with_axes(CellConfig(), small))
    assert corpus.key.startswith("corpus-multi5.permute1-n500-")
    assert pretrain.key.startswith("pretrain-mini-multi5.permute1-n500-qa0.8-")
    assert readout.key.startswith("qa-finetune-mini-multi5.permute1-n500-qa0.8-")
    assert cell_key(CellConfig(seed=2)).startswith("single-n100000-s2-")
    told = {"corpus.couple": 2, "corpus.celebrity_fraction": 0.5, "model.family": "gbert"}
    corpus, pretrain, _ = stages_of(with_axes(CellConfig(), {**told, "corpus.background": str(templates.BUILTIN)}))
    assert corpus.key.startswith("corpus-couple2.cel0.5.text-n100000-")
    assert pretrain.key.startswith("pretrain-gbert-124m-couple2.cel0.5.text-n100000-")
    written = [
        with_axes(CellConfig(), {"corpus.kind": "bioR", "corpus.writer.backend": by}) for by in ("rules", "vllm")
    ]
    assert [stages_of(cell).corpus.key[:-8] for cell in written] == [
        "corpus-bior.rules.single-n100000-", "corpus-bior.single-n100000-",
    ]  # fmt: skip
    assert all(NAME.fullmatch(stage.key) for stage in stages_of(CellConfig()))


@pytest.mark.parametrize(
    ("kind", "reaches"), [("corpus", set(STAGES)), ("pretrain", {"pretrain", "readout"}), ("qa_finetune", {"readout"})]
)
def test_another_version_of_the_code_changes_the_keys_from_its_stage_on(
    monkeypatch: pytest.MonkeyPatch, kind: str, reaches: set[str]
) -> None:
    before = [stage.key for stage in stages_of(CellConfig())]
    if kind in stages.VERSIONS:
        monkeypatch.setitem(stages.VERSIONS, kind, stages.VERSIONS[kind] + 1)
    else:
        monkeypatch.setattr(kind_of(kind), "version", kind_of(kind).version + 1)
    after = [stage.key for stage in stages_of(CellConfig())]
    assert {name for name, old, new in zip(STAGES, before, after, strict=True) if old != new} == reaches


def copied(files: list[Path], folder: Path) -> Path:
    """The user's own folder, with the content that is shipped."""
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize(
    ("axis", "files"), [("corpus.pools_folder", pools.files), ("corpus.templates_folder", templates.files)]
)
def test_the_content_of_a_folder_is_identity_and_its_place_is_not(
    tmp_path: Path, axis: str, files: Callable[[str | None], list[Path]]
) -> None:
    folder = copied(files(None), tmp_path / "mine")
    before = with_axes(CellConfig(), {axis: str(folder)})
    keys, of_cell = [stage.key for stage in stages_of(before)], cell_key(before)
    assert keys == [stage.key for stage in stages_of(CellConfig())], "the same content as the shipped"
    assert of_cell == cell_key(CellConfig())

    moved = with_axes(CellConfig(), {axis: str(folder.rename(tmp_path / "elsewhere"))})
    assert [stage.key for stage in stages_of(moved)] == keys
    assert cell_key(moved) == of_cell

    edited = sorted((tmp_path / "elsewhere").iterdir())[0]
    edited.write_text(edited.read_text() + "one more\n")
    assert not {stage.key for stage in stages_of(moved)} & set(keys)
    assert cell_key(moved) != of_cell


def test_the_content_of_background_text_is_identity_and_its_place_is_not(tmp_path: Path) -> None:
    def read(folder: Path) -> CellConfig:
        return with_axes(CellConfig(), {"corpus.background": str(folder)})

    (tmp_path / "one" / "inner").mkdir(parents=True)
    (tmp_path / "one" / "inner" / "a.txt").write_text("some text")
    (tmp_path / "one" / "b.txt").write_text("more text")
    before = read(tmp_path / "one")
    keys, of_cell = [stage.key for stage in stages_of(before)], cell_key(before)
    assert not {stage.key for stage in stages_of(CellConfig())} & set(keys)
    assert str(tmp_path) not in str(stages_of(before))

    moved = read((tmp_path / "one").rename(tmp_path / "two"))
    assert [stage.key for stage in stages_of(moved)] == keys and cell_key(moved) == of_cell
    (tmp_path / "two" / "notes.md").write_text("no text of this kind is read")
    assert [stage.key for stage in stages_of(moved)] == keys

    (tmp_path / "two" / "b.txt").write_text("more texts")
    assert not {stage.key for stage in stages_of(moved)} & set(keys)
    assert cell_key(moved) != of_cell


@pytest.mark.parametrize(
    ("made", "said"),
    [(False, "no such folder"), (True, "holds no *.txt file")],
)
def test_background_text_that_is_not_there_is_told_in_one_line(tmp_path: Path, made: bool, said: str) -> None:
    folder = tmp_path / "text"
    if made:
        folder.mkdir()
        (folder / "a.md").write_text("not read")
    with pytest.raises(WrongRequest) as caught:
        stages_of(with_axes(CellConfig(), {"corpus.background": str(folder)}))
    assert str(caught.value) == f"corpus.background={folder}: {said}"


def test_the_gate_looks_at_the_group_that_recalls_least() -> None:
    found = {"recall/attribute_tokens": 0.9, "recall/minority": 0.7, "recall/celebrity": 0.99, "train/loss": 0.1}
    assert lowest_recall(found) == 0.7
    assert lowest_recall({"recall/attribute_tokens": 0.9, "train/loss": 0.1}) == 0.9


def test_a_shape_is_identified_by_its_numbers_and_a_named_one_by_its_name() -> None:
    """However it was asked for; and what is not set leaves the keys that were before there were such axes."""

    def key(**model: Any) -> str:
        return stages_of(CellConfig.model_validate({"model": model})).pretrain.key

    mini = {"size": "mini", "layers": 4, "heads": 4, "width": 128}
    assert key(size="mini") == key(**mini) == key(**{**mini, "size": "302m"})
    assert key(size="mini", layers=8) == key(**{**mini, "size": "682m", "layers": 8})
    assert key(size="mini", layers=8).startswith("pretrain-8x128h4-single-n100000-")
    keys = {key(size="mini", **{name: value}) for name, value in (("layers", 8), ("heads", 2), ("width", 256))}
    assert len(keys | {key(size="mini")}) == 4
    assert cell_key(CellConfig()) == cell_key(CellConfig(model=ModelConfig(layers=12)))


def test_a_shape_of_ones_own_is_told_in_place_of_the_size() -> None:
    named, own = CellConfig(), CellConfig(model=ModelConfig(layers=6))
    assert axes(own)["model.size"] == "6x768h12" and active_axes(own)["model.layers"] == 6
    assert axes(named)["model.size"] == "124m" and "model.layers" not in active_axes(named)


def test_questions_are_identity_where_they_are_read_or_asked() -> None:
    """Biographies are the same whatever is asked about them, so a grid over wordings shares its pretraining."""
    other = {"corpus.question_wordings": 3, "corpus.question_unseen": True}
    finetuned, probed = CellConfig(), with_axes(CellConfig(), {"readout.kind": "q_probe"})
    mixed = with_axes(CellConfig(), {"train.qa_ratio": 0.5, "readout.kind": "mixed"})
    assert changed(finetuned, with_axes(finetuned, other)) == {"readout"}
    assert changed(probed, with_axes(probed, other)) == set()
    assert changed(mixed, with_axes(mixed, other)) == {"pretrain", "readout"}
    assert cell_key(probed) == cell_key(with_axes(probed, other))
    assert cell_key(finetuned) != cell_key(with_axes(finetuned, other))
    assert active_axes(probed) == active_axes(with_axes(probed, other))
    groups = stages.grouped([finetuned, with_axes(finetuned, other), with_axes(finetuned, {"readout.rank_qv": 3})])
    assert [len(group) for group in groups] == [2, 1]
