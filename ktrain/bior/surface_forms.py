"""Surface forms: the ways in which a text may write a value, such as `Baltimore, Maryland` for `Baltimore, MD`.

A partial form (a city without its state) is a mention, but a text needs a complete one too. A form that is ambiguous
alone (`Fox` for `Fox Corporation`) counts only if the value is the person's own.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from ktrain.bior.dates import find_dates, parse_date
from ktrain.bior.sentences import continues, fold, split_words
from ktrain.bios.pools import Pools

FOLDER = Path(__file__).parents[1] / "data" / "assets" / "forms"
VALUE_KINDS = {"birth_city": "place", "company_city": "place", "university": "university", "major": "major",
         "company": "company", "birth_date": "date"}  # fmt: skip
"""The kind of value of each attribute."""
STATES = {
    "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
    "CT": "Connecticut", "DE": "Delaware", "DC": "District of Columbia", "FL": "Florida", "GA": "Georgia",
    "HI": "Hawaii", "ID": "Idaho", "IL": "Illinois", "IN": "Indiana", "IA": "Iowa", "KS": "Kansas", "KY": "Kentucky",
    "LA": "Louisiana", "ME": "Maine", "MD": "Maryland", "MA": "Massachusetts", "MI": "Michigan", "MN": "Minnesota",
    "MS": "Mississippi", "MO": "Missouri", "MT": "Montana", "NE": "Nebraska", "NV": "Nevada", "NH": "New Hampshire",
    "NJ": "New Jersey", "NM": "New Mexico", "NY": "New York", "NC": "North Carolina", "ND": "North Dakota",
    "OH": "Ohio", "OK": "Oklahoma", "OR": "Oregon", "PA": "Pennsylvania", "RI": "Rhode Island",
    "SC": "South Carolina", "SD": "South Dakota", "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VT": "Vermont",
    "VA": "Virginia", "WA": "Washington", "WV": "West Virginia", "WI": "Wisconsin", "WY": "Wyoming",
}  # fmt: skip
CUSTOMARY = {
    "AL": "Ala.", "AZ": "Ariz.", "AR": "Ark.", "CA": "Calif.", "CO": "Colo.", "CT": "Conn.", "DE": "Del.",
    "FL": "Fla.", "IL": "Ill.", "IN": "Ind.", "KS": "Kan.", "MD": "Md.", "MA": "Mass.", "MI": "Mich.", "MN": "Minn.",
    "MS": "Miss.", "MO": "Mo.", "NE": "Neb.", "NV": "Nev.", "OK": "Okla.", "OR": "Ore.", "PA": "Pa.", "TN": "Tenn.",
    "TX": "Tex.", "VA": "Va.", "WA": "Wash.", "WI": "Wis.", "WY": "Wyo.",
}  # fmt: skip
"""Abbreviations from before the postal codes."""
_LEGAL = {"corporation": "Corp", "company": "Co", "companies": "Cos", "incorporated": "Inc", "group": "Grp"}
_SYSTEMS = {"University of California": "UC", "University of Texas": "UT", "University of North Carolina": "UNC",
            "University of Massachusetts": "UMass", "University of Wisconsin": "UW"}  # fmt: skip
_SHORT_PLACES = (("Saint", "St"), ("St", "Saint"), ("Fort", "Ft"), ("Mount", "Mt"))
_PLACE = re.compile(r"(.*), ([A-Z])\.?([A-Z])\.?")
_ODD = re.compile(r"[^\w\s,.'\u2019&()/-]")


@dataclass(frozen=True)
class SurfaceForm:
    """One way to write a value; `folded` is its text after `sentences.fold`.

    `capitals` says which letters must be capital: none, the first, all, or the last two (`code`, for states). A form
    with `literal` must match letter by letter, because folding leaves too little of it.
    """

    folded: str
    complete: bool = True
    ambiguous_alone: bool = False
    capitals: Literal["none", "first", "all", "code"] = "none"
    literal: str = ""

    def end(self, text: str, begin: int, end: int) -> int:
        """The end of the form if the capitals of text[begin:end], which folds to it, are right; otherwise 0."""
        if self.capitals == "first" and text[begin].islower():
            return 0
        if self.capitals in ("none", "first"):
            return end
        letters = [c for c in text[begin:end] if c.isalnum()]
        if self.capitals == "code":
            letters = letters[-2:]
            # "Pa." was the abbreviation before postal codes made it PA.
            if letters[0].isupper() and text.startswith(".", end):
                return end
        return 0 if any(c.islower() for c in letters) else end


class KnownForm(NamedTuple):
    """A form of a value of the pools."""

    kind: str
    value: str
    form: SurfaceForm


@cache
def surface_forms(kind: str, value: str) -> tuple[SurfaceForm, ...]:
    """All forms of a value other than a date, one per folded text."""
    if _ODD.search(value) or len(fold(value)) < 2:
        return (SurfaceForm(fold(value), literal=value),)
    forms = [SurfaceForm(fold(value), capitals=_capitals(kind, value))]
    for text in _customary(kind).get(value, ()):
        # Acronyms need all capitals, or "fit" would be a college and "cat" an employer.
        forms.append(SurfaceForm(fold(text), capitals="all" if text.isupper() else _capitals(kind, text)))
    if kind in _DERIVED:
        derived = list(_DERIVED[kind](value))
        # The forms of a `City, ST` include the value itself.
        forms = derived or forms if kind == "place" else forms + derived
    # The first form of each folded text wins.
    return tuple({form.folded: form for form in reversed(forms)}.values())[::-1]


def find_literal(form: SurfaceForm, text: str) -> Iterator[int]:
    """Where a literal form begins in a text; inside a longer word it does not count."""
    edges = [r"(?<!\w)" if form.literal[0].isalnum() else "", r"(?!\w)" if form.literal[-1].isalnum() else ""]
    for match in re.finditer(re.escape(form.literal).join(edges), text):
        yield match.start()


def alternative_texts(kind: str, value: str) -> list[str]:
    """Other unambiguous texts of a value, which the rule-based writer may use."""
    if kind == "place":
        match = _PLACE.fullmatch(value)
        return [f"{match[1]}, {STATES[match[2] + match[3]]}"] if match and match[2] + match[3] in STATES else []
    return _customary(kind).get(value, [])


def match_prefix(kind: str, value: str, text: str) -> int:
    """The length of the longest form of a value, complete or partial, at the start of `text`; 0 if there is none.

    A leading space counts, a possessive ending does not. `kind` may be `date` too.
    """
    begin = len(text) - len(text.lstrip())
    if kind == "date":
        dates = [d for d in find_dates(text[: begin + 60]) if d.begin == begin and d.agrees(*parse_date(value))]
        return dates[0].end if dates else 0
    forms = {form.folded: form for form in surface_forms(kind, value)}
    literal = next((form for form in forms.values() if form.literal), None)
    if literal is not None:
        return begin + len(literal.literal) if begin in find_literal(literal, text) else 0
    longest, prefix = 0, ""
    words = split_words(text[: begin + 3 * max(map(len, forms)) + 8])
    for before, word in zip([None, *words], words, strict=False):
        if word.begin != begin if before is None else not continues(text, before, word):
            break
        ends = {word.stem: word.end - 2, word.folded: word.end}
        for folded, end in ends.items():
            if form := forms.get(prefix + folded):
                longest = max(longest, form.end(text, begin, end))
        prefix += word.folded
    return longest


@cache
def state_forms() -> dict[str, SurfaceForm]:
    """The forms of all states, by folded text."""
    forms = {}
    for code, name in STATES.items():
        forms[fold(name)] = SurfaceForm(fold(name), capitals="first")
        forms[code.lower()] = SurfaceForm(code.lower(), capitals="all")
    return forms


def _capitals(kind: str, text: str) -> Literal["none", "first"]:
    """Companies and universities need their capital letter: `an apple` is no employer."""
    return "first" if kind in ("company", "university") and text[0].isupper() else "none"


def _place(value: str) -> list[SurfaceForm]:
    """Forms of a `City, ST`; empty for any other value."""
    match = _PLACE.fullmatch(value)
    if match is None:
        return []
    city, code = match[1], match[2] + match[3]
    spelled = [city, *(re.sub(rf"\b{word}\b", short, city) for word, short in _SHORT_PLACES)]
    if city in ("New York", "New York City"):
        spelled += ["New York", "New York City"]
    cities = list(dict.fromkeys(map(fold, spelled)))
    state_names = [fold(names[code]) for names in (STATES, CUSTOMARY) if code in names]
    return [
        *(SurfaceForm(name + code.lower(), capitals="code") for name in cities),
        *(SurfaceForm(name + state) for name in cities for state in state_names if state != code.lower()),
        *(SurfaceForm(name, complete=False, capitals="first") for name in cities),
    ]


def _university(value: str) -> Iterator[SurfaceForm]:
    spelled = {value}
    for name in sorted(STATES.values(), key=len, reverse=True):
        if match := re.fullmatch(rf"(University of {name}) (?:at )?(.+)", value):
            spelled |= {f"{match[1]} {match[2]}", f"{match[1]} at {match[2]}", f"{match[1]} in {match[2]}"}
            if short := _SYSTEMS.get(match[1]):
                spelled.add(f"{short} {match[2]}")
            break
    if " at " in value:
        spelled.add(value.replace(" at ", " "))
    if value.endswith((" State University", " Tech University", "A&M University")):
        spelled.add(value.removesuffix(" University"))
    spelled |= {re.sub(r"\bSaint\b", "St", text) for text in spelled}
    spelled |= {re.sub(r"\bUniversity\b", "Univ", text) for text in spelled}
    spelled |= {re.sub(r"^University of\b", "U of", text) for text in spelled}
    for text in sorted(spelled):
        yield SurfaceForm(fold(text), capitals="first")
    bare = re.sub(r"^(University of|University at)\b|\b(University|College)$", "", value).strip()
    if bare != value and bare not in STATES.values():
        yield SurfaceForm(fold(bare), complete=False, ambiguous_alone=True, capitals="first")


def _company(value: str) -> Iterator[SurfaceForm]:
    head, _, last = value.rpartition(" ")
    if head and last.casefold() in _LEGAL:
        yield SurfaceForm(fold(f"{head} {_LEGAL[last.casefold()]}"), capitals="first")
        yield SurfaceForm(fold(head), ambiguous_alone=True, capitals="first")


_DERIVED: dict[str, Callable[[str], Iterable[SurfaceForm]]] = {
    "place": _place, "university": _university, "company": _company,
}  # fmt: skip


@cache
def _customary(kind: str) -> dict[str, list[str]]:
    """Customary names by value."""
    path = FOLDER / f"{kind}.csv"
    names: dict[str, list[str]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                names.setdefault(row["value"], []).append(row["form"])
    return names


def all_forms(pools: Pools) -> Iterator[KnownForm]:
    """The forms of all values of the pools except dates."""
    values_by_kind = {"place": (*pools.birth_cities, *pools.company_cities), "university": pools.universities,
                      "major": pools.majors, "company": pools.companies}  # fmt: skip
    for kind, values in values_by_kind.items():
        for value in dict.fromkeys(values):
            yield from (KnownForm(kind, value, form) for form in surface_forms(kind, value))


def files() -> list[Path]:
    """The files of customary names, for the corpus key."""
    return sorted(FOLDER.glob("*.csv"))
