"""Context cues: words that tell whether a sentence is about birth, studies or work.

A city is a birth city only if the text says so; the cue nearest to a value decides its role.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

from ktrain.bior.sentences import Word

ROLE_PATTERNS = {
    "birth": r"born|birth\w*|nativ\w*|hail(?:s|ed|ing)?|rais(?:ed|ing)|gr[eo]w(?:s|n|ing)?|childhood|hometown|home town"
    r"|upbringing|cradle|roots|origin\w*|arriv\w*|first (?:breath|cry|light|day|saw)|(?:came|coming|come) into"
    r"|entered the|(?:life|story|journey) (?:began|begins|started|starts)",
    "study": r"major\w*|degrees?|stud(?:y|ies|ied|ying)|graduat\w*|alma mater|bachelor\w*|ba|bs|bsc|ma|ms|msc|diploma"
    r"|fields?|coursework|courses?|academic\w*|curriculum|thesis|speciali[sz]\w*|concentrat\w*|educat\w*|colleges?"
    r"|universit\w*|school\w*|class(?:es)?|classrooms?|lectures?|scholar\w*|students?|honou?rs|alum\w*|campus"
    r"|department of|subjects?|disciplines?|backgrounds?|expertise",
    "weak_study": r"knowledge|passion\w*|focus\w*|train\w*|programs?|skills?|learn\w*|pursu\w*|interest\w*|love"
    r"|fascinat\w*|master\w*|versed|grounding|foundation",
    "work": r"work\w*|employ\w*|jobs?|careers?|compan(?:y|ies)|offices?|headquarter\w*|hq|based|positions?|staff|teams?"
    r"|hire[ds]|colleagues?|commut\w*|desks?|located|roles?|join\w*|firms?|payroll|business(?:es)?|occupation"
    r"|serv(?:es|ed|ing)|industry|recruit\w*|operat\w*|paychecks?|earn\w*|profession\w*|corporat\w*|badge",
}
"""Patterns of one or two words for each role. `weak_study` words, such as `passion`, indicate studies only if the value
near them is the person's own."""
KIND_ROLES = {"date": "birth", "university": "study", "company": "work"}
"""Kinds of values that are cues themselves, with their roles."""
POSITIVE_PAIRS = frozenset({"not only", "not long", "not far", "not just", "not least", "not surprisingly"})
OTHER_PERSON = re.compile(
    r"(?:step|grand|half)?(?:sister|brother|mother|father|son|daughter)|parent|husband|wife|cousin|uncle|aunt|niece"
    r"|nephew|roommate|spouse|boyfriend|girlfriend|fiancee?|friend|neighbou?r|classmate|mentor|boss"
)
"""Words for somebody else, whose facts are not this person's."""
DENIALS = re.compile(
    r"not|never|neither|nor|unlike|cannot|(?:do|does|did|is|are|was|were|has|have|had|could|would|ca|wo)nt"
)
DENIAL_PAIRS = frozenset({"instead of", "rather than", "contrary to"})
_PARTS = re.compile(r"[,;:()\u2013\u2014]| (?:and|but|while|who|where|which) ")
_ROLES = {role: re.compile(pattern) for role, pattern in ROLE_PATTERNS.items()}


@dataclass(frozen=True)
class ContextCue:
    """A word or value at text[begin:end] that indicates a role, somebody else (`other`) or a denial (`denied`)."""

    begin: int
    end: int
    role: str


def find_cues(rest: Sequence[Word], values: Iterable[tuple[int, int, str]]) -> list[ContextCue]:
    """The cues among `values` (begin, end, kind), such as companies, and among `rest`, the words outside of them."""
    cues = [ContextCue(begin, end, KIND_ROLES[kind]) for begin, end, kind in values if kind in KIND_ROLES]
    for word, after in zip_longest(rest, rest[1:]):
        pair = f"{word.folded} {after.folded}" if after and after.begin <= word.end + 2 else ""
        if role := _role_of(word.folded) or _role_of(pair):
            if pair not in POSITIVE_PAIRS:
                cues.append(ContextCue(word.begin, word.end, role))
        elif word.stem != word.folded and (role := _role_of(word.stem)):
            cues.append(ContextCue(word.begin, word.end, role))
    return cues


@lru_cache(maxsize=1 << 16)
def _role_of(words: str) -> str | None:
    """The role that one or two words indicate."""
    for role, pattern in _ROLES.items():
        if pattern.fullmatch(words):
            return role
    if DENIALS.fullmatch(words) or words in DENIAL_PAIRS:
        return "denied"
    return "other" if OTHER_PERSON.fullmatch(words) else None


def nearest_role(
    text: str, begin: int, end: int, cues: Sequence[ContextCue], values: Sequence[tuple[int, int]]
) -> str | None:
    """The role of the cue nearest to text[begin:end]; None without any.

    `cues` are those of its sentence. Each span of `values` counts as one word, even if it has commas.
    """
    role_cues = [cue for cue in cues if cue.role in ROLE_PATTERNS and not begin <= cue.begin < end]
    if not role_cues:
        return None
    return min(role_cues, key=lambda cue: _distance(text, begin, end, cue, values)).role


def is_denied(text: str, begin: int, end: int, cues: Sequence[ContextCue], values: Sequence[tuple[int, int]]) -> bool:
    """Whether a denial is in the same part of the sentence as text[begin:end]: no comma or conjunction between them."""
    return any(c.role == "denied" and not _PARTS.search(_gap(text, begin, end, c, values)) for c in cues)


def _distance(text: str, begin: int, end: int, cue: ContextCue, values: Sequence[tuple[int, int]]) -> float:
    """Number of words in between, where a comma or conjunction counts as five more.

    Of two equally distant cues the one before the value is nearer; a weak cue is two words farther.
    """
    gap = _gap(text, begin, end, cue, values)
    words = gap.count(" ") + 5 * len(_PARTS.findall(gap))
    return words + 1.5 * (cue.begin >= end) + 2.0 * (cue.role == "weak_study")


def _gap(text: str, begin: int, end: int, cue: ContextCue, values: Sequence[tuple[int, int]]) -> str:
    """The text between text[begin:end] and a cue, with each value in it replaced by one word."""
    first, last = (end, cue.begin) if cue.begin >= end else (cue.end, begin)
    pieces, at = [], first
    for value_begin, value_end in values:
        if first <= value_begin and value_end <= last:
            pieces.append(text[at:value_begin])
            at = value_end
    return "_".join([*pieces, text[at:last]])
