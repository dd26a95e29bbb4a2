"""The smallest set of cells that tests every conclusion of the paper, those of `analysis/claims.toml`."""

from sweeps import Sweep
from sweeps.recipes import (
    PEOPLE_PROBED,
    Variant,
    adapted,
    finetuned,
    gbert_finetuned,
    gbert_mixed,
    grid,
    mixed,
    p_probe,
    q_probe,
    whole,
)

PEOPLE = PEOPLE_PROBED
"""Of the miniature, in every cell, so that one network serves questions and probes; steps are in `recipes.STEPS`."""
WRITTEN = (
    "bioS single",
    "bioS single+fullname",
    "bioS single+permute1",
    "bioS single+permute5",
    "bioS multi5",
    "bioS multi5+permute",
)


def everything(scale: str, row: str) -> list[Variant]:
    """Finetuning of the whole network: as the miniature does it, or the paper's six, of which the best is taken."""
    return finetuned(scale, row) if scale == "mini" else whole(scale, row)


sweep = Sweep(
    name="claims",
    question="Which conclusions of the paper hold in these data?",
    best_of=(
        "readout.rank_qv",
        "readout.rank_embedding",
        "readout.weight_decay",
        "readout.learning_rate",
        "train.qa_ratio",
    ),
    parts=(
        Sweep("wordings and orders", grid(WRITTEN, finetuned, q_probe, people=PEOPLE)),
        Sweep("any finetuning", grid(("bioS single",), everything, adapted, people=PEOPLE)),
        Sweep("places", grid(("bioS single", "bioS multi5+permute"), p_probe, people=PEOPLE)),
        Sweep("mixed training", grid(("bioS single",), mixed, people=PEOPLE)),
        Sweep("celebrities", grid(("bioS single+permute1+CEL", "bioS single+CEL"), finetuned, people=PEOPLE)),
        Sweep("GBERT finetuned", grid(("bioS multi5+permute",), gbert_finetuned, family="gbert", people=PEOPLE)),
        Sweep("GBERT mixed", grid(("bioS single",), gbert_mixed, family="gbert", people=PEOPLE)),
    ),
)
