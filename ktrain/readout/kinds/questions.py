"""What both kinds that ask questions share: their columns and their charts."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ktrain.config import ATTRIBUTES, CellConfig
from ktrain.model import sizes
from ktrain.readout.kinds.base import ReadoutKind

if TYPE_CHECKING:
    import pandas as pd


GROUPS = ("train", "test", "validation")
"""The groups of people of whom metrics can be (`scores.asked_groups`)."""


class QuestionKind(ReadoutKind):
    """Every attribute of every person is asked; accuracies by group of people and attribute (paper, section 3)."""

    version = 3
    columns = tuple(f"exact_match/test/{column}" for column in ("mean", *ATTRIBUTES))
    label = "exact match on people never asked about (%)"
    figure = "answers"
    asks = True

    def size(self, cell: CellConfig, vocabulary: int) -> int:
        """Bytes of the network, which is published beside its answers."""
        return 4 * sizes.parameters(cell.model, vocabulary)

    def recomputed(self, predictions: "pd.DataFrame") -> dict[str, float]:
        """Exact match and first tokens, by group of people and attribute."""
        metrics = {}
        for measure, column in (("exact_match", "exact"), ("first_token", "first_token")):
            for group, rows in predictions.groupby("split"):
                prefix = f"{self.metric_prefix}/{measure}/{group}"
                metrics[f"{prefix}/mean"] = float(rows[column].mean())
                shares = rows.groupby("attribute")[column].mean()
                metrics |= {f"{prefix}/{attribute}": float(share) for attribute, share in shares.items()}
        return metrics

    def attribute_metrics(self, attributes: Sequence[str]) -> frozenset[str]:
        """Those of `recomputed`, and what the commonest values would score."""
        columns = ("mean", *attributes)
        measured = itertools.product(("exact_match", "first_token"), GROUPS, columns)
        names = {"/".join((self.metric_prefix, *parts)) for parts in measured}
        return frozenset(names | {f"baseline/test/{column}" for column in columns})

    def charts(self) -> dict[str, tuple[str, ...]]:
        """Held-out people by attribute, and the numbers that say whether those mean anything."""
        mean, *attributes = (f"{self.metric_prefix}/{column}" for column in self.columns)
        controls = f"{self.metric_prefix}/exact_match/train/mean", f"{self.metric_prefix}/first_token/test/mean"
        return {
            "Exact match on held-out people, mean": (mean,),
            "Exact match on held-out people, by attribute": tuple(attributes),
            "People asked about, first tokens, recall": (*controls, "recall/attribute_tokens"),
        }
