"""Mentions: where a text states a value of the pools, a date or the person's own name."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ktrain.bior.dates import find_dates, parse_date
from ktrain.bior.sentences import APOSTROPHE, Word, continues, fold, split_words
from ktrain.bior.surface_forms import VALUE_KINDS, KnownForm, all_forms, find_literal, state_forms
from ktrain.bios.pools import Pools
from ktrain.config import ATTRIBUTES

_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? $")
_TITLE_WORDS = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof"})
_POSSESSIVE = re.compile(rf"{APOSTROPHE}s\b")
_EMPLOYER_PREPOSITIONS = frozenset({"at", "for", "by", "with", "joined", "joining", "of", "from", "in"})


@dataclass(frozen=True)
class Facts:
    """The facts that a biography must state: names, pronoun (index of he, she, they) and the values of `ATTRIBUTES`."""

    first: str
    middle: str
    last: str
    pronoun: int
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """Full name."""
        return f"{self.first} {self.middle} {self.last}"

    @cached_property
    def birth_date(self) -> tuple[int, int, int]:
        """Year, month and day of birth."""
        return parse_date(self.values[0])

    @cached_property
    def values_by_kind(self) -> dict[str, frozenset[str]]:
        """The values, except the date, by kind; the kind `place` has two."""
        by_kind: dict[str, set[str]] = {}
        for attribute, value in zip(ATTRIBUTES[1:], self.values[1:], strict=True):
            by_kind.setdefault(VALUE_KINDS[attribute], set()).add(value)
        return {kind: frozenset(values) for kind, values in by_kind.items()}

    @cached_property
    def aliases(self) -> dict[str, bool]:
        """The folded names that refer to the person; True for the full name."""
        first, middle, last = map(fold, (self.first, self.middle, self.last))
        parts = (first, last, first + last, first + middle, middle, first + middle[:1] + last)
        return dict.fromkeys(parts, False) | {first + middle + last: True}

    @cached_property
    def name_words(self) -> frozenset[str]:
        """The folded words of the names, and the middle initial."""
        initial = fold(self.middle)[:1]
        return frozenset({word.folded for word in split_words(self.name)} | {initial})


@dataclass(frozen=True)
class Mention:
    """text[begin:end] stands for `values` of a kind; several where two values have one spelling.

    Kinds are those of `VALUE_KINDS`, `date`, `state` and `name`. `complete` is False for a form that states only a part
    of the value, `own` says that the value is this person's, and `unclear` marks a date such as 3/4/1999.
    """

    begin: int
    end: int
    kind: str
    values: frozenset[str]
    complete: bool
    own: bool
    unclear: bool = False


class ValueIndex:
    """Finds the forms of all values of the pools by their folded text."""

    def __init__(self, pools: Pools) -> None:
        self._by_fold: dict[str, list[KnownForm]] = {}
        self._literal: list[KnownForm] = []
        for known in all_forms(pools):
            if known.form.literal:
                self._literal.append(known)
            else:
                self._by_fold.setdefault(known.form.folded, []).append(known)
        for form in state_forms().values():
            self._by_fold.setdefault(form.folded, []).append(KnownForm("state", form.folded, form))
        self._prefixes = {folded[:k] for folded in self._by_fold for k in range(1, len(folded) + 1)}
        self.first_names, self.last_names = (frozenset(map(fold, n)) for n in (pools.first_names, pools.last_names))
        self.names = self.first_names | self.last_names | frozenset(map(fold, pools.middle_names))

    def mentions(self, text: str, facts: Facts) -> tuple[list[Mention], list[Word]]:
        """All mentions from left to right, and the words outside of them.

        Dates and literal forms come first. Among the remaining words the longest form wins; of equally long ones the
        person's own value, then the person's name.
        """
        fixed = [*_dates(text, facts), *self._literals(text, facts)]
        words = split_words(text)
        for mention in fixed:
            words = [w for w in words if not mention.begin <= w.begin < mention.end]
        folded, rest = self._folded(text, words, facts)
        return sorted([*fixed, *folded], key=lambda mention: mention.begin), rest

    def _literals(self, text: str, facts: Facts) -> Iterator[Mention]:
        """Mentions of values whose letters must match exactly."""
        for kind, value, form in self._literal:
            own = value in facts.values_by_kind.get(kind, ())
            for begin in find_literal(form, text):
                yield Mention(begin, begin + len(form.literal), kind, frozenset({value}), True, own)

    def _folded(self, text: str, words: Sequence[Word], facts: Facts) -> tuple[list[Mention], list[Word]]:
        """Mentions of names and values among `words`, and the words outside of them."""
        mentions: list[Mention] = []
        rest: list[Word] = []
        at = 0
        while at < len(words):
            mention = self._longest(text, words, at, facts)
            if mention is None:
                rest.append(words[at])
                at += 1
                continue
            mentions.append(mention)
            while at < len(words) and words[at].begin < mention.end:
                at += 1
        return mentions, rest

    def _longest(self, text: str, words: Sequence[Word], at: int, facts: Facts) -> Mention | None:
        """The longest name or value that begins at words[at]."""
        word = words[at]
        # Most words begin neither; these set look-ups decide it fast, for each word of half a million texts.
        named = self._name(text, words, at, facts) if word.stem in facts.name_words else None
        if word.folded not in self._prefixes and word.stem not in self._prefixes:
            return named
        value = self._value(text, words, at, facts)
        if value and (not named or _prefers_value(text, words, at, value, named)):
            return value
        return named

    def _value(self, text: str, words: Sequence[Word], at: int, facts: Facts) -> Mention | None:
        """The longest value that begins at words[at]."""
        prefix, longest, begin = "", None, words[at].begin
        for k in range(at, len(words)):
            word = words[k]
            if k > at and not continues(text, words[k - 1], word):
                break
            for folded, end in ((word.folded, word.end), (word.stem, word.end - 2)):
                if candidates := self._by_fold.get(prefix + folded):
                    longest = _mention(text, begin, end, candidates, facts) or longest
                if word.stem == word.folded:
                    break
            prefix += word.folded
            if prefix not in self._prefixes:
                break
        return longest

    def _name(self, text: str, words: Sequence[Word], at: int, facts: Facts) -> Mention | None:
        """The longest of the person's names that begins at words[at], with a title before it."""
        prefix, longest, begin = "", None, words[at].begin
        if text[begin].islower():
            return None
        for k in range(at, len(words)):
            word = words[k]
            if word.stem not in facts.name_words or (k > at and not continues(text, words[k - 1], word)):
                break
            end = word.end - 2 * (word.stem != word.folded)
            if (prefix + word.stem) in facts.aliases:
                full = facts.aliases[prefix + word.stem]
                title = None if full else _TITLE.search(text, max(0, begin - 6), begin)
                longest = Mention(title.start() if title else begin, end, "name", frozenset(), full, True)
            prefix += word.folded
        return longest


def _dates(text: str, facts: Facts) -> Iterator[Mention]:
    for date in find_dates(text):
        own = date.agrees(*facts.birth_date) and not date.unclear
        yield Mention(date.begin, date.end, "date", frozenset(), date.complete, own, date.unclear)


def _mention(text: str, begin: int, end: int, candidates: Sequence[KnownForm], facts: Facts) -> Mention | None:
    """The mention at text[begin:end], which folds to the candidates; the person's own values take precedence."""
    fitting = [(known, last) for known in candidates if (last := known.form.end(text, begin, end))]
    own = [(known, last) for known, last in fitting if known.value in facts.values_by_kind.get(known.kind, ())]
    chosen = own or [(known, last) for known, last in fitting if not known.form.ambiguous_alone]
    if not chosen:
        return None
    # A state is the last choice, a partial form the last within its kind.
    best, last = min(chosen, key=lambda pair: (pair[0].kind == "state", not pair[0].form.complete))
    values = frozenset(known.value for known, _ in chosen if known.kind == best.kind)
    return Mention(begin, last, best.kind, values, best.form.complete, bool(own))


def _prefers_value(text: str, words: Sequence[Word], at: int, value: Mention, named: Mention) -> bool:
    """Whether words[at] begins a value rather than a name: a longer value, or the employer in `at McCormick`."""
    name_end = named.end + 2 * bool(_POSSESSIVE.match(text, named.end))
    after_preposition = at > 0 and words[at - 1].folded in _EMPLOYER_PREPOSITIONS
    employer = value.own and value.kind == "company" and after_preposition
    return value.end > name_end or (value.end >= named.end and employer)


def other_people(
    text: str, mentions: Sequence[Mention], rest: Sequence[Word], index: ValueIndex, facts: Facts
) -> Iterator[str]:
    """Full names that are not the person's: a first name of the pools, perhaps a middle name, and a last name.

    `mentions` and `rest` come from `ValueIndex.mentions`. A name may mix names of the person with others.
    """
    foreign = [w for w in rest if w.stem in index.names and text[w.begin].isupper()]
    if not foreign:
        return
    own = [word for mention in mentions if mention.kind == "name" for word in _name_words(text, mention)]
    initials = [w for w in rest if len(w.folded) == 1]
    candidates = sorted([*foreign, *own, *initials], key=lambda word: word.begin)
    for k, first in enumerate(candidates):
        run = [first]
        for word in candidates[k + 1 : k + 4]:
            gap = text[run[-1].end : word.begin]
            if gap != " " and (gap != ". " or len(run[-1].folded) > 1):
                break
            run.append(word)
        for length in (4, 3, 2):
            if len(run) >= length and _is_other_person([word.stem for word in run[:length]], index, facts):
                yield text[run[0].begin : run[length - 1].end]
                break


def _is_other_person(run: Sequence[str], index: ValueIndex, facts: Facts) -> bool:
    """Whether two to four folded words are the name of somebody else; a middle name may be an initial."""
    own_first, own_middle, own_last = own = tuple(map(fold, (facts.first, facts.middle, facts.last)))
    if len(run) == 4:
        # The person's full name with one more name before or after it.
        name_before = tuple(run[1:]) == own and run[0] in index.names
        name_after = tuple(run[:3]) == own and run[3] in index.last_names
        return name_before or name_after
    first, *between, last = run
    # Three names in a row are a person, whichever name comes first; two may be "Young Melissa".
    begins = first in index.names if between else first in index.first_names
    if not (begins or first == own_first) or not (last in index.last_names or last == own_last):
        return False
    if between and not (between[0] in index.names or len(between[0]) == 1):
        return False
    return (first, last) != (own_first, own_last) or any(name not in (own_middle, own_middle[:1]) for name in between)


def _name_words(text: str, mention: Mention) -> list[Word]:
    """The words of a mention without titles, positioned in the whole text."""
    return [
        Word(w.folded, w.stem, w.begin + mention.begin, w.end + mention.begin)
        for w in split_words(text[mention.begin : mention.end])
        if w.folded not in _TITLE_WORDS
    ]
