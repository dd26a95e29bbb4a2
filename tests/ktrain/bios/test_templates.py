import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ktrain.bios import pools, templates
from ktrain.bios.pools import Pools
from ktrain.bios.templates import COLUMNS, Fragment, fragments, name_fault, template_fault
from ktrain.config import ATTRIBUTES, PoolsConfig
from ktrain.errors import WrongRequest

COUNTS = {"birth_date": 46, "birth_city": 49, "university": 49, "major": 52, "company": 47, "company_city": 48}
VALUES = {
    "birth_date": "January 1, 1900",
    "birth_city": "Oakland, CA",
    "university": "Marquette University",
    "major": "Sociology",
    "company": "Baker Hughes",
    "company_city": "Houston, TX",
}
ALL = [(a, sentence) for a, sentences in templates.load().items() for sentence in sentences]
SLOTS = "slots are {name}, {name's}, {his}, {value}, {a|b}"


@pytest.fixture(scope="module")
def one() -> Pools:
    """One value in each pool; index 0 of every column is that value."""
    sizes = dict.fromkeys(("first_names", "middle_names", "last_names", "birth_cities", "universities", "majors"), 1)
    return pools.shrink(pools.load(), PoolsConfig(**sizes, companies=1, birth_years=1))


def text(pieces: list[Fragment], pronoun: int) -> str:
    choice = dict.fromkeys(COLUMNS, 0) | {"pronoun": pronoun, "plural": int(pronoun == 2)}
    return "".join(piece.texts[choice[piece.column]] for piece in pieces)


def name(drawn: Pools) -> str:
    return f"{drawn.first_names[0]} {drawn.middle_names[0]} {drawn.last_names[0]}"


def test_the_built_in_templates_are_as_many_as_the_papers_and_all_different() -> None:
    loaded = templates.load()
    assert {attribute: len(sentences) for attribute, sentences in loaded.items()} == COUNTS
    assert list(loaded) == list(ATTRIBUTES)
    assert len({sentence for _, sentence in ALL}) == sum(COUNTS.values()) == 291


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("pronoun", [0, 1, 2])
def test_every_template_renders_well(
    one: Pools, sentence: Callable[..., tuple[str, int]], pronoun: int, named: bool
) -> None:
    for attribute, template in ALL:
        rendered = text(fragments(template, attribute, one, named=named), pronoun)
        expected, _ = sentence(template, name(one), pronoun, VALUES[attribute], named=named)
        assert rendered == f" {expected}"
        assert expected[0].isupper() and expected.endswith(".") and not expected.endswith("..")
        assert "  " not in rendered and not set(rendered) & set("{}|"), rendered
        assert not re.search(r"\s[.,;']", rendered), rendered
        assert rendered.count(VALUES[attribute]) == 1
        assert rendered.count(name(one)) == named


@pytest.mark.parametrize("pronoun", [0, 1, 2])
def test_verbs_and_possessives_agree_with_the_pronoun(one: Pools, pronoun: int) -> None:
    singular, plural = r"(?:was|is|has|does|goes|\w+[^s]s)", r"(?:were|are|have|do)"
    wrong = [rf"\b(?:{s}) {plural}\b" for s in ("He", "he", "She", "she")] + [rf"\b[Tt]hey {singular}\b"]
    others = [w for i, w in enumerate(("he|his|him", "she|her|hers", "they|their|them")) if i != pronoun]
    for attribute, template in ALL:
        rendered = text(fragments(template, attribute, one, named=False), pronoun)
        assert not [w for w in wrong if re.search(w, rendered)], rendered
        assert not re.search(rf"\b(?:{'|'.join(others)})\b", rendered, re.I), rendered


def test_agreement_and_capitals_of_one_template(one: Pools) -> None:
    template = "{name} {was|were} born in {value}, {his} home."
    pieces = fragments(template, "birth_city", one, named=False)
    assert [text(pieces, pronoun) for pronoun in range(3)] == [
        " He was born in Oakland, CA, his home.",
        " She was born in Oakland, CA, her home.",
        " They were born in Oakland, CA, their home.",
    ]
    middle = fragments("In {value}, {name} {was|were} with {his} kin.", "birth_city", one, named=False)
    assert text(middle, 2) == " In Oakland, CA, they were with their kin."
    mine = fragments("{name's} home is {value}.", "birth_city", one, named=False)
    assert [text(mine, pronoun) for pronoun in range(3)] == [
        f" {w} home is Oakland, CA." for w in ("His", "Her", "Their")
    ]


@pytest.mark.parametrize("pronoun", [0, 1, 2])
def test_a_named_person_takes_a_singular_verb_and_keeps_the_possessive_pronoun(one: Pools, pronoun: int) -> None:
    named = fragments("{name} {lists|list} {value} as {his} home.", "birth_city", one, named=True)
    own = ("his", "her", "their")[pronoun]
    assert text(named, pronoun) == f" {name(one)} lists Oakland, CA as {own} home."
    mine = fragments("{name's} home is {value}.", "birth_city", one, named=True)
    assert text(mine, pronoun) == f" {name(one)}'s home is Oakland, CA."


def test_an_agreement_slot_may_hold_spaces(one: Pools) -> None:
    pieces = fragments("{name} {has been|have been} in {value}.", "birth_city", one, named=False)
    assert [text(pieces, p) for p in (0, 2)] == [" He has been in Oakland, CA.", " They have been in Oakland, CA."]


def test_every_fragment_begins_with_its_space_and_marks_the_attribute(one: Pools) -> None:
    for attribute, template in ALL:
        for named in (True, False):
            pieces = fragments(template, attribute, one, named=named)
            assert all(t.startswith(" ") and t != " " for piece in pieces for t in piece.texts)
            inside = "".join(p.texts[0][: p.inside[0]] for p in pieces)
            assert inside == f" {VALUES[attribute]}"
            marked = [i for i, p in enumerate(pieces) if p.inside[0]]
            assert marked == list(range(marked[0], marked[0] + (3 if attribute == "birth_date" else 1)))


def test_a_date_has_three_columns_and_the_other_attributes_one(one: Pools) -> None:
    columns = {a: [column for column, _ in templates.attribute_columns(a, one)] for a in ATTRIBUTES}
    assert columns == {
        "birth_date": ["month", "day", "year"],
        "birth_city": ["birth_city"],
        "university": ["university"],
        "major": ["major"],
        "company": ["company"],
        "company_city": ["company"],
    }
    months, days, years = (texts for _, texts in templates.attribute_columns("birth_date", pools.load()))
    assert (len(months), len(days), len(years)) == (12, 28, 200)
    assert (months[9], days[0], days[-1], years[0], years[-1]) == ("October", "1,", "28,", "1900", "2099")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{name} was born in {value}.", None),
        ("In {value}, {name's} life began for {him|them}.", None),
        ("{name} {has been|have been} in {value}, by {his} account.", None),
        ("{name} call{s|} {value} home.", None),
        ("{name} was born.", "needs {value} exactly once"),
        ("{name} went from {value} to {value}.", "needs {value} exactly once"),
        ("Someone was born in {value}.", "needs {name} or {name's} exactly once"),
        ("{name} says {name} lives in {value}.", "needs {name} or {name's} exactly once"),
        ("{name} in {name's} home in {value}.", "needs {name} or {name's} exactly once"),
        ("{name} was born in {city}, {value}.", f"unknown slot {{city}}; {SLOTS}"),
        ("{name} {is|are|be} in {value}.", f"unknown slot {{is|are|be}}; {SLOTS}"),
        ("{name} {} in {value}.", f"unknown slot {{}}; {SLOTS}"),
        ("{name} was  born in {value}.", "needs single spaces and a full stop at the end"),
        (" {name} was born in {value}.", "needs single spaces and a full stop at the end"),
        ("{name} was born in {value}. ", "needs single spaces and a full stop at the end"),
        ("{name} was born in {value}", "needs single spaces and a full stop at the end"),
        ("{name} {|do} live in {value}.", "needs single spaces and a full stop at the end"),
        ("{name} {was |were} born in {value}.", "needs single spaces and a full stop at the end"),
        ("{value} is where {name} was born.", "needs a word and a space before {value}"),
        ("{name} was born in ({value}).", "needs a word and a space before {value}"),
        ("{name} was born in-{value}.", "needs a word and a space before {value}"),
        ("{name}{'s|} home is {value}.", "two slots are in one word"),
        ("{name} lives in {value}{his}.", "two slots are in one word"),
        ("{name} {was born in {value}.", "a brace opens or closes no slot"),
        ("{name} was born in {value} }.", "a brace opens or closes no slot"),
    ],
)
def test_every_fault_of_a_template_is_named(template: str, fault: str | None) -> None:
    assert template_fault(template) == fault


ORDER = "needs {name} or {name's} before {value}"
APOSTROPHE = "{name}' does not agree with a pronoun; the possessive is {name's}"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{name} {was|were} born in {value}.", None),
        ("Long after {name's} studies, {value} was home.", None),
        ("In {value}, {name} {was|were} born.", ORDER),
        ("In {value} {name's} life began.", ORDER),
        ("{name}' home was {value}.", APOSTROPHE),
        ("The town of {name}'s birth was {value}.", APOSTROPHE),
        *(
            (f"{before} {{name}} {verb} in {{value}}.".strip(), f"{word!r} after {{name}} agrees with one pronoun only")
            for before, verb, word in (
                ("", "is", "is"),
                ("", "was born", "was"),
                ("The city where", "was born", "was"),
                ("By all accounts,", "has lived", "has"),
                ("", "does research", "does"),
                ("", "were born", "were"),
                ("", "isn't", "isn't"),
                ("", "hasn't lived", "hasn't"),
                ("", "works", "works"),
                ("", "goes to work", "goes"),
                ("", "studies", "studies"),
                ("", "teaches", "teaches"),
                ("", "still lives", "lives"),
                ("", "now happily works", "works"),
                ("", "usually is", "is"),
            )
        ),
        # Past tense, both forms, and words that end in s without being verbs.
        ("{name} worked in {value}.", None),
        ("{name} put down roots in {value}.", None),
        ("{name} soon declared a major in {value}.", None),
        ("{name} {works|work} in {value}.", None),
        ("{name} live{s|} in {value}.", None),
        ("{name} always {lives|live} in {value}.", None),
        ("{name} always lived in {value}.", None),
        ("{name} perhaps lived in {value}.", None),
        ("The job that drew {name} across town was in {value}.", None),
        ("A post kept {name} as happy as {value}.", None),
        ("{name's} years in {value} were happy.", None),
    ],
)  # fmt: skip
def test_the_name_comes_first_and_its_verb_agrees(template: str, fault: str | None) -> None:
    assert template_fault(template) is None
    assert (name_fault(template) or "").partition(";")[0] == (fault or "").partition(";")[0]


@pytest.mark.parametrize("template", ["{name} studied hard.", "It was {value}.", "{name} is here."])
def test_a_missing_slot_is_no_fault_of_the_name(template: str) -> None:
    """Another check tells of it."""
    assert template_fault(template) and name_fault(template) is None


def test_no_built_in_template_has_a_fault() -> None:
    assert [(a, t, fault) for a, t in ALL if (fault := template_fault(t) or name_fault(t))] == []


def test_questions_have_the_wording_of_the_paper() -> None:
    assert templates.QUESTIONS == {
        "birth_date": "What is the birth date of {name}? Answer: {value}.",
        "birth_city": "What is the birth city of {name}? Answer: {value}.",
        "university": "Which university did {name} study? Answer: {value}.",
        "major": "What major did {name} study? Answer: {value}.",
        "company": "Which company did {name} work for? Answer: {value}.",
        "company_city": "Where did {name} work? Answer: {value}.",
    }
    assert [template_fault(question) for question in templates.QUESTIONS.values()] == [None] * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own templates, one for each attribute."""
    for attribute in ATTRIBUTES:
        (tmp_path / f"{attribute}.txt").write_text(f"{{name}} had {attribute} {{value}}.\n\n")
    return tmp_path


def test_the_users_own_templates_are_read(folder: Path) -> None:
    assert templates.load(str(folder)) == {a: (f"{{name}} had {a} {{value}}.",) for a in ATTRIBUTES}
    assert [p.name for p in templates.files(str(folder))] == [f"{a}.txt" for a in ATTRIBUTES]


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(WrongRequest) as caught:
        templates.load(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_missing_empty_and_faulty_template_files_are_named(folder: Path) -> None:
    refused(folder / "absent", "corpus.templates_folder", "absent", "no such folder")
    path = folder / "major.txt"
    path.write_text("{name} studied {value}.\n\n{name} liked it.\n")
    refused(folder, "major.txt line 3", "needs {value} exactly once", "'{name} liked it.'")
    path.write_text("{name} studied {value}.\nIn {value}, {name} studied.\n")
    refused(folder, "major.txt line 2", "needs {name} or {name's} before {value}", "'In {value}, {name} studied.'")
    path.write_text("{name} studies {value}.\n")
    refused(folder, "major.txt line 1", "'studies' after {name}", "such as {was|were}", "'{name} studies {value}.'")
    path.write_bytes("{name} étudiait {value}.\n".encode("latin-1"))
    refused(folder, "major.txt", "UTF-8")
    path.write_text("\n")
    refused(folder, "major.txt", "no template")
    path.unlink()
    refused(folder, "corpus.templates_folder", "major.txt", "missing")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{name} likes\u200b {value}.", "holds the invisible character U+200B"),
        ("{name} had\ufeff {value}.", "holds the invisible character U+FEFF"),
        ("{name} visited the cafe\u0301 of {value}.", "composed form, NFC"),
        ("# comment", "needs {value} exactly once"),
    ],
)
def test_a_line_that_is_not_what_it_looks_like_is_named(line: str, fault: str, folder: Path) -> None:
    path = folder / "major.txt"
    path.write_text(f"{path.read_text()}{line}\n", encoding="utf-8")
    with pytest.raises(WrongRequest, match=f"major.txt line 3: .*{re.escape(fault)}"):
        templates.load(str(folder))


def test_a_byte_order_mark_is_no_part_of_a_template(folder: Path) -> None:
    before = templates.load(str(folder))
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert templates.load(str(folder)) == before
