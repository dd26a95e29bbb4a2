"""Rewording: full names in place of pronouns and partial names, and sentences in another order.

Works on any text whose mentions are known (`mentions`), a language model's too.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ktrain.mentions import Facts, Mention
from ktrain.sentences import joined, sentences
from ktrain.templates import POSSESSIVE, SUBJECT

OBJECT = ("him", "her", "them")
FAMILIES = tuple(frozenset({s, o, p}) for s, o, p in zip(SUBJECT, OBJECT, POSSESSIVE, strict=True))
_PRONOUN = re.compile(r"\b(?:he|she|they|him|her|them|his|their)\b(?!['\u2019])", re.I)
_OWNED = re.compile(r"['\u2019]s\b")
_AFTER_HER = re.compile(
    r"\W*(?:$|[.,;:!?)]|(?:and|but|as|at|by|for|from|in|into|of|on|or|since|so|than|that|through|to|until|when|where"
    r"|while|with|without|a|an|the|every|over|during|after|before|among|well|apart)\b)"
)
"""What stands behind an object, where a possessive would be followed by what it owns."""
_VERB = re.compile(
    r"\s+(?:(?:now|still|also|later|then|soon|first|always|often|currently|recently|proudly|finally|eventually|usually"
    r"|mostly|really)\s+)?(\w+)"
)
_ALSO = re.compile(r" and (are|were|have|do|work|hail|come|call|commute|earn|spend|go|keep|put|hold|serve|live|hate)\b")
_ENDS = '.!?\u2026"\u201d)'
_SINGULAR = {"were": "was", "are": "is", "have": "has", "do": "does"}
_UNCHANGED = re.compile(
    r"was|is|has|does|can|could|will|would|may|might|must|should|shall|had|did|\w+ed|\w+[^sui]s|went|took|found|got|won|met"
    r"|saw|came|began|grew|spent|built|wrote|held|kept|made|put|read|drew|chose|gave|left|set|knew|led|rose|ran|sat|stood"
    r"|taught|thought|told|became|bought|brought|caught|felt|heard|lost|paid|sent|sold|swore|threw|wore|earned|learnt"
)
"""Verbs that are the same for they and for one person."""


@dataclass(frozen=True)
class Reference:
    """The person, referred to at text[begin:end] by the `full` name, by a part of it or by a pronoun."""

    begin: int
    end: int
    case: str
    """`subject`, `object` or `possessive`; of a name without 's, `name`."""
    full: bool = False
    pronoun: bool = False


def full_names(text: str, mentions: Sequence[Mention], facts: Facts) -> str:
    """The full name in place of each pronoun and partial name; a possessive pronoun stays behind it in its sentence.

    That is how the templates of bioS have it: `Ann Bo Cy honed her skills`.
    """
    found = list(references(text, mentions))
    changes: list[tuple[int, int, str]] = []
    for begin, end in _sentences(text, mentions):
        named = False
        for r in (r for r in found if begin <= r.begin < end):
            if not r.full and not (named and r.pronoun and r.case == "possessive"):
                changes += _named(text, r, end, facts)
            named = True
    return _changed(text, changes)


def shuffled(text: str, mentions: Sequence[Mention], facts: Facts, order: Sequence[float]) -> str:
    """The sentences in the order of the numbers `order`, of which there may be more than sentences.

    The first sentence that speaks of the person has the full name; where a later one begins with it, a pronoun or the
    first name takes its place, as in the permuted entries of bioS.
    """
    bounds = _sentences(text, mentions)
    found = list(references(text, mentions))
    family = _family(found, text)
    pieces, named = [], False
    for k in sorted(range(len(bounds)), key=lambda k: order[k % len(order)]):
        begin, end = bounds[k]
        here = [r for r in found if begin <= r.begin < end]
        changes: list[tuple[int, int, str]] = []
        if here and not named:
            changes = [] if here[0].full else _named(text, here[0], end, facts)
            named = True
        elif here and here[0].full:
            changes = _unnamed(text, here[0], begin, family, facts)
        piece = _changed(text[begin:end], [(b - begin, e - begin, new) for b, e, new in changes])
        pieces.append(piece if piece[-1:] in _ENDS else f"{piece}.")
    return text[: bounds[0][0]] + " ".join(pieces) if bounds else text


def references(text: str, mentions: Sequence[Mention]) -> Iterator[Reference]:
    """All references to the person from left to right; pronouns are those of the commonest of he, she and they."""
    found = []
    for m in (m for m in mentions if m.kind == "name"):
        owned = _OWNED.match(text, m.end)
        found.append(Reference(m.begin, owned.end() if owned else m.end, "possessive" if owned else "name", m.whole))
    told = [p for p in _PRONOUN.finditer(text) if not any(m.begin <= p.start() < m.end for m in mentions)]
    counts = [sum(p.group().lower() in family for p in told) for family in FAMILIES]
    # They are often several people, he and she are seldom anybody but the person.
    mine = FAMILIES[max(range(3), key=lambda k: counts[k] / (1 + 9 * (k == 2 and counts[0] + counts[1] > 0)))]
    for p in told:
        if p.group().lower() in mine:
            found.append(Reference(p.start(), p.end(), _case(text, p), pronoun=True))
    yield from sorted(found, key=lambda r: r.begin)


def _case(text: str, pronoun: re.Match[str]) -> str:
    word = pronoun.group().lower()
    if word in SUBJECT:
        return "subject"
    if word == "her":
        return "object" if _AFTER_HER.match(text, pronoun.end()) else "possessive"
    return "object" if word in OBJECT else "possessive"


def _named(text: str, reference: Reference, end: int, facts: Facts) -> list[tuple[int, int, str]]:
    """The changes that put the full name in place of a reference, in a sentence that ends at `end`."""
    name = facts.name + ("'s" if reference.case == "possessive" else "")
    changes = [(reference.begin, reference.end, name)]
    if reference.pronoun and text[reference.begin : reference.end].lower() == "they":
        verbs = [_VERB.match(text, reference.end), _ALSO.search(text, reference.end, end)]
        changes += [(v.start(1), v.end(1), singular(v[1])) for v in verbs if v]
    return changes


def singular(verb: str) -> str:
    """The form of a verb for one person, from that for they."""
    if verb in _SINGULAR or _UNCHANGED.fullmatch(verb) or not verb.islower():
        return _SINGULAR.get(verb, verb)
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def _unnamed(
    text: str, reference: Reference, begin: int, family: int | None, facts: Facts
) -> list[tuple[int, int, str]]:
    """The changes that take a full name back, where it is not the first any more.

    He or she only where the name surely is the subject or owns something; else the first name, which fits everywhere.
    """
    owns = reference.case == "possessive"
    opens = reference.begin == begin
    if family in (0, 1) and (owns or opens):
        assert family is not None
        word = (POSSESSIVE if owns else SUBJECT)[family]
        return [(reference.begin, reference.end, word.capitalize() if opens else word)]
    if joined(facts.first) == joined(facts.last):
        return []
    return [(reference.begin, reference.end, facts.first + ("'s" if owns else ""))]


def _family(found: Iterable[Reference], text: str) -> int | None:
    """Which of he, she and they a text uses for the person."""
    words = [text[r.begin : r.end].lower() for r in found if r.pronoun]
    return next((k for k, family in enumerate(FAMILIES) if any(word in family for word in words)), None)


def _sentences(text: str, mentions: Sequence[Mention]) -> list[tuple[int, int]]:
    return sentences(text, [(m.begin, m.end) for m in mentions])


def _changed(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    pieces, last = [], 0
    for begin, end, new in sorted(changes):
        pieces += [text[last:begin], new]
        last = end
    return "".join([*pieces, text[last:]])
