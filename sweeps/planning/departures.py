"""Departures: where cells differ from the paper, and assumptions where the paper is silent."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from ktrain.config import CellConfig, CorpusConfig
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import SHAPE_AXES, axes
from sweeps.recipes.readouts import (
    GBERT_RATE,
    GBERT_STEPS,
    LARGEST_STEPS,
    NETWORKS,
    Readout,
    Variant,
    adapted,
    any_adapter,
    gbert_finetuned,
    gbert_mixed,
    mixed,
    mixed_any_ratio,
    p_control,
    p_probe,
    q_control,
    q_probe,
    whole,
)  # fmt: skip
from sweeps.recipes.rows import EXTRACTABLE, ONE_WORDING, RATIOS, axes_of
from sweeps.recipes.scales import base

VARIES = {
    "corpus.kind", "corpus.multi", "corpus.permute", "corpus.fullname", "corpus.couple", "corpus.background",
    "corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname", "corpus.pools_folder",
    "corpus.templates_folder", "corpus.questions_folder", "model.family", *SHAPE_AXES, "readout.kind", "readout.beam",
    "readout.people_per_class", "seed",
}  # fmt: skip
"""Axes that are never departures: the paper varies them, they decide nothing, an assumption tells of them, or
`model.size` says what they make of it."""
RULED = "bioR is written by rules, not by a language model: the paper has Llama1-30B (corpus.writer.backend)"

CONFINED = {
    "q_probe": "{} (the update is that of tokens that so many people's names share: at mini of the end token alone)",
    "p_probe": "{} (the update is that of tokens that so many people's biographies share: at mini, with one wording, "
    "of about a hundred)",
}
"""What a share of tokens above 0 means in words; the paper's probes update every token."""


def departures(cells: Iterable[CellConfig], figures: Collection[str] = ()) -> list[str]:
    """Returns one line for each axis on which cells differ from the paper, with the paper's value and theirs.

    Each cell is compared with the paper's recipe for its row that is nearest to it. `figures` are those of the sweep:
    a recipe of Figures 2, 10 and 11 counts only there; without figures, it counts for the rows of these figures.
    """
    lines: dict[str, dict[str, None]] = {}
    ruled = False
    own: dict[str, None] = {}
    for cell in cells:
        own |= dict.fromkeys(cell.corpus.own_attributes)
        ruled |= cell.corpus.kind == "bioR" and cell.corpus.writer.backend == "rules"
        here, readout = axes(cell), cell.readout
        for axis, value in published(cell, figures, here).items():
            if axis in VARIES or axis.startswith("corpus.writer.") or here[axis] == value or _is_idle(axis, cell):
                continue
            suffix = f" ({readout.kind})" if axis.startswith("readout.") else ""
            ours = CONFINED.get(readout.kind, "{}") if axis == "readout.token_share" else "{}"
            lines.setdefault(f"{axis}{suffix}: the paper has {value}, here ", {})[ours.format(here[axis])] = None
    more = [f"attributes: the paper has six, here also {', '.join(own)} (corpus.pools_folder)"] if own else []
    return [*([RULED] if ruled else []), *more, *(line + ", ".join(values) for line, values in lines.items())]


def _is_idle(axis: str, cell: CellConfig) -> bool:
    """Whether an axis can change nothing in a cell."""
    of_readout, field = axis.startswith("readout."), axis.removeprefix("readout.")
    return of_readout and not kind_of(cell.readout.kind).reads(field, cell.readout)


def published(cell: CellConfig, figures: Collection[str] = (), here: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the axes of the paper's cell that is nearest to this one: the same text, network family and readout.

    `here` are the axes of the cell, if they are known already.
    """
    corpus, family, kind = cell.corpus, cell.model.family, cell.readout.kind
    size, steps = NETWORKS[corpus.kind]
    if cell.model.size == "682m":
        size, steps = "682m", LARGEST_STEPS
    paper = {**_base(kind), "model.size": size, "train.steps": steps}
    if family == "gbert":
        paper |= {"train.steps": GBERT_STEPS, "train.learning_rate": GBERT_RATE}
    if corpus.celebrity_fraction:
        paper["corpus.celebrity_fraction"] = 0.5
    rows = _rows_of(corpus)
    recipes = list(_main_recipes(corpus.kind, bool(corpus.celebrity_fraction), family, kind))
    if family == "gpt2" and kind == "qa_finetune" and rows & {*ONE_WORDING, *EXTRACTABLE}:
        recipes += _grid_recipes(kind) if not figures or {"fig2", "fig11"} & {*figures} else ()
    if family == "gpt2" and kind == "mixed" and rows & {*RATIOS}:
        recipes += _grid_recipes(kind) if not figures or "fig10" in figures else ()
    return paper | _nearest(recipes, axes(cell) if here is None else here, cell)


def _nearest(recipes: Sequence[Variant], here: Mapping[str, Any], cell: CellConfig) -> Variant:
    """The recipe that differs from a cell on the fewest axes, the first of several; empty if there is none."""
    idle = {axis for axis in {axis for recipe in recipes for axis in recipe} if _is_idle(axis, cell)}
    nearest, fewest = Variant(), len(here)
    for recipe in recipes:
        different = sum(1 for axis, value in recipe.items() if here[axis] != value and axis not in idle)
        if different < fewest:
            nearest, fewest = recipe, different
        if not different:
            break
    return nearest


@cache
def _base(kind: str) -> dict[str, Any]:
    return axes(base("full", kind))


@cache
def _main_recipes(text: str, celebrities: bool, family: str, kind: str) -> tuple[Variant, ...]:
    """The recipes of the paper's main figures for a kind of text, network family and readout."""
    by_kind: dict[str, tuple[Readout, ...]] = {
        "qa_finetune": (adapted,), "mixed": (mixed,), "p_probe": (p_probe, p_control), "q_probe": (q_probe, q_control),
    }  # fmt: skip
    if family == "gbert":
        by_kind |= {"qa_finetune": (gbert_finetuned,), "mixed": (gbert_mixed,), "q_probe": (q_probe,)}
    row = f"{text} single{'+CEL' if celebrities else ''}"
    return tuple(recipe for readout in by_kind.get(kind, ()) for recipe in readout("full", row))


@cache
def _grid_recipes(kind: str) -> tuple[Variant, ...]:
    """The recipes that Figures 2, 10 and 11 add: any adapter or the whole network, and other shares of questions."""
    readouts = (any_adapter, whole) if kind == "qa_finetune" else (mixed_any_ratio,)
    return tuple(recipe for readout in readouts for recipe in readout("full", "bioS single"))


def _rows_of(corpus: CorpusConfig) -> set[str]:
    """The rows of Figures 2, 10 and 11 that a corpus has; none if it has celebrities or background text."""
    if corpus.celebrity_fraction or corpus.background is not None:
        return set()
    text = corpus.kind, corpus.multi, corpus.permute, corpus.fullname, corpus.couple
    return {name for name in (*ONE_WORDING, *EXTRACTABLE, *RATIOS) if _text_of(name) == text}


@cache
def _text_of(row: str) -> tuple[Any, ...]:
    row_axes = axes_of(row)
    return tuple(row_axes[f"corpus.{name}"] for name in ("kind", "multi", "permute", "fullname", "couple"))


def assumptions(cells: Iterable[CellConfig]) -> list[str]:
    """Returns a line for each assumption that concerns one of the cells: a choice that the paper does not state."""
    unused = dict(ASSUMED)
    for cell in cells:
        unused = {text: concerns for text, concerns in unused.items() if not concerns(cell)}
    return [f"assumed: {text}" for text in ASSUMED if text not in unused]


def _reads(*kinds: str) -> Callable[[CellConfig], bool]:
    return lambda cell: cell.readout.kind in kinds


def _family(name: str) -> Callable[[CellConfig], bool]:
    return lambda cell: cell.model.family == name


def _generated(cell: CellConfig) -> bool:
    return cell.corpus.kind == "bioR" and cell.corpus.writer.backend != "rules"


def _any(cell: CellConfig) -> bool:
    return True


ASSUMED: dict[str, Callable[[CellConfig], bool]] = {
    "no dropout in pretraining (model.dropout), initial weights normal with deviation 0.02": _any,
    "AdamW's betas 0.9, 0.999 at full scale, gradient clipping at 1, weight decay on every parameter": _any,
    "bf16 by autocast, fp32 weights": _any,
    "the loss of QA finetuning covers the answers alone (readout.loss)": _reads("qa_finetune"),
    "the windows of QA finetuning are filled with whole questions (readout.packed): the paper states their 512 tokens, "
    "not what is in them": _reads("qa_finetune"),
    "LoRA products scaled by 1 (readout.lora_scale), and the output embedding not updated": lambda cell: (
        cell.readout.adapted
    ),
    "answers are greedy unless readout.beam is 4, as in the paper, which reports the same without beam": lambda cell: (
        cell.readout.kind in ("qa_finetune", "mixed") and cell.model.family != "gbert"
    ),
    "no dropout in QA finetuning (readout.dropout)": _reads("qa_finetune"),
    "the paper trains probes with dropout on in the frozen network and states no rate: GPT-2's default of 0.1 is taken "
    "for it (readout.dropout)": _reads("p_probe", "q_probe"),
    "probes read states after the final norm": _reads("p_probe", "q_probe"),
    "P-probes: an EOS before the entry, all entries of a person (readout.entries), the loss averaged over places": (
        _reads("p_probe")
    ),
    "P-probes: a special position is the token before the value in the attribute's own sentence, even where an entry "
    "has the same text earlier": _reads("p_probe"),
    "P-probes of bioR: an entry counts for an attribute only if its text there begins with the first token of the "
    "canonical value": lambda cell: cell.readout.kind == "p_probe" and cell.corpus.kind == "bioR",
    "Q-probes: EOS is both start and end token": _reads("q_probe"),
    "probes: a task needs so many training people a class (readout.people_per_class)": _reads("p_probe", "q_probe"),
    "biography templates are this project's own, as many as the paper's": lambda cell: (
        cell.corpus.kind == "bioS" and not cell.corpus.templates_folder
    ),
    "biography templates are the user's own (corpus.templates_folder)": lambda cell: (
        cell.corpus.kind == "bioS" and bool(cell.corpus.templates_folder)
    ),
    "questions are the user's own (corpus.questions_folder)": lambda cell: bool(cell.corpus.questions_folder),
    "questions have wordings of this project's own besides the paper's": lambda cell: (
        cell.corpus.own_questions and not cell.corpus.questions_folder
    ),
    "pools of names and values are this project's own, of the paper's sizes": lambda cell: not cell.corpus.pools_folder,
    "pools of names and values are the user's own (corpus.pools_folder)": lambda cell: bool(cell.corpus.pools_folder),
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
    "a network of model.config has the architecture, the initial weights and the router's loss of transformers, and in "
    "place of its tokenizer the corpus' one; the paper has none": lambda cell: cell.model.config is not None,
    "a network of model.start is trained further, with its own tokenizer; the paper trains from random weights": (
        lambda cell: cell.model.start is not None
    ),
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
"""Choices that the paper does not state, with a test for the cells that each concerns."""
