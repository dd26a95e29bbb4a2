"""Dates in free text, complete or partial."""

import re
from dataclasses import dataclass
from functools import cache

from ktrain.bios.pools import MONTHS

_MONTH = {m[:3].casefold(): n for n, m in enumerate(MONTHS, 1)}
_M = r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|Aug(?:ust|\.)?|Sep(?:tember|t\.?|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)(?![a-z])"  # noqa: E501
_D = r"\d{1,2}(?:st|nd|rd|th)?"
_G = r"(?:\s*,\s*|\s+)(?:(?:in|of)\s+)?(?:the\s+year\s+)?"
_DATE = re.compile(
    rf"(?=[\djfmasondJFMASOND])(?<![\d/.-])(?:"
    rf"(?P<m1>(?i:{_M}))\s+(?:the\s+)?(?P<d1>{_D})(?:{_G}(?P<y1>\d{{4}})(?!\d))?(?!\d)"
    rf"|(?P<d2>{_D})\s+(?:day\s+)?(?:of\s+)?(?P<m2>(?i:{_M}))(?:{_G}(?P<y2>\d{{4}})(?!\d))?"
    rf"|(?P<m3>{_M}){_G}(?P<y3>(?:19|20)\d\d)(?!\d)"
    rf"|(?P<y4>\d{{4}})-(?P<m4>\d\d)-(?P<d4>\d\d)(?!\d)"
    rf"|(?P<a5>\d{{1,2}})/(?P<b5>\d{{1,2}})/(?P<y5>\d{{4}})(?!\d)"
    rf"|(?<![$€£,])\b(?P<y6>(?:19|20)\d\d)\b(?![,.]?\d|\s*%))"
)


@dataclass(frozen=True)
class Date:
    """A date at text[begin:end]; missing parts are None. `unclear` marks day and month in doubt, as in 3/4/1999."""

    begin: int
    end: int
    year: int | None
    month: int | None
    day: int | None
    unclear: bool = False

    @property
    def complete(self) -> bool:
        """Whether year, month and day are present."""
        return None not in (self.year, self.month, self.day)

    def agrees(self, year: int, month: int, day: int) -> bool:
        """Whether no part that is present contradicts this day."""
        return self.year in (None, year) and self.month in (None, month) and self.day in (None, day)


@cache
def parse_date(value: str) -> tuple[int, int, int]:
    """Year, month and day of `October 2, 1996`."""
    (date,) = find_dates(value)
    assert date.year and date.month and date.day
    return date.year, date.month, date.day


def find_dates(text: str) -> list[Date]:
    """All dates of a text, from left to right."""
    return [_date(match) for match in _DATE.finditer(text)]


def _date(match: re.Match[str]) -> Date:
    begin, end = match.span()
    if match["a5"]:
        a, b, year = int(match["a5"]), int(match["b5"]), int(match["y5"])
        # Month first, as in the United States, where all places of the pools are, unless it would be above 12.
        us = (a, b) if a <= 12 else (b, a)
        return Date(begin, end, year, *us, unclear=a <= 12 and b <= 12 and a != b)
    if match["y4"]:
        return Date(begin, end, int(match["y4"]), int(match["m4"]), int(match["d4"]))
    parts = {name[0]: text for name, text in match.groupdict().items() if text}
    month = _MONTH[parts["m"][:3].casefold()] if "m" in parts else None
    day = int(re.sub(r"\D", "", parts["d"])) if "d" in parts else None
    return Date(begin, end, int(parts["y"]) if "y" in parts else None, month, day)
