"""Pools: the lists from which names and attribute values are drawn."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ktrain.bios.tokenizer import EOS
from ktrain.config import ATTRIBUTES, PoolsConfig
from ktrain.config.attributes import own_attributes
from ktrain.errors import WrongRequest

BUILTIN = Path(__file__).parents[1] / "data" / "assets" / "pools"
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
LEAST_OWN = 3
"""Values of an attribute of the user's own: with two, a constant answer is right half of the time."""


@dataclass(frozen=True)
class Pools:
    """Values by pool; `company_cities[i]` is the city of `companies[i]` (paper, appendix A.1). `own` has the values of
    each attribute besides the six."""

    first_names: tuple[str, ...]
    middle_names: tuple[str, ...]
    last_names: tuple[str, ...]
    birth_cities: tuple[str, ...]
    universities: tuple[str, ...]
    majors: tuple[str, ...]
    companies: tuple[str, ...]
    company_cities: tuple[str, ...]
    birth_years: int = 200
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of every person: the six, then those of `own`."""
        return (*ATTRIBUTES, *self.own)

    @property
    def name_count(self) -> int:
        """How many different full names the pools give."""
        return len(self.first_names) * len(self.middle_names) * len(self.last_names)

    def to_json(self) -> str:
        """As a file of a corpus has them; `own` is left out where there is none."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "own" or value}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Pools":
        """What `to_json` wrote."""
        saved = json.loads(text)
        own = {attribute: tuple(values) for attribute, values in saved.pop("own", {}).items()}
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()}
        return cls(**fields, own=own)

    def nested_values(self) -> list[str]:
        """One line for each value that another value of its pool contains at word boundaries."""
        lines = []
        names = "birth_cities", "universities", "majors", "companies", "company_cities"
        for pool, pool_values in ({name: getattr(self, name) for name in names} | dict(self.own)).items():
            values = sorted(set(pool_values))
            joined = "\n".join(values)
            for value in values:
                containing = re.findall(rf"^(.*(?<!\w){re.escape(value)}(?!\w).*)$", joined, re.M | re.I)
                lines += [f"{pool}: {value!r} is contained in {other!r}" for other in containing if other != value]
        return lines


def load(folder: str | None = None) -> Pools:
    """Reads the pools of a folder, in this project's CSV files or the authors' field files; built-in by default.

    Any other CSV file is the pool of an attribute of that name. A folder that has nothing else adds it to the built-in
    pools. Raises `WrongRequest` for a missing folder or file, and for empty, repeated or malformed values.
    """
    if folder is None:
        return _builtin()
    if not Path(folder).is_dir():
        raise WrongRequest(f"corpus.pools_folder={folder}: no such folder")
    return _read(Path(folder))


@cache
def _builtin() -> Pools:
    """Reads the built-in pools once in a process: each corpus and cell asks for them, and reading takes 20 ms."""
    return _read(BUILTIN)


def _read(root: Path) -> Pools:
    own = _own_values(root)
    if own and _has_own_alone(root):
        return replace(_builtin(), own=own)
    published = (root / "city.txt").is_file()
    read = _read_fields if published else _read_csv
    columns = {name: read(root, name) for name in _FIELD_FILES}
    for name, rows in columns.items():
        _check(root, name, rows)
    values = {name: tuple(row[0] for row in rows) for name, rows in columns.items()}
    cities = tuple(row[1] for row in columns["companies"])
    return Pools(**values, company_cities=cities, own=own)  # type: ignore[arg-type]


def _own_values(root: Path) -> dict[str, tuple[str, ...]]:
    """The values of each attribute of the user's own, all of which are in use."""
    try:
        attributes = own_attributes(str(root))
    except ValueError as e:
        raise WrongRequest(f"corpus.{e}") from None
    values = {}
    for attribute in attributes:
        rows = _read_csv(root, attribute)
        _check(root, attribute, rows)
        if len(rows) < LEAST_OWN:
            raise WrongRequest(f"{attribute}.csv in {root}: has {len(rows)} values; an attribute needs {LEAST_OWN}")
        values[attribute] = tuple(row[0] for row in rows)
    return values


def _has_own_alone(root: Path) -> bool:
    """Whether a folder has no pool of names or of the six, so that these are the built-in ones."""
    return not any((root / f"{name}.csv").exists() or (root / file).exists() for name, file in _FIELD_FILES.items())


def shrink(pools: Pools, sizes: PoolsConfig) -> Pools:
    """Keeps the first values of each pool. Raises `WrongRequest` if a pool has fewer than `sizes` requests."""
    kept: dict[str, Any] = {}
    for name in _FIELD_FILES:
        available, size = getattr(pools, name), getattr(sizes, name)
        if size > len(available):
            raise WrongRequest(f"corpus.pools.{name}={size}: the pool has {len(available)} values")
        kept[name] = available[:size]
    cities = pools.company_cities[: sizes.companies]
    return replace(pools, **kept, company_cities=cities, birth_years=sizes.birth_years)


def files(folder: str | None = None) -> list[Path]:
    """The files that define the pools, for the corpus key; not hidden ones, which other systems leave beside files."""
    root = BUILTIN if folder is None else Path(folder)
    found = sorted(p for p in root.iterdir() if p.suffix in {".csv", ".txt"} and not p.name.startswith("."))
    if folder is not None and own_attributes(folder) and _has_own_alone(root):
        found += files()
    return found


def read_text(path: Path) -> str:
    """Reads a file that the user provides, without a byte-order mark. Raises `WrongRequest` if it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise WrongRequest(f"{path.name} in {path.parent}: byte {e.start} is not UTF-8") from None


def _read_csv(root: Path, name: str) -> list[Sequence[str]]:
    path = _existing(root / f"{name}.csv")
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as e:
        raise WrongRequest(f"{path.name} in {root}: is no CSV file: {e}") from None
    columns = ("value", "city") if name == "companies" else ("value",)
    if not rows or any(row.get(column) is None for row in rows for column in columns):
        raise WrongRequest(f"{path.name} in {root}: every row needs the columns {', '.join(columns)}")
    for row in rows:
        # DictReader puts surplus cells under None: an unquoted city would lose its state there.
        if None in row:
            raise WrongRequest(f"{path.name} in {root}: a value with a comma needs quotes: {row['value']!r}")
    return [[row[column].strip() for column in columns] for row in rows]


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


def text_fault(text: str) -> str | None:
    """What would make a text another one than it looks like: or None."""
    if hidden := next((c for c in text if not c.isprintable()), None):
        return f"holds the invisible character U+{ord(hidden):04X}"
    if not unicodedata.is_normalized("NFC", text):
        return "has accents as characters of their own; save the file in Unicode's composed form, NFC"
    return None


def appearance(value: str) -> str:
    """What a reader sees of a value: the same for two values that nobody can tell apart."""
    return "".join(c for c in unicodedata.normalize("NFKC", value).casefold() if c.isprintable())


def _check(root: Path, name: str, rows: Sequence[Sequence[str]]) -> None:
    """Raises `WrongRequest` for an empty pool, a malformed value, and two values that a reader cannot tell apart."""
    if not rows:
        raise WrongRequest(f"{name} in {root}: the pool is empty")
    known: dict[str, str] = {}
    for value in (row[0] for row in rows):
        if value.startswith("#"):
            raise WrongRequest(f"{name} in {root}: {value!r} begins with #; a pool has no comments")
        looks = appearance(value)
        if looks in known:
            same = (
                f"{value!r} appears twice" if known[looks] == value else f"{known[looks]!r} and {value!r} look the same"
            )
            raise WrongRequest(f"{name} in {root}: {same}")
        known[looks] = value
    for value in (value for row in rows for value in row):
        if not value or value != " ".join(value.split()):
            raise WrongRequest(f"{name} in {root}: {value!r} is empty or has irregular spaces")
        if EOS in value:
            raise WrongRequest(f"{name} in {root}: {value!r} contains the token that ends an entry")
        if fault := text_fault(value):
            raise WrongRequest(f"{name} in {root}: {value!r} {fault}")
