"""Figure 2: no finetuning extracts what was read in one wording, whatever it may change in the network."""

from typing import Any

from ray import tune

from sweeps import Sweep

RANKS_QV = (2, 4, 8, 16, 32)
RANKS_EMBEDDING = (0, 16, 32, 64, 128, "full")
ADAPTERS = {
    "readout.method": "lora",
    "readout.learning_rate": 3e-4,
    "readout.final_learning_rate": 0.1,
    "readout.weight_decay": 0.01,
}
"""The paper's (appendix B). At `mini` a hundredth of the steps has to do, with ten times the rate: not measured."""
ADAPTERS_MINI = {**ADAPTERS, "readout.learning_rate": 3e-3, "readout.final_learning_rate": 0.0}


def grid(scale: str) -> dict[str, Any]:
    """The thirty adapters, and six ways to finetune everything, of which the best is shown."""
    chosen = ADAPTERS_MINI if scale == "mini" else ADAPTERS
    adapters = [
        {**chosen, "readout.rank_qv": r, "readout.rank_embedding": e} for e in RANKS_EMBEDDING for r in RANKS_QV
    ]
    whole = [
        {"readout.method": "full", "readout.weight_decay": decay, "readout.learning_rate": rate}
        for decay in (0.01, 0.001)
        for rate in (1e-3, 3e-4, 1e-4)
    ]
    return {"corpus.multi": 1, "corpus.permute": 0, "readout": tune.grid_search([*adapters, *whole])}


sweep = Sweep(
    name="fig2",
    question="Does it matter how much of the network a finetuning may change?",
    figure="fig2",
    grid=grid,
    best_of=("readout.weight_decay", "readout.learning_rate"),
)
