"""A corpus whose people have attributes besides the six: these change nothing else, and stand wherever the six do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ktrain.bios import entries, pools, question_wordings, templates
from ktrain.bios.people import draw_people
from ktrain.bios.pools import Pools
from ktrain.config import ATTRIBUTES, AugmentationConfig, CellConfig, CorpusConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.errors import WrongRequest
from ktrain.fingerprint import content_digest
from ktrain.stages import cell_key, stages_of

Tiny = Callable[..., Corpus]
SEVEN = (*ATTRIBUTES, "hobby")
OWN = {"hobby": ("chess", "sailing", "pottery"), "club": ("A", "B", "C", "D")}
SENTENCES = templates.load()


def with_own(drawn: Pools, own: dict[str, tuple[str, ...]]) -> Pools:
    return Pools(**vars(drawn) | {"own": own})


@settings(max_examples=40, deadline=None)
@given(
    people=st.integers(4, 30),
    multi=st.integers(1, 3),
    permute=st.integers(0, 3),
    famous=st.booleans(),
    chosen=st.sampled_from([("hobby",), ("club",), ("club", "hobby")]),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_six_are_drawn_as_without_them(
    people: int, multi: int, permute: int, famous: bool, chosen: tuple[str, ...], seed: int
) -> None:
    """People, templates and, once the others are taken out, the order of sentences are the same to the last bit."""
    own = {name: OWN[name] for name in chosen}
    celebrity = {"celebrity_fraction": 0.5, "celebrity": AugmentationConfig(multi=2, permute=1)} if famous else {}
    setting = CorpusConfig.model_validate({"people": people, "multi": multi, "permute": permute, **celebrity})
    plain = pools.shrink(pools.load(), setting.pools)
    less, more = (draw_people(p, people, seed, setting.celebrities).columns for p in (plain, with_own(plain, own)))
    assert np.array_equal(more[:, : less.shape[1]], less) and more.shape[1] == less.shape[1] + len(own)
    alone = draw_people(with_own(plain, {chosen[-1]: own[chosen[-1]]}), people, seed, setting.celebrities).columns
    assert np.array_equal(more[:, -1], alone[:, -1])

    drafts, order = entries.draw_layout(setting, SENTENCES, seed)
    lines = {name: tuple(f"{{name}} {k} {{value}}." for k in range(5)) for name in chosen}
    longer, shuffled = entries.draw_layout(setting, SENTENCES | lines, seed)
    assert np.array_equal(longer[:, :6], drafts) and longer.dtype == drafts.dtype
    assert np.array_equal(shuffled[shuffled < 6].reshape(order.shape), order) and shuffled.dtype == order.dtype
    assert (np.sort(shuffled, axis=1) == np.arange(6 + len(own))).all()
    if not permute and not famous:
        assert (shuffled == np.arange(6 + len(own))).all()


def test_every_place_in_a_shuffled_biography_is_as_likely() -> None:
    setting = CorpusConfig(people=4_000, permute=1)
    lines = {name: ("{name} did {value}.",) for name in ("club", "hobby")}
    _, order = entries.draw_layout(setting, SENTENCES | lines, 0)
    for attribute in (0, 5, 6, 7):
        places = np.bincount(np.argsort(order, axis=1)[:, attribute], minlength=8)
        assert stats.chisquare(places).pvalue > 0.001


def test_values_are_drawn_evenly_and_independently_of_the_six() -> None:
    people = draw_people(with_own(pools.load(), OWN), 20_000, 0)
    table = np.zeros((3, 4))
    np.add.at(table, (people.column("hobby"), people.column("club")), 1)
    assert stats.chisquare(table.sum(axis=1)).pvalue > 0.001 and stats.chi2_contingency(table).pvalue > 0.001
    months = np.zeros((3, 12))
    np.add.at(months, (people.column("hobby"), people.column("month")), 1)
    assert stats.chi2_contingency(months).pvalue > 0.001


def test_a_corpus_tells_and_asks_it(tiny: Tiny, hobby: dict[str, str], tmp_path: Path) -> None:
    corpus = tiny(multi=2, permute=1, **hobby)
    assert corpus.attributes == SEVEN == tuple(corpus.templates) == tuple(corpus.wordings)
    assert corpus.order.shape == (120, 7) and len({*corpus.order[:, 0].tolist()}) == 7
    person = int(corpus.person[7])
    assert f" {corpus.people.value(person, 'hobby')}" in corpus.entry_text(7)
    prompt, answer = corpus.question_text(person, "hobby")
    assert prompt == f"What is the hobby of {corpus.people.name(person)}? Answer:"
    assert answer == f" {corpus.people.value(person, 'hobby')}."
    chosen = corpus.asked_questions(np.array([person]))
    assert [corpus.locate_question(q) for q in chosen] == [(person, attribute, 0) for attribute in SEVEN]
    corpus.save(tmp_path)
    again = corpora.load_corpus(tmp_path, corpus.setting, corpus.seed)
    assert again.people.pools == corpus.people.pools and again.templates == corpus.templates
    assert again.attributes == SEVEN and np.array_equal(again.questions.ids, corpus.questions.ids)


def test_pools_without_one_are_stored_as_ever(tiny: Tiny, tmp_path: Path) -> None:
    tiny().save(tmp_path)
    stored = json.loads((tmp_path / "pools.json").read_text())
    assert "own" not in stored and Pools.from_json((tmp_path / "pools.json").read_text()) == tiny().people.pools


def test_a_folder_may_have_the_six_as_well(hobby: dict[str, str]) -> None:
    """Then all of them must be there: a folder never has some of the six and leaves others to the built-in ones."""
    for name, module in (("pools", pools), ("templates", templates), ("questions", question_wordings)):
        shutil.copytree(module.BUILTIN, hobby[f"{name}_folder"], dirs_exist_ok=True)
    setting = CorpusConfig.model_validate(hobby | {"people": 4})
    loaded = pools.load(hobby["pools_folder"])
    assert loaded.majors == pools.load().majors and list(loaded.own) == ["hobby"]
    assert len(question_wordings.wordings(setting)) == len(templates.load(hobby["templates_folder"], SEVEN)) == 7
    (Path(hobby["pools_folder"]) / "majors.csv").unlink()
    with pytest.raises(WrongRequest, match=r"corpus\.pools_folder=.*: majors\.csv is missing"):
        pools.load(hobby["pools_folder"])
    (Path(hobby["templates_folder"]) / "major.txt").unlink()
    with pytest.raises(WrongRequest, match=r"corpus\.templates_folder=.*: major\.txt is missing"):
        templates.load(hobby["templates_folder"], SEVEN)


def test_the_authors_files_may_bring_one(tmp_path: Path) -> None:
    values = {"city": "Rome", "company": "Acme; Rome, NY"}
    for name in ("first_name", "middle_name", "last_name", "city", "university", "field", "company"):
        (tmp_path / f"{name}.txt").write_text(values.get(name, f"A {name}") + "\n")
    (tmp_path / "hobby.csv").write_text("value\nchess\nsailing\npottery\n")
    assert pools.load(str(tmp_path)).own == {"hobby": ("chess", "sailing", "pottery")}


def cell(hobby: dict[str, str], **readout: Any) -> CellConfig:
    return CellConfig.model_validate({"corpus": hobby, "readout": readout})


def test_the_key_is_that_of_what_is_read(hobby: dict[str, str]) -> None:
    """Pools, templates and the first wording are the corpus'; the other wordings are those of readouts that ask."""
    plain, seen = CellConfig(), cell(hobby)
    assert content_digest(pools.files(hobby["pools_folder"])) != content_digest(pools.files())
    assert {path.parent for path in pools.files(hobby["pools_folder"])} == {Path(hobby["pools_folder"]), pools.BUILTIN}
    keys = {"plain": stages_of(plain), "seen": stages_of(seen)}
    questions = Path(hobby["questions_folder"]) / "hobby.txt"
    first, second = questions.read_text().splitlines()
    probe = cell(hobby, kind="q_probe")
    before, unasked = cell_key(seen), stages_of(probe)
    questions.write_text(f"{first}\nWhich hobby does {{name}} have? Answer: {{value}}.\n")
    assert stages_of(seen) == keys["seen"] and cell_key(seen) == before
    two = cell(hobby | {"question_wordings": 2})
    assert stages_of(two).pretrain == keys["seen"].pretrain and stages_of(two).readout != keys["seen"].readout
    questions.write_text(f"{second}\n")
    keys["asked"] = stages_of(seen)
    assert stages_of(probe) != unasked
    (Path(hobby["templates_folder"]) / "hobby.txt").write_text("{name} liked {value}.\n")
    keys["told"] = stages_of(seen)
    (Path(hobby["pools_folder"]) / "hobby.csv").write_text("value\nchess\nsailing\npottery\n")
    keys["values"] = stages_of(seen)
    assert len({stages.corpus.key for stages in keys.values()}) == len(keys)
    assert (
        stages_of(seen).readout.identity["attributes"] == stages_of(seen).pretrain.identity["attributes"] == ["hobby"]
    )
    assert all("attributes" not in stage.identity for stage in stages_of(plain))


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("pools/hobby.csv", b"value\n", r"hobby\.csv in .*: every row needs the columns value"),
        ("pools/hobby.csv", b"", r"hobby\.csv in .*: every row needs the columns value"),
        ("pools/hobby.csv", b"chess\nsailing\npottery\n", r"hobby\.csv in .*: every row needs the columns value"),
        ("pools/hobby.csv", b"value\nchess\nsailing\n", r"hobby\.csv in .*: has 2 values; an attribute needs 3"),
        ("pools/hobby.csv", b"value\nchess\nsailing\nchess\n", "hobby in .*: 'chess' appears twice"),
        ("pools/hobby.csv", b"value\nchess\nsailing\nChess\n", "'chess' and 'Chess' look the same"),
        ("pools/hobby.csv", b"value\nchess\nski, sail\ngo\n", "a value with a comma needs quotes: 'ski'"),
        ("pools/hobby.csv", b"value\nch\xe9ss\nsailing\ngo\n", r"hobby\.csv in .*: byte 8 is not UTF-8"),
        ("templates/hobby.txt", None, r"corpus\.templates_folder=.*: hobby\.txt is missing"),
        ("templates/hobby.txt", b"\n", r"hobby\.txt in .*: no template"),
        ("templates/hobby.txt", b"{name} liked it.\n", r"hobby\.txt line 1: needs \{value\} exactly once"),
        ("templates/hobby.txt", b"{name} \xff {value}.\n", r"hobby\.txt in .*: byte 7 is not UTF-8"),
        ("questions/hobby.txt", None, r"corpus\.questions_folder=.*: hobby\.txt is missing"),
        ("questions/hobby.txt", b"", r"needs as many lines of hobby\.txt in .*, which has 0"),
        ("questions/hobby.txt", b"What? Answer: {value}.\n", r"hobby\.txt line 1 in .*: needs \{name\}"),
        ("questions/hobby.txt", b"\xff {name}? {value}.\n", r"hobby\.txt in .*: byte 0 is not UTF-8"),
    ],
)
def test_a_file_that_does_not_do_is_named(
    hobby: dict[str, str], tmp_path: Path, file: str, content: bytes | None, why: str
) -> None:
    path = tmp_path / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(WrongRequest, match=why) as refused:
        corpora.build_corpus(CorpusConfig.model_validate(hobby | {"people": 4}), 0)
    assert "\n" not in str(refused.value)
