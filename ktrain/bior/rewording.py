"""Rewording: replaces pronouns and partial names by full names, and shuffles sentences.

It works on any text whose mentions are known (see `mentions`), including those of a language model.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ktrain.bior.mentions import Facts, Mention
from ktrain.bior.sentences import fold, split_sentences
from ktrain.bios.templates import POSSESSIVE, SUBJECT

OBJECT = ("him", "her", "them")
FAMILIES = tuple(frozenset({s, o, p}) for s, o, p in zip(SUBJECT, OBJECT, POSSESSIVE, strict=True))
_PRONOUN = re.compile(r"\b(?:he|she|they|him|her|them|his|their)\b(?!['\u2019])", re.I)
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_AFTER_HER = re.compile(
    r"\W*(?:$|[.,;:!?)]|(?:and|but|as|at|by|for|from|in|into|of|on|or|since|so|than|that|through|to|until|when|where"
    r"|while|with|without|a|an|the|every|over|during|after|before|among|well|apart)\b)"
)
"""What follows `her` as an object; after a possessive `her` a noun follows."""
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
"""Verbs with one form for `they` and for one person."""


@dataclass(frozen=True)
class Reference:
    """A reference to the person at text[begin:end]: the `full` name, a part of it or a `pronoun`."""

    begin: int
    end: int
    case: str
    """`subject`, `object`, `possessive`, or `name` for a name without 's."""
    full: bool = False
    pronoun: bool = False


def with_full_names(text: str, mentions: Sequence[Mention], facts: Facts) -> str:
    """Replaces pronouns and partial names by the full name.

    A possessive pronoun stays if its sentence has named the person before, as in the templates of bioS:
    `Ann Bo Cy honed her skills`.
    """
    references = list(find_references(text, mentions))
    changes: list[tuple[int, int, str]] = []
    for begin, end in _sentences(text, mentions):
        named = False
        for r in (r for r in references if begin <= r.begin < end):
            stays = named and r.pronoun and r.case == "possessive"
            if not r.full and not stays:
                changes += _to_full_name(text, r, end, facts)
            named = True
    return _apply(text, changes)


def shuffle_sentences(text: str, mentions: Sequence[Mention], facts: Facts, order: Sequence[float]) -> str:
    """Sorts the sentences by the numbers `order`, which repeat if there are fewer than sentences.

    The first sentence that refers to the person gets the full name. Where a later one begins with it, a pronoun or the
    first name takes its place, as in the permuted entries of bioS.
    """
    bounds = _sentences(text, mentions)
    if not bounds:
        return text
    references = list(find_references(text, mentions))
    family = _family(references, text)
    pieces, named = [], False
    for k in sorted(range(len(bounds)), key=lambda k: order[k % len(order)]):
        begin, end = bounds[k]
        first = next((r for r in references if begin <= r.begin < end), None)
        changes: list[tuple[int, int, str]] = []
        if first and not named:
            changes = [] if first.full else _to_full_name(text, first, end, facts)
            named = True
        elif first and first.full:
            changes = _to_short_name(text, first, begin, family, facts)
        piece = _apply(text[begin:end], [(b - begin, e - begin, new) for b, e, new in changes])
        pieces.append(piece if piece[-1:] in _ENDS else f"{piece}.")
    return text[: bounds[0][0]] + " ".join(pieces)


def find_references(text: str, mentions: Sequence[Mention]) -> Iterator[Reference]:
    """All references to the person from left to right: names, and the pronouns of one of he, she and they."""
    references = []
    for m in (m for m in mentions if m.kind == "name"):
        suffix = _POSSESSIVE.match(text, m.end)
        end, case = (suffix.end(), "possessive") if suffix else (m.end, "name")
        references.append(Reference(m.begin, end, case, m.complete))
    pronouns = [p for p in _PRONOUN.finditer(text) if not any(m.begin <= p.start() < m.end for m in mentions)]
    he, she, they = (sum(p.group().lower() in family for p in pronouns) for family in FAMILIES)
    # "They" are often several people, whereas "he" and "she" seldom mean anybody but the person.
    weights = (he, she, they / 10 if he + she else they)
    family = FAMILIES[weights.index(max(weights))]
    for p in pronouns:
        if p.group().lower() in family:
            references.append(Reference(p.start(), p.end(), _case(text, p), pronoun=True))
    yield from sorted(references, key=lambda r: r.begin)


def _case(text: str, pronoun: re.Match[str]) -> str:
    word = pronoun.group().lower()
    if word in SUBJECT:
        return "subject"
    if word == "her":
        return "object" if _AFTER_HER.match(text, pronoun.end()) else "possessive"
    return "object" if word in OBJECT else "possessive"


def _to_full_name(text: str, reference: Reference, end: int, facts: Facts) -> list[tuple[int, int, str]]:
    """Changes that replace a reference by the full name, in a sentence that ends at `end`."""
    name = facts.name + ("'s" if reference.case == "possessive" else "")
    changes = [(reference.begin, reference.end, name)]
    if reference.pronoun and text[reference.begin : reference.end].lower() == "they":
        verbs = [_VERB.match(text, reference.end), _ALSO.search(text, reference.end, end)]
        changes += [(v.start(1), v.end(1), singular(v[1])) for v in verbs if v]
    return changes


def singular(verb: str) -> str:
    """The form of a verb for one person, given the form for `they`."""
    if verb in _SINGULAR or _UNCHANGED.fullmatch(verb) or not verb.islower():
        return _SINGULAR.get(verb, verb)
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def _to_short_name(
    text: str, reference: Reference, begin: int, family: int | None, facts: Facts
) -> list[tuple[int, int, str]]:
    """Changes that shorten a full name in a sentence that begins at `begin`.

    `he` or `she` replaces a possessive or the first word, which surely is the subject; the first name fits elsewhere.
    """
    possessive = reference.case == "possessive"
    first_word = reference.begin == begin
    if family in (0, 1) and (possessive or first_word):
        assert family is not None
        word = (POSSESSIVE if possessive else SUBJECT)[family]
        return [(reference.begin, reference.end, word.capitalize() if first_word else word)]
    if fold(facts.first) == fold(facts.last):
        return []
    return [(reference.begin, reference.end, facts.first + ("'s" if possessive else ""))]


def _family(references: Iterable[Reference], text: str) -> int | None:
    """The index in `FAMILIES` of the pronoun that a text uses for the person; None without any."""
    words = [text[r.begin : r.end].lower() for r in references if r.pronoun]
    return next((k for k, family in enumerate(FAMILIES) if any(word in family for word in words)), None)


def _sentences(text: str, mentions: Sequence[Mention]) -> list[tuple[int, int]]:
    """Bounds of the sentences, none of which ends inside a mention."""
    return split_sentences(text, [(m.begin, m.end) for m in mentions])


def _apply(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """Replaces text[begin:end] by `new` for each (begin, end, new)."""
    pieces, last = [], 0
    for begin, end, new in sorted(changes):
        pieces += [text[last:begin], new]
        last = end
    return "".join([*pieces, text[last:]])
