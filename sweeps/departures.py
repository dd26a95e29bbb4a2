"""Departures: where cells differ from the paper, and what had to be assumed because the paper does not say."""

from collections.abc import Callable, Iterable
from typing import Any

from ktrain.config import Cell
from ktrain.stages import axes
from sweeps.recipes import GBERT_LINEAR, GBERT_RATE, GBERT_STEPS, LARGEST_STEPS, NETWORKS, WHOLE
from sweeps.scales import base

VARIES = {
    "corpus.kind", "corpus.multi", "corpus.permute", "corpus.fullname", "corpus.couple", "corpus.background",
    "corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname", "model.family", "train.qa_ratio",
    "readout.kind", "readout.people", "readout.method", "readout.rank_qv", "readout.rank_embedding", "readout.beam",
    "readout.people_per_class", "seed",
}  # fmt: skip
"""Axes that the paper itself varies, or that decide nothing: no departure."""
RULED = "bioR is written by rules, not by a language model: the paper has Llama1-30B (corpus.writer.backend)"
OF_MIXED = ("readout.recall_gate", "readout.beam")
"""What of a readout matters where nothing is trained after mixed training."""


def departures(cells: Iterable[Cell]) -> list[str]:
    """One line for each axis on which cells are not as in the paper, with its value and theirs."""
    lines: dict[str, dict[str, None]] = {}
    ruled = False
    for cell in cells:
        ruled |= cell.corpus.kind == "bioR" and cell.corpus.writer.backend == "rules"
        here, kind = axes(cell), cell.readout.kind
        for axis, value in published(cell).items():
            idle = kind == "mixed" and axis.startswith("readout.") and axis not in OF_MIXED
            if axis in VARIES or axis.startswith("corpus.writer.") or idle or here[axis] == value:
                continue
            about = f" ({kind})" if axis.startswith("readout.") else ""
            lines.setdefault(f"{axis}{about}: the paper has {value}, here ", {})[str(here[axis])] = None
    return [*([RULED] if ruled else []), *(line + ", ".join(values) for line, values in lines.items())]


def published(cell: Cell) -> dict[str, Any]:
    """The axes of the paper's cell that is nearest to this one: the same text, network family and readout."""
    found = axes(base("full", cell.readout.kind))
    size, steps = NETWORKS[cell.corpus.kind]
    if cell.model.size == "682m":
        size, steps = "682m", LARGEST_STEPS
    found |= {"model.size": size, "train.steps": steps}
    if cell.corpus.celebrity_fraction:
        found["corpus.celebrity_fraction"] = 0.5
    readout = cell.readout
    if cell.model.family == "gbert":
        found |= {"train.steps": GBERT_STEPS, "train.learning_rate": GBERT_RATE}
        if readout.kind == "qa_finetune":
            found |= GBERT_LINEAR
    if (readout.kind, readout.method) == ("qa_finetune", "full") and (
        readout.weight_decay,
        readout.learning_rate,
    ) in WHOLE:
        found |= {"readout.weight_decay": readout.weight_decay, "readout.learning_rate": readout.learning_rate}
    return found


def assumptions(cells: Iterable[Cell]) -> list[str]:
    """What the paper does not state, as far as it concerns these cells."""
    left = dict(ASSUMED)
    for cell in cells:
        left = {text: about for text, about in left.items() if not about(cell)}
    return [f"assumed: {text}" for text in ASSUMED if text not in left]


def _reads(*kinds: str) -> Callable[[Cell], bool]:
    return lambda cell: cell.readout.kind in kinds


def _family(name: str) -> Callable[[Cell], bool]:
    return lambda cell: cell.model.family == name


def _generated(cell: Cell) -> bool:
    return cell.corpus.kind == "bioR" and cell.corpus.writer.backend != "rules"


def _any(cell: Cell) -> bool:
    return True


ASSUMED: dict[str, Callable[[Cell], bool]] = {
    "no dropout in pretraining (model.dropout), initial weights normal with deviation 0.02": _any,
    "AdamW's betas 0.9, 0.999 at full scale, gradient clipping at 1, weight decay on every parameter": _any,
    "bf16 by autocast, fp32 weights": _any,
    "a finetuning row holds one question and the loss covers its answer (readout.loss)": _reads("qa_finetune"),
    "LoRA products scaled by 1 (readout.lora_scale), and the output embedding not updated": _reads(
        "qa_finetune", "p_probe", "q_probe"
    ),
    "answers are greedy unless readout.beam is 4, as in the paper, which reports the same without beam": lambda cell: (
        cell.readout.kind in ("qa_finetune", "mixed") and cell.model.family != "gbert"
    ),
    "probes train with the dropout of the network on (model.dropout), and read after the final norm": _reads(
        "p_probe", "q_probe"
    ),
    "P-probes: an EOS before the entry, all entries of a person (readout.entries), the loss averaged over places": (
        _reads("p_probe")
    ),
    "Q-probes: EOS is both start and end token": _reads("q_probe"),
    "probes: a task needs so many training people a class (readout.people_per_class)": _reads("p_probe", "q_probe"),
    "biography templates and pools are this project's own, of the paper's sizes": lambda cell: (
        cell.corpus.kind == "bioS"
    ),
    "bioR is written by the model, prompt and sampling of corpus.writer, where the paper has Llama1-30B with sampling "
    "that it does not state; an entry is kept if it tells all six facts in forms that docs/bior.md lists, where the "
    "paper gives no rule": _generated,
    "couples: the templates of each entry are drawn anew": lambda cell: cell.corpus.couple > 0,
    "celebrities: as many training steps as without them, every entry equally likely, so that the people under test "
    "write one entry in six where they have one and celebrities five (the paper says that of the celebrities)": (
        lambda cell: cell.corpus.celebrity_fraction > 0
    ),
    "celebrities: finetuning asks about all of them, and everyone under test is asked then": (
        lambda cell: cell.readout.people == "celebrity"
    ),
    "background text is the user's own, where the paper has 16 GB of BookCorpus and Wikipedia, with as many steps as "
    "without it": lambda cell: cell.corpus.background is not None,
    "Llama: a gated feed-forward of 8/3 of the width, embeddings not tied, rotary embedding of the whole head": _family(
        "llama"
    ),
    "Llama reads tokens of GPT-2's tokenizer, or of the miniature's, in place of Llama's": _family("llama"),
    "GBERT: words are what stands between spaces; each token of a chosen word is masked, changed or kept by itself": (
        _family("gbert")
    ),
    "GBERT: mask and padding are two tokens besides the tokenizer's": _family("gbert"),
    "GBERT: in mixed training words of questions are masked like those of biographies": lambda cell: (
        cell.model.family == "gbert" and cell.train.qa_ratio > 0
    ),
    "GBERT: Q-probes have the rank of bioS, 16": lambda cell: (
        cell.model.family == "gbert" and cell.readout.kind == "q_probe"
    ),
}
"""What the paper does not state, and which cells it concerns."""
