"""The smallest set of cells that tests every conclusion of the paper, which `analysis/claims/claims.toml` lists."""

from sweeps import Sweep
from sweeps.recipes.readouts import (
    PEOPLE,
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
from sweeps.recipes.scales import MINIATURES

MANY, FEW, FEWEST = PEOPLE_PROBED, PEOPLE, PEOPLE // 2
"""People of the miniature. Probes that are compared with answers need many. Celebrities and GBERT take longer to learn
a biography, so they have fewer, and are compared with networks that have read about as few."""
WORDINGS = (
    "bioS single",
    "bioS single+fullname",
    "bioS single+permute1",
    "bioS single+permute5",
    "bioS multi5",
    "bioS multi5+permute",
)


def everything(scale: str, row: str) -> list[Variant]:
    """Finetuning of the whole network: a miniature once, else in the paper's six settings, of which the best counts."""
    return finetuned(scale, row) if scale in MINIATURES else whole(scale, row)


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
        Sweep("wordings and orders", grid(WORDINGS, finetuned, q_probe, people=MANY)),
        Sweep("any finetuning", grid(("bioS single",), everything, adapted, people=MANY)),
        Sweep("places", grid(("bioS single", "bioS multi5+permute"), p_probe, people=MANY)),
        Sweep("mixed training", grid(("bioS single",), mixed, people=MANY)),
        Sweep("celebrities", grid(("bioS single+permute1+CEL", "bioS single+CEL"), finetuned, people=FEW)),
        Sweep("GBERT finetuned", grid(("bioS multi5+permute",), gbert_finetuned, family="gbert", people=FEWEST)),
        Sweep("GBERT mixed", grid(("bioS single",), gbert_mixed, family="gbert", people=FEWEST)),
        # At larger scales these cells are among those above.
        Sweep("celebrities compared with", grid(("bioS single", "bioS single+permute1"), finetuned, people=FEW)),
        Sweep("GBERT compared with", grid(("bioS multi5+permute",), finetuned, people=FEWEST)),
    ),
)
