"""Wordings of the questions: of each attribute the paper's first, then this project's own, or those of a folder."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ktrain.bios.attribute_files import attribute_files
from ktrain.bios.pools import read_text
from ktrain.bios.templates import QUESTIONS, template_fault
from ktrain.config import ATTRIBUTES, CorpusConfig
from ktrain.errors import WrongRequest
from ktrain.fingerprint import content_digest, digest

BUILTIN = Path(__file__).parents[1] / "data" / "assets" / "questions"
ANSWER = " {value}."
"""What follows the prompt: the value and a full stop."""

Wordings = Mapping[str, tuple[str, ...]]
"""The wordings of each attribute, such as `Where did {name} work? Answer: {value}.`"""
PAPER: Wordings = {attribute: (QUESTIONS[attribute],) for attribute in ATTRIBUTES}
"""The paper's one wording of each question."""


def first_wordings(setting: CorpusConfig) -> Wordings:
    """Returns the wordings that a corpus is stored with: the paper's, and the first one of each attribute besides the
    six. Raises `WrongRequest` as `wordings` does."""
    used = wordings(setting)
    return {**PAPER} | {attribute: lines[:1] for attribute, lines in used.items() if attribute not in PAPER}


def wordings(setting: CorpusConfig) -> Wordings:
    """Returns the wordings that a corpus has: those trained on, then the unseen one where it is asked in that.

    Raises `WrongRequest` with the file and line of the first malformed wording, and where a file has too few.
    """
    if not setting.own_questions:
        return PAPER
    folder = BUILTIN if setting.questions_folder is None else Path(setting.questions_folder)
    if not folder.is_dir():
        raise WrongRequest(f"corpus.questions_folder={setting.questions_folder}: no such folder")
    needed = setting.question_wordings + setting.question_unseen
    chosen = {}
    for path in files(setting.questions_folder, setting.attributes):
        if not path.is_file():
            raise WrongRequest(f"corpus.questions_folder={folder}: {path.name} is missing")
        lines = _lines(path, content_digest([path]))
        if len(lines) < needed:
            unseen = " and an unseen one (corpus.question_unseen)" if setting.question_unseen else ""
            raise WrongRequest(
                f"corpus.question_wordings={setting.question_wordings}: needs as many lines{unseen} of {path.name} in "
                f"{path.parent}, which has {len(lines)}"
            )
        chosen[path.stem] = lines[:needed]
    return chosen


@cache
def _lines(path: Path, digest: str) -> tuple[str, ...]:
    """Reads the wordings of a file once for each content: that of a trial is frozen (`fingerprint.freeze_contents`)."""
    lines = {number: line for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()}
    for number, line in lines.items():
        if fault := question_fault(line):
            raise WrongRequest(f"{path.name} line {number} in {path.parent}: {fault}: {line!r}")
    return tuple(lines.values())


def identity(setting: CorpusConfig) -> dict[str, Any]:
    """Returns what identifies the questions of a corpus: how many wordings, and the lines in use; nothing for the
    wordings that its corpus is stored with. Raises `WrongRequest` as `wordings` does."""
    used = wordings(setting)
    if used == first_wordings(setting):
        return {}
    about = {"wordings": setting.question_wordings, "unseen": setting.question_unseen, "content": digest(used)}
    return {"questions": about}


def files(folder: str | None = None, attributes: Sequence[str] = ATTRIBUTES) -> list[Path]:
    """Returns the files that define the wordings, one for each attribute, for the corpus key."""
    return attribute_files(folder, BUILTIN, attributes)


def question_fault(wording: str) -> str | None:
    """Returns the first mistake in a wording, or None. A wording names its person once and ends with the answer."""
    if fault := template_fault(wording):
        return fault
    if wording.count("{name}") != 1 or wording.count("{") != 2:
        return "needs {name} and {value} once each, and no other slot"
    if not wording.endswith(ANSWER):
        return "needs {value} and a full stop at the end, where the answer is"
    return None


def question(wording: str, name: str, value: str) -> tuple[str, str]:
    """Returns prompt and expected answer, such as `What is ...? Answer:` and ` October 2, 1996.`."""
    return wording.removesuffix(ANSWER).replace("{name}", name), f" {value}."
