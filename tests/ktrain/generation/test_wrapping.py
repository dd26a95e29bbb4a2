"""What models and servers put around a biography never enters a corpus."""

import random
import textwrap
from collections.abc import Callable

import pytest
from endpoint import REJECTED, STRIPPED

from ktrain.bior.entries import facts_of
from ktrain.bior.rule_writer import write
from ktrain.bios import people, pools
from ktrain.config import CorpusConfig
from ktrain.generation.drafts import draft_stats
from ktrain.generation.generator import (
    Completion,
    Draft,
    DraftGenerator,
    GenerationRequest,
    GenerationTask,
    clean_completion,
)
from ktrain.generation.wrapping import without_control

PEOPLE = 3


@pytest.fixture(scope="module")
def task() -> GenerationTask:
    return GenerationTask(CorpusConfig(kind="bioR", people=60), 0, "minority", 0)


@pytest.fixture(scope="module")
def texts(task: GenerationTask) -> list[str]:
    whole = pools.load()
    facts = facts_of(people.draw_people(whole, 60, 0), range(PEOPLE))
    return [write(each, random.Random(k)).strip() for k, each in enumerate(facts)]


class Wrapping:
    """A model that writes right texts with something around them."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.wrapping, self.cut = texts, "{text}", False

    def complete(self, requests: list[GenerationRequest]) -> list[Completion]:
        written = [self.wrapping.format(text=text) for text in self.texts[: len(requests)]]
        return [Completion(text, 1, 1, cut=self.cut) for text in written]


@pytest.fixture(scope="module")
def drafts(task: GenerationTask, texts: list[str]) -> Callable[..., list[Draft]]:
    """A draft about each person, with something around the text."""
    model = Wrapping(texts)
    generator = DraftGenerator(task, model)

    def write_(wrapping: str = "{text}", texts: list[str] = texts, *, cut: bool = False) -> list[Draft]:
        model.texts, model.wrapping, model.cut = texts, wrapping, cut
        return generator.write([(person, 0) for person in range(PEOPLE)], 1)

    return write_


@pytest.mark.parametrize("name", ["", *STRIPPED])
def test_reasoning_and_control_tokens_are_removed(
    name: str, drafts: Callable[..., list[Draft]], texts: list[str]
) -> None:
    assert [(draft.text, draft.why) for draft in drafts(STRIPPED.get(name, "{text}"))] == [
        (f" {text}", "") for text in texts
    ]


@pytest.mark.parametrize("name", list(REJECTED))
def test_what_stands_outside_the_biography_rejects_the_draft_by_a_reason_that_is_counted(
    name: str, drafts: Callable[..., list[Draft]]
) -> None:
    wrapped = drafts(REJECTED[name])
    assert all(draft.why.startswith("text: outside the biography: ") for draft in wrapped), [d.text for d in wrapped]
    assert draft_stats(wrapped).reasons["text: outside the biography"] == PEOPLE


def test_reasoning_that_used_up_all_tokens_leaves_no_text(drafts: Callable[..., list[Draft]]) -> None:
    cut = drafts("<think>First the facts. {text}", cut=True)
    assert {(draft.text, draft.why) for draft in cut} == {("", "text: no text")}


def test_a_text_that_was_wrapped_into_lines_or_paragraphs_is_one_entry(
    drafts: Callable[..., list[Draft]], texts: list[str]
) -> None:
    for lines in ([text.replace(". ", ".\n\n") for text in texts], [textwrap.fill(text, 72) for text in texts]):
        assert [(draft.text, draft.why) for draft in drafts(texts=lines)] == [(f" {text}", "") for text in texts]


def test_a_turn_ends_at_its_first_token() -> None:
    assert clean_completion(
        without_control("Ann was born.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhy?")
    ) == (" Ann was born.")
    assert without_control("<|im_end|>") == "" and without_control("Ann <3 R&D <b>") == "Ann <3 R&D <b>"
