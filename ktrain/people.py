"""People: profiles drawn from the pools."""

from dataclasses import dataclass

import numpy as np

from ktrain.config import ATTRIBUTES
from ktrain.errors import WrongRequest
from ktrain.pools import DAYS, MONTHS, Pools
from ktrain.randomness import generator
from ktrain.templates import COLUMNS, values


@dataclass(frozen=True)
class People:
    """N profiles as indices into the pools: `columns` is (N, len(COLUMNS)) int32, in the order of `COLUMNS`."""

    pools: Pools
    columns: np.ndarray

    def __len__(self) -> int:
        return len(self.columns)

    def column(self, name: str) -> np.ndarray:
        """One column of the profiles, (N,)."""
        return np.asarray(self.columns[:, COLUMNS.index(name)])

    def name(self, person: int) -> str:
        """Full name: first, middle, last."""
        first, middle, last = (int(self.column(c)[person]) for c in ("first", "middle", "last"))
        return f"{self.pools.first_names[first]} {self.pools.middle_names[middle]} {self.pools.last_names[last]}"

    def value(self, person: int, attribute: str) -> str:
        """The text of one attribute, such as `October 2, 1996`."""
        return " ".join(texts[self.column(column)[person]] for column, texts in values(attribute, self.pools))

    def classes(self, attribute: str) -> np.ndarray:
        """An integer for each person, equal where the attribute's text is equal, (N,)."""
        if attribute == "company_city":
            ids = {city: i for i, city in enumerate(dict.fromkeys(self.pools.company_cities))}
            cities = np.array([ids[c] for c in self.pools.company_cities])
            return np.asarray(cities[self.column("company")])
        key = np.zeros(len(self), dtype=np.int64)
        for column, texts in values(attribute, self.pools):
            key = key * len(texts) + self.column(column)
        return key


def draw(pools: Pools, count: int, seed: int, celebrities: int = 0) -> People:
    """`count` people with unique full names, every attribute uniform and independent (paper, section 2.1).

    Celebrities come after them, under other names (paper, section 5); how many there are changes nobody before them.
    Raises `WrongRequest` where the pools have fewer full names than people.
    """
    if count + celebrities > pools.names:
        besides = f" and {celebrities} celebrities" if celebrities else ""
        raise WrongRequest(f"corpus.people={count}{besides}: the pools give at most {pools.names} different full names")
    minority, names = _group(pools, count, generator(seed, "people"), np.array([], dtype=np.int64))
    if not celebrities:
        return People(pools, minority)
    return People(
        pools, np.concatenate([minority, _group(pools, celebrities, generator(seed, "celebrities"), names)[0]])
    )


def _group(pools: Pools, count: int, rng: np.random.Generator, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of `count` people whose names are not among `taken`, and their names as numbers."""
    columns = np.zeros((count, len(COLUMNS)), dtype=np.int32)
    names = _distinct(rng, pools.names, count, taken)
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
    return columns, names


def train_half(count: int, share: float, seed: int) -> np.ndarray:
    """Which people's questions may be trained on: (count,) bool, exactly floor(count * share) of them true."""
    chosen = np.zeros(count, dtype=bool)
    chosen[generator(seed, "split").permutation(count)[: int(count * share)]] = True
    return chosen


def majority(people: People, asked: np.ndarray) -> dict[str, float]:
    """Share of the people in `asked` (bool, (N,)) who have the commonest value of each attribute.

    What a reader scores who answers every question with one constant; the paper's `baseline` row.
    """
    shares = {}
    for attribute in ATTRIBUTES:
        _, counts = np.unique(people.classes(attribute)[asked], return_counts=True)
        shares[attribute] = float(counts.max() / counts.sum())
    return shares


def _distinct(rng: np.random.Generator, size: int, count: int, taken: np.ndarray) -> np.ndarray:
    """`count` different integers below `size` that are not `taken`, uniform, without a table of a large `size`."""
    if size < 4 * (count + len(taken)):
        order = rng.permutation(size)
        return order[~np.isin(order, taken)][:count]
    found = rng.integers(size, size=count)
    while True:
        _, first = np.unique(found, return_index=True)
        first = first[~np.isin(found[first], taken)]
        if len(first) == count:
            return found
        kept = found[np.sort(first)]
        found = np.concatenate([kept, rng.integers(size, size=count - len(kept))])
