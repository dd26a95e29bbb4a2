"""Wordings of the questions: the paper's first, more of this project's, or those of a folder."""

import shutil
from pathlib import Path

import pytest

from ktrain import fingerprint
from ktrain.bios.question_wordings import BUILTIN, files, identity, question, question_fault, wordings
from ktrain.bios.templates import QUESTIONS
from ktrain.config import ATTRIBUTES, CorpusConfig
from ktrain.errors import WrongRequest


def test_the_first_wording_is_the_papers_and_the_others_are_none_twice() -> None:
    assert wordings(CorpusConfig()) == {attribute: (QUESTIONS[attribute],) for attribute in ATTRIBUTES}
    every = wordings(CorpusConfig(question_wordings=5, question_unseen=True))
    assert {len(set(lines)) for lines in every.values()} == {6}
    assert [lines[0] for lines in every.values()] == list(QUESTIONS.values())


def test_the_unseen_wording_is_the_one_after_those_trained_on() -> None:
    trained, asked = (wordings(CorpusConfig(question_wordings=2, question_unseen=unseen)) for unseen in (False, True))
    assert {a: lines[:2] for a, lines in asked.items()} == dict(trained)
    assert {len(lines) for lines in asked.values()} == {3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN, tmp_path / "own"))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("Where did {name} work? {value}", "full stop at the end"),
        ("Where did {name} work? Answer: {value}. Really.", "where the answer is"),
        ("Where did {his} friend {name} work? Answer: {value}.", "no other slot"),
        ("Where did she work? Answer: {value}.", "needs {name}"),
        ("Where did {name} work? Answer: yes.", "needs {value}"),
        ("Where did {name's} friend work? Answer: {value}.", "needs {name} and {value} once each"),
    ],
)
def test_a_malformed_wording_is_named_with_file_and_line(folder: Path, line: str, fault: str) -> None:
    assert fault in str(question_fault(line))
    with (folder / "company_city.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(WrongRequest, match=r"company_city\.txt line 7 in .*own: ") as refused:
        wordings(CorpusConfig(questions_folder=str(folder)))
    assert fault in str(refused.value)


def test_missing_files_and_too_few_wordings_are_refused(folder: Path) -> None:
    with pytest.raises(WrongRequest, match=r"corpus\.question_wordings=6: needs as many lines and an unseen one"):
        wordings(CorpusConfig(questions_folder=str(folder), question_wordings=6, question_unseen=True))
    with pytest.raises(WrongRequest, match=r"question_wordings=7: .* birth_date\.txt in .*, which has 6"):
        wordings(CorpusConfig(question_wordings=7))
    (folder / "major.txt").unlink()
    with pytest.raises(WrongRequest, match=r"major\.txt is missing"):
        wordings(CorpusConfig(questions_folder=str(folder)))
    with pytest.raises(WrongRequest, match="no such folder"):
        wordings(CorpusConfig(questions_folder=str(folder / "none")))


def test_prompt_and_answer_make_up_the_question() -> None:
    prompt, answer = question(QUESTIONS["major"], "Ann B Cole", "Law")
    assert prompt + answer == "What major did Ann B Cole study? Answer: Law."


def test_the_key_sees_the_files_that_are_read(folder: Path) -> None:
    assert [path.stem for path in files(str(folder))] == list(ATTRIBUTES)
    assert all(path.is_file() for path in files())


def test_the_lines_in_use_are_identity_and_no_others(folder: Path) -> None:
    def of(**axes: int) -> object:
        return identity(CorpusConfig(questions_folder=str(folder), **axes))

    two = of(question_wordings=2)
    assert of() == {} and two == identity(CorpusConfig(question_wordings=2))
    lines = (folder / "major.txt").read_text().splitlines()
    (folder / "major.txt").write_text("\n".join([*lines[:2], "Which field was that of {name}? Answer: {value}."]))
    assert of() == {} and of(question_wordings=2) == two
    assert of(question_wordings=3) != identity(CorpusConfig(question_wordings=3))


def test_a_trial_keeps_the_questions_that_it_began_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = CorpusConfig(questions_folder=str(folder), question_wordings=2)
    monkeypatch.setattr(fingerprint, "_frozen", {})
    before = wordings(setting)
    lines = (folder / "major.txt").read_text().splitlines()
    (folder / "major.txt").write_text("\n".join([lines[0], *lines[2:]]))
    assert wordings(setting) == before
    monkeypatch.setattr(fingerprint, "_frozen", None)
    assert wordings(setting)["major"] == (lines[0], lines[2])
