"""Recipes: how the paper trains and reads out its rows (sections 3 to 5, appendix B), and what stands in for that at
the smaller scales.

A readout here is a function of scale and row, which gives the ways in which the row is trained and asked.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from sweeps.rows import axes_of

Variant = dict[str, Any]
"""Axes and their values."""
Readout = Callable[[str, str], list[Variant]]

NETWORKS = {"bioS": ("124m", 80_000), "bioR": ("302m", 150_000)}
"""Size and steps for each kind of text."""
LARGEST_STEPS = 200_000
"""Of the 682M networks of Figure 2."""
GBERT_STEPS, GBERT_RATE = 150_000, 3e-4
SMALL_SHARE = 4
"""At `small`, a quarter of the paper's steps: a guess, not measured."""

PEOPLE, PEOPLE_PROBED = 500, 1_000
"""Of the miniature; with fewer than 1,000, the classes of probes would have too few people (docs/miniature.md)."""
STEPS = {"plain": 5_400, "mixed": 10_800, "celebrity": 16_200, "gbert": 43_200}
"""Of the miniature, for 500 people; other numbers take them in proportion. With these, networks of the sweep `claims`
recall what they have read (docs/miniature.md): questions, celebrities and masks leave less of what is seen for the
biographies of the people under test."""
FREE_TEXT = 2
"""Times so many for bioR, whose entries are longer and less alike; the paper has 150,000 steps there for 80,000."""
FINETUNED_STEPS = 400
"""Of the miniature's finetuning, for 500 people, as above."""
QA_RATIO, QA_RATIO_MINI, QA_RATIO_GBERT_MINI = 0.8, 0.5, 0.2
"""At the paper's ratio a miniature's budget leaves too few passes over the biographies to remember them, and a network
that fills masks in needs more passes than one that continues."""

RANKS_QV = (2, 4, 8, 16, 32)
RANKS_EMBEDDING = (0, 16, 32, 64, 128, "full")
ADAPTED = {
    "readout.method": "lora",
    "readout.learning_rate": 3e-4,
    "readout.final_learning_rate": 0.1,
    "readout.weight_decay": 0.01,
}
"""The paper's (appendix B). At `mini` a hundredth of the steps has to do, with ten times the rate: not measured."""
ADAPTED_MINI = {**ADAPTED, "readout.learning_rate": 3e-3, "readout.final_learning_rate": 0.0}
WHOLE = tuple((decay, rate) for decay in (0.01, 0.001) for rate in (1e-3, 3e-4, 1e-4))
"""Weight decays and learning rates with which everything is finetuned."""
GBERT_LINEAR = {"readout.decay": "linear", "readout.final_learning_rate": 0.0}
"""How GBERT is finetuned, unlike GPT-2 (appendix B)."""
P_RANKS = (2, 4)
Q_RANKS = {"bioS": (16, 64), "bioR": (32, 128)}
"""Ranks of the embedding's update in probes: the main one and the control (sections 4.1 and 4.2)."""


def grid(
    rows: tuple[str, ...], *readouts: Readout, family: str = "gpt2", size: str = "", people: int = PEOPLE
) -> Callable[[str], Mapping[str, Any]]:
    """The grid of a figure at any scale: every row under every readout.

    `size` is for networks larger than the row has otherwise, `people` how many the miniature has.
    """

    def at(scale: str) -> Mapping[str, Any]:
        found = []
        for row in rows:
            for variant in (variant for readout in readouts for variant in readout(scale, row)):
                axes = {**axes_of(row), "model.family": family, **variant}
                found.append({**axes, **_budget(scale, axes, size, people)})
        return {"row": tune.grid_search(found)}

    return at


def finetuned(scale: str, row: str) -> list[Variant]:
    """QA finetuning by the better of two adapters; at `mini` everything is finetuned, once."""
    return [_asked(row)] if scale == "mini" else adapted(scale, row)


def adapted(scale: str, row: str) -> list[Variant]:
    """QA finetuning by the two adapters of the paper's main results."""
    return _adapters(scale, row, (8, 16), (128,))


def any_adapter(scale: str, row: str) -> list[Variant]:
    """The thirty adapters of Figures 2 and 11."""
    return _adapters(scale, row, RANKS_QV, RANKS_EMBEDDING)


def whole(scale: str, row: str) -> list[Variant]:
    """Six ways to finetune everything, of which the best is shown."""
    return [
        {
            **_asked(row),
            "readout.method": "full",
            "readout.weight_decay": decay,
            "readout.learning_rate": rate,
        }
        for decay, rate in WHOLE
    ]


def gbert_finetuned(scale: str, row: str) -> list[Variant]:
    """Four adapters, the best of which is shown; at `mini` everything is finetuned, once."""
    if scale == "mini":
        return [_asked(row)]
    return [{**variant, **GBERT_LINEAR} for variant in _adapters(scale, row, (8, 32), (128, "full"))]


def mixed(scale: str, row: str) -> list[Variant]:
    """Mixed training at the usual share of questions."""
    return mixed_at(QA_RATIO_MINI if scale == "mini" else QA_RATIO)(scale, row)


def gbert_mixed(scale: str, row: str) -> list[Variant]:
    """Mixed training at two shares of questions, the better of which is shown; at `mini` at one."""
    return mixed_at(QA_RATIO_GBERT_MINI)(scale, row) if scale == "mini" else mixed_at(0.2, 0.8)(scale, row)


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


def _asked(row: str) -> Variant:
    """Where there are celebrities, questions about them are what is finetuned on (section 5)."""
    people = "celebrity" if row.endswith("+CEL") else "minority"
    return {"train.qa_ratio": 0.0, "readout.kind": "qa_finetune", "readout.people": people}


def _adapters(scale: str, row: str, qv: tuple[int, ...], embedding: tuple[int | str, ...]) -> list[Variant]:
    chosen = {**_asked(row), **(ADAPTED_MINI if scale == "mini" else ADAPTED)}
    return [{**chosen, "readout.rank_qv": r, "readout.rank_embedding": e} for e in embedding for r in qv]


def _budget(scale: str, axes: Mapping[str, Any], size: str, people: int) -> Variant:
    """Size, steps and, at `mini`, people."""
    gbert, asks = axes["model.family"] == "gbert", bool(axes.get("train.qa_ratio"))
    if scale == "mini":
        arm = "gbert" if gbert else "mixed" if asks else "plain"
        if axes.get("corpus.celebrity_fraction"):
            arm = "celebrity"
        times = FREE_TEXT if axes["corpus.kind"] == "bioR" else 1
        budget: Variant = {"corpus.people": people, "train.steps": times * STEPS[arm] * people // PEOPLE}
        if axes["readout.kind"] == "qa_finetune":
            # Of celebrities everyone is asked about, of the people under test one half.
            asked = 2 if axes["readout.people"] == "celebrity" else 1
            budget["readout.steps"] = FINETUNED_STEPS * asked * people // PEOPLE
        return budget
    usual, steps = NETWORKS[axes["corpus.kind"]]
    steps = GBERT_STEPS if gbert else LARGEST_STEPS if size == "682m" else steps
    share = SMALL_SHARE if scale == "small" else 1
    budget = {"model.size": size or usual, "train.steps": steps // share}
    return {**budget, "train.learning_rate": GBERT_RATE} if gbert else budget
