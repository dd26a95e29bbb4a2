"""The corpus of a setting: every entry of every person, tokenised, with the token span of each attribute."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ktrain import background, biographies, forms, pools, templated, templates, tokenizer
from ktrain import people as population
from ktrain.biographies import Drafts, Texts
from ktrain.compose import Composed
from ktrain.config import ATTRIBUTES
from ktrain.config import Corpus as Setting
from ktrain.errors import WrongRequest
from ktrain.people import People


@dataclass(frozen=True)
class Corpus:
    """People, their entries and their questions.

    The people under test come first, celebrities after them. `entries` holds those of person 0, of person 1 and so on,
    spans in the order of `ATTRIBUTES`; `order` (entries, 6) is the attribute at each place in the text. Entries of bioS
    are written from the templates `drafts` (entries, 6), those of bioR are in `texts`. `questions` holds person p's six
    at p * 6 .. p * 6 + 5. `train` (people,) are the people under test whose questions may be trained on. `background`
    is other text that is read besides.
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
    background: Composed | None = None
    texts: Texts | None = None

    @cached_property
    def entries_of(self) -> np.ndarray:
        """How many entries each person has, (people,)."""
        return templated.entries_of(self.setting)

    @cached_property
    def person(self) -> np.ndarray:
        """The person of each entry, (entries,)."""
        return np.repeat(np.arange(len(self.people)), self.entries_of)

    @property
    def celebrity(self) -> np.ndarray:
        """Who is a celebrity, (people,) bool."""
        return np.arange(len(self.people)) >= self.setting.people

    def halves(self, people: str) -> tuple[np.ndarray, np.ndarray]:
        """Who is trained on and who is asked in a readout, both (people,) bool: `minority` halves the people under
        test, `celebrity` trains on all celebrities and asks everyone under test (paper, section 5).
        """
        if people == "celebrity":
            return self.celebrity, ~self.celebrity
        return self.train, ~self.train & ~self.celebrity

    @property
    def eos(self) -> int:
        """The id that ends an entry."""
        return tokenizer.eos_id(self.tokenizer)

    def entry_text(self, entry: int) -> str:
        """The text of an entry, as it was written, not decoded from its ids."""
        if self.texts is not None:
            return self.texts[entry]
        composer = templated.entry_composer(self.tokenizer, self.people.pools, self.templates)
        person = self.person[entry]
        fullname = np.array([self.setting.celebrity.fullname if self.celebrity[person] else self.setting.fullname])
        programs = templated.programs(self.templates, self.drafts[[entry]], self.order[[entry]], fullname)
        return composer.text(programs[0], self.people.columns[self.person[entry]])

    def stands(self, entry: int, attribute: str, text: str) -> int:
        """How many characters at the begin of `text`, a leading space with them, tell the attribute of an entry's
        person; 0 where they do not. In bioR that is the longest of the forms that the verifier accepts.
        """
        value = self.people.value(int(self.person[entry]), attribute)
        if self.texts is not None:
            return forms.stands(forms.KINDS[attribute], value, text)
        return len(value) + 1 if text.startswith(f" {value}") else 0

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
            **{f"background_{k}": v for k, v in (vars(self.background) if self.background else {}).items()},
            **{f"texts_{k}": v for k, v in (vars(self.texts) if self.texts else {}).items()},
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
        background=composed("background") if "background_ids" in data else None,
        texts=Texts(*(data[f"texts_{k}"] for k in ("letters", "offsets", "attempts")))
        if "texts_letters" in data
        else None,
    )


def lacking(setting: Setting, *, written: bool = False) -> list[str]:
    """What a corpus cannot be built without and is not there, a line each; `written` says that a model's text is."""
    lines = []
    if setting.kind == "bioR" and setting.writer.backend != "rules" and not written:
        writer = setting.writer
        lines.append(f"bioR by {writer.model} ({writer.backend}) is not written yet: `ktrain write` does that")
    if setting.background == background.TO_BE_NAMED:
        lines.append("corpus.background=?: name a folder of plain text with corpus.background=FOLDER")
    return lines


def build(setting: Setting, seed: int, drafts: Drafts | None = None) -> Corpus:
    """Draws the people and writes their entries (paper, section 2.1; settings: appendix A.2).

    `drafts` are the biographies of bioR that a language model has written. Raises `WrongRequest` for pools or templates
    that cannot serve the setting, and for text that is not there.
    """
    if missing := lacking(setting, written=drafts is not None):
        raise WrongRequest(missing[0])
    whole = pools.load(setting.pools_folder)
    drawn = pools.shrink(whole, setting.pools)
    sentences = templates.load(setting.templates_folder)
    people = population.draw(drawn, setting.people, seed, setting.celebrities)
    bpe = _tokenizer(setting, people, sentences, seed)
    texts = None
    if setting.kind == "bioR":
        entries, order, texts = biographies.write(setting, seed, people, whole, bpe, drafts)
        chosen = np.zeros((0, len(ATTRIBUTES)), dtype=np.int16)
    else:
        chosen, order = templated.arrange(setting, sentences, seed)
        entries = templated.composed(setting, people, bpe, sentences, chosen, order)
    asker = templated.question_composer(bpe, drawn)
    asked = np.tile(np.arange(len(ATTRIBUTES)), len(people))[:, None]
    questions = asker.compose(asked, people.columns, np.repeat(np.arange(len(people)), len(ATTRIBUTES)))
    train = np.zeros(len(people), dtype=bool)
    train[: setting.people] = population.train_half(setting.people, setting.question_share, seed)
    besides = background.tokens(setting.background, bpe) if setting.background is not None else None
    return Corpus(setting, seed, people, train, bpe, sentences, entries, order, chosen, questions, besides, texts)


def bpe_of(setting: Setting, seed: int) -> Tokenizer:
    """The tokenizer that `build` uses, without building. Raises what `build` raises."""
    drawn = pools.shrink(pools.load(setting.pools_folder), setting.pools)
    people = population.draw(drawn, setting.people, seed)
    return _tokenizer(setting, people, templates.load(setting.templates_folder), seed)


def _tokenizer(setting: Setting, people: People, sentences: dict[str, tuple[str, ...]], seed: int) -> Tokenizer:
    """GPT-2's, or one trained on one entry and the questions of every person under test.

    The training text does not depend on how the entries are written, nor on celebrities, so that all settings of the
    same people share one tokenizer and their accuracies can be compared.
    """
    if setting.tokenizer == "gpt2":
        return tokenizer.gpt2()
    plain = setting.model_copy(update={"multi": 1, "permute": 0, "couple": 0, "celebrity_fraction": 0.0})
    columns = people.columns[: setting.people]
    # Fragments are the same whatever tokenizer encodes them: this one is only the carrier of the texts.
    writer = templated.entry_composer(tokenizer.of_bytes(), people.pools, sentences)
    asker = templated.question_composer(tokenizer.of_bytes(), people.pools)
    programs = templated.programs(
        sentences, *templated.arrange(plain, sentences, seed), np.zeros(setting.people, dtype=bool)
    )
    texts = [writer.text(program, row) for program, row in zip(programs, columns, strict=True)]
    texts += [asker.text([a], row) for row in columns for a in range(len(ATTRIBUTES))]
    return tokenizer.train(texts, int(setting.tokenizer.removeprefix("bpe-")))
