"""Biographies of bioR: free text, verified, reworded and tokenised, with the token span of each attribute."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from ktrain import rule_writer
from ktrain.compose import Composed
from ktrain.config import ATTRIBUTES
from ktrain.config import Corpus as Setting
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.mentions import Facts
from ktrain.people import People
from ktrain.pools import Pools
from ktrain.randomness import generator
from ktrain.rewording import full_names, shuffled
from ktrain.tokenizer import eos_id
from ktrain.verifier import Span, Verifier

ATTEMPTS = 50
"""Drafts of one biography that the rule-based writer throws away before it gives up."""
CHUNK = 8_192
"""Texts encoded at once."""
SENTENCES = 16
"""Numbers that draw an order of sentences; longer texts use them again."""
MINORITY, CELEBRITY = "minority", "celebrity"


class Written(NamedTuple):
    """A biography that a language model has written, and how many drafts it took."""

    text: str
    attempts: int


Drafts = Callable[[str, int], Sequence[Written]]
"""The m-th biographies of a group of people, in their order."""


@dataclass(frozen=True)
class Texts:
    """Entries as text, UTF-8 in one flat array: `letters` uint8, `offsets` (texts + 1,) int64.

    `attempts` (texts,) int16 says how many drafts the writer of each one needed.
    """

    FIELDS: ClassVar = ("letters", "offsets", "attempts")
    letters: np.ndarray
    offsets: np.ndarray
    attempts: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> str:
        return self.letters[self.offsets[text] : self.offsets[text + 1]].tobytes().decode("utf-8")

    @property
    def acceptance(self) -> float:
        """Share of the drafts that was accepted."""
        return len(self) / int(self.attempts.sum())


@dataclass(frozen=True)
class Group:
    """How the people `begin` to `end` are written about."""

    name: str
    begin: int
    end: int
    multi: int
    permute: int
    fullname: bool


def groups(setting: Setting) -> list[Group]:
    """The people under test, and celebrities where there are some."""
    here, famous = setting, setting.celebrity
    found = [Group(MINORITY, 0, here.people, here.multi, here.permute, here.fullname)]
    if setting.celebrities:
        end = here.people + here.celebrities
        found.append(Group(CELEBRITY, here.people, end, famous.multi, famous.permute, famous.fullname))
    return found


def facts(people: People, persons: range) -> Iterator[Facts]:
    """What is to be told of some people, in their order."""
    told = people.pools
    columns = [people.column(name).tolist() for name in ("first", "middle", "last", "pronoun")]
    for p in persons:
        first, middle, last, pronoun = (column[p] for column in columns)
        names = told.first_names[first], told.middle_names[middle], told.last_names[last]
        yield Facts(*names, pronoun, tuple(people.value(p, attribute) for attribute in ATTRIBUTES))


def write(
    setting: Setting, seed: int, people: People, whole: Pools, tokenizer: Tokenizer, drafts: Drafts | None
) -> tuple[Composed, np.ndarray, Texts]:
    """Entries, order of the attributes (entries, 6) and texts, person after person.

    `whole` are the pools before they were shrunk: no value that a corpus leaves out may be told either. Without
    `drafts` the rule-based writer writes. Raises `WrongRequest` where it cannot tell somebody's facts clearly, and
    `GuardFailure` for a draft that is not what was accepted when it was written.
    """
    verifier = Verifier(whole)
    told: list[tuple[str, tuple[Span, ...], int]] = []
    for group in groups(setting):
        told += _group(group, seed, people, verifier, drafts)
    encoded = [_encoded(tokenizer, told[i : i + CHUNK]) for i in range(0, len(told), CHUNK)]
    ids, lengths, spans = (np.concatenate(parts) for parts in zip(*encoded, strict=True))
    entries = Composed(ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), spans)
    return entries, np.argsort(spans[:, :, 0], axis=1).astype(np.int8), _texts(told)


def _group(
    group: Group, seed: int, people: People, verifier: Verifier, drafts: Drafts | None
) -> Iterator[tuple[str, tuple[Span, ...], int]]:
    """Text, spans and attempts of each entry of a group."""
    persons = range(group.begin, group.end)
    shape = (len(persons), group.multi, max(group.permute, 1), SENTENCES if group.permute else 0)
    orders = generator(seed, f"{group.name} sentences").random(shape)
    given = [drafts(group.name, m) for m in range(group.multi)] if drafts else []
    for k, about in enumerate(facts(people, persons)):
        for m in range(group.multi):
            made: list[tuple[str, tuple[Span, ...]]] | str = []
            drafted = [given[m][k]] if given else _attempts(seed, group.name, k, m, about)
            for draft, attempt in drafted:
                made = _made(draft, about, verifier, group.fullname, orders[k, m].tolist())
                if not isinstance(made, str):
                    yield from ((text, spans, attempt) for text, spans in made)
                    break
            else:
                if given:
                    raise GuardFailure("biographies", f"{about.name}: was accepted once, but not any more: {made}")
                raise WrongRequest(f"corpus.writer.backend=rules: cannot write clearly of {about.name}: {made}")


def rejected(setting: Setting, seed: int, people: People, whole: Pools, texts: Texts) -> Iterator[tuple[int, str, str]]:
    """Person, text and reasons of the drafts that the rule-based writer threw away, written and judged again."""
    verifier, entry = Verifier(whole), 0
    for group in groups(setting):
        each = max(group.permute, 1)
        tries = texts.attempts[entry : entry + (group.end - group.begin) * group.multi * each : each]
        for number in np.flatnonzero(tries > 1).tolist():
            k, m = divmod(number, group.multi)
            (about,) = facts(people, range(group.begin + k, group.begin + k + 1))
            for draft, _ in islice(_attempts(seed, group.name, k, m, about), int(tries[number]) - 1):
                # What was accepted as it stands was rejected in other words.
                why = verifier.judge(draft, about).told or "not accepted after its sentences were changed"
                yield group.begin + k, draft, why
        entry += (group.end - group.begin) * group.multi * each


def _attempts(seed: int, group: str, person: int, m: int, about: Facts) -> Iterator[Written]:
    """Drafts of the rule-based writer, a pure function of all these."""
    for attempt in range(ATTEMPTS):
        text = rule_writer.write(about, Random(f"{seed}/{group}/{person}/{m}/{attempt}"))
        yield Written(text, attempt + 1)


def _made(
    draft: str, about: Facts, verifier: Verifier, fullname: bool, orders: Sequence[Sequence[float]]
) -> list[tuple[str, tuple[Span, ...]]] | str:
    """The entries that are made of a draft, each with spans found anew; or why one of them is rejected."""
    first, made = verifier.judge(draft, about), []
    for order in orders:
        text, found = draft, first
        if found.accepted and order:
            text = shuffled(text, found.mentions, about, order)
            found = verifier.judge(text, about)
        if found.accepted and fullname:
            text = full_names(text, found.mentions, about)
            found = verifier.judge(text, about)
        if not found.accepted:
            return found.told
        made.append((text, found.spans))
    return made


def _encoded(
    tokenizer: Tokenizer, told: Sequence[tuple[str, tuple[Span, ...], int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat ids with an EOS after each text, lengths with it, and token spans (texts, 6, 2)."""
    eos = eos_id(tokenizer)
    encodings = tokenizer.encode_batch([text for text, _, _ in told])
    ids = [token for encoding in encodings for token in (*encoding.ids, eos)]
    spans = [[_tokens(e, text, *span) for span in found] for e, (text, found, _) in zip(encodings, told, strict=True)]
    lengths = [len(encoding) + 1 for encoding in encodings]
    return np.array(ids, dtype=np.uint16), np.array(lengths), np.array(spans, dtype=np.int16)


def _tokens(encoding: Encoding, text: str, begin: int, end: int) -> tuple[int, int]:
    """The tokens that hold text[begin:end], the one with the space before it among them."""
    first, last = encoding.char_to_token(begin), encoding.char_to_token(end - 1)
    if text.isascii() and first is not None and last is not None:
        return first, last + 1
    # A letter of several bytes may take several tokens.
    holding = [k for k, (b, e) in enumerate(encoding.offsets) if b < end and e > begin]
    return holding[0], holding[-1] + 1


def _texts(told: Sequence[tuple[str, tuple[Span, ...], int]]) -> Texts:
    raw = [text.encode("utf-8") for text, _, _ in told]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in raw], dtype=np.int64)])
    attempts = np.array([attempt for _, _, attempt in told], dtype=np.int16)
    return Texts(np.frombuffer(b"".join(raw), dtype=np.uint8), offsets, attempts)
