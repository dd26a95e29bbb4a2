"""The corpus: every entry of every person, tokenized, with the token span of each attribute, and all questions."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ktrain.bior import entries as bior_entries
from ktrain.bior import surface_forms
from ktrain.bior.entries import DraftSource, EntryTexts
from ktrain.bios import entries as bios_entries
from ktrain.bios import pools, pretrained_tokenizer, question_wordings, templates, tokenizer
from ktrain.bios.fragment_encoder import FragmentEncoder, TokenizedTexts
from ktrain.bios.people import People, draw_people, draw_train_half, draw_validation
from ktrain.bios.question_wordings import Wordings, first_wordings
from ktrain.config import CorpusConfig
from ktrain.data import background
from ktrain.errors import WrongRequest


@dataclass(frozen=True)
class Corpus:
    """People, their entries and their questions.

    The people under test come first, celebrities after them. `entries` are sorted by person, their spans by
    `attributes`, of which there are A, mostly six; `order` (entries, A) gives the attribute of each sentence in text
    order. bioS writes its entries from the templates `drafts` (entries, A); bioR keeps its entries in `texts`. The
    questions of person p in wording w are `questions[A * (w * people + p)]` and the next A - 1. `train` (people,) bool
    marks the people under test whose questions may be trained on. `background` is plain text for pretraining.
    """

    setting: CorpusConfig
    seed: int
    people: People
    train: np.ndarray
    tokenizer: Tokenizer
    templates: dict[str, tuple[str, ...]]
    entries: TokenizedTexts
    order: np.ndarray
    drafts: np.ndarray
    questions: TokenizedTexts
    wordings: Wordings
    background: TokenizedTexts | None = None
    texts: EntryTexts | None = None

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of every person: the six, then those of the user's own."""
        return self.people.pools.attributes

    @cached_property
    def entry_counts(self) -> np.ndarray:
        """How many entries each person has, (people,)."""
        return bios_entries.entry_counts(self.setting)

    @cached_property
    def person(self) -> np.ndarray:
        """The person of each entry, (entries,)."""
        return np.repeat(np.arange(len(self.people)), self.entry_counts)

    @property
    def celebrity(self) -> np.ndarray:
        """Whether each person is a celebrity, (people,) bool."""
        return np.arange(len(self.people)) >= self.setting.people

    def people_split(self, people: str) -> tuple[np.ndarray, np.ndarray]:
        """The people a readout trains on and the people it tests, both (people,) bool.

        `minority` splits the people under test in two; `celebrity` trains on all celebrities and tests everyone under
        test (paper, section 5). Nobody of `validation` is tested.
        """
        if people == "celebrity":
            return self.celebrity, ~self.celebrity & ~self.validation
        return self.train, ~self.train & ~self.celebrity & ~self.validation

    @cached_property
    def validation(self) -> np.ndarray:
        """The people of the test half who are set aside to choose settings by, (people,) bool."""
        return draw_validation(~self.train & ~self.celebrity, self.setting.validation_people, self.seed)

    @cached_property
    def eos(self) -> int:
        """The id of EOS, which ends every entry."""
        return tokenizer.eos_id(self.tokenizer)

    def entry_text(self, entry: int) -> str:
        """The text of an entry as written, not decoded from its ids."""
        if self.texts is not None:
            return self.texts[entry]
        person = self.person[entry]
        fullname = np.array([self.setting.celebrity.fullname if self.celebrity[person] else self.setting.fullname])
        programs = bios_entries.programs(self.templates, self.drafts[[entry]], self.order[[entry]], fullname)
        return self._entry_encoder.text(programs[0], self.people.columns[person])

    @cached_property
    def _entry_encoder(self) -> FragmentEncoder:
        """Made once: that takes as long as hundreds of texts."""
        return bios_entries.entry_encoder(self.tokenizer, self.people.pools, self.templates)

    def match_attribute(self, entry: int, attribute: str, text: str) -> int:
        """How many leading characters of `text`, with its space, state an attribute of the entry's person; 0 if none.

        In bioR that is the longest form of the value that the verifier accepts.
        """
        value = self.people.value(int(self.person[entry]), attribute)
        if self.texts is not None:
            return surface_forms.match_prefix(surface_forms.VALUE_KINDS[attribute], value, text)
        return len(value) + 1 if text.startswith(f" {value}") else 0

    @property
    def asked_wording(self) -> int:
        """The wording in which the network is asked: the first one, or the one after those trained on."""
        return self.setting.question_wordings if self.setting.question_unseen else 0

    def trained_questions(self, people: np.ndarray) -> np.ndarray:
        """The questions of the `people` (people,) bool in every wording that is trained on, (n,)."""
        return np.flatnonzero(np.tile(np.repeat(people, len(self.attributes)), self.setting.question_wordings))

    def asked_questions(self, people: np.ndarray) -> np.ndarray:
        """The questions that each of the `people` (n,) indices is asked, one for each of A attributes, (A n,)."""
        first = (self.asked_wording * len(self.people) + people[:, None]) * len(self.attributes)
        return (first + np.arange(len(self.attributes))).ravel()

    def person_asked(self, question: np.ndarray) -> np.ndarray:
        """The person that each of the `question` (n,) is about, (n,)."""
        return question // len(self.attributes) % len(self.people)

    def locate_question(self, question: int) -> tuple[int, str, int]:
        """The person that a question is about, the attribute that it asks for, and its wording."""
        owner, attribute = divmod(int(question), len(self.attributes))
        wording, person = divmod(owner, len(self.people))
        return person, self.attributes[attribute], wording

    def question_text(self, person: int, attribute: str, wording: int | None = None) -> tuple[str, str]:
        """Prompt and expected answer, such as `What is ...? Answer:` and ` October 2, 1996.`; without `wording`, as the
        network is asked."""
        chosen = self.wordings[attribute][self.asked_wording if wording is None else wording]
        return question_wordings.question(chosen, self.people.name(person), self.people.value(person, attribute))

    def worded(self, setting: CorpusConfig) -> "Corpus":
        """The same corpus with the questions of `setting`, which agrees with its own on everything else.

        Raises `WrongRequest` where there are no such questions.
        """
        wordings = question_wordings.wordings(setting)
        if wordings == self.wordings:
            return replace(self, setting=setting)
        encoded = _encode_questions(self.tokenizer, self.people, wordings)
        return replace(self, setting=setting, wordings=wordings, questions=encoded)

    def save(self, folder: Path) -> None:
        """Writes to a folder all that `load_corpus` needs besides setting and seed."""
        np.savez(
            folder / "corpus.npz",
            columns=self.people.columns,
            train=self.train,
            order=self.order,
            drafts=self.drafts,
            **_prefixed("entries", self.entries),
            **_prefixed("questions", self.questions),
            **_prefixed("background", self.background),
            **_prefixed("texts", self.texts),
        )
        self.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "pools.json").write_text(self.people.pools.to_json())
        (folder / "templates.json").write_text(json.dumps(self.templates, indent=1))


def _prefixed(prefix: str, arrays: TokenizedTexts | EntryTexts | None) -> dict[str, Any]:
    """The arrays of a dataclass by name, such as `entries_ids`; empty for None."""
    return {f"{prefix}_{name}": array for name, array in vars(arrays).items()} if arrays else {}


def load_corpus(folder: Path, setting: CorpusConfig, seed: int) -> Corpus:
    """Reads the corpus that `Corpus.save` wrote, without pools and templates; own attributes need their questions.

    A stored corpus has the first wordings, whatever is asked of its readers: those of the setting are encoded.
    """
    with np.load(folder / "corpus.npz", allow_pickle=False) as file:
        data = dict(file)
    sentences = json.loads((folder / "templates.json").read_text())

    def tokenized(prefix: str) -> TokenizedTexts:
        return TokenizedTexts(*(data[f"{prefix}_{field}"] for field in ("ids", "offsets", "spans")))

    texts = EntryTexts(*(data[f"texts_{field}"] for field in EntryTexts.FIELDS)) if "texts_letters" in data else None
    stored = Corpus(
        setting=setting,
        seed=seed,
        people=People(pools.Pools.from_json((folder / "pools.json").read_text()), data["columns"]),
        train=data["train"],
        tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        templates={attribute: tuple(lines) for attribute, lines in sentences.items()},
        entries=tokenized("entries"),
        order=data["order"],
        drafts=data["drafts"],
        questions=tokenized("questions"),
        wordings=first_wordings(setting),
        background=tokenized("background") if "background_ids" in data else None,
        texts=texts,
    )
    return stored.worded(setting)


def missing_inputs(setting: CorpusConfig, *, written: bool = False) -> list[str]:
    """One line for each input that a corpus needs and that is missing; `written` says that a model's texts exist."""
    lines = []
    if setting.kind == "bioR" and setting.writer.backend != "rules" and not written:
        writer = setting.writer
        lines.append(f"bioR by {writer.model} ({writer.backend}) is not written yet: `ktrain generate` does that")
    if setting.background == background.UNNAMED:
        lines.append("corpus.background=?: name a folder of plain text with corpus.background=FOLDER")
    return lines


def build_corpus(setting: CorpusConfig, seed: int, drafts: DraftSource | None = None) -> Corpus:
    """Draws the people and writes their entries (paper, section 2.1; settings: appendix A.2).

    `drafts` supplies the biographies of bioR that a language model has written. Raises `WrongRequest` if the pools or
    templates do not suit the setting, or if text is missing.
    """
    if missing := missing_inputs(setting, written=drafts is not None):
        raise WrongRequest(missing[0])
    full_pools = pools.load(setting.pools_folder)
    used_pools = pools.shrink(full_pools, setting.pools)
    sentences = templates.load(setting.templates_folder, used_pools.attributes)
    people = draw_people(used_pools, setting.people, seed, setting.celebrities)
    bpe = _tokenizer(setting, people, sentences, seed)
    texts = None
    if setting.kind == "bioR":
        entries, order, texts = bior_entries.write_entries(setting, seed, people, full_pools, bpe, drafts)
        chosen_templates = np.zeros((0, len(used_pools.attributes)), dtype=np.int16)
    else:
        chosen_templates, order = bios_entries.draw_layout(setting, sentences, seed)
        entries = bios_entries.encode_entries(setting, people, bpe, sentences, chosen_templates, order)
    train = np.zeros(len(people), dtype=bool)
    train[: setting.people] = draw_train_half(setting.people, setting.question_share, seed)
    built = Corpus(
        setting=setting,
        seed=seed,
        people=people,
        train=train,
        tokenizer=bpe,
        templates=sentences,
        entries=entries,
        order=order,
        drafts=chosen_templates,
        questions=_encode_questions(bpe, people, first_wordings(setting)),
        wordings=first_wordings(setting),
        background=None if setting.background is None else background.encode_background(setting.background, bpe),
        texts=texts,
    )
    return built.worded(setting)


def _encode_questions(bpe: Tokenizer, people: People, wordings: Wordings) -> TokenizedTexts:
    """All questions with their answers: in each wording, those of each person, in the order of the attributes."""
    attributes, count = len(wordings), len(next(iter(wordings.values())))
    # (wordings, people, attributes)
    programs = np.arange(count)[:, None, None] * attributes + np.arange(attributes)
    programs = np.broadcast_to(programs, (count, len(people), attributes)).reshape(-1, 1)
    owner = np.tile(np.repeat(np.arange(len(people)), attributes), count)
    return bios_entries.question_encoder(bpe, people.pools, wordings).encode(programs, people.columns, owner)


def tokenizer_of(setting: CorpusConfig, seed: int) -> Tokenizer:
    """The tokenizer that `build_corpus` uses, without building the corpus. Raises `WrongRequest` as it does."""
    used_pools = pools.shrink(pools.load(setting.pools_folder), setting.pools)
    people = draw_people(used_pools, setting.people, seed)
    return _tokenizer(setting, people, templates.load(setting.templates_folder, used_pools.attributes), seed)


def _tokenizer(setting: CorpusConfig, people: People, sentences: dict[str, tuple[str, ...]], seed: int) -> Tokenizer:
    """GPT-2's tokenizer, that of a trained network, or one trained on one entry and the questions of every person under
    test.

    Its training text depends neither on how entries are augmented, nor on celebrities, nor on how questions are worded,
    so all settings of the same people share one tokenizer and their accuracies can be compared.
    """
    if setting.tokenizer == "gpt2":
        return tokenizer.gpt2()
    if (file := setting.tokenizer_file) is not None:
        loaded = pretrained_tokenizer.load(file)
        texts = bios_entries.pieces(people.pools, sentences, question_wordings.wordings(setting))
        pretrained_tokenizer.require_usable(setting.tokenizer, loaded, texts)
        return loaded
    plain = setting.model_copy(update={"multi": 1, "permute": 0, "couple": 0, "celebrity_fraction": 0.0})
    columns = people.columns[: setting.people]
    # The encoders only write texts here, so any tokenizer will do; this one is quick to make.
    entries = bios_entries.entry_encoder(tokenizer.byte_tokenizer(), people.pools, sentences)
    asked = bios_entries.question_encoder(tokenizer.byte_tokenizer(), people.pools, first_wordings(setting))
    drafts, order = bios_entries.draw_layout(plain, sentences, seed)
    programs = bios_entries.programs(sentences, drafts, order, np.zeros(setting.people, dtype=bool))
    texts = [entries.text(program, row) for program, row in zip(programs, columns, strict=True)]
    texts += [asked.text([a], row) for row in columns for a in range(len(asked.programs))]
    return tokenizer.train(texts, int(setting.tokenizer.removeprefix("bpe-")))
