"""Dates: how a text may write them, whole or in part."""

import re
from dataclasses import dataclass
from functools import cache

from ktrain.pools import MONTHS

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
    """A date at text[begin:end]; parts that are not told are None. `unclear` is one such as 3/4/1999."""

    begin: int
    end: int
    year: int | None
    month: int | None
    day: int | None
    unclear: bool = False

    @property
    def whole(self) -> bool:
        """Whether it has year, month and day."""
        return None not in (self.year, self.month, self.day)

    def agrees(self, year: int, month: int, day: int) -> bool:
        """Whether it may be this day, as far as it says."""
        pairs = ((self.year, year), (self.month, month), (self.day, day))
        return all(mine in (None, other) for mine, other in pairs)


@cache
def parsed(value: str) -> tuple[int, int, int]:
    """Year, month and day of `October 2, 1996`."""
    (found,) = dates(value)
    assert found.year and found.month and found.day
    return found.year, found.month, found.day


def dates(text: str) -> list[Date]:
    """All dates of a text, whole or in part."""
    return [_date(match) for match in _DATE.finditer(text)]


def _date(match: re.Match[str]) -> Date:
    begin, end = match.span()
    if match["a5"]:
        a, b, year = int(match["a5"]), int(match["b5"]), int(match["y5"])
        # Month first, as in the country of all these places, unless that cannot be.
        us = (a, b) if a <= 12 else (b, a)
        return Date(begin, end, year, *us, unclear=a <= 12 and b <= 12 and a != b)
    if match["y4"]:
        return Date(begin, end, int(match["y4"]), int(match["m4"]), int(match["d4"]))
    told = {k[0]: v for k, v in match.groupdict().items() if v}
    month = _MONTH[told["m"][:3].casefold()] if "m" in told else None
    day = int(re.sub(r"\D", "", told["d"])) if "d" in told else None
    return Date(begin, end, int(told["y"]) if "y" in told else None, month, day)
