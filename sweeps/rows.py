"""Rows: the settings of the paper's figures, by the names that it has for them, as axes."""

import re
from typing import Any

from ktrain.background import TO_BE_NAMED

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
"""Figures 3, 5, 7, 12c, 13 and 16, in their order."""
BIOR = (
    "bioR single",
    "bioR single+fullname",
    "bioR multi3",
    "bioR multi3+fullname",
    "bioR multi5",
    "bioR multi5+fullname",
)
"""Figures 12a, 12b, 14 and 16."""
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
"""Figures 18 and 19: what is known about people who are not celebrities."""
_NAME = re.compile(r"(bio[SR]) (?:single|multi(\d+)|couple(\d+))(?:\+permute(\d*))?(\+fullname)?(\+CEL|\+wiki)?")


def axes_of(name: str) -> dict[str, Any]:
    """The axes of a row, such as `bioS multi2+permute+fullname`, `bioR single+wiki` or `bioS couple5`.

    `permute` alone shuffles each entry once. `+CEL` adds as many celebrities as people under test, five wordings each:
    shuffled in bioS, in bioR with full names where the row has them (section 5). Raises `ValueError` for another name.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is no row of the paper")
    kind, multi, couple, permute, fullname, besides = match.groups()
    found: dict[str, Any] = {
        "corpus.kind": kind,
        "corpus.multi": int(multi or 1),
        "corpus.permute": 0 if permute is None else int(permute or 1),
        "corpus.fullname": bool(fullname),
        "corpus.couple": int(couple or 0),
    }
    if besides == "+CEL":
        found["corpus.celebrity_fraction"] = 0.5
        if kind == "bioR":
            found |= {"corpus.celebrity.permute": 0, "corpus.celebrity.fullname": bool(fullname)}
    if besides == "+wiki":
        found["corpus.background"] = TO_BE_NAMED
    return found
