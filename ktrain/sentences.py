"""Sentences and words of free text: where they begin and end, safe for "St. Louis", "D.C." and "Inc."."""

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
"""Abbreviations after which no sentence ends."""
_SHORT = _set("st ste ft mt univ inst bros")
MAYBE = _set(
    "inc corp co cos ltd llc plc jr sr esq calif mass conn ill ind mich minn wis fla ga ala tenn tex okla ore wash "
    "colo ariz nev penn pa va md del etc"
)
"""Abbreviations, like initials and "D.C.", after which one ends if the next word often begins one."""
STARTERS = _set(
    "he she they his her their it its the a an this that these those there in at on by for from to of with without "
    "within as after before while when where who once since during although though despite throughout following upon "
    "beyond outside apart besides today now currently later then eventually soon early still also and but so yet not "
    "born raised hailing known working employed based armed holding having being growing educated trained "
    "professionally academically off away few many most some all every each anyone everyone people friends colleagues "
    "neighbors coworkers those both another whenever wherever whether if"
)


class Word(NamedTuple):
    """A word at text[begin:end]: `folded` has no case, accents or apostrophes; `stem` lacks a possessive ending too."""

    folded: str
    stem: str
    begin: int
    end: int


def words(text: str) -> list[Word]:
    """The words of a text; `&` is one, and a hyphen parts two."""
    return [Word(*_folded(m.group()), m.start(), m.end()) for m in _WORD.finditer(text)]


def joined(text: str) -> str:
    """The folded words of a text without anything between them: `J.P. Morgan` as `jpmorgan`."""
    return "".join(word.folded for word in words(text))


@lru_cache(maxsize=1 << 16)
def _folded(word: str) -> tuple[str, str]:
    if word == "&":
        return "and", "and"
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)).casefold()
    return re.sub(APOSTROPHE, "", plain), re.sub(APOSTROPHE, "", re.sub(rf"{APOSTROPHE}s$", "", plain))


def goes_on(text: str, before: Word, after: Word) -> bool:
    """Whether a name or value may go on from one word to the next, over commas, hyphens and the like."""
    gap = text[before.end : after.begin]
    if gap == " ":
        return True
    stopped = _STOP.match(gap) and before.folded not in _SHORT and len(before.folded) > 1
    return bool(_BETWEEN.fullmatch(gap)) and not stopped


def sentences(text: str, whole: Iterable[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """Begin and end of each sentence, without the spaces between them; none ends inside the spans `whole`.

    Behind "Inc." a sentence ends too where one of them begins.
    """
    kept = list(whole)
    begins = {begin for begin, _ in kept}
    bounds, begin = [], len(text) - len(text.lstrip())
    for match in _BREAK.finditer(text):
        if _ends(text, match, begins) and not any(b < match.end() and match.start() < e - 1 for b, e in kept):
            bounds.append((begin, len(text[: match.end()].rstrip())))
            begin = match.end()
    end = len(text.rstrip())
    return [*bounds, (begin, end)] if begin < end else bounds


def _ends(text: str, match: re.Match[str], begins: Container[int]) -> bool:
    """Whether a sentence ends at these full stops."""
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
        return following.casefold() in STARTERS or match.start(2) in begins
    return True
