"""Templated text: which template each sentence of bioS has, in which order, and its tokens; and those of questions."""

import numpy as np
from tokenizers import Tokenizer

from ktrain import templates
from ktrain.compose import Composed, Composer
from ktrain.config import ATTRIBUTES
from ktrain.config import Corpus as Setting
from ktrain.people import People
from ktrain.pools import Pools
from ktrain.randomness import generator


def entries_of(setting: Setting) -> np.ndarray:
    """How many entries each person has, (people,)."""
    return np.repeat(
        [setting.entries_per_person, setting.celebrity.entries_per_person], [setting.people, setting.celebrities]
    )


def composed(
    setting: Setting,
    people: People,
    bpe: Tokenizer,
    sentences: dict[str, tuple[str, ...]],
    drafts: np.ndarray,
    order: np.ndarray,
) -> Composed:
    """The entries of bioS."""
    composer = entry_composer(bpe, people.pools, sentences)
    owner = np.repeat(np.arange(len(people)), entries_of(setting))
    named = np.where(owner < setting.people, setting.fullname, setting.celebrity.fullname)
    written = composer.compose(programs(sentences, drafts, order, named), people.columns, owner)
    position = np.argsort(order, axis=1)[:, :, None]
    return Composed(written.ids, written.offsets, np.take_along_axis(written.spans, position, axis=1))


def arrange(setting: Setting, sentences: dict[str, tuple[str, ...]], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Template of each attribute and order of the attributes, both (entries, 6), fixed in the data.

    M drafts per person; permute shuffles each draft P times, the same sentences every time. Coupled sentences are
    drawn anew for each entry and shuffled in pairs.
    """
    counts = [len(sentences[a]) for a in ATTRIBUTES]
    groups = [("", setting.people, setting.couple or setting.multi, setting.permute)]
    if setting.celebrities:
        groups.append(("celebrity ", setting.celebrities, setting.celebrity.multi, setting.celebrity.permute))
    parts = []
    for name, people, multi, permute in groups:
        drafts = generator(seed, f"{name}templates").integers(counts, size=(people * multi, len(counts)))
        drafts = np.repeat(drafts.astype(np.int16), max(permute, 1), axis=0)
        order = np.tile(np.arange(len(counts), dtype=np.int8), (len(drafts), 1))
        if permute:
            order = generator(seed, f"{name}permute").permuted(order, axis=1)
        elif not name and setting.couple:
            pairs = generator(seed, "couple").permuted(order[:, ::2], axis=1)
            order = np.stack([pairs, pairs + 1], axis=2).reshape(order.shape)
        parts.append((drafts, order))
    return np.concatenate([d for d, _ in parts]), np.concatenate([o for _, o in parts])


def programs(
    sentences: dict[str, tuple[str, ...]], drafts: np.ndarray, order: np.ndarray, fullname: np.ndarray
) -> np.ndarray:
    """Program number of each sentence of each entry, (entries, 6): named forms first, pronoun forms after.

    `fullname` (entries,) bool says which entries name their person in every sentence.
    """
    counts = np.array([len(sentences[a]) for a in ATTRIBUTES])
    base = np.cumsum(counts) - counts
    programs = np.take_along_axis(drafts + base, order.astype(np.int64), axis=1)
    programs[:, 1:] += np.where(fullname, 0, counts.sum())[:, None]
    return programs


def entry_composer(bpe: Tokenizer, drawn: Pools, sentences: dict[str, tuple[str, ...]]) -> Composer:
    return Composer(
        bpe,
        [
            templates.fragments(sentence, attribute, drawn, named=named)
            for named in (True, False)
            for attribute in ATTRIBUTES
            for sentence in sentences[attribute]
        ],
    )


def question_composer(bpe: Tokenizer, drawn: Pools) -> Composer:
    programs = [templates.fragments(templates.QUESTIONS[a], a, drawn, named=True) for a in ATTRIBUTES]
    # A question is the first text of its row, so its first word has no space before it.
    for program in programs:
        first = program[0]
        program[0] = templates.Fragment(first.column, tuple(t.removeprefix(" ") for t in first.texts), first.inside)
    return Composer(bpe, programs)
