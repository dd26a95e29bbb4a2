"""Readout kinds besides the paper's four: plain descriptions that the sweep recorded, so that they can be shown too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.measurements.names import PROBES

TAG = "ktrain.readout_kinds"
"""Tag of an experiment: a JSON list with the description of each kind of readout."""
PAPER = ("qa_finetune", "mixed", *PROBES)
"""The kinds that have tables and figures of their own."""


@dataclass(frozen=True)
class OtherKind:
    """One kind of readout as tables and figures show it."""

    name: str
    """The value of `readout.kind`, and the column group of its cells."""
    title: str
    prefix: str
    """Prefix of its metric names."""
    columns: tuple[str, ...]
    """Metrics after the prefix, the main one first."""
    label: str
    """What the numbers are."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are shown."""
        return tuple(f"{self.prefix}/{column}" for column in self.columns)


def other_kinds(tags: Mapping[str, Any]) -> tuple[OtherKind, ...]:
    """Reads the kinds from an experiment's tags; an older experiment has no such tag and only the paper's kinds.

    Raises `ValueError` where the tag holds something else.
    """
    try:
        kinds = tuple(map(_kind, json.loads(tags.get(TAG, "[]"))))
    except (ValueError, TypeError, LookupError, RecursionError) as e:
        raise ValueError(f"{TAG} is no list of readout kinds: {str(e)[:100]}") from None
    return tuple(kind for kind in kinds if kind.name not in PAPER)


def _kind(described: Mapping[str, Any]) -> OtherKind:
    columns = tuple(described["columns"])
    texts = [described[name] for name in ("name", "title", "prefix", "label")]
    if odd := [text for text in (*texts, *columns) if not isinstance(text, str)]:
        raise ValueError(f"{odd[0]!r} is no text")
    name, title, prefix, label = texts
    return OtherKind(name, title, prefix, columns, label)
