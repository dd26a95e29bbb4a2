"""A network that is trained already reads new facts: which ways of writing and of training make them extractable?

It needs two folders on the command line, which are one: `ktrain run injection model.start=FOLDER
corpus.tokenizer=FOLDER`. Rows: bioS single, with and without questions mixed in, multi5, single+permute5 and
multi5+permute, each trained whole and by LoRA. The paper trains from random weights, so nothing of it is compared.
"""

from collections.abc import Mapping
from typing import Any

from sweeps import Sweep
from sweeps.recipes.readouts import QA_RATIO_MINI, Variant
from sweeps.recipes.rows import axes_of
from sweeps.recipes.scales import MINIATURES
from sweeps.recipes.search import grid_search

ROWS = ("bioS single", "bioS multi5", "bioS single+permute5", "bioS multi5+permute")
METHODS: dict[str, Variant] = {
    "full": {"train.method": "full", "train.learning_rate": 3e-4},
    "lora": {"train.method": "lora", "train.learning_rate": 2e-3},
}
MINI: Variant = {
    "corpus.people": 60,
    "train.windows": "whole", "train.context": 192, "train.batch": 4, "train.warmup": 20,
    "train.steps": 200, "train.weight_decay": 0.0,
    "readout.steps": 60, "readout.batch": 32, "readout.learning_rate": 1e-4, "readout.recall_gate": 0.0,
}  # fmt: skip
"""Few people and steps: a network of 135M parameters reads a few hundred tokens a second on two cores. Nothing was
tuned, so every network is asked, and tables show beside its answers how much it recalls."""


def cells(scale: str) -> Mapping[str, Any]:
    """Returns ten cells: five ways of reading, each by two ways of training."""
    budget = MINI if scale in MINIATURES else {}
    reads: list[Variant] = [{**axes_of(row), "readout.kind": "qa_finetune"} for row in ROWS]
    reads.append({**axes_of(ROWS[0]), "train.qa_ratio": QA_RATIO_MINI, "readout.kind": "mixed"})
    variants = [{**budget, **read, **method} for read in reads for method in METHODS.values()]
    return {"model.family": "hf", "row": grid_search(variants)}


sweep = Sweep(
    name="injection",
    question="Which ways of writing and of training put extractable facts into a network that is trained already?",
    grid=cells,
)
