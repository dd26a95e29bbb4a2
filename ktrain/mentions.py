"""Mentions: every place of a text at which a value of the pools, a date or the person's own name stands."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ktrain.config import ATTRIBUTES
from ktrain.dates import dates, parsed
from ktrain.forms import KINDS, Form, every, literal, states
from ktrain.pools import Pools
from ktrain.sentences import APOSTROPHE, Word, goes_on, joined, words

_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? $")
_OWNED = re.compile(rf"{APOSTROPHE}s\b")
_AT = frozenset({"at", "for", "by", "with", "joined", "joining", "of", "from", "in"})


@dataclass(frozen=True)
class Facts:
    """What a biography has to tell of one person: names, pronoun (he, she, they) and the values of `ATTRIBUTES`."""

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
    def born(self) -> tuple[int, int, int]:
        """Year, month and day of birth."""
        return parsed(self.values[0])

    @cached_property
    def own(self) -> dict[str, frozenset[str]]:
        """The values by kind; a place has two."""
        found: dict[str, set[str]] = {}
        for attribute, value in zip(ATTRIBUTES[1:], self.values[1:], strict=True):
            found.setdefault(KINDS[attribute], set()).add(value)
        return {kind: frozenset(values) for kind, values in found.items()}

    @cached_property
    def called(self) -> dict[str, bool]:
        """The folded names by which the person goes, and whether each is the full one."""
        first, middle, last = map(joined, (self.first, self.middle, self.last))
        parts = (first, last, first + last, first + middle, middle, first + middle[:1] + last)
        return dict.fromkeys(parts, False) | {first + middle + last: True}

    @cached_property
    def words(self) -> frozenset[str]:
        """The folded words of the names."""
        initial = joined(self.middle)[:1]
        return frozenset({word.folded for word in words(self.name)} | {initial})


@dataclass(frozen=True)
class Mention:
    """`values` of a kind at text[begin:end]; several where two values are written alike.

    Kinds are those of `forms.KINDS`, `date`, `state` and `name`. `own` says whether it is this person's.
    """

    begin: int
    end: int
    kind: str
    values: frozenset[str]
    whole: bool
    own: bool
    unclear: bool = False


class Index:
    """The forms of all values of the pools, found by what they fold to."""

    def __init__(self, pools: Pools) -> None:
        self._found: dict[str, list[tuple[str, str, Form]]] = {}
        self._literal: list[tuple[str, str, Form]] = []
        for kind, value, form in every(pools):
            (self._literal if form.literal else self._found.setdefault(form.folded, [])).append((kind, value, form))
        for form in states().values():
            self._found.setdefault(form.folded, []).append(("state", form.folded, form))
        self._heads = {folded[:k] for folded in self._found for k in range(1, len(folded) + 1)}
        self.first_names, self.last_names = (frozenset(map(joined, n)) for n in (pools.first_names, pools.last_names))
        self.names = self.first_names | self.last_names | frozenset(map(joined, pools.middle_names))

    def mentions(self, text: str, facts: Facts) -> tuple[list[Mention], list[Word]]:
        """All mentions from left to right, and the words that are in none.

        The longest form wins; among forms of one length the person's own values do, then the person's names.
        """
        found: list[Mention] = []
        rest: list[Word] = []
        for date in dates(text):
            own = date.agrees(*facts.born) and not date.unclear
            found.append(Mention(date.begin, date.end, "date", frozenset(), date.whole, own, date.unclear))
        for kind, value, form in self._literal:
            own = value in facts.own.get(kind, ())
            ends = ((begin, begin + len(form.literal)) for begin in literal(form, text))
            found += [Mention(begin, end, kind, frozenset({value}), True, own) for begin, end in ends]
        everything = words(text)
        for taken in found:
            everything = [w for w in everything if not taken.begin <= w.begin < taken.end]
        at = 0
        while at < len(everything):
            word = everything[at]
            # Most words begin nothing, and this is asked of half a million texts.
            named = self._name(text, everything, at, facts) if word.stem in facts.words else None
            begins = word.folded in self._heads or word.stem in self._heads
            meant = self._value(text, everything, at, facts) if begins else None
            best = named
            if meant and (not named or _outreaches(text, everything, at, meant, named)):
                best = meant
            if best is None:
                rest.append(word)
                at += 1
                continue
            found.append(best)
            while at < len(everything) and everything[at].begin < best.end:
                at += 1
        return sorted(found, key=lambda mention: mention.begin), rest

    def _value(self, text: str, seen: Sequence[Word], at: int, facts: Facts) -> Mention | None:
        """The longest value that begins at a word."""
        told, best, begin = "", None, seen[at].begin
        for k in range(at, len(seen)):
            word = seen[k]
            if k > at and not goes_on(text, seen[k - 1], word):
                break
            for folded, end in ((word.folded, word.end), (word.stem, word.end - 2)):
                if hits := self._found.get(told + folded):
                    best = _mention(text, begin, end, hits, facts) or best
                if word.stem == word.folded:
                    break
            told += word.folded
            if told not in self._heads:
                break
        return best

    def _name(self, text: str, seen: Sequence[Word], at: int, facts: Facts) -> Mention | None:
        """The longest of the person's names that begins at a word."""
        told, best, begin = "", None, seen[at].begin
        if text[begin].islower():
            return None
        for k in range(at, len(seen)):
            word = seen[k]
            if word.stem not in facts.words or (k > at and not goes_on(text, seen[k - 1], word)):
                break
            end = word.end - 2 * (word.stem != word.folded)
            if (told + word.stem) in facts.called:
                full = facts.called[told + word.stem]
                titled = None if full else _TITLE.search(text, max(0, begin - 6), begin)
                best = Mention(titled.start() if titled else begin, end, "name", frozenset(), full, True)
            told += word.folded
        return best


def _mention(text: str, begin: int, end: int, hits: Sequence[tuple[str, str, Form]], facts: Facts) -> Mention | None:
    """What text[begin:end] stands for, the person's own values before all others."""
    fitting = [(kind, value, form, last) for kind, value, form in hits if (last := form.end(text, begin, end))]
    own = [hit for hit in fitting if hit[1] in facts.own.get(hit[0], ())]
    for chosen, mine in ((own, True), ([hit for hit in fitting if not hit[2].loose], False)):
        if chosen:
            chosen = sorted(chosen, key=lambda hit: (hit[0] == "state", not hit[2].whole))
            kind, _, form, last = chosen[0]
            values = frozenset(value for k, value, *_ in chosen if k == kind)
            return Mention(begin, last, kind, values, form.whole, mine)
    return None


def _outreaches(text: str, seen: Sequence[Word], at: int, value: Mention, named: Mention) -> bool:
    """Whether a value is meant where the person's name could be: a longer one, or their employer `at McCormick`."""
    reach = named.end + 2 * bool(_OWNED.match(text, named.end))
    employer = value.own and value.kind == "company" and at > 0 and seen[at - 1].folded in _AT
    return value.end > reach or (value.end >= named.end and employer)


def strangers(text: str, found: Sequence[Mention], rest: Sequence[Word], index: Index, facts: Facts) -> Iterator[str]:
    """Names of other people: a first name of the pools, perhaps a middle one, and a last one, not all the person's."""
    others = [w for w in rest if w.stem in index.names and text[w.begin].isupper()]
    if not others:
        return
    ours = [word for mention in found if mention.kind == "name" for word in _inside(text, mention)]
    known = sorted([*others, *ours, *(w for w in rest if len(w.folded) == 1)], key=lambda word: word.begin)
    for k, first in enumerate(known):
        run = [first]
        for word in known[k + 1 : k + 4]:
            gap = text[run[-1].end : word.begin]
            if gap != " " and (gap != ". " or len(run[-1].folded) > 1):
                break
            run.append(word)
        for length in (4, 3, 2):
            if len(run) >= length and _stranger([word.stem for word in run[:length]], index, facts):
                yield text[run[0].begin : run[length - 1].end]
                break


def _stranger(run: Sequence[str], index: Index, facts: Facts) -> bool:
    """Whether two to four words are the name of somebody else; a middle name may be an initial."""
    mine = tuple(map(joined, (facts.first, facts.middle, facts.last)))
    if len(run) == 4:
        # The person's own name, and a name more before it or after it.
        return (tuple(run[1:]) == mine and run[0] in index.names) or (
            tuple(run[:3]) == mine and run[3] in index.last_names
        )
    first, *between, last = run
    # Three names in a row are a person, whatever the first one is; two may be "Young Melissa".
    begins = first in index.names if between else first in index.first_names
    if not (begins or first == mine[0]) or not (last in index.last_names or last == mine[2]):
        return False
    if between and not (between[0] in index.names or len(between[0]) == 1):
        return False
    return (first, last) != (mine[0], mine[2]) or any(name not in (mine[1], mine[1][:1]) for name in between)


def _inside(text: str, mention: Mention) -> list[Word]:
    return [
        Word(w.folded, w.stem, w.begin + mention.begin, w.end + mention.begin)
        for w in words(text[mention.begin : mention.end])
        if w.folded not in ("mr", "mrs", "ms", "miss", "dr", "prof")
    ]
