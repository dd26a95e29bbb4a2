"""A number of the paper: where it is printed, and which of our cells may stand beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from analysis.cells import Axis
from analysis.names import GROUPS, PREDICTED, PROBES
from analysis.rows import setting

BASELINE = "baseline"
"""The row of the majority baseline, which every heat map of the paper has on top."""
DEFAULTS: Mapping[str, Axis] = {"model.family": "gpt2", "readout.people": "minority", "train.qa_ratio": 0.0}
"""What a cell is that says nothing of it."""
KINDS = {"qa": "qa_finetune"}
RECIPE = tuple(
    f"readout.{name}"
    for name in (
        "method",
        "rank_qv",
        "rank_embedding",
        "learning_rate",
        "final_learning_rate",
        "decay",
        "weight_decay",
    )
)
"""How a model is finetuned: the paper shows the best of several ways (appendix B)."""
FAMILIES = {"fig9": "gbert", "fig12b": "llama", "fig12c": "llama"}
"""Of which the other figures have GPT-2."""
RANKS: Mapping[str, int] = {
    **{name: 2 for name in ("fig5", "fig6", "fig13a", "fig13c", "fig14a", "fig14c", "fig15", "fig18a", "fig18b")},
    **{name: 4 for name in ("fig13b", "fig13d", "fig14b", "fig14d")},
    **{"fig7": 16, "fig16a": 16, "fig16b": 64, "fig16c": 32, "fig16d": 128},
}
"""Rank of the update of the embedding in the probes of a figure (section 4, appendices D and E)."""
SIZES = {"bioS": "124m", "bioR": "302m"}
"""The model that reads a text, Figure 2 apart (section 2.2)."""
SHORT = {
    "mean": "mean acc",
    "birth_date": "b_date",
    "birth_city": "b_city",
    "university": "univ",
    "company": "c_name",
    "company_city": "c_city",
}


@dataclass(frozen=True, eq=False)
class Block:
    """The columns of a figure that come from one kind of cell; rows that share a block were made alike."""

    group: str
    """Column group, as in `analysis.names.GROUPS`."""
    axes: Mapping[str, tuple[Axis, ...]]
    """What a cell must have: by axis, the values that will do."""
    usual: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)
    """What the paper's cells have and those of another scale may not; it decides where a plan has both."""
    best_of: tuple[str, ...] = ()
    """Axes over which the paper shows the best."""

    @property
    def title(self) -> str:
        """The kind of readout, as a heading."""
        return GROUPS[self.group]


@dataclass(frozen=True)
class Number:
    """One number of the paper; `value` is a fraction of 1."""

    figure: str
    """Name of the figure with its part, such as `fig12a`."""
    row: str
    column: str
    """Row and column as labelled in the figure; a permuted setting without the spaces around its plus signs."""
    metric: str
    """Under which name we record the same."""
    value: float
    settings: tuple[str, ...]
    """What was read, under the paper's names (`analysis.rows.setting`); a baseline is that of all rows."""
    block: Block
    panel: str = ""
    """One of several grids or maps in a figure."""
    reach: tuple[float, float] | None = None
    """Lowest and highest of several printed numbers that are known as a range only; `value` is the middle."""

    @property
    def axes(self) -> Mapping[str, tuple[Axis, ...]]:
        """What a cell must have besides the setting."""
        return self.block.axes

    def fits(self, axes: Mapping[str, Axis]) -> bool:
        """Whether a cell of these axes is what this number was measured on, as far as the figure defines it."""
        having = {**DEFAULTS, **axes}
        return setting(axes) in self.settings and all(
            having.get(name) in values for name, values in self.block.axes.items()
        )

    def less(self, ours: float) -> float:
        """Ours less the paper's; within a range, 0, and beyond it the distance from its nearer end."""
        low, high = self.reach or (self.value, self.value)
        return ours - min(max(ours, low), high)


@cache
def block(figure: str, group: str, text: str, *, celebrities: bool, ratio: float | None = None) -> Block:
    """What cells of a figure are, in the column group `group`, that read `text` (`bioS` or `bioR`).

    `celebrities`: the text of a row has some. `ratio`: the share of questions, where the figure varies it.
    """
    family = FAMILIES.get(figure, "gpt2")
    axes: dict[str, tuple[Axis, ...]] = {
        "model.family": (family,),
        "readout.kind": (KINDS.get(group, group),),
    }
    usual: dict[str, tuple[Axis, ...]] = {"model.size": (SIZES[text],)}
    if ratio is not None:
        axes["train.qa_ratio"] = (ratio,)
        return Block(group, axes, usual)
    if group == "mixed":
        usual["train.qa_ratio"] = (0.2, 0.8) if family == "gbert" else (0.8,)
        return Block(group, axes, usual, ("train.qa_ratio",) if family == "gbert" else ())
    axes["train.qa_ratio"] = (0.0,)
    if group in PROBES:
        rank = RANKS.get(figure, 32 if text == "bioR" else 16)
        # Of GBERT's probes the paper does not say it.
        (usual if family == "gbert" else axes)["readout.rank_embedding"] = (rank,)
        return Block(group, axes, usual)
    if celebrities:
        axes["readout.people"] = ("celebrity",)
    usual["readout.method"] = ("lora",)
    usual["readout.rank_embedding"] = (128, "full") if family == "gbert" else (128,)
    usual["readout.rank_qv"] = (8, 32) if family == "gbert" else (8, 16)
    return Block(group, axes, usual, RECIPE)


def adapted(rank_qv: str, rank_embedding: str, size: str, text: str) -> Block:
    """A QA finetuning of the grids of Figures 2 and 11, by the labels of row and column; `size` may be empty."""
    axes: dict[str, tuple[Axis, ...]] = {
        "model.family": ("gpt2",),
        "readout.kind": ("qa_finetune",),
        "train.qa_ratio": (0.0,),
    }
    if rank_qv == "train all":
        axes["readout.method"] = ("full",)
    else:
        axes["readout.method"] = ("lora",)
        axes["readout.rank_qv"] = (int(rank_qv),)
        axes["readout.rank_embedding"] = ("full" if rank_embedding == "train all" else int(rank_embedding),)
    if size:
        # A miniature stands for the size that the paper's other figures have of this text.
        axes["model.size"] = (size, "mini") if size == SIZES[text] else (size,)
    recipe = tuple(axis for axis in RECIPE if axis not in axes)
    return Block("qa", axes, {} if size else {"model.size": (SIZES[text],)}, recipe)


def label(metric: str) -> str:
    """The paper's label of a column: `QA b_date`, `MIX mean acc`, `Q-first b_month`, `0-bmonth`."""
    group, *parts = metric.split("/")
    month = {"birth_date": "b_month"} if group in PROBES and parts[0] == "first" else {}
    name = (SHORT | month).get(parts[-1], parts[-1])
    match group:
        case "p_probe":
            return f"{parts[1]}-{name.replace('_', '')}"
        case "q_probe":
            return f"Q-{parts[0]} {name}"
    return f"{ {'qa': 'QA', 'mixed': 'MIX'}[group] } {name}"


def heading(metric: str) -> str:
    """What the columns beside this one have in common: the readout, and of a P-probe the attribute."""
    group, *parts = metric.split("/")
    if group == "p_probe":
        attribute = "birth month" if parts[0] == "first" and parts[-1] == "birth_date" else parts[-1].replace("_", " ")
        return attribute
    return f"{GROUPS[group]}, {PREDICTED[parts[0]]}" if group == "q_probe" else GROUPS[group]  # type: ignore[index]
