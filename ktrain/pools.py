"""Pools: the lists from which names and attribute values are drawn."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ktrain.config import PoolSizes
from ktrain.errors import WrongRequest
from ktrain.tokenizer import EOS

BUILTIN = Path(__file__).parent / "data" / "pools"
MONTHS = ("January", "February", "March", "April", "May", "June", "July",
          "August", "September", "October", "November", "December")  # fmt: skip
DAYS = 28
FIRST_YEAR = 1900
_FIELD_FILES = {
    "first_names": "first_name.txt",
    "middle_names": "middle_name.txt",
    "last_names": "last_name.txt",
    "birth_cities": "city.txt",
    "universities": "university.txt",
    "majors": "field.txt",
    "companies": "company.txt",
}
"""The names that the authors' published generator gives to its field files."""


@dataclass(frozen=True)
class Pools:
    """Values by pool; `company_cities[i]` is the city of `companies[i]` (paper, appendix A.1)."""

    first_names: tuple[str, ...]
    middle_names: tuple[str, ...]
    last_names: tuple[str, ...]
    birth_cities: tuple[str, ...]
    universities: tuple[str, ...]
    majors: tuple[str, ...]
    companies: tuple[str, ...]
    company_cities: tuple[str, ...]
    birth_years: int = 200

    @property
    def names(self) -> int:
        """How many different full names there are."""
        return len(self.first_names) * len(self.middle_names) * len(self.last_names)

    def contained(self) -> list[str]:
        """One line for each value that stands, at word boundaries, inside another value of its pool."""
        lines = []
        for pool in ("birth_cities", "universities", "majors", "companies", "company_cities"):
            values = sorted(set(getattr(self, pool)))
            joined = "\n".join(values)
            for value in values:
                found = re.findall(rf"^(.*(?<!\w){re.escape(value)}(?!\w).*)$", joined, re.M | re.I)
                lines += [f"{pool}: {value!r} is contained in {other!r}" for other in found if other != value]
        return lines


def load(folder: str | None = None) -> Pools:
    """The whole pools of a folder: this project's CSV files or the authors' field files; built-in by default.

    Raises `WrongRequest` for a missing folder or file, and for empty, repeated or malformed values.
    """
    root = BUILTIN if folder is None else Path(folder)
    if not root.is_dir():
        raise WrongRequest(f"corpus.pools_folder={folder}: no such folder")
    published = (root / "city.txt").is_file()
    read = _read_fields if published else _read_csv
    columns = {name: read(root, name) for name in _FIELD_FILES}
    for name, rows in columns.items():
        _check(root, name, rows)
    values = {name: tuple(row[0] for row in rows) for name, rows in columns.items()}
    cities = tuple(row[1] for row in columns["companies"])
    return Pools(**values, company_cities=cities)  # type: ignore[arg-type]


def shrink(pools: Pools, sizes: PoolSizes) -> Pools:
    """The first values of each pool. Raises `WrongRequest` where a pool has fewer than asked for."""
    cut: dict[str, tuple[str, ...]] = {}
    for name in _FIELD_FILES:
        have, want = getattr(pools, name), getattr(sizes, name)
        if want > len(have):
            raise WrongRequest(f"corpus.pools.{name}={want}: the pool has {len(have)} values")
        cut[name] = have[:want]
    cities = pools.company_cities[: sizes.companies]
    return replace(pools, **cut, company_cities=cities, birth_years=sizes.birth_years)


def files(folder: str | None = None) -> list[Path]:
    """The files that define the pools, for the corpus key."""
    root = BUILTIN if folder is None else Path(folder)
    return sorted(p for p in root.iterdir() if p.suffix in {".csv", ".txt"})


def read_text(path: Path) -> str:
    """A file of the user's. Raises `WrongRequest` where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as e:
        raise WrongRequest(f"{path.name} in {path.parent}: byte {e.start} is not UTF-8") from None


def _read_csv(root: Path, name: str) -> list[Sequence[str]]:
    path = _existing(root / f"{name}.csv")
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    wanted = ("value", "city") if name == "companies" else ("value",)
    if not rows or any(row.get(column) is None for row in rows for column in wanted):
        raise WrongRequest(f"{path.name} in {root}: every row needs the columns {', '.join(wanted)}")
    for row in rows:
        # Where DictReader puts what has no column; without quotes a city would lose its state.
        if None in row:
            raise WrongRequest(f"{path.name} in {root}: a value with a comma needs quotes: {row['value']!r}")
    return [[row[column].strip() for column in wanted] for row in rows]


def _read_fields(root: Path, name: str) -> list[Sequence[str]]:
    path = _existing(root / _FIELD_FILES[name])
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if name != "companies":
        return [[line] for line in lines]
    rows: list[Sequence[str]] = [[part.strip() for part in line.split(";")] for line in lines]
    for line, row in zip(lines, rows, strict=True):
        if len(row) != 2:
            raise WrongRequest(f"{path.name} in {root}: {line!r} is not `Name; City, ST`")
    return rows


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise WrongRequest(f"corpus.pools_folder={path.parent}: {path.name} is missing")
    return path


def _check(root: Path, name: str, rows: Sequence[Sequence[str]]) -> None:
    values = [row[0] for row in rows]
    if not values:
        raise WrongRequest(f"{name} in {root}: the pool is empty")
    repeated = {v for v in values if values.count(v) > 1} if len(set(values)) < len(values) else set()
    if repeated:
        raise WrongRequest(f"{name} in {root}: {sorted(repeated)[0]!r} stands there twice")
    for value in (value for row in rows for value in row):
        if not value or value != " ".join(value.split()):
            raise WrongRequest(f"{name} in {root}: {value!r} is empty or has irregular spaces")
        if EOS in value:
            raise WrongRequest(f"{name} in {root}: {value!r} holds the token that ends an entry")
