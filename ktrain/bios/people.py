"""People: profiles drawn at random from the pools."""

from dataclasses import dataclass

import numpy as np

from ktrain.bios.pools import DAYS, MONTHS, Pools
from ktrain.bios.templates import COLUMNS, attribute_columns, columns_of
from ktrain.errors import WrongRequest
from ktrain.rng import generator


@dataclass(frozen=True)
class People:
    """N profiles as indices into the pools: `columns` is (N, C) int32, one column per name in `columns_of(pools)`."""

    pools: Pools
    columns: np.ndarray

    def __len__(self) -> int:
        return len(self.columns)

    def column(self, name: str) -> np.ndarray:
        """One column of the profiles, (N,)."""
        return np.asarray(self.columns[:, columns_of(self.pools).index(name)])

    def name(self, person: int) -> str:
        """Full name: first, middle, last."""
        first, middle, last = (int(self.column(c)[person]) for c in ("first", "middle", "last"))
        return f"{self.pools.first_names[first]} {self.pools.middle_names[middle]} {self.pools.last_names[last]}"

    def value(self, person: int, attribute: str) -> str:
        """The text of one attribute, such as `October 2, 1996`."""
        return " ".join(
            texts[self.column(column)[person]] for column, texts in attribute_columns(attribute, self.pools)
        )

    def class_ids(self, attribute: str) -> np.ndarray:
        """An integer per person, equal for two people if and only if their texts of the attribute are, (N,)."""
        if attribute == "company_city":
            ids = {city: i for i, city in enumerate(dict.fromkeys(self.pools.company_cities))}
            cities = np.array([ids[c] for c in self.pools.company_cities])
            return np.asarray(cities[self.column("company")])
        key = np.zeros(len(self), dtype=np.int64)
        for column, texts in attribute_columns(attribute, self.pools):
            key = key * len(texts) + self.column(column)
        return key


def draw_people(pools: Pools, count: int, seed: int, celebrities: int = 0) -> People:
    """`count` people with unique full names, every attribute uniform and independent (paper, section 2.1).

    Celebrities follow them, under other names (paper, section 5); their number does not change the people before them.
    Attributes besides the six have streams of their own, so they change nothing else of anybody.
    Raises `WrongRequest` if the pools have fewer full names than people.
    """
    if count + celebrities > pools.name_count:
        request = f"corpus.people={count}" + (f" and {celebrities} celebrities" if celebrities else "")
        raise WrongRequest(f"{request}: the pools give at most {pools.name_count} different full names")
    minority, names = _group(pools, count, seed, "people", np.array([], dtype=np.int64))
    if not celebrities:
        return People(pools, minority)
    famous, _ = _group(pools, celebrities, seed, "celebrities", names)
    return People(pools, np.concatenate([minority, famous]))


def _group(pools: Pools, count: int, seed: int, group: str, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws the columns of `count` people whose names are not in `taken`; returns them and the names as numbers."""
    rng = generator(seed, group)
    columns = np.zeros((count, len(columns_of(pools))), dtype=np.int32)
    names = _distinct(rng, pools.name_count, count, taken)
    sizes = (len(pools.first_names), len(pools.middle_names), len(pools.last_names))
    for column, index in zip(("first", "middle", "last"), np.unravel_index(names, sizes), strict=True):
        columns[:, COLUMNS.index(column)] = index
    pronoun = rng.integers(3, size=count)
    columns[:, COLUMNS.index("pronoun")] = pronoun
    columns[:, COLUMNS.index("plural")] = pronoun == 2
    ranges = {
        "month": len(MONTHS),
        "day": DAYS,
        "year": pools.birth_years,
        "birth_city": len(pools.birth_cities),
        "university": len(pools.universities),
        "major": len(pools.majors),
        "company": len(pools.companies),
    }
    for column, size in ranges.items():
        columns[:, COLUMNS.index(column)] = rng.integers(size, size=count)
    for k, (attribute, values) in enumerate(pools.own.items(), len(COLUMNS)):
        columns[:, k] = generator(seed, group, attribute).integers(len(values), size=count)
    return columns, names


def draw_train_half(count: int, share: float, seed: int) -> np.ndarray:
    """The people whose questions may be trained on, (count,) bool with exactly floor(count * share) true."""
    chosen = np.zeros(count, dtype=bool)
    chosen[generator(seed, "split").permutation(count)[: int(count * share)]] = True
    return chosen


def draw_validation(held_out: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The `count` people of those `held_out` (N,) bool who are set aside to choose settings by, (N,) bool."""
    chosen = np.zeros(len(held_out), dtype=bool)
    chosen[generator(seed, "validation").permutation(np.flatnonzero(held_out))[:count]] = True
    return chosen


def majority_shares(people: People, selected: np.ndarray) -> dict[str, float]:
    """Share of the people in `selected` (bool, (N,)) who have the commonest value of each attribute.

    This is the score of a model that gives every question one constant answer: the paper's `baseline` row.
    """
    shares = {}
    for attribute in people.pools.attributes:
        _, counts = np.unique(people.class_ids(attribute)[selected], return_counts=True)
        shares[attribute] = float(counts.max() / counts.sum())
    return shares


def _distinct(rng: np.random.Generator, size: int, count: int, taken: np.ndarray) -> np.ndarray:
    """`count` different integers below `size` that are not in `taken`, uniformly drawn.

    Only a small `size` is permuted as a whole; otherwise duplicates are drawn again.
    """
    if size < 4 * (count + len(taken)):
        order = rng.permutation(size)
        return order[~np.isin(order, taken)][:count]
    drawn = rng.integers(size, size=count)
    while True:
        _, first = np.unique(drawn, return_index=True)
        first = first[~np.isin(drawn[first], taken)]
        if len(first) == count:
            return drawn
        kept = drawn[np.sort(first)]
        drawn = np.concatenate([kept, rng.integers(size, size=count - len(kept))])
