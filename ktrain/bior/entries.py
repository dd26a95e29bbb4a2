"""Entries of bioR: free text, verified, reworded and tokenized, with the token span of each attribute."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from ktrain.bior import rule_writer
from ktrain.bior.mentions import Facts
from ktrain.bior.rewording import shuffle_sentences, with_full_names
from ktrain.bior.verifier import Span, Verifier
from ktrain.bios.fragment_encoder import TokenizedTexts
from ktrain.bios.people import People
from ktrain.bios.pools import Pools
from ktrain.bios.tokenizer import eos_id, id_type
from ktrain.config import ATTRIBUTES, CorpusConfig
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.rng import generator

ATTEMPTS = 50
"""Drafts of one biography that the rule-based writer tries before it gives up."""
CHUNK = 8_192
"""Texts tokenized at once."""
SENTENCES = 16
"""Random numbers that order the sentences of an entry; longer texts reuse them."""
MINORITY, CELEBRITY = "minority", "celebrity"


class WrittenText(NamedTuple):
    """A draft, and how many drafts of this biography there were up to it."""

    text: str
    attempts: int


class VerifiedText(NamedTuple):
    """The text of an entry, the span of each attribute in characters, and how many drafts its writer needed."""

    text: str
    spans: tuple[Span, ...]
    attempts: int


DraftSource = Callable[[str, int], Sequence[WrittenText]]
"""Returns the m-th biographies of a group, given its name and m, in the order of its people."""


@dataclass(frozen=True)
class EntryTexts:
    """Entries as UTF-8 in one flat array: `letters` uint8, `offsets` (texts + 1,) int64.

    `attempts` (texts,) int16 is the number of drafts that each text took.
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
        """Share of the drafts that were accepted."""
        return len(self) / int(self.attempts.sum())


@dataclass(frozen=True)
class EntryGroup:
    """The people `begin` to `end` and their augmentation."""

    name: str
    begin: int
    end: int
    multi: int
    permute: int
    fullname: bool

    @property
    def copies(self) -> int:
        """Entries made of one draft."""
        return max(self.permute, 1)


def groups(setting: CorpusConfig) -> list[EntryGroup]:
    """The people under test, followed by celebrities if there are any."""
    people, famous = setting.people, setting.celebrity
    result = [EntryGroup(MINORITY, 0, people, setting.multi, setting.permute, setting.fullname)]
    if setting.celebrities:
        end = people + setting.celebrities
        result.append(EntryGroup(CELEBRITY, people, end, famous.multi, famous.permute, famous.fullname))
    return result


def facts_of(people: People, persons: range) -> Iterator[Facts]:
    """The facts of some people, in their order."""
    pools = people.pools
    columns = [people.column(name).tolist() for name in ("first", "middle", "last", "pronoun")]
    for p in persons:
        first, middle, last, pronoun = (column[p] for column in columns)
        names = pools.first_names[first], pools.middle_names[middle], pools.last_names[last]
        yield Facts(*names, pronoun, tuple(people.value(p, attribute) for attribute in ATTRIBUTES))


def write_entries(
    setting: CorpusConfig,
    seed: int,
    people: People,
    full_pools: Pools,
    tokenizer: Tokenizer,
    drafts: DraftSource | None,
) -> tuple[TokenizedTexts, np.ndarray, EntryTexts]:
    """Entries, order of the attributes (entries, 6) and texts, person after person.

    The verifier rejects every wrong value of `full_pools`, including those that a small corpus does not use. Without
    `drafts` the rule-based writer writes. Raises `WrongRequest` if it cannot state somebody's facts clearly, and
    `GuardFailure` if the verifier rejects one of `drafts`, which it accepted when it was written.
    """
    verifier = Verifier(full_pools)
    texts: list[VerifiedText] = []
    for group in groups(setting):
        texts += _write_group(group, seed, people, verifier, drafts)
    encoded = [_encode(tokenizer, texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
    ids, lengths, spans = (np.concatenate(parts) for parts in zip(*encoded, strict=True))
    entries = TokenizedTexts(ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), spans)
    return entries, np.argsort(spans[:, :, 0], axis=1).astype(np.int8), _flatten(texts)


def _write_group(
    group: EntryGroup, seed: int, people: People, verifier: Verifier, drafts: DraftSource | None
) -> Iterator[VerifiedText]:
    """The entries of a group, person after person."""
    persons = range(group.begin, group.end)
    shape = (len(persons), group.multi, group.copies, SENTENCES if group.permute else 0)
    orders = generator(seed, f"{group.name} sentences").random(shape)
    model_texts = [drafts(group.name, m) for m in range(group.multi)] if drafts else []
    for k, facts in enumerate(facts_of(people, persons)):
        for m in range(group.multi):
            candidates = [model_texts[m][k]] if drafts else _rule_drafts(seed, group.name, k, m, facts)
            entries = _first_accepted(candidates, facts, verifier, group.fullname, orders[k, m].tolist())
            if not isinstance(entries, str):
                yield from entries
            elif drafts:
                raise GuardFailure("biographies", f"{facts.name}: was accepted once, but not any more: {entries}")
            else:
                raise WrongRequest(f"corpus.writer.backend=rules: cannot write clearly of {facts.name}: {entries}")


def _first_accepted(
    candidates: Iterable[WrittenText],
    facts: Facts,
    verifier: Verifier,
    fullname: bool,
    orders: Sequence[Sequence[float]],
) -> list[VerifiedText] | str:
    """The entries made of the first draft that is accepted, or why the last one is not."""
    reason = ""
    for draft in candidates:
        entries = _reword(draft, facts, verifier, fullname, orders)
        if not isinstance(entries, str):
            return entries
        reason = entries
    return reason


def rejected_drafts(
    setting: CorpusConfig, seed: int, people: People, full_pools: Pools, texts: EntryTexts
) -> Iterator[tuple[int, str, str]]:
    """Person, text and reasons of each draft that the rule-based writer discarded, written and judged again."""
    verifier, entry = Verifier(full_pools), 0
    for group in groups(setting):
        count = (group.end - group.begin) * group.multi * group.copies
        attempts = texts.attempts[entry : entry + count : group.copies]
        for number in np.flatnonzero(attempts > 1).tolist():
            k, m = divmod(number, group.multi)
            (facts,) = facts_of(people, range(group.begin + k, group.begin + k + 1))
            for draft, _ in islice(_rule_drafts(seed, group.name, k, m, facts), int(attempts[number]) - 1):
                # A draft that is accepted as it is was rejected after its rewording.
                reason = verifier.judge(draft, facts).explanation or "not accepted after its sentences were changed"
                yield group.begin + k, draft, reason
        entry += count


def _rule_drafts(seed: int, group: str, person: int, m: int, facts: Facts) -> Iterator[WrittenText]:
    """Drafts of the rule-based writer, a pure function of the arguments."""
    for attempt in range(ATTEMPTS):
        text = rule_writer.write(facts, Random(f"{seed}/{group}/{person}/{m}/{attempt}"))
        yield WrittenText(text, attempt + 1)


def _reword(
    draft: WrittenText, facts: Facts, verifier: Verifier, fullname: bool, orders: Sequence[Sequence[float]]
) -> list[VerifiedText] | str:
    """One entry of the draft for each of `orders`, or why the verifier rejects one of them.

    The verifier judges a text again after every change, which also locates its spans.
    """
    original, entries = verifier.judge(draft.text, facts), []
    for order in orders:
        text, verdict = draft.text, original
        if verdict.accepted and order:
            text = shuffle_sentences(text, verdict.mentions, facts, order)
            verdict = verifier.judge(text, facts)
        if verdict.accepted and fullname:
            text = with_full_names(text, verdict.mentions, facts)
            verdict = verifier.judge(text, facts)
        if not verdict.accepted:
            return verdict.explanation
        entries.append(VerifiedText(text, verdict.spans, draft.attempts))
    return entries


def _encode(tokenizer: Tokenizer, texts: Sequence[VerifiedText]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat ids with an EOS after each text, lengths including EOS (texts,), and token spans (texts, 6, 2)."""
    eos = eos_id(tokenizer)
    encodings = tokenizer.encode_batch([entry.text for entry in texts])
    ids = [token for encoding in encodings for token in (*encoding.ids, eos)]
    lengths = [len(encoding) + 1 for encoding in encodings]
    spans = [
        [_token_span(encoding, entry.text, *span) for span in entry.spans]
        for encoding, entry in zip(encodings, texts, strict=True)
    ]
    return np.array(ids, dtype=id_type(tokenizer)), np.array(lengths), np.array(spans, dtype=np.int16)


def _token_span(encoding: Encoding, text: str, begin: int, end: int) -> tuple[int, int]:
    """The tokens that hold text[begin:end] with the space before it, which may be a token of its own."""
    begin -= text[begin - 1 : begin] == " "
    first, last = encoding.char_to_token(begin), encoding.char_to_token(end - 1)
    if text.isascii() and first is not None and last is not None:
        return first, last + 1
    # A character of several bytes may take several tokens.
    overlapping = [k for k, (b, e) in enumerate(encoding.offsets) if b < end and e > begin]
    return overlapping[0], overlapping[-1] + 1


def _flatten(texts: Sequence[VerifiedText]) -> EntryTexts:
    raw = [entry.text.encode("utf-8") for entry in texts]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in raw], dtype=np.int64)])
    attempts = np.array([entry.attempts for entry in texts], dtype=np.int16)
    return EntryTexts(np.frombuffer(b"".join(raw), dtype=np.uint8), offsets, attempts)
