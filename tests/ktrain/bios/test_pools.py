import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ktrain.bios import pools
from ktrain.bios.pools import Pools
from ktrain.config import PoolsConfig
from ktrain.errors import WrongRequest

SIZES = {
    "first_names": 400,
    "middle_names": 400,
    "last_names": 1000,
    "birth_cities": 200,
    "universities": 300,
    "majors": 100,
    "companies": 263,
}
FIELDS = {
    "first_name.txt": "Anya\nBo\n",
    "middle_name.txt": "Kim\n\nLee\n",
    "last_name.txt": "Briar\nForger\nOak",
    "city.txt": "Princeton, NJ\r\nSt. Louis, MO\r\n",
    "university.txt": "MIT\nUniversité Laval\n",
    "field.txt": "Law\n",
    "company.txt": "Meta Platforms; Menlo Park, CA\nAT&T;Dallas, TX\n",
}


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """A folder in the format of the authors' generator."""
    for name, text in FIELDS.items():
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


@pytest.fixture
def ours(tmp_path: Path, hostile: Pools, write_pools: Callable[[Path, Pools], PoolsConfig]) -> Path:
    """A folder in this project's format."""
    write_pools(tmp_path / "ours", hostile)
    return tmp_path / "ours"


@pytest.fixture(scope="module")
def builtin() -> Pools:
    return pools.load()


@pytest.mark.parametrize(("pool", "size"), SIZES.items())
def test_a_built_in_pool_has_exactly_the_papers_size_and_no_value_twice(builtin: Pools, pool: str, size: int) -> None:
    values = getattr(builtin, pool)
    assert len(values) == len(set(values)) == len({v.casefold() for v in values}) == size


def test_the_built_in_pools_give_the_names_and_years_of_the_paper(builtin: Pools) -> None:
    assert builtin.name_count == 400 * 400 * 1000
    assert builtin.birth_years == 200 and pools.FIRST_YEAR == 1900 and pools.DAYS == 28 and len(pools.MONTHS) == 12
    assert PoolsConfig(**{name: len(getattr(builtin, name)) for name in SIZES}) == PoolsConfig()


def test_the_papers_baselines_of_company_city_and_university_follow_from_the_pools(builtin: Pools) -> None:
    assert len(builtin.company_cities) == 263
    assert Counter(builtin.company_cities).most_common(1) == [("New York, NY", 36)]
    assert sum(name.split()[0] == "University" for name in builtin.universities) == 111


def test_every_built_in_city_is_a_city_and_a_state(builtin: Pools) -> None:
    for city in {*builtin.birth_cities, *builtin.company_cities}:
        assert re.fullmatch(r"[A-Z][^\d,]+, [A-Z]{2}", city), city


def test_no_built_in_value_stands_inside_another(builtin: Pools) -> None:
    assert builtin.nested_values() == []


def test_a_value_inside_another_is_found_at_word_boundaries_only(hostile: Pools) -> None:
    assert hostile.nested_values() == ["universities: 'Université' is contained in 'Université Paris 8'"]
    majors = ("Art", "Art History", "Artful Design", "History of ART", "Start")
    assert replace(hostile, universities=("MIT",), majors=majors).nested_values() == [
        "majors: 'Art' is contained in 'Art History'",
        "majors: 'Art' is contained in 'History of ART'",
    ]
    repeated = replace(hostile, universities=("MIT",), company_cities=("Rome",) * 7 + ("New Rome",))
    assert repeated.nested_values() == ["company_cities: 'Rome' is contained in 'New Rome'"]


def test_the_authors_field_files_are_read(authors: Path) -> None:
    read = pools.load(str(authors))
    assert read == Pools(
        first_names=("Anya", "Bo"),
        middle_names=("Kim", "Lee"),
        last_names=("Briar", "Forger", "Oak"),
        birth_cities=("Princeton, NJ", "St. Louis, MO"),
        universities=("MIT", "Université Laval"),
        majors=("Law",),
        companies=("Meta Platforms", "AT&T"),
        company_cities=("Menlo Park, CA", "Dallas, TX"),
        birth_years=200,
    )
    assert read.name_count == 12


def test_this_projects_files_are_read(ours: Path, hostile: Pools) -> None:
    assert pools.load(str(ours)) == hostile


def test_files_that_define_the_pools_are_all_listed(authors: Path, ours: Path) -> None:
    (ours / "NOTES.md").write_text("no pool")
    assert [p.name for p in pools.files(str(authors))] == sorted(FIELDS)
    (ours / "._majors.csv").write_bytes(b"a Mac's notes on a file")
    assert [p.name for p in pools.files(str(ours))] == sorted(f"{name}.csv" for name in SIZES)
    assert [p.name for p in pools.files()] == sorted(f"{name}.csv" for name in SIZES)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(WrongRequest) as caught:
        pools.load(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "corpus.pools_folder", "absent", "no such folder")


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"city.txt"}))
def test_a_missing_field_file_is_named(authors: Path, name: str) -> None:
    (authors / name).unlink()
    refused(authors, "corpus.pools_folder", name, "missing")


@pytest.mark.parametrize("name", SIZES)
def test_a_missing_csv_file_is_named(ours: Path, name: str) -> None:
    (ours / f"{name}.csv").unlink()
    refused(ours, "corpus.pools_folder", f"{name}.csv", "missing")


@pytest.mark.parametrize("line", ["Acme", "Acme, Dallas, TX", "Acme; Dallas; TX"])
def test_a_company_without_exactly_one_city_is_named(authors: Path, line: str) -> None:
    with (authors / "company.txt").open("a") as file:
        file.write(f"{line}\n")
    refused(authors, "company.txt", repr(line), "`Name; City, ST`")


@pytest.mark.parametrize("line", ["Acme;", "Acme; St.  Louis, MO"])
def test_a_company_with_an_irregular_city_is_named(authors: Path, line: str) -> None:
    with (authors / "company.txt").open("a") as file:
        file.write(f"{line}\n")
    refused(authors, "companies", repr(line.partition(";")[2].strip()), "empty or has irregular spaces")


@pytest.mark.parametrize(("name", "pool"), [("field.txt", "majors"), ("first_name.txt", "first_names")])
def test_an_empty_pool_is_named(authors: Path, name: str, pool: str) -> None:
    (authors / name).write_text("\n \n")
    refused(authors, pool, "empty")


def test_a_repeated_value_is_named(authors: Path) -> None:
    (authors / "field.txt").write_text("Law\nArt\nLaw\n")
    refused(authors, "majors", "'Law'", "twice")


@pytest.mark.parametrize("value", ["Civil  Law", "Civil\tLaw", "Civil\u00a0Law"])
def test_irregular_spaces_are_named(authors: Path, value: str) -> None:
    (authors / "field.txt").write_text(f"{value}\n", encoding="utf-8")
    refused(authors, "majors", repr(value), "irregular spaces")


@pytest.mark.parametrize("text", ["", "value\n", "name\nLaw\n"])
def test_a_csv_without_values_or_header_is_named(ours: Path, text: str) -> None:
    (ours / "majors.csv").write_text(text)
    refused(ours, "majors.csv", "columns value")


def test_what_is_no_csv_is_named(ours: Path) -> None:
    (ours / "majors.csv").write_text("x" * 200_000)
    refused(ours, "majors.csv", "is no CSV file: field larger than")


def test_an_empty_csv_value_is_named(ours: Path) -> None:
    (ours / "majors.csv").write_text('value\nLaw\n""\n')
    refused(ours, "majors", "''", "empty")


def test_a_csv_company_without_a_city_is_named(ours: Path) -> None:
    (ours / "companies.csv").write_text("value,city\nAcme\n")
    refused(ours, "companies.csv", "columns value, city")
    (ours / "companies.csv").write_text("value,city\nAcme,\n")
    refused(ours, "companies", "''", "empty")


def test_a_csv_value_with_an_unquoted_comma_is_refused_not_cut(ours: Path) -> None:
    (ours / "birth_cities.csv").write_text('value\n"Oakland, CA"\nNewport News, VA\n')
    refused(ours, "birth_cities.csv", "Newport News", "quotes")


@pytest.mark.parametrize("folder", ["authors", "ours"])
def test_a_file_that_is_not_utf8_is_named(folder: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(folder)
    name = "field.txt" if folder == "authors" else "majors.csv"
    (root / name).write_bytes("value\nÉtudes\n".encode("latin-1"))
    refused(root, name, "UTF-8")


def test_shrinking_keeps_the_first_values_and_each_companys_city(builtin: Pools) -> None:
    sizes = PoolsConfig(
        first_names=3,
        middle_names=4,
        last_names=5,
        birth_years=6,
        birth_cities=7,
        universities=8,
        majors=9,
        companies=10,
    )
    small = pools.shrink(builtin, sizes)
    for name in SIZES:
        assert getattr(small, name) == getattr(builtin, name)[: getattr(sizes, name)]
        assert len(getattr(small, name)) == getattr(sizes, name)
    assert small.company_cities == builtin.company_cities[:10]
    assert small.birth_years == 6 and small.name_count == 60
    assert pools.shrink(builtin, PoolsConfig()) == builtin


@pytest.mark.parametrize("pool", SIZES)
def test_asking_for_more_than_a_pool_has_names_the_axis_and_both_numbers(builtin: Pools, pool: str) -> None:
    with pytest.raises(WrongRequest, match=rf"^corpus\.pools\.{pool}={SIZES[pool] + 1}: .* {SIZES[pool]} values$"):
        pools.shrink(builtin, PoolsConfig(**{pool: SIZES[pool] + 1}))


def test_a_byte_order_mark_is_no_part_of_a_value(authors: Path, ours: Path, hostile: Pools) -> None:
    for folder in (authors, ours):
        before = pools.load(str(folder)) if folder == authors else hostile
        for path in (path for path in folder.iterdir() if path.suffix in (".txt", ".csv")):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert pools.load(str(folder)) == before


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("# majors of mine\nLaw\n", ["'# majors of mine'", "begins with #"]),
        ("#Law\n", ["'#Law'", "begins with #"]),
        ("Law\nLAW\n", ["'Law' and 'LAW' look the same"]),
        ("Gesch\u00e4ft\nGescha\u0308ft\n", ["look the same"]),
        ("Law\nLaw\u200b\n", ["'Law' and 'Law\\u200b' look the same"]),
        ("\uff2caw\nLaw\n", ["look the same"]),
        ("Law\nAr\u200bt\n", ["'Ar\\u200bt' holds the invisible character U+200B"]),
        ("Law\nA\u00adrt\n", ["holds the invisible character U+00AD"]),
        ("Etudes\nE\u0301tudes\n", ["composed form, NFC"]),
    ],
)
def test_values_that_are_not_what_they_look_like_are_named(
    lines: str, words: list[str], authors: Path, ours: Path
) -> None:
    (authors / "field.txt").write_text(lines, encoding="utf-8")
    refused(authors, "majors", *words)
    (ours / "majors.csv").write_text(f"value\n{lines}", encoding="utf-8")
    refused(ours, "majors", *words)


def test_a_city_of_a_company_is_looked_at_too(authors: Path) -> None:
    (authors / "company.txt").write_text("Acme; Dal\u200blas, TX\n", encoding="utf-8")
    refused(authors, "companies", "invisible character U+200B")
