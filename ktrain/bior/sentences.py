"""Splits free text into sentences and words; "St. Louis", "D.C." and "Inc." do not end a sentence by themselves."""

import re
import unicodedata
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import NamedTuple

APOSTROPHE = r"['\u2019\u02bc\u00b4`]"
_WORD = re.compile(rf"[^\W_]+(?:{APOSTROPHE}[^\W_]+)*|&")
_BREAK = re.compile(r"([.!?\u2026]+)[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(\[]*(\w+))")
_OPENING = "\"'\u201c\u2018(["
_BETWEEN = re.compile(r"[\s,./()'\"\u2019\u2018\u201c\u201d\u2010-\u2014*-]{0,4}")
_STOP = re.compile(r"\.\W*\s")
_INITIALS = re.compile(r"(?:[A-Za-z]\.)*[A-Za-z]")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEVER = _set(
    "st ste ft mt dr mr mrs ms prof rev gov sen gen univ bros no vs dept est jan feb mar apr jun jul aug sep sept oct "
    "nov dec"
)
"""Abbreviations that never end a sentence."""
_SHORT = _set("st ste ft mt univ inst bros")
MAYBE = _set(
    "inc corp co cos ltd llc plc jr sr esq calif mass conn ill ind mich minn wis fla ga ala tenn tex okla ore wash "
    "colo ariz nev penn pa va md del etc"
)
"""Abbreviations that, like initials and "D.C.", end a sentence only before a word of `STARTERS` or a mention."""
STARTERS = _set(
    "he she they his her their it its the a an this that these those there in at on by for from to of with without "
    "within as after before while when where who once since during although though despite throughout following upon "
    "beyond outside apart besides today now currently later then eventually soon early still also and but so yet not "
    "born raised hailing known working employed based armed holding having being growing educated trained "
    "professionally academically off away few many most some all every each anyone everyone people friends colleagues "
    "neighbors coworkers those both another whenever wherever whether if"
)


class Word(NamedTuple):
    """A word at text[begin:end]: `folded` lacks case, accents and apostrophes, `stem` a possessive ending besides."""

    folded: str
    stem: str
    begin: int
    end: int


def split_words(text: str) -> list[Word]:
    """The words of a text; `&` is a word, and a hyphen separates two."""
    return [Word(*_folded(m.group()), m.start(), m.end()) for m in _WORD.finditer(text)]


def fold(text: str) -> str:
    """The folded words of a text, concatenated: `jpmorgan` for `J.P. Morgan`."""
    return "".join(word.folded for word in split_words(text))


@lru_cache(maxsize=1 << 16)
def _folded(word: str) -> tuple[str, str]:
    if word == "&":
        return "and", "and"
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)).casefold()
    return re.sub(APOSTROPHE, "", plain), re.sub(APOSTROPHE, "", re.sub(rf"{APOSTROPHE}s$", "", plain))


def continues(text: str, before: Word, after: Word) -> bool:
    """Whether a name or value may continue from one word to the next, across commas, hyphens and the like."""
    gap = text[before.end : after.begin]
    if gap == " ":
        return True
    sentence_ends = _STOP.match(gap) and before.folded not in _SHORT and len(before.folded) > 1
    return bool(_BETWEEN.fullmatch(gap)) and not sentence_ends


def split_sentences(text: str, unbroken: Iterable[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """Begin and end of each sentence, without the spaces between them; no sentence ends inside a span of `unbroken`.

    An abbreviation such as "Inc." ends a sentence if one of these spans follows it.
    """
    spans = list(unbroken)
    span_begins = {begin for begin, _ in spans}
    bounds, begin = [], len(text) - len(text.lstrip())
    for match in _BREAK.finditer(text):
        if not _ends_sentence(text, match, span_begins):
            continue
        if any(b < match.end() and match.start() < e - 1 for b, e in spans):
            continue
        bounds.append((begin, len(text[: match.end()].rstrip())))
        begin = match.end()
    end = len(text.rstrip())
    return [*bounds, (begin, end)] if begin < end else bounds


def _ends_sentence(text: str, match: re.Match[str], span_begins: Container[int]) -> bool:
    """Whether a sentence ends at the full stops that `match` found."""
    mark, following = match.groups()
    if not (following[0].isupper() or following[0].isdigit()):
        return False
    if mark != ".":
        return True
    last = text[text.rfind(" ", 0, match.start()) + 1 : match.start()].lstrip(_OPENING)
    if len(last) == 2 and last.isupper():
        return True  # MS is Mississippi, Ms. is not.
    if last.casefold() in NEVER:
        return False
    if last.casefold() in MAYBE or _INITIALS.fullmatch(last):
        return following.casefold() in STARTERS or match.start(2) in span_begins
    return True
