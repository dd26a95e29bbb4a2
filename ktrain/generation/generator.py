"""Has a language model write biographies, judges each draft, and retries rejected ones with another seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Protocol

from ktrain.bior.entries import EntryGroup, facts_of, groups
from ktrain.bior.mentions import Facts
from ktrain.bior.rewording import with_full_names
from ktrain.bior.verifier import Verifier
from ktrain.bios import pools
from ktrain.bios.people import draw_people
from ktrain.config import CorpusConfig, WriterConfig
from ktrain.generation.prompts import build_prompt
from ktrain.generation.wrapping import outside_lines, outside_prose, without_control

OUTSIDE, NO_TEXT = "outside the biography", "no text"
"""Reasons to reject a completion, beside those of the verifier."""
QUOTED = 60
"""Most characters of a completion that a reason quotes."""
_LEAD = re.compile(r"^(?:\s*(?:sure|certainly|of course|here(?:'s| is)|okay)\b[^\n]{0,120}[:!.]\s*\n+)+", re.I)
_MARKS = re.compile(r"^\s*#{1,6}\s+|\*\*|(?<!\w)[*_](?=\w)|(?<=[\w.!?])[*_](?!\w)|`", re.M)
_LAST = re.compile(r"[.!?][\"'\u201d\u2019)]*(?=[^.!?]*$)")


@dataclass(frozen=True)
class GenerationRequest:
    """The prompt of one draft and the seed of its sampling."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Completion:
    """The text that a model wrote; `cut` if it reached the limit of tokens. `refusal` says why there is no text."""

    text: str
    prompt_tokens: int
    tokens: int
    cut: bool = False
    refusal: str = ""


class LanguageModel(Protocol):
    """A language model, local or remote."""

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """One completion per request, in order; each depends on its own prompt and seed alone."""


@dataclass(frozen=True)
class Draft:
    """One attempt at the m-th biography of a person; `why` gives the reasons for its rejection, empty if accepted."""

    person: int
    m: int
    attempt: int
    text: str
    why: str
    seed: int
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True)
class GenerationTask:
    """The m-th biographies of a group of people."""

    setting: CorpusConfig
    seed: int
    group: str
    m: int

    @property
    def people(self) -> int:
        """Number of biographies to write."""
        return self._group.end - self._group.begin

    @property
    def writer(self) -> WriterConfig:
        """The model, its prompt and its sampling."""
        return self.setting.writer

    def facts(self) -> list[Facts]:
        """The facts of the group's people, in their order."""
        used_pools = pools.shrink(pools.load(self.setting.pools_folder), self.setting.pools)
        people = draw_people(used_pools, self.setting.people, self.seed, self.setting.celebrities)
        return list(facts_of(people, range(self._group.begin, self._group.end)))

    def request(self, person: int, attempt: int, facts: Facts) -> GenerationRequest:
        """The request for a draft, a pure function of the task and the arguments."""
        rng = Random(f"{self.seed}/{self.group}/{person}/{self.m}/{attempt}")
        return GenerationRequest(build_prompt(facts, self.writer, rng), int(rng.random() * 2**31))

    @property
    def _group(self) -> EntryGroup:
        return next(group for group in groups(self.setting) if group.name == self.group)


class DraftGenerator:
    """Writes blocks of people of one task with one model, loading neither people nor pools again."""

    def __init__(self, task: GenerationTask, model: LanguageModel) -> None:
        self._task, self._model = task, model
        self._facts = task.facts()
        self._verifier = Verifier(pools.load(task.setting.pools_folder))

    def write(self, pending: Sequence[tuple[int, int]], attempts: int) -> list[Draft]:
        """Writes drafts of each person until one is accepted or `attempts` are used up.

        `pending` lists people with their next attempt. Raises what the model raises; the drafts of the block are lost.
        """
        drafts: list[Draft] = []
        batch = [(person, attempt) for person, attempt in pending if attempt < attempts]
        while batch:
            requests = [self._task.request(person, attempt, self._facts[person]) for person, attempt in batch]
            completions = self._model.complete(requests)
            retries = []
            for (person, attempt), request, completion in zip(batch, requests, completions, strict=True):
                draft = self._judge(person, attempt, request, completion)
                drafts.append(draft)
                if draft.why and attempt + 1 < attempts:
                    retries.append((person, attempt + 1))
            batch = retries
        return sorted(drafts, key=lambda draft: (draft.person, draft.attempt))

    def _judge(self, person: int, attempt: int, request: GenerationRequest, completion: Completion) -> Draft:
        text, why = self._text_and_reasons(completion, self._facts[person], request.prompt)
        counts = completion.prompt_tokens, completion.tokens
        return Draft(person, self._task.m, attempt, text, why, request.seed, *counts)

    def _text_and_reasons(self, completion: Completion, facts: Facts, prompt: str) -> tuple[str, str]:
        """The cleaned text of a completion, and the reasons to reject it, empty if there are none."""
        answer = _LEAD.sub("", without_control(completion.text))
        text = clean_completion(answer, cut=completion.cut)
        if completion.refusal or not text:
            return text, f"text: {NO_TEXT if not completion.refusal else completion.refusal.replace(';', ',')}"
        verdict = self._verifier.judge(text, facts, prompt)
        outside = next(chain(outside_lines(answer, facts), outside_prose(text, facts, verdict.mentions)), "")
        if outside:
            quoted = " ".join(outside.replace(";", ",").split())[:QUOTED]
            return text, "; ".join([f"text: {OUTSIDE}: {quoted}", *filter(None, [verdict.explanation])])
        if not verdict.accepted:
            return text, verdict.explanation
        # A corpus with `fullname` rewords the draft, which must be accepted then too.
        named = self._verifier.judge(with_full_names(text, verdict.mentions, facts), facts)
        return text, "" if named.accepted else f"with full names: {named.explanation}"


def clean_completion(text: str, *, cut: bool = False) -> str:
    """A completion as an entry: a paragraph with a leading space, without greeting, emphasis or a cut-off sentence."""
    plain = _MARKS.sub("", _LEAD.sub("", text.replace("\u00a0", " ")))
    plain = " ".join("".join(c for c in plain if c.isprintable() or c.isspace()).split())
    if len(plain) > 1 and plain[0] in '"\u201c' and plain[-1] in '"\u201d':
        plain = plain[1:-1].strip()
    if cut:
        ends = list(_LAST.finditer(plain))
        plain = plain[: ends[-1].end()] if ends else ""
    return f" {plain}" if plain else ""
