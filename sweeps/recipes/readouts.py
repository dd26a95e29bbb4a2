"""Recipes: how the paper trains and reads out its rows (sections 3 to 5, appendix B), and what replaces that at the
smaller scales.

A readout here is a function of scale and row that returns the variants in which the row is trained and read out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sweeps.recipes.rows import axes_of
from sweeps.recipes.scales import MINIATURES
from sweeps.recipes.search import grid_search

Variant = dict[str, Any]
"""Values of axes, by axis name."""
Readout = Callable[[str, str], list[Variant]]

NETWORKS = {"bioS": ("124m", 80_000), "bioR": ("302m", 150_000)}
"""Network size and training steps for each kind of text."""
LARGEST_STEPS = 200_000
"""Training steps of the 682M networks of Figure 2."""
GBERT_STEPS, GBERT_RATE = 150_000, 3e-4
MEDIUM_SHARE = 4
"""`medium` has a quarter of the paper's steps: a guess, not measured."""

PEOPLE, PEOPLE_PROBED = 500, 1_000
"""People of the miniature. With fewer than 1,000, classes of probes would have too few people (docs/miniature.md)."""
STEPS = {"plain": 5_400, "mixed": 10_800, "celebrity": 16_200, "gbert": 43_200}
"""Training steps of `mini` for 500 people, in proportion for other numbers; `small` takes more. With these, networks of
the sweep `claims` recall what they have read (docs/miniature.md). Questions, celebrities and masks leave fewer tokens
for the biographies of the people under test, so those networks take more steps."""
FREE_TEXT = 2
"""Factor on the steps for bioR, whose entries are longer and less alike; the paper has 150,000 in place of 80,000."""
WHOLE_WINDOWS: Variant = {"train.windows": "whole", "train.context": 176, "train.batch": 6}
"""Windows of the miniature's templated text, as many tokens a step as 8 x 128. Its short windows would cut most
biographies from their names; 176 tokens hold the longest one with full names."""
FINETUNED_STEPS = 400
"""Steps of the miniature's finetuning for 500 people, in proportion for other numbers."""
QA_RATIO, QA_RATIO_MINI, QA_RATIO_GBERT_MINI = 0.8, 0.5, 0.2
"""The paper's share of questions leaves too few passes over the biographies in a miniature's budget, and a masked
network needs more passes than a causal one."""

MASK_SHARE_GBERT_MINI, MASKED_ANSWERS_GBERT_MINI = 0.25, 0.5
"""More masks than the paper's 15 %: with those, the miniature's bidirectional network does not remember what it reads,
and does not learn to fill in whole answers from single words of them. Chosen on seed 100 (docs/miniature.md)."""

RANKS_QV = (2, 4, 8, 16, 32)
RANKS_EMBEDDING = (0, 16, 32, 64, 128, "full")
ADAPTED = {
    "readout.method": "lora",
    "readout.learning_rate": 3e-4,
    "readout.final_learning_rate": 0.1,
    "readout.weight_decay": 0.01,
}
"""LoRA finetuning of the paper (appendix B). `mini` has a hundredth of the steps, ten times the rate: not measured."""
ADAPTED_MINI = {**ADAPTED, "readout.learning_rate": 3e-3, "readout.final_learning_rate": 0.0}
WHOLE = tuple((decay, rate) for decay in (0.01, 0.001) for rate in (1e-3, 3e-4, 1e-4))
"""Weight decays and learning rates of finetuning the whole network."""
GBERT_LINEAR = {"readout.decay": "linear", "readout.final_learning_rate": 0.0}
"""The schedule of GBERT's finetuning, which differs from GPT-2's (appendix B)."""
P_RANKS = (2, 4)
Q_RANKS = {"bioS": (16, 64), "bioR": (32, 128)}
"""Ranks of the embedding's update in probes: the main one and the control (sections 4.1 and 4.2)."""


def grid(
    rows: tuple[str, ...], *readouts: Readout, family: str = "gpt2", size: str = "", people: int = PEOPLE
) -> Callable[[str], Mapping[str, Any]]:
    """Returns a figure's grid as a function of the scale: every row under every readout.

    `size` replaces the size of the row's network, and `people` is the number of people of the miniature.
    """

    def at(scale: str) -> Mapping[str, Any]:
        variants = []
        for row in rows:
            for readout in readouts:
                for variant in readout(scale, row):
                    axes = {**axes_of(row), "model.family": family, **variant}
                    variants.append({**axes, **_budget(scale, axes, size, people)})
        return {"row": grid_search(variants)}

    return at


def finetuned(scale: str, row: str) -> list[Variant]:
    """QA finetuning with two adapters, the better of which counts; of a miniature's whole network, once."""
    return [_qa_finetune(row)] if scale in MINIATURES else adapted(scale, row)


def adapted(scale: str, row: str) -> list[Variant]:
    """QA finetuning with the two adapters of the paper's main results."""
    return _adapters(scale, row, (8, 16), (128,))


def any_adapter(scale: str, row: str) -> list[Variant]:
    """QA finetuning with the thirty adapters of Figures 2 and 11."""
    return _adapters(scale, row, RANKS_QV, RANKS_EMBEDDING)


def whole(scale: str, row: str) -> list[Variant]:
    """QA finetuning of the whole network in six settings, the best of which counts."""
    return [
        {
            **_qa_finetune(row),
            "readout.method": "full",
            "readout.weight_decay": decay,
            "readout.learning_rate": rate,
        }
        for decay, rate in WHOLE
    ]


def gbert_finetuned(scale: str, row: str) -> list[Variant]:
    """QA finetuning with four adapters, the best of which counts; of a miniature's whole network, once."""
    if scale in MINIATURES:
        return [{**_qa_finetune(row), "train.mask_share": MASK_SHARE_GBERT_MINI}]
    return [{**variant, **GBERT_LINEAR} for variant in _adapters(scale, row, (8, 32), (128, "full"))]


def mixed(scale: str, row: str) -> list[Variant]:
    """Mixed training at the usual share of questions."""
    return mixed_at(QA_RATIO_MINI if scale in MINIATURES else QA_RATIO)(scale, row)


def mixed_any_ratio(scale: str, row: str) -> list[Variant]:
    """Mixed training at the seven shares of questions of Figure 10."""
    return mixed_at(0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9)(scale, row)


def gbert_mixed(scale: str, row: str) -> list[Variant]:
    """Mixed training at two shares of questions, the better of which counts; a miniature's at one."""
    if scale in MINIATURES:
        return [
            {**variant, "train.masked_answers": MASKED_ANSWERS_GBERT_MINI}
            for variant in mixed_at(QA_RATIO_GBERT_MINI)(scale, row)
        ]
    return mixed_at(0.2, 0.8)(scale, row)


def mixed_at(*ratios: float) -> Readout:
    """Mixed training at these shares of questions."""
    return lambda scale, row: [{"train.qa_ratio": ratio, "readout.kind": "mixed"} for ratio in ratios]


def p_probe(scale: str, row: str) -> list[Variant]:
    """P-probes of the main rank."""
    return [{"readout.kind": "p_probe", "readout.rank_embedding": P_RANKS[0]}]


def p_control(scale: str, row: str) -> list[Variant]:
    """P-probes of the larger rank."""
    return [{"readout.kind": "p_probe", "readout.rank_embedding": P_RANKS[1]}]


def q_probe(scale: str, row: str) -> list[Variant]:
    """Q-probes of the main rank, which is larger for the wider networks of bioR."""
    return [{"readout.kind": "q_probe", "readout.rank_embedding": Q_RANKS[row[:4]][0]}]


def q_control(scale: str, row: str) -> list[Variant]:
    """Q-probes of the larger rank."""
    return [{"readout.kind": "q_probe", "readout.rank_embedding": Q_RANKS[row[:4]][1]}]


def _qa_finetune(row: str) -> Variant:
    """QA finetuning, on celebrities where the row has some (section 5), else on the people under test."""
    people = "celebrity" if row.endswith("+CEL") else "minority"
    return {"train.qa_ratio": 0.0, "readout.kind": "qa_finetune", "readout.people": people}


def _adapters(scale: str, row: str, qv: tuple[int, ...], embedding: tuple[int | str, ...]) -> list[Variant]:
    chosen = {**_qa_finetune(row), **(ADAPTED_MINI if scale in MINIATURES else ADAPTED)}
    return [{**chosen, "readout.rank_qv": r, "readout.rank_embedding": e} for e in embedding for r in qv]


def _budget(scale: str, axes: Mapping[str, Any], size: str, people: int) -> Variant:
    """Network size, training and finetuning steps and, for a miniature, people and windows."""
    gbert, mixes = axes["model.family"] == "gbert", bool(axes.get("train.qa_ratio"))
    if scale in MINIATURES:
        arm = "gbert" if gbert else "mixed" if mixes else "plain"
        if axes.get("corpus.celebrity_fraction"):
            arm = "celebrity"
        times = MINIATURES[scale] * (FREE_TEXT if axes["corpus.kind"] == "bioR" else 1)
        budget: Variant = {"corpus.people": people, "train.steps": times * STEPS[arm] * people // PEOPLE}
        if axes["corpus.kind"] == "bioS":
            budget |= WHOLE_WINDOWS
        if axes["readout.kind"] == "qa_finetune":
            # Finetuning asks about all celebrities, but only about one half of the people under test.
            halves = 2 if axes["readout.people"] == "celebrity" else 1
            budget["readout.steps"] = FINETUNED_STEPS * halves * people // PEOPLE
        return budget
    usual, steps = NETWORKS[axes["corpus.kind"]]
    steps = GBERT_STEPS if gbert else LARGEST_STEPS if size == "682m" else steps
    share = MEDIUM_SHARE if scale == "medium" else 1
    budget = {"model.size": size or usual, "train.steps": steps // share}
    return {**budget, "train.learning_rate": GBERT_RATE} if gbert else budget
