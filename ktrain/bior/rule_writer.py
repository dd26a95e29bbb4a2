"""The rule-based writer of bioR: combines phrases into biographies of a free style, without a language model.

Facts come in any order, one or two to a phrase, phrases one or two to a sentence, among filler sentences without
facts. After the first mention, pronouns and parts of the name refer to the person; values may take any accepted form.
All phrases are in `data/assets/rule_writer.toml`.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import TypeVar

from ktrain.bior import surface_forms
from ktrain.bior.dates import parse_date
from ktrain.bior.mentions import Facts
from ktrain.bior.rewording import OBJECT
from ktrain.bios.templates import POSSESSIVE, SUBJECT
from ktrain.config import ATTRIBUTES

PHRASES = Path(__file__).parents[1] / "data" / "assets" / "rule_writer.toml"
PAIRS = {"birth": ("birth_date", "birth_city"), "studies": ("university", "major"), "work": ("company", "company_city")}
PHASES = {unit: phase for phase, (pair, both) in enumerate(PAIRS.items()) for unit in (pair, *both)}
PAIRED, JOINED = 0.5, 0.45
"""Probability that two facts of a pair share a phrase, and that two phrases share a sentence."""
WORDS = (49, 68)
"""Range of the target length in words, which filler sentences reach: about 72 GPT-2 tokens, as in the paper (section
2.1)."""
_TOKEN = re.compile(r"\{([^{}]*)\}|([\[\]<>/])|([^\[\]<>/{}]+)")
Phrase = Callable[["_EntryState"], str]
T = TypeVar("T")


def write(facts: Facts, rng: Random) -> str:
    """One biography with a leading space, a pure function of the facts and the state of `rng`."""
    phrases = _phrases()
    units: list[str] = []
    for pair, both in PAIRS.items():
        units += [pair] if rng.random() < PAIRED else list(both)
    _shuffle(units, rng)
    entry = _EntryState(facts, rng)
    sentences: list[str] = []
    while units:
        two = len(units) > 1 and rng.random() < JOINED
        sentences.append(_sentence([units.pop() for _ in range(1 + two)], phrases, entry))
    length = WORDS[0] + rng.random() * (WORDS[1] - WORDS[0])
    fillers: list[str] = []
    while len(fillers) < 4 and sum(s.count(" ") for s in (*sentences, *fillers)) + 8 < length:
        fillers.append(entry.sentence(_choose(phrases["filler"]["sentence"], rng)))
    for filler in fillers:
        sentences.insert(1 + int(rng.random() * len(sentences)), filler)
    return "".join(sentences)


class _EntryState:
    """The state of an entry while it is written: the current name of the person, and the spelling of each value."""

    def __init__(self, facts: Facts, rng: Random) -> None:
        self._facts, self.rng = facts, rng
        self.values = {a: _spelled(a, v, rng) for a, v in zip(ATTRIBUTES, facts.values, strict=True)}
        self._named = False
        self.plural = False
        """Whether the subject is `they`; a name is singular."""
        self._called: str | None = ""

    def begin_sentence(self) -> bool:
        """Chooses a name or pronoun for the next sentence; returns True for a name."""
        choice = self.rng.random() if self._named else 1.0
        first, last = self._facts.first, self._facts.last
        self._called = (
            None if choice < 0.58 else first if choice < 0.76 else last if choice < 0.84 else self._facts.name
        )
        self.plural = self._called is None and self._facts.pronoun == 2
        self._named = True
        return self._called is not None

    def slot(self, name: str) -> str:
        """The text of a slot."""
        pronoun = self._facts.pronoun
        match name:
            case "name":
                return self._called or SUBJECT[pronoun]
            case "whom":
                return self._called or OBJECT[pronoun]
            case "name's":
                return f"{self._called}'s" if self._called else POSSESSIVE[pronoun]
            case "he":
                return SUBJECT[pronoun] if pronoun < 2 else self._facts.first
            case "his":
                return POSSESSIVE[pronoun]
        return self.values[name]

    def sentence(self, phrase: Phrase) -> str:
        """Begins a sentence and writes it from one phrase."""
        self.begin_sentence()
        return _finish(phrase(self))


def _sentence(units: Sequence[str], phrases: dict[str, dict[str, list[Phrase]]], entry: _EntryState) -> str:
    """A sentence about one or two units."""
    rng, (unit, *more) = entry.rng, units
    if not more:
        if rng.random() < 0.35:
            return entry.sentence(_choose(phrases[unit]["sentence"], rng))
        entry.begin_sentence()
        return _finish(f"{entry.slot('name')} {_choose(phrases[unit]['predicate'], rng)(entry)}")
    (other,) = more
    named = entry.begin_sentence()
    style = rng.random()
    if style < 0.45 and PHASES[other] > PHASES[unit]:
        # Nobody is born from an office.
        unit, other = other, unit
    predicate = _choose(phrases[unit]["predicate"], rng)(entry)
    if style < 0.45:
        return _finish(f"{_choose(phrases[other]['opener'], rng)(entry)}, {entry.slot('name')} {predicate}")
    if style < 0.65 and named:
        return _finish(f"{entry.slot('name')}, {_choose(phrases[other]['apposition'], rng)(entry)}, {predicate}")
    return _finish(f"{entry.slot('name')} {_choose(phrases[other]['predicate'], rng)(entry)} and {predicate}")


def _finish(text: str) -> str:
    """Adds a leading space, a capital letter and a full stop."""
    return f" {text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def _spelled(attribute: str, value: str, rng: Random) -> str:
    """A value in one of its forms, most often the form of the answers."""
    chance = rng.random()
    if attribute == "birth_date":
        year, _, day = parse_date(value)
        name = value.partition(" ")[0]
        if chance < 0.12:
            return f"{name} {_ordinal(day)}, {year}"
        return f"{day} {name} {year}" if chance < 0.16 else value
    if attribute in ("birth_city", "company_city") and chance < 0.25:
        return _choose(surface_forms.alternative_texts("place", value) or [value], rng)
    if attribute == "company" and chance < 0.08 and re.fullmatch(r"[A-Z]\w+", value):
        return f"{value} Inc."
    if attribute == "university":
        if chance < 0.15:
            return _choose(surface_forms.alternative_texts("university", value) or [value], rng)
        return f"the {value}" if value.startswith("University ") and chance < 0.85 else value
    return value.lower() if attribute == "major" and chance < 0.02 and value != "English" else value


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def _choose(choices: Sequence[T], rng: Random) -> T:
    return choices[int(rng.random() * len(choices))]


def _shuffle(items: list[str], rng: Random) -> None:
    """Shuffles in place with `random` alone, whose numbers are the same in every version of Python."""
    for k in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (k + 1))
        items[k], items[other] = items[other], items[k]


@cache
def _phrases() -> dict[str, dict[str, list[Phrase]]]:
    """All phrases, parsed, by unit and place in a sentence."""
    with PHRASES.open("rb") as file:
        units = tomllib.load(file)
    return {
        unit: {place: [_parse(text) for text in texts] for place, texts in places.items()}
        for unit, places in units.items()
    }


def _parse(text: str) -> Phrase:
    """Parses a phrase into a function of the entry's state."""
    tokens = [(m[1] or "", m[2] or "", m[3] or "") for m in _TOKEN.finditer(text)]
    return _all(_sequence(tokens, 0, "")[0])


def _sequence(tokens: Sequence[tuple[str, str, str]], at: int, until: str) -> tuple[list[Phrase], int]:
    """Parses the parts up to one of the signs `until`; returns them and the position of this sign.

    Raises `ValueError` for a closing sign without its opening one.
    """
    parts: list[Phrase] = []
    while at < len(tokens):
        slot, sign, literal = tokens[at]
        if sign and sign in until:
            return parts, at
        if sign == "[":
            inner, at = _sequence(tokens, at + 1, "]")
            parts.append(_optional(_all(inner)))
        elif sign == "<":
            choices = []
            while sign != ">":
                inner, at = _sequence(tokens, at + 1, "/>")
                choices.append(_all(inner))
                sign = tokens[at][1]
            parts.append(_one_of(choices))
        elif sign and sign in "]>":
            raise ValueError(f"{PHRASES.name}: a {sign} has no opening sign")
        elif "|" in slot:
            parts.append(_agreement(*slot.split("|")))
        else:
            parts.append(_slot(slot) if slot else _literal(literal or sign))
        at += 1
    return parts, at


def _all(parts: Sequence[Phrase]) -> Phrase:
    return lambda entry: "".join([part(entry) for part in parts])


def _optional(part: Phrase) -> Phrase:
    return lambda entry: part(entry) if entry.rng.random() < 0.35 else ""


def _one_of(choices: Sequence[Phrase]) -> Phrase:
    return lambda entry: _choose(choices, entry.rng)(entry)


def _agreement(singular: str, plural: str) -> Phrase:
    return lambda entry: plural if entry.plural else singular


def _slot(name: str) -> Phrase:
    return lambda entry: entry.slot(name)


def _literal(text: str) -> Phrase:
    return lambda entry: text
