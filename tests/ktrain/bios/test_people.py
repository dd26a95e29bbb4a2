import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ktrain.bios import people as population
from ktrain.bios import pools
from ktrain.bios.people import People
from ktrain.bios.pools import Pools
from ktrain.bios.templates import COLUMNS
from ktrain.config import ATTRIBUTES
from ktrain.errors import WrongRequest

light = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 6)


def small(first: int, middle: int, last: int, others: int = 3) -> Pools:
    """Pools of the given sizes; two neighbouring companies share a city."""

    def named(word: str, count: int) -> tuple[str, ...]:
        return tuple(f"{word}{i}" for i in range(count))

    return Pools(
        named("First", first),
        named("Middle", middle),
        named("Last", last),
        named("City", others),
        named("University", others),
        named("Major", others),
        named("Company", others),
        tuple(f"Town{i // 2}" for i in range(others)),
        others,
    )


@pytest.fixture(scope="module")
def many() -> People:
    """People drawn from the built-in pools."""
    return population.draw_people(pools.load(), 20_000, seed=0)


@light
@given(sizes, sizes, sizes, seeds, st.data())
def test_full_names_are_unique_whatever_the_number(a: int, b: int, c: int, seed: int, data: st.DataObject) -> None:
    drawn = small(a, b, c)
    count = data.draw(st.integers(1, drawn.name_count))
    people = population.draw_people(drawn, count, seed)
    names = [people.name(p) for p in range(count)]
    assert len(people) == len(set(names)) == count
    assert all(re.fullmatch(r"First\d Middle\d Last\d", name) for name in names)


@light
@given(sizes, sizes, sizes, seeds, st.data())
def test_celebrities_have_other_names_and_change_nobody_before_them(
    a: int, b: int, c: int, seed: int, data: st.DataObject
) -> None:
    drawn = small(a, b, c)
    count = data.draw(st.integers(1, drawn.name_count))
    celebrities = data.draw(st.integers(0, drawn.name_count - count))
    alone, together = (
        population.draw_people(drawn, count, seed),
        population.draw_people(drawn, count, seed, celebrities),
    )
    assert len(together) == count + celebrities
    assert np.array_equal(together.columns[:count], alone.columns)
    assert len({together.name(p) for p in range(len(together))}) == len(together)


@pytest.mark.parametrize("seed", range(20))
def test_few_of_many_names_are_drawn_apart_too(seed: int) -> None:
    """216 names for 20 and 30 people: found without a table of all names, and some are drawn twice on the way."""
    people = population.draw_people(small(6, 6, 6), 20, seed, 30)
    assert len({people.name(p) for p in range(50)}) == 50
    assert np.array_equal(people.columns[:20], population.draw_people(small(6, 6, 6), 20, seed).columns)


def test_celebrities_are_drawn_as_uniformly_as_others() -> None:
    drawn = small(6, 6, 6, others=4)
    columns = np.concatenate([population.draw_people(drawn, 20, seed, 30).columns[20:] for seed in range(40)])
    for name, size in (("first", 6), ("last", 6), ("month", 12), ("day", 28), ("university", 4), ("company", 4)):
        counts = np.bincount(columns[:, COLUMNS.index(name)], minlength=size)
        assert len(counts) == size and stats.chisquare(counts).pvalue > 0.001, name


def test_names_for_celebrities_too_are_refused_where_there_are_too_few() -> None:
    with pytest.raises(WrongRequest, match=r"^corpus\.people=5 and 4 celebrities: the pools give at most 8 different"):
        population.draw_people(small(2, 2, 2), 5, 0, 4)
    assert len(population.draw_people(small(2, 2, 2), 5, 0, 3)) == 8


@light
@given(sizes, sizes, sizes, seeds)
def test_as_many_people_as_names_get_all_names(a: int, b: int, c: int, seed: int) -> None:
    people = population.draw_people(small(a, b, c), a * b * c, seed)
    expected = {f"First{i} Middle{j} Last{k}" for i in range(a) for j in range(b) for k in range(c)}
    assert {people.name(p) for p in range(len(people))} == expected


def test_one_more_person_than_names_is_refused() -> None:
    with pytest.raises(WrongRequest, match=r"^corpus\.people=25: the pools give at most 24 different full names$"):
        population.draw_people(small(2, 3, 4), 25, seed=0)


def test_names_stay_unique_where_collisions_are_certain() -> None:
    """5,000 draws from 20,001 names collide about 600 times, and are drawn without a table of all names."""
    drawn = small(3, 59, 113)
    assert drawn.name_count == 20_001 > 4 * 5000
    people = population.draw_people(drawn, 5000, seed=0)
    names = people.columns[:, [COLUMNS.index(c) for c in ("first", "middle", "last")]]
    assert len(np.unique(names, axis=0)) == 5000


@light
@given(seeds, st.integers(1, 5))
def test_every_value_is_one_of_its_pool(seed: int, others: int) -> None:
    drawn = small(4, 4, 4, others)
    people = population.draw_people(drawn, 30, seed)
    allowed = {
        "birth_city": drawn.birth_cities,
        "university": drawn.universities,
        "major": drawn.majors,
        "company": drawn.companies,
    }
    for person in range(30):
        for attribute, values in allowed.items():
            assert people.value(person, attribute) in values
        place = drawn.companies.index(people.value(person, "company"))
        assert people.value(person, "company_city") == drawn.company_cities[place]
        date = re.fullmatch(r"([A-Z][a-z]+) (\d+), (\d{4})", people.value(person, "birth_date"))
        assert date
        assert date[1] in pools.MONTHS and 1 <= int(date[2]) <= 28 and 1900 <= int(date[3]) < 1900 + others


def test_a_birth_date_is_written_as_in_the_paper() -> None:
    columns = np.zeros((2, len(COLUMNS)), dtype=np.int32)
    for column, index in (("month", 9), ("day", 1), ("year", 96)):
        columns[0, COLUMNS.index(column)] = index
    people = People(pools.load(), columns)
    assert people.value(0, "birth_date") == "October 2, 1996"
    assert people.value(1, "birth_date") == "January 1, 1900"


@pytest.mark.parametrize(
    ("column", "size"),
    [
        ("first", 400),
        ("middle", 400),
        ("last", 1000),
        ("pronoun", 3),
        ("month", 12),
        ("day", 28),
        ("year", 200),
        ("birth_city", 200),
        ("university", 300),
        ("major", 100),
        ("company", 263),
    ],
)
def test_every_column_is_uniform(many: People, column: str, size: int) -> None:
    counts = np.bincount(many.column(column), minlength=size)
    assert len(counts) == size
    # Two-sided: counts that are too even are as wrong as counts that are too uneven.
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999


@pytest.mark.parametrize(
    ("one", "other"), [("month", "day"), ("pronoun", "major"), ("birth_city", "month"), ("company", "pronoun")]
)
def test_columns_are_independent(many: People, one: str, other: str) -> None:
    table = np.zeros((many.column(one).max() + 1, many.column(other).max() + 1))
    np.add.at(table, (many.column(one), many.column(other)), 1)
    assert 0.001 < stats.chi2_contingency(table).pvalue < 0.999


def test_names_are_uniform_where_few_are_left_over() -> None:
    """Each of 24 names is left out equally often when 20 are drawn."""
    drawn = small(2, 3, 4)
    left = Counter(name for seed in range(600) for name in _left_out(drawn, seed))
    assert len(left) == 24 and sum(left.values()) == 600 * 4
    assert 0.001 < stats.chisquare(list(left.values())).pvalue < 0.999


def _left_out(drawn: Pools, seed: int) -> set[str]:
    people = population.draw_people(drawn, 20, seed)
    every = {f"First{i} Middle{j} Last{k}" for i in range(2) for j in range(3) for k in range(4)}
    return every - {people.name(p) for p in range(20)}


def test_only_they_takes_the_plural(many: People) -> None:
    assert np.array_equal(many.column("plural"), many.column("pronoun") == 2)
    assert not many.column("constant").any()


def test_the_seed_draws_the_people() -> None:
    drawn = pools.load()
    first, again, other = (population.draw_people(drawn, 200, seed).columns for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    varied = [COLUMNS.index(c) for c in COLUMNS if c not in ("constant", "plural", "pronoun")]
    assert (first != other)[:, varied].mean() > 0.9


@light
@given(st.integers(1, 300), st.floats(0, 0.999), seeds)
def test_the_halves_are_disjoint_with_exact_counts(count: int, share: float, seed: int) -> None:
    train = population.draw_train_half(count, share, seed)
    assert train.dtype == bool and train.shape == (count,)
    assert train.sum() == int(count * share)
    assert not set(np.flatnonzero(train)) & set(np.flatnonzero(~train))
    assert np.array_equal(train, population.draw_train_half(count, share, seed))


def test_every_person_is_in_the_train_half_equally_often() -> None:
    times = np.sum([population.draw_train_half(40, 0.5, seed) for seed in range(500)], axis=0)
    assert times.sum() == 500 * 20
    # Half of a population has half the variance of independent draws.
    assert 0.001 < stats.chi2.sf(np.sum((times - 250) ** 2 / 125) * 39 / 40, 39) < 0.999


def test_halves_do_not_follow_the_order_of_people() -> None:
    assert not np.array_equal(population.draw_train_half(100, 0.5, 0), population.draw_train_half(100, 0.5, 1))
    assert 10 < population.draw_train_half(100, 0.5, 0)[:50].sum() < 40


@light
@given(seeds, st.integers(1, 5), st.integers(2, 40))
def test_majority_is_what_counting_texts_gives(seed: int, others: int, count: int) -> None:
    people = population.draw_people(small(4, 4, 4, others), count, seed)
    asked = np.arange(count) % 2 == 0
    expected = {}
    for attribute in ATTRIBUTES:
        texts = [people.value(p, attribute) for p in range(count) if asked[p]]
        expected[attribute] = Counter(texts).most_common(1)[0][1] / len(texts)
    assert population.majority_shares(people, asked) == pytest.approx(expected, abs=0)


def test_classes_are_equal_exactly_where_texts_are() -> None:
    people = population.draw_people(small(4, 5, 6, 4), 60, seed=3)
    for attribute in ATTRIBUTES:
        ids = people.class_ids(attribute)
        pairs = {(int(ids[p]), people.value(p, attribute)) for p in range(60)}
        assert len(pairs) == len({i for i, _ in pairs}) == len({text for _, text in pairs})


def test_the_papers_baseline_of_company_city_follows_from_uniform_companies(many: People) -> None:
    share = population.majority_shares(many, np.ones(len(many), dtype=bool))["company_city"]
    assert share == pytest.approx(36 / 263, abs=4 * (0.137 * 0.863 / len(many)) ** 0.5)
