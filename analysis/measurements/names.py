"""Names of attributes, column groups and metrics, as results record them and tables head them."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

ProbeTarget = Literal["first", "whole"]
"""What a probe predicts: the attribute's first token (of the birth date, the month), or the attribute as a whole."""
TARGET_TITLES: dict[ProbeTarget, str] = {"first": "first token", "whole": "whole attribute"}
PROBE_TARGETS: tuple[ProbeTarget, ...] = tuple(TARGET_TITLES)
ACCURACY = "accuracy on held-out people (%)"

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "company", "company_city")
"""The six that everybody has; people of a sweep may have others besides, which its metrics name (`attributes_of`)."""
BASELINES = re.compile(r"baseline/(?:test|first|whole)/(?!mean$)([a-z][a-z0-9_]*)")
"""Metrics of an attribute that every cell has which asks for it, those of cells that are blocked included."""
AVERAGED = ATTRIBUTES[1:]
"""A probe's mean covers these; a whole birth date has too many values for a probe."""
COLUMNS = ("mean", *ATTRIBUTES)
POSITIONS = tuple(range(len(ATTRIBUTES)))
"""A P-probe's special positions: position i is right before the i-th attribute of an entry."""
COUNTED = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}
HEADERS = {
    "birth_date": "birth date",
    "birth_city": "birth city",
    "university": "univ.",
    "company_city": "company city",
}
QUESTIONS = {"qa": "QA finetune", "mixed": "Mixed training"}
"""Column groups of the paper's Fig. 3: metric prefix -> title."""
PROBES = {"q_probe": "Q-probe", "p_probe": "P-probe"}
GROUPS = QUESTIONS | PROBES
RECALL = "recall/attribute_tokens"
NAMELESS = "windows/nameless_attribute_tokens"
"""Share of the attribute tokens that pretraining reads in a window without the full name before them."""
LEARNING = {
    "bio/first_token/train/mean": "biographies, people asked about",
    "mixed/first_token/train/mean": "questions, people asked about",
    "bio/first_token/test/mean": "biographies, people never asked about",
    "mixed/first_token/test/mean": "questions, people never asked about",
    "mixed/exact_match/test/mean": "whole answers, people never asked about",
}
"""The five curves of the paper's Fig. 1b and c: metric -> label. All but the last measure first tokens; people
asked about are in distribution."""
BEFORE_TRAINING = "before training"
"""The line of tables that shows what the networks of `model.start` answer before they read the biographies."""
LOSS = "train/loss"
"""Every pretraining records this curve."""


def in_order(attributes: Iterable[str]) -> tuple[str, ...]:
    """These attributes, each once: those of the six in their order, then others in that of the alphabet."""
    chosen = set(attributes)
    return (*(name for name in ATTRIBUTES if name in chosen), *sorted(chosen - set(ATTRIBUTES)))


def attributes_of(metrics: Iterable[str]) -> tuple[str, ...]:
    """The attributes of the people whose readouts recorded these metrics: the six and any others."""
    return in_order([*ATTRIBUTES, *(found[1] for name in metrics if (found := BASELINES.fullmatch(name)))])


def counted(number: int) -> str:
    """A number of attributes in words, or in digits where rows of a table have many different ones."""
    return COUNTED.get(number, str(number))


def header(column: str) -> str:
    """What a column of an attribute, or of their mean, is called in a table."""
    return HEADERS.get(column, column.replace("_", " "))


def metric(group: str, column: str) -> str:
    """Metric of exact match on held-out people; `column` is an attribute or `mean`."""
    return f"{group}/exact_match/test/{column}"


def q_probe(target: ProbeTarget, column: str) -> str:
    """Metric of a probe on the name alone; `column` is an attribute or `mean`."""
    return f"q_probe/{target}/{column}"


def p_probe(target: ProbeTarget, position: int | Literal["own"], column: str) -> str:
    """Metric of a probe at a special position, or right before the attribute itself (`own`)."""
    return f"p_probe/{target}/{position}/{column}"


def p_probe_after(target: ProbeTarget, attributes: Iterable[str], column: str) -> str:
    """Metric of a P-probe over the positions that follow exactly these attributes, in any order."""
    return f"p_probe/seen/{target}/{'-'.join(in_order(attributes)) or 'none'}/{column}"


def majority(group: str, target: ProbeTarget, column: str) -> str:
    """Metric of a column's majority baseline: probes have one per target, answers one of the whole attribute."""
    return f"baseline/{target}/{column}" if group in PROBES else f"baseline/test/{column}"


def before_training(column: str) -> str:
    """Metric of exact match on held-out people of a network that was trained already, before it read anything."""
    return f"start/exact_match/test/{column}"


def probed_attributes(target: ProbeTarget, attributes: Sequence[str] = ATTRIBUTES) -> tuple[str, ...]:
    """The attributes for which this kind of probe is trained: a whole birth date has too many values."""
    return tuple(name for name in attributes if target == "first" or name != "birth_date")
