"""Forms: the ways in which a language model may write a value, such as `Baltimore, Maryland` for `Baltimore, MD`.

A form is whole, partial or loose. Partial ones (a city without its state) count as a mention, but not alone. Loose ones
(`Fox` for `Fox Corporation`) count for the person whose value it is, and say nothing where it is not.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ktrain.dates import dates, parsed
from ktrain.pools import Pools
from ktrain.sentences import goes_on, joined, words

FOLDER = Path(__file__).parent / "data" / "forms"
KINDS = {"birth_city": "place", "company_city": "place", "university": "university", "major": "major",
         "company": "company", "birth_date": "date"}  # fmt: skip
"""What a value is by its attribute."""
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
class Form:
    """One way to write a value: `folded` is its `sentences.joined`.

    `capitals` says how much of it has to be written in capital letters: its first letter, all, or as many letters from
    the end as the number says. A `literal` one has to stand there letter by letter, because folding leaves too little.
    """

    folded: str
    whole: bool = True
    loose: bool = False
    capitals: Literal["none", "first", "all", "code"] = "none"
    literal: str = ""

    def end(self, text: str, begin: int, end: int) -> int:
        """Where the form ends that begins at `begin`, if text[begin:end], which folds to it, is written like it; or 0.

        `code` wants the last two letters in capitals, as those of a state are.
        """
        if self.capitals == "first" and text[begin].islower():
            return 0
        if self.capitals in ("none", "first"):
            return end
        letters = [c for c in text[begin:end] if c.isalnum()][-2 if self.capitals == "code" else 0 :]
        # Before the postal codes, "Pa." stood for what is PA now.
        dotted = self.capitals == "code" and letters[0].isupper() and text.startswith(".", end)
        return end if dotted or not any(c.islower() for c in letters) else 0


@cache
def forms(kind: str, value: str) -> tuple[Form, ...]:
    """All forms of a value that is no date, each folded text once."""
    if _ODD.search(value) or len(joined(value)) < 2:
        return (Form(joined(value), literal=value),)
    # Else "fit" would be a college and "cat" an employer.
    written = ((text, "all" if text.isupper() else _capital(kind, text)) for text in _customary(kind).get(value, ()))
    found = [Form(joined(value), capitals=_capital(kind, value)), *(Form(joined(t), capitals=c) for t, c in written)]
    derived: dict[str, Callable[[str], Iterable[Form]]] = {
        "place": _place,
        "university": _university,
        "company": _company,
    }
    if kind in derived:
        more = list(derived[kind](value))
        found = more or found if kind == "place" else found + more
    return tuple({form.folded: form for form in reversed(found)}.values())[::-1]


def literal(form: Form, text: str) -> Iterator[int]:
    """Where a literal form begins in a text, as no part of a longer word."""
    edges = [r"(?<!\w)" if form.literal[0].isalnum() else "", r"(?!\w)" if form.literal[-1].isalnum() else ""]
    for match in re.finditer(re.escape(form.literal).join(edges), text):
        yield match.start()


def texts(kind: str, value: str) -> list[str]:
    """Other texts that stand for a value alone, for a writer to choose from."""
    if kind == "place":
        match = _PLACE.fullmatch(value)
        return [f"{match[1]}, {STATES[match[2] + match[3]]}"] if match and match[2] + match[3] in STATES else []
    return _customary(kind).get(value, [])


def stands(kind: str, value: str, text: str) -> int:
    """How many characters at the begin of `text` are the longest form of the value, whole or partial; 0 for none.

    A leading space counts, a possessive ending does not. `date` is a kind here too.
    """
    begin = len(text) - len(text.lstrip())
    if kind == "date":
        found = [d for d in dates(text[: begin + 60]) if d.begin == begin and d.agrees(*parsed(value))]
        return found[0].end if found else 0
    known, best, told = {form.folded: form for form in forms(kind, value)}, 0, ""
    exact = next((form for form in known.values() if form.literal), None)
    if exact is not None:
        return begin + len(exact.literal) if begin in literal(exact, text) else 0
    seen = words(text[: begin + 3 * max(map(len, known)) + 8])
    for before, word in zip([None, *seen], seen, strict=False):
        if word.begin != begin if before is None else not goes_on(text, before, word):
            break
        ends = {word.stem: word.end - 2, word.folded: word.end}
        for folded, end in ends.items():
            if form := known.get(told + folded):
                best = max(best, form.end(text, begin, end))
        told += word.folded
    return best


@cache
def states() -> dict[str, Form]:
    """The forms of all states, by folded text."""
    found = {}
    for code, name in STATES.items():
        found[joined(name)] = Form(joined(name), capitals="first")
        found[code.lower()] = Form(code.lower(), capitals="all")
    return found


def _capital(kind: str, text: str) -> Literal["none", "first"]:
    """A company or a university is a name, or it is none: `an apple`."""
    return "first" if kind in ("company", "university") and text[0].isupper() else "none"


def _place(value: str) -> list[Form]:
    """Of a `City, ST`; none of anything else."""
    match = _PLACE.fullmatch(value)
    if match is None:
        return []
    city, code = match[1], match[2] + match[3]
    spelled = [city, *(re.sub(rf"\b{word}\b", short, city) for word, short in _SHORT_PLACES)]
    if city in ("New York", "New York City"):
        spelled += ["New York", "New York City"]
    cities = list(dict.fromkeys(map(joined, spelled)))
    names = [joined(told[code]) for told in (STATES, CUSTOMARY) if code in told]
    return [
        *(Form(name + code.lower(), capitals="code") for name in cities),
        *(Form(name + state) for name in cities for state in names if state != code.lower()),
        *(Form(name, whole=False, capitals="first") for name in cities),
    ]


def _university(value: str) -> Iterator[Form]:
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
        yield Form(joined(text), capitals="first")
    bare = re.sub(r"^(University of|University at)\b|\b(University|College)$", "", value).strip()
    if bare != value and bare not in STATES.values():
        yield Form(joined(bare), whole=False, loose=True, capitals="first")


def _company(value: str) -> Iterator[Form]:
    head, _, last = value.rpartition(" ")
    if head and last.casefold() in _LEGAL:
        yield Form(joined(f"{head} {_LEGAL[last.casefold()]}"), capitals="first")
        yield Form(joined(head), loose=True, capitals="first")


_DERIVED: dict[str, Callable[[str], Iterable[Form]]] = {
    "place": _place, "university": _university, "company": _company,
}  # fmt: skip


@cache
def _customary(kind: str) -> dict[str, list[str]]:
    """Customary names, by value."""
    path = FOLDER / f"{kind}.csv"
    found: dict[str, list[str]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["value"], []).append(row["form"])
    return found


def every(pools: Pools) -> Iterator[tuple[str, str, Form]]:
    """Kind, value and form of all that the pools have, dates apart."""
    named = {"place": (*pools.birth_cities, *pools.company_cities), "university": pools.universities,
             "major": pools.majors, "company": pools.companies}  # fmt: skip
    for kind, values in named.items():
        for value in dict.fromkeys(values):
            yield from ((kind, value, form) for form in forms(kind, value))


def files() -> list[Path]:
    """The files of customary names, for the corpus key."""
    return sorted(FOLDER.glob("*.csv"))
