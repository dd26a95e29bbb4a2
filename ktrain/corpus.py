"""The corpus of a setting: every entry of every person, tokenised, with the token span of each attribute."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ktrain import people as population
from ktrain import pools, templates, tokenizer
from ktrain.compose import Composed, Composer
from ktrain.config import ATTRIBUTES
from ktrain.config import Corpus as Setting
from ktrain.people import People
from ktrain.randomness import generator


@dataclass(frozen=True)
class Corpus:
    """People, their entries and their questions.

    `entries` holds person p's E entries at p * E .. (p + 1) * E, spans in the order of `ATTRIBUTES`; `order`
    (entries, 6) is the attribute at each sentence position. `questions` holds person p's six at p * 6 .. p * 6 + 5.
    """

    setting: Setting
    seed: int
    people: People
    train: np.ndarray
    tokenizer: Tokenizer
    templates: dict[str, tuple[str, ...]]
    entries: Composed
    order: np.ndarray
    drafts: np.ndarray
    questions: Composed

    @cached_property
    def person(self) -> np.ndarray:
        """The person of each entry, (entries,)."""
        return np.repeat(np.arange(len(self.people)), self.setting.entries_per_person)

    @property
    def eos(self) -> int:
        """The id that ends an entry."""
        return tokenizer.eos_id(self.tokenizer)

    def entry_text(self, entry: int) -> str:
        """The text of an entry, written from its templates, not decoded from its ids."""
        composer = _entry_composer(self.tokenizer, self.people.pools, self.templates)
        programs = _programs(self.templates, self.drafts[[entry]], self.order[[entry]], self.setting.fullname)
        return composer.text(programs[0], self.people.columns[self.person[entry]])

    def question_text(self, person: int, attribute: str) -> tuple[str, str]:
        """Prompt and expected answer, as in `What is ...? Answer:` and ` October 2, 1996.`."""
        prompt = templates.QUESTIONS[attribute].partition(" {value}")[0]
        return prompt.format(name=self.people.name(person)), f" {self.people.value(person, attribute)}."

    def save(self, folder: Path) -> None:
        """Writes everything that `load` needs besides the setting."""
        np.savez(
            folder / "corpus.npz",
            columns=self.people.columns,
            train=self.train,
            order=self.order,
            drafts=self.drafts,
            **{f"entries_{k}": v for k, v in vars(self.entries).items()},
            **{f"questions_{k}": v for k, v in vars(self.questions).items()},
        )
        self.tokenizer.save(str(folder / "tokenizer.json"))
        kept = {name: value for name, value in vars(self.people.pools).items()}
        (folder / "pools.json").write_text(json.dumps(kept, indent=1))
        (folder / "templates.json").write_text(json.dumps(self.templates, indent=1))


def load(folder: Path, setting: Setting, seed: int) -> Corpus:
    """The corpus that `save` wrote, without reading pools or templates again."""
    with np.load(folder / "corpus.npz", allow_pickle=False) as f:
        data = dict(f)
    kept = json.loads((folder / "pools.json").read_text())
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
    drawn = pools.Pools(**fields)
    sentences = json.loads((folder / "templates.json").read_text())

    def composed(name: str) -> Composed:
        return Composed(*(data[f"{name}_{field}"] for field in ("ids", "offsets", "spans")))

    return Corpus(
        setting=setting,
        seed=seed,
        people=People(drawn, data["columns"]),
        train=data["train"],
        tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        templates={a: tuple(sentences[a]) for a in ATTRIBUTES},
        entries=composed("entries"),
        order=data["order"],
        drafts=data["drafts"],
        questions=composed("questions"),
    )


def build(setting: Setting, seed: int) -> Corpus:
    """Draws the people and writes their entries (paper, section 2.1; settings: appendix A.2).

    Raises `WrongRequest` for pools or templates that cannot serve the setting.
    """
    drawn = pools.shrink(pools.load(setting.pools_folder), setting.pools)
    sentences = templates.load(setting.templates_folder)
    people = population.draw(drawn, setting.people, seed)
    bpe = _tokenizer(setting, people, sentences, seed)
    drafts, order = _arrange(setting, sentences, seed)
    composer = _entry_composer(bpe, drawn, sentences)
    programs = _programs(sentences, drafts, order, setting.fullname)
    owner = np.repeat(np.arange(setting.people), setting.entries_per_person)
    written = composer.compose(programs, people.columns, owner)
    position = np.argsort(order, axis=1)[:, :, None]
    entries = Composed(written.ids, written.offsets, np.take_along_axis(written.spans, position, axis=1))
    asker = _question_composer(bpe, drawn)
    asked = np.tile(np.arange(len(ATTRIBUTES)), setting.people)[:, None]
    questions = asker.compose(asked, people.columns, np.repeat(np.arange(setting.people), len(ATTRIBUTES)))
    train = population.train_half(setting.people, setting.question_share, seed)
    return Corpus(setting, seed, people, train, bpe, sentences, entries, order, drafts, questions)


def _arrange(setting: Setting, sentences: dict[str, tuple[str, ...]], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Template of each attribute and order of the attributes, both (entries, 6), fixed in the data.

    M drafts per person; permute shuffles each draft P times, the same sentences every time.
    """
    counts = [len(sentences[a]) for a in ATTRIBUTES]
    drafts = generator(seed, "templates").integers(counts, size=(setting.people * setting.multi, len(counts)))
    drafts = np.repeat(drafts.astype(np.int16), max(setting.permute, 1), axis=0)
    order = np.tile(np.arange(len(counts), dtype=np.int8), (len(drafts), 1))
    if setting.permute:
        order = generator(seed, "permute").permuted(order, axis=1)
    return drafts, order


def _programs(
    sentences: dict[str, tuple[str, ...]], drafts: np.ndarray, order: np.ndarray, fullname: bool
) -> np.ndarray:
    """Program number of each sentence of each entry, (entries, 6): named forms first, pronoun forms after."""
    counts = np.array([len(sentences[a]) for a in ATTRIBUTES])
    base = np.cumsum(counts) - counts
    programs = np.take_along_axis(drafts + base, order.astype(np.int64), axis=1)
    if not fullname:
        programs[:, 1:] += counts.sum()
    return programs


def _entry_composer(bpe: Tokenizer, drawn: pools.Pools, sentences: dict[str, tuple[str, ...]]) -> Composer:
    return Composer(
        bpe,
        [
            templates.fragments(sentence, attribute, drawn, named=named)
            for named in (True, False)
            for attribute in ATTRIBUTES
            for sentence in sentences[attribute]
        ],
    )


def _question_composer(bpe: Tokenizer, drawn: pools.Pools) -> Composer:
    programs = [templates.fragments(templates.QUESTIONS[a], a, drawn, named=True) for a in ATTRIBUTES]
    # A question is the first text of its row, so its first word has no space before it.
    for program in programs:
        first = program[0]
        program[0] = templates.Fragment(first.column, tuple(t.removeprefix(" ") for t in first.texts), first.inside)
    return Composer(bpe, programs)


def bpe_of(setting: Setting, seed: int) -> Tokenizer:
    """The tokenizer that `build` uses, without building. Raises what `build` raises."""
    drawn = pools.shrink(pools.load(setting.pools_folder), setting.pools)
    people = population.draw(drawn, setting.people, seed)
    return _tokenizer(setting, people, templates.load(setting.templates_folder), seed)


def _tokenizer(setting: Setting, people: People, sentences: dict[str, tuple[str, ...]], seed: int) -> Tokenizer:
    """GPT-2's, or one trained on one entry and the questions of every person.

    The training text does not depend on multi, permute or fullname, so that all settings of the same people share
    one tokenizer and their accuracies can be compared.
    """
    if setting.tokenizer == "gpt2":
        return tokenizer.gpt2()
    plain = setting.model_copy(update={"multi": 1, "permute": 0, "fullname": False})
    # Fragments are the same whatever tokenizer encodes them: GPT-2's is only the carrier of the texts.
    writer = _entry_composer(tokenizer.gpt2(), people.pools, sentences)
    asker = _question_composer(tokenizer.gpt2(), people.pools)
    programs = _programs(sentences, *_arrange(plain, sentences, seed), False)
    texts = [writer.text(program, columns) for program, columns in zip(programs, people.columns, strict=True)]
    texts += [asker.text([a], columns) for columns in people.columns for a in range(len(ATTRIBUTES))]
    return tokenizer.train(texts, int(setting.tokenizer.removeprefix("bpe-")))
