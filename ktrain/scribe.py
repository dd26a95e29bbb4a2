"""A scribe: has a language model write about people, judges each draft, and tries again with another seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from ktrain import people as population
from ktrain import pools
from ktrain.biographies import Group, facts, groups
from ktrain.config import Corpus, Writer
from ktrain.mentions import Facts
from ktrain.prompts import prompt
from ktrain.rewording import full_names
from ktrain.verifier import Verifier

_LEAD = re.compile(r"^(?:\s*(?:sure|certainly|of course|here(?:'s| is)|okay)\b[^\n]{0,120}[:!.]\s*\n+)+", re.I)
_MARKS = re.compile(r"^\s*#{1,6}\s+|\*\*|(?<!\w)[*_](?=\w)|(?<=[\w.!?])[*_](?!\w)|`", re.M)
_LAST = re.compile(r"[.!?][\"'\u201d\u2019)]*(?=[^.!?]*$)")


@dataclass(frozen=True)
class Asked:
    """One draft that is wanted: what asks for it, and the seed of its sampling."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Reply:
    """What a model wrote; `cut` where it was not done when its tokens were used up."""

    text: str
    prompt_tokens: int
    tokens: int
    cut: bool = False


class Model(Protocol):
    """A language model, wherever it runs."""

    def replies(self, asked: Sequence[Asked]) -> list[Reply]:
        """One reply to each, in their order; a reply depends on its own prompt and seed alone."""


@dataclass(frozen=True)
class Draft:
    """One attempt at the m-th biography of a person, with why it was rejected, empty where it was accepted."""

    person: int
    m: int
    attempt: int
    text: str
    why: str
    seed: int
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True)
class Task:
    """The m-th biographies of a group of people; `people` and `m` name the drafts, with the seed."""

    setting: Corpus
    seed: int
    group: str
    m: int

    @property
    def people(self) -> int:
        """How many there are to be written."""
        return self._group.end - self._group.begin

    @property
    def writer(self) -> Writer:
        """Who is asked, and how."""
        return self.setting.writer

    def everyone(self) -> list[Facts]:
        """What is to be told of each of them, in their order."""
        drawn = pools.shrink(pools.load(self.setting.pools_folder), self.setting.pools)
        drawn_people = population.draw(drawn, self.setting.people, self.seed, self.setting.celebrities)
        return list(facts(drawn_people, range(self._group.begin, self._group.end)))

    def asked(self, person: int, attempt: int, about: Facts) -> Asked:
        """The question for a draft, a pure function of all that names it."""
        rng = Random(f"{self.seed}/{self.group}/{person}/{self.m}/{attempt}")
        return Asked(prompt(about, self.writer, rng), int(rng.random() * 2**31))

    @property
    def _group(self) -> Group:
        return next(group for group in groups(self.setting) if group.name == self.group)


class Scribe:
    """Writes blocks of people of one task with one model."""

    def __init__(self, task: Task, model: Model) -> None:
        self._task, self._model = task, model
        self._everyone = task.everyone()
        self._verifier = Verifier(pools.load(task.setting.pools_folder))

    def write(self, todo: Sequence[tuple[int, int]], attempts: int) -> list[Draft]:
        """All drafts of people, each until one is accepted; `todo` are people with their next attempt.

        Raises what the model raises, and then no draft of the block is kept.
        """
        drafts: list[Draft] = []
        left = [(person, attempt) for person, attempt in todo if attempt < attempts]
        while left:
            asked = [self._task.asked(person, attempt, self._everyone[person]) for person, attempt in left]
            replies = self._model.replies(asked)
            again = []
            for (person, attempt), question, reply in zip(left, asked, replies, strict=True):
                draft = self._judged(person, attempt, question, reply)
                drafts.append(draft)
                if draft.why and attempt + 1 < attempts:
                    again.append((person, attempt + 1))
            left = again
        return sorted(drafts, key=lambda draft: (draft.person, draft.attempt))

    def _judged(self, person: int, attempt: int, asked: Asked, reply: Reply) -> Draft:
        about = self._everyone[person]
        text = tidied(reply.text, cut=reply.cut)
        verdict = self._verifier.judge(text, about, asked.prompt)
        why = verdict.told
        if verdict.accepted:
            # What cannot be told with full names would fail when a corpus asks for that.
            named = self._verifier.judge(full_names(text, verdict.mentions, about), about)
            why = "" if named.accepted else f"with full names: {named.told}"
        counts = reply.prompt_tokens, reply.tokens
        return Draft(person, self._task.m, attempt, text, why, asked.seed, *counts)


def tidied(text: str, *, cut: bool = False) -> str:
    """A reply as an entry: one paragraph behind one space, without greeting, marks, or what was cut off."""
    plain = _MARKS.sub("", _LEAD.sub("", text.replace("\u00a0", " ")))
    plain = " ".join("".join(c for c in plain if c.isprintable() or c.isspace()).split())
    if len(plain) > 1 and plain[0] in '"\u201c' and plain[-1] in '"\u201d':
        plain = plain[1:-1].strip()
    if cut:
        ends = list(_LAST.finditer(plain))
        plain = plain[: ends[-1].end()] if ends else ""
    return f" {plain}" if plain else ""
