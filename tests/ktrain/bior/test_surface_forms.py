import pytest

from ktrain.bior import surface_forms
from ktrain.bior.dates import find_dates
from ktrain.bior.sentences import fold
from ktrain.bior.surface_forms import match_prefix
from ktrain.bios import pools


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        ("place", "Saint Louis, MO", ["St. Louis, Missouri", "St Louis MO", "Saint Louis, Mo.", "ST. LOUIS, MO"]),
        ("place", "Washington, DC", ["Washington, D.C.", "Washington DC", "Washington, District of Columbia"]),
        ("place", "New York, NY", ["New York City, NY", "New York, New York", "New York, N.Y.", "New York City (NY)"]),
        ("place", "Fort Worth, TX", ["Ft. Worth, Tex.", "Fort Worth, Texas"]),
        ("university", "Massachusetts Institute of Technology", ["MIT", "M.I.T."]),
        ("university", "University of California Los Angeles",
         ["University of California, Los Angeles", "University of California at Los Angeles", "UCLA"]),
        ("university", "University of Texas at Austin",
         ["University of Texas, Austin", "UT Austin", "Univ. of Texas at Austin"]),
        ("university", "University of Chicago", ["U. of Chicago", "Univ. of Chicago", "UChicago"]),
        ("university", "Ohio State University", ["Ohio State", "Ohio State Univ."]),
        ("company", "AT&T", ["AT&T", "AT & T", "AT and T"]),
        ("company", "Fox Corporation", ["Fox Corp.", "Fox", "Fox Corporation"]),
        ("company", "JPMorgan Chase", ["J.P. Morgan Chase", "JP Morgan Chase", "JPMorgan"]),
        ("company", "Nvidia", ["NVIDIA", "nVidia"][:1]),
        ("major", "Computer Science", ["computer science", "Computer science"]),
        ("major", "Theatre Arts", ["theater arts"]),
    ],
)  # fmt: skip
def test_what_language_models_write_stands_for_the_value(kind: str, value: str, written: list[str]) -> None:
    for text in [value, *written]:
        for begin in ("", " "):
            whole = f"{begin}{text}"
            assert match_prefix(kind, value, f"{whole}'s end") == len(whole.rstrip(").")), text
            assert match_prefix(kind, value, f"{whole}ly") < len(whole)


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        ("place", "Portland, OR", ["Portland, or", "Portlandia, OR", "Portland, ME", "in Portland, OR"]),
        ("university", "Fashion Institute of Technology", ["fit", "Fit"]),
        ("university", "University of Chicago", ["university of Illinois", "Chicagoan University"]),
        ("company", "Target", ["target", "Targets"]),
        ("company", "Caterpillar", ["cat", "Cat", "caterpillar"]),
        ("major", "Physics", ["Metaphysics", "Physic"]),
    ],
)
def test_what_is_something_else_does_not(kind: str, value: str, written: list[str]) -> None:
    for text in written:
        longest = match_prefix(kind, value, text)
        assert longest == 0 or text[:longest] == "Portland", text


def test_signs_that_folding_loses_have_to_stand_there() -> None:
    assert match_prefix("major", "C++", " C++, of course") == 4 and match_prefix("major", "C++", " C, of course") == 0
    assert (
        match_prefix("company", "E*TRADE\u2122", "E*TRADE\u2122 is") == 8
        and match_prefix("company", "E*TRADE\u2122", "E-Trade") == 0
    )
    assert match_prefix("company", "Yahoo!", "Yahoo! it") == 6 and match_prefix("company", "Yahoo!", "Yahoo, it") == 0


def test_no_whole_form_means_two_values_of_the_pools() -> None:
    """A short form that could be another value would let a wrong fact pass."""
    meant: dict[str, set[tuple[str, str]]] = {}
    for kind, value, form in surface_forms.all_forms(pools.load()):
        if form.complete and not form.ambiguous_alone:
            meant.setdefault(form.folded, set()).add((kind, value))
    assert len(meant) > 2000
    assert [values for values in meant.values() if len(values) > 1] == []


def test_customary_names_are_of_values_that_there_are() -> None:
    whole = pools.load()
    for kind, values in (("university", whole.universities), ("company", whole.companies), ("major", whole.majors)):
        named = set(surface_forms._customary(kind))
        assert named and named <= set(values), named - set(values)


@pytest.mark.parametrize("text", [
    "October 2, 1996", "October 2nd, 1996", "Oct. 2, 1996", "2 October 1996", "the 2nd of October, 1996",
    "October 2 1996", "2nd day of October 1996", "October the 2nd, 1996", "1996-10-02", "OCTOBER 2, 1996",
    "October 2 in the year 1996",
])  # fmt: skip
def test_a_date_is_read_in_any_style(text: str) -> None:
    (found,) = find_dates(f"on {text}, I think")
    assert found.complete and found.agrees(1996, 10, 2) and not found.agrees(1996, 10, 3) and not found.unclear
    begin = 4 if text.startswith("the ") else 0
    assert match_prefix("date", "October 2, 1996", f" {text[begin:]} it was") == len(text) + 1 - begin


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("in October 1996", (1996, 10, None)),
        ("every October 2", (None, 10, 2)),
        ("since 1996.", (1996, None, None)),
        ("10/22/1996", (1996, 10, 22)),
        ("22/10/1996", (1996, 10, 22)),
        ("in May 2010", (2010, 5, None)),
    ],
)
def test_a_part_of_a_date_says_what_it_says(text: str, told: tuple[int | None, ...]) -> None:
    (found,) = find_dates(text)
    assert (found.year, found.month, found.day) == told


@pytest.mark.parametrize(
    "text", ["the 1990s", "2,019 people", "$2010", "20100", "90 % of 1996 %", "may 2000s", "12 people"]
)
def test_other_numbers_are_no_dates(text: str) -> None:
    assert [d for d in find_dates(text) if d.year != 1996 or "%" not in text] == []


def test_a_date_of_numbers_alone_is_unclear_where_both_could_be_the_month() -> None:
    assert [find_dates(text)[0].unclear for text in ("3/4/1999", "4/4/1999", "13/4/1999", "4/13/1999")] == [
        True
    ] + 3 * [False]


def test_a_writer_has_other_texts_to_choose_from() -> None:
    assert surface_forms.alternative_texts("place", "Chicago, IL") == ["Chicago, Illinois"]
    assert surface_forms.alternative_texts("university", "Massachusetts Institute of Technology") == ["MIT"]
    assert (
        surface_forms.alternative_texts("place", "Tokyo") == surface_forms.alternative_texts("major", "Physics") == []
    )
    whole = pools.load()
    for kind, values in (("place", whole.birth_cities), ("university", whole.universities)):
        for value in values:
            assert all(
                match_prefix(kind, value, text) == len(text) for text in surface_forms.alternative_texts(kind, value)
            )
            assert fold(value)
