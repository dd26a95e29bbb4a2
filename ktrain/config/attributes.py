"""The attributes of a corpus: the six of the paper, then those that a pools folder brings as files of their own."""

import re
from pathlib import Path

from ktrain.errors import is_text, nearest, shorten

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "company", "company_city")
"""The six attributes in the order of a biography with fixed sentence order (paper, section 2.1)."""
POOL_FILES = ("first_names", "middle_names", "last_names", "birth_cities", "universities", "majors", "companies")
"""The pools of names and of the six attributes, each `NAME.csv`; every other CSV file is an attribute of its own."""
MOST_OWN = 4
"""A P-probe is scored by the set of attributes read before it, and each further attribute doubles their number."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")
TAKEN = {
    "constant", "first", "middle", "last", "pronoun", "plural", "month", "day", "year", "mean", "none", "own",
}  # fmt: skip
"""Names that have a meaning in what is drawn of a person (`templates.COLUMNS`) or in the names of metrics."""


def own_attributes(pools_folder: str | None) -> tuple[str, ...]:
    """Returns the attributes that a pools folder brings, in the order of the alphabet; none where there is no folder.

    Raises `ValueError`, one line without `corpus.`, for a file whose name cannot be that of an attribute.
    """
    if pools_folder is None or not is_text(pools_folder) or not (folder := Path(pools_folder)).is_dir():
        return ()
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() == ".csv" and not path.name.startswith(".")]
        names = sorted(path.name for path in files if path.stem not in POOL_FILES and path.is_file())
    except OSError as e:
        raise ValueError(f"pools_folder={pools_folder}: cannot be read: {e.strerror}") from None
    for name in names:
        if fault := _fault(name):
            raise ValueError(f"pools_folder={pools_folder}: {shorten(name)} {fault}")
    if len(names) > MOST_OWN:
        listed = shorten(", ".join(names))
        raise ValueError(f"pools_folder={pools_folder}: at most {MOST_OWN} attributes besides the six, not {listed}")
    return tuple(name.removesuffix(".csv") for name in names)


def _fault(name: str) -> str:
    """Returns what keeps a file from being the pool of an attribute; empty if nothing."""
    attribute = Path(name).stem
    if attribute in ATTRIBUTES:
        pool = {"birth_city": "birth_cities", "university": "universities", "major": "majors"}.get(attribute)
        where = "needs no pool" if attribute == "birth_date" else f"has its values in {pool or 'companies'}.csv"
        return f"is named like an attribute of the six, which {where}"
    if not name.endswith(".csv") or not _NAME.fullmatch(attribute):
        return (
            "would be an attribute of that name: a small letter first, then small letters, digits or _, 30 at most, "
            f"and .csv{nearest(attribute.lower(), POOL_FILES)}"
        )
    if attribute in TAKEN:
        return f"would be an attribute, but {attribute} has another meaning here; choose another name"
    return ""
