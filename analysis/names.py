"""Names: the attributes, the kinds of readout, and the metrics that each records."""

from collections.abc import Iterable
from typing import Literal

Of = Literal["first", "whole"]
"""What a probe predicts: the attribute's first token (of the birth date, the month), or the attribute as a whole."""
PREDICTED: dict[Of, str] = {"first": "first token", "whole": "whole attribute"}
OFS: tuple[Of, ...] = tuple(PREDICTED)
ACCURACY = "accuracy on held-out people (%)"

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "company", "company_city")
AVERAGED = ATTRIBUTES[1:]
"""What a probe's mean is over: a birth date as a whole has too many values for a probe."""
COLUMNS = ("mean", *ATTRIBUTES)
POSITIONS = tuple(range(len(ATTRIBUTES)))
"""A P-probe's special positions: position i is right before the i-th attribute of an entry."""
HEADERS = {
    "birth_date": "birth date",
    "birth_city": "birth city",
    "university": "univ.",
    "company_city": "company city",
}
QUESTIONS = {"qa": "QA finetune", "mixed": "Mixed training"}
"""Column groups of the paper's Fig. 3, as metric prefix and title."""
PROBES = {"q_probe": "Q-probe", "p_probe": "P-probe"}
GROUPS = QUESTIONS | PROBES
RECALL = "recall/attribute_tokens"
LEARNING = {
    "bio/first_token/train/mean": "biographies, people asked about",
    "mixed/first_token/train/mean": "questions, people asked about",
    "bio/first_token/test/mean": "biographies, people never asked about",
    "mixed/first_token/test/mean": "questions, people never asked about",
    "mixed/exact_match/test/mean": "whole answers, people never asked about",
}
"""The five curves of the paper's Fig. 1b and c by metric name, with what is predicted and about whom; all but the last
are of first tokens. Who was asked about is in distribution."""
LOSS = "train/loss"
"""The curve that every training has."""


def metric(group: str, column: str) -> str:
    """Metric name of one answer: exact match on people never asked about."""
    return f"{group}/exact_match/test/{column}"


def q_probe(of: Of, column: str) -> str:
    """Accuracy of a probe on the name alone; `column` is an attribute or `mean`."""
    return f"q_probe/{of}/{column}"


def p_probe(of: Of, position: int | Literal["own"], column: str) -> str:
    """Accuracy of a probe at a special position, or right before the attribute itself (`own`)."""
    return f"p_probe/{of}/{position}/{column}"


def seen(of: Of, attributes: Iterable[str], column: str) -> str:
    """Accuracy of a P-probe where exactly these attributes stand before the position."""
    chosen = set(attributes)
    return f"p_probe/seen/{of}/{'-'.join(name for name in ATTRIBUTES if name in chosen) or 'none'}/{column}"


def majority(group: str, of: Of, column: str) -> str:
    """Majority baseline of a column; answers have one of the whole attribute, probes one of each kind."""
    return f"baseline/{of}/{column}" if group in PROBES else f"baseline/test/{column}"


def of_attributes(of: Of) -> tuple[str, ...]:
    """The attributes that a probe is trained for."""
    return ATTRIBUTES if of == "first" else AVERAGED
