"""Rows: the settings of the paper's figures under the paper's names, and what they mean as axes."""

import re
from typing import Any

from ktrain.config import CorpusConfig
from ktrain.data.background import UNNAMED

BIOS = (
    "bioS single",
    "bioS single+fullname",
    "bioS single+permute1",
    "bioS single+permute2",
    "bioS single+permute5",
    "bioS single+permute1+fullname",
    "bioS single+permute2+fullname",
    "bioS single+permute5+fullname",
    "bioS multi2",
    "bioS multi2+fullname",
    "bioS multi2+permute",
    "bioS multi2+permute+fullname",
    "bioS multi5",
    "bioS multi5+fullname",
    "bioS multi5+permute",
    "bioS multi5+permute+fullname",
)
"""The rows of Figures 3, 5, 7, 12c, 13 and 16, in their order."""
BIOR = (
    "bioR single",
    "bioR single+fullname",
    "bioR multi3",
    "bioR multi3+fullname",
    "bioR multi5",
    "bioR multi5+fullname",
)
"""The rows of Figures 12a, 12b, 14 and 16."""
MINORITY = (
    "bioS single",
    "bioS single+permute1",
    "bioS single+permute1+CEL",
    "bioR single",
    "bioR single+wiki",
    "bioR single+CEL",
    "bioR single+fullname",
    "bioR single+fullname+wiki",
    "bioR single+fullname+CEL",
)
"""The rows of Figures 18 and 19, about people who are not celebrities."""
ONE_WORDING = ("bioS single", "bioR single")
"""The rows of Figures 1 and 2."""
EXTRACTABLE = (
    "bioS single+fullname",
    "bioR single+fullname",
    "bioS single+permute5",
    "bioS single+permute5+fullname",
    "bioS multi2+fullname",
    "bioR multi3+fullname",
    "bioS multi2+permute",
    "bioS multi2+permute+fullname",
    "bioS multi5",
    "bioR multi5",
    "bioS multi5+permute",
    "bioS multi5+permute+fullname",
)
"""The rows of Figure 11."""
RATIOS = (
    "bioS single",
    "bioR single",
    "bioS single+permute1",
    "bioR single+fullname",
    "bioS single+permute2",
    "bioR single+permute5",
    "bioS multi2+permute",
    "bioR multi3",
    "bioS multi5+permute",
    "bioR multi5",
)
"""The rows of Figure 10."""
_NAME = re.compile(r"(bio[SR]) (?:single|multi(\d+)|couple(\d+))(?:\+permute(\d*))?(\+fullname)?(\+CEL|\+wiki)?")


def axes_of(name: str) -> dict[str, Any]:
    """Returns the axes of a row, such as `bioS multi2+permute+fullname`, `bioR single+wiki` or `bioS couple5`.

    `permute` without a number shuffles each entry once. `+CEL` adds as many celebrities as people under test, with five
    wordings each: shuffled in bioS; in bioR with full names if the row has them (section 5). Raises `ValueError` for a
    name that is no row.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is no row of the paper")
    kind, multi, couple, permute, fullname, besides = match.groups()
    axes: dict[str, Any] = {
        "corpus.kind": kind,
        "corpus.multi": int(multi or 1),
        "corpus.permute": 0 if permute is None else int(permute or 1),
        "corpus.fullname": bool(fullname),
        "corpus.couple": int(couple or 0),
    }
    if besides == "+CEL":
        axes["corpus.celebrity_fraction"] = 0.5
        if kind == "bioR":
            axes |= {"corpus.celebrity.permute": 0, "corpus.celebrity.fullname": bool(fullname)}
    if besides == "+wiki":
        axes["corpus.background"] = UNNAMED
    return axes


def name_of(corpus: CorpusConfig) -> str:
    """Returns the paper's name of a corpus, such as `bioS multi5+permute+fullname`; `axes_of` reads it."""
    entries = f"couple{corpus.couple}" if corpus.couple else f"multi{corpus.multi}" if corpus.multi > 1 else "single"
    # The paper shuffles each of several entries once and does not print that 1.
    once = corpus.permute == 1 and corpus.multi > 1
    flags = {
        "permute" if once else f"permute{corpus.permute}": corpus.permute,
        "fullname": corpus.fullname,
        "CEL": corpus.celebrity_fraction,
        "wiki": corpus.background,
    }
    return "+".join([f"{corpus.kind} {entries}", *(flag for flag, on in flags.items() if on)])
