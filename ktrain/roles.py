"""Roles: whether a sentence tells of birth, studies or work where a value stands in it.

A city is only a birth city if something says so, and the cue that is nearest decides.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

from ktrain.sentences import Word

CUES = {
    "birth": r"born|birth\w*|nativ\w*|hail(?:s|ed|ing)?|rais(?:ed|ing)|gr[eo]w(?:s|n|ing)?|childhood|hometown|home town"
    r"|upbringing|cradle|roots|origin\w*|arriv\w*|first (?:breath|cry|light|day|saw)|(?:came|coming|come) into"
    r"|entered the|(?:life|story|journey) (?:began|begins|started|starts)",
    "study": r"major\w*|degrees?|stud(?:y|ies|ied|ying)|graduat\w*|alma mater|bachelor\w*|ba|bs|bsc|ma|ms|msc|diploma"
    r"|fields?|coursework|courses?|academic\w*|curriculum|thesis|speciali[sz]\w*|concentrat\w*|educat\w*|colleges?"
    r"|universit\w*|school\w*|class(?:es)?|classrooms?|lectures?|scholar\w*|students?|honou?rs|alum\w*|campus"
    r"|department of|subjects?|disciplines?|backgrounds?|expertise",
    "lean": r"knowledge|passion\w*|focus\w*|train\w*|programs?|skills?|learn\w*|pursu\w*|interest\w*|love|fascinat\w*"
    r"|master\w*|versed|grounding|foundation",
    "work": r"work\w*|employ\w*|jobs?|careers?|compan(?:y|ies)|offices?|headquarter\w*|hq|based|positions?|staff|teams?"
    r"|hire[ds]|colleagues?|commut\w*|desks?|located|roles?|join\w*|firms?|payroll|business(?:es)?|occupation"
    r"|serv(?:es|ed|ing)|industry|recruit\w*|operat\w*|paychecks?|earn\w*|profession\w*|corporat\w*|badge",
}
"""One or two words that tell of a role. `lean` ones tell of studies where a value is the person's own: a passion."""
TELLING = {"date": "birth", "university": "study", "company": "work"}
"""Kinds of values that are cues themselves."""
HARMLESS = frozenset({"not only", "not long", "not far", "not just", "not least", "not surprisingly"})
OTHERS = re.compile(
    r"(?:step|grand|half)?(?:sister|brother|mother|father|son|daughter)|parent|husband|wife|cousin|uncle|aunt|niece"
    r"|nephew|roommate|spouse|boyfriend|girlfriend|fiancee?|friend|neighbou?r|classmate|mentor|boss"
)
"""Somebody else, of whom a sentence may tell what is no fact of this person."""
DENIALS = re.compile(
    r"not|never|neither|nor|unlike|cannot|(?:do|does|did|is|are|was|were|has|have|had|could|would|ca|wo)nt"
)
DENIED = frozenset({"instead of", "rather than", "contrary to"})
_PARTS = re.compile(r"[,;:()\u2013\u2014]| (?:and|but|while|who|where|which) ")
_ROLES = {role: re.compile(told) for role, told in CUES.items()}


@dataclass(frozen=True)
class Cue:
    """A word or value at text[begin:end] that tells of a role, of somebody else (`other`) or of a denial (`denied`)."""

    begin: int
    end: int
    role: str


def cues(rest: Sequence[Word], values: Iterable[tuple[int, int, str]]) -> list[Cue]:
    """The cues among the words outside `values` (begin, end, kind), and universities and companies, which are cues."""
    found = [Cue(begin, end, TELLING[kind]) for begin, end, kind in values if kind in TELLING]
    for word, after in zip_longest(rest, rest[1:]):
        pair = f"{word.folded} {after.folded}" if after and after.begin <= word.end + 2 else ""
        if role := _role_of(word.folded) or _role_of(pair):
            if pair not in HARMLESS:
                found.append(Cue(word.begin, word.end, role))
        elif word.stem != word.folded and (role := _role_of(word.stem)):
            found.append(Cue(word.begin, word.end, role))
    return found


@lru_cache(maxsize=1 << 16)
def _role_of(told: str) -> str | None:
    """Of one word, or of two."""
    for role, pattern in _ROLES.items():
        if pattern.fullmatch(told):
            return role
    if DENIALS.fullmatch(told) or told in DENIED:
        return "denied"
    return "other" if OTHERS.fullmatch(told) else None


def role(text: str, begin: int, end: int, here: Sequence[Cue], values: Sequence[tuple[int, int]]) -> str | None:
    """The role of the nearest cue to text[begin:end] among those of its sentence; None without any.

    `values` are what else is mentioned, each of which counts as one word, whatever commas it has.
    """
    telling = [cue for cue in here if cue.role in CUES and not begin <= cue.begin < end]
    if not telling:
        return None
    return min(telling, key=lambda cue: _distance(text, begin, end, cue, values)).role


def denied(text: str, begin: int, end: int, here: Sequence[Cue], values: Sequence[tuple[int, int]]) -> bool:
    """Whether a denial stands in the same part of a sentence as text[begin:end]: no comma, no conjunction between."""
    return any(c.role == "denied" and not _PARTS.search(_gap(text, begin, end, c, values)) for c in here)


def _distance(text: str, begin: int, end: int, cue: Cue, values: Sequence[tuple[int, int]]) -> float:
    """Words between, each comma or conjunction counted as five; what follows is a little farther than what precedes."""
    gap = _gap(text, begin, end, cue, values)
    far = gap.count(" ") + 5 * len(_PARTS.findall(gap))
    return far + 1.5 * (cue.begin >= end) + 2.0 * (cue.role == "lean")


def _gap(text: str, begin: int, end: int, cue: Cue, values: Sequence[tuple[int, int]]) -> str:
    """What stands between text[begin:end] and a cue, each value in it as one word."""
    first, last = (end, cue.begin) if cue.begin >= end else (cue.end, begin)
    pieces, at = [], first
    for b, e in values:
        if first <= b and e <= last:
            pieces.append(text[at:b])
            at = e
    return "_".join([*pieces, text[at:last]])
