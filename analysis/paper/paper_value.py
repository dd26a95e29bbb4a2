"""Numbers of the paper: where each is printed, and which of our cells may stand beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from analysis.measurements.cells import Axis
from analysis.measurements.names import GROUPS, PROBES, TARGET_TITLES
from analysis.measurements.table_rows import setting

BASELINE = "baseline"
"""The row of the majority baseline, on top of every heat map of the paper."""
DEFAULTS: Mapping[str, Axis] = {"model.family": "gpt2", "readout.people": "minority", "train.qa_ratio": 0.0}
"""Values of axes that a cell leaves out."""
READOUT_KINDS = {"qa": "qa_finetune"}
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
"""Axes of a finetuning recipe; the paper shows the best of several recipes (appendix B)."""
FAMILIES = {"fig9": "gbert", "fig12b": "llama", "fig12c": "llama"}
"""Network family by figure; the other figures have GPT-2."""
RANKS: Mapping[str, int] = {
    **{name: 2 for name in ("fig5", "fig6", "fig13a", "fig13c", "fig14a", "fig14c", "fig15", "fig18a", "fig18b")},
    **{name: 4 for name in ("fig13b", "fig13d", "fig14b", "fig14d")},
    **{"fig7": 16, "fig16a": 16, "fig16b": 64, "fig16c": 32, "fig16d": 128},
}
"""Rank of the embedding update in the probes of a figure (section 4, appendices D and E)."""
SIZES = {"bioS": "124m", "bioR": "302m"}
"""Model size by kind of text, except in Figure 2 (section 2.2)."""
SHORT = {
    "mean": "mean acc",
    "birth_date": "b_date",
    "birth_city": "b_city",
    "university": "univ",
    "company": "c_name",
    "company_city": "c_city",
}


@dataclass(frozen=True, eq=False)
class ColumnSpec:
    """Columns of a figure that one kind of cell provides; rows that share it were trained and read out alike."""

    group: str
    """Column group, as in `names.GROUPS`."""
    axes: Mapping[str, tuple[Axis, ...]]
    """Values that a cell must have, by axis."""
    usual: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)
    """Values of the paper's cells that other scales may lack; preferred where a plan has both."""
    best_of: tuple[str, ...] = ()
    """Axes over which the paper shows the best setting."""

    @property
    def title(self) -> str:
        """The kind of readout, as a heading."""
        return GROUPS[self.group]


class Place(NamedTuple):
    """Where numbers of one cell stand: a row and a group of columns."""

    figure: str
    panel: str
    row: str
    columns: ColumnSpec


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper; `value` is a fraction of 1."""

    figure: str
    """Name of the figure with its part, such as `fig12a`."""
    row: str
    column: str
    """Row and column labels of the figure, without the spaces around plus signs."""
    metric: str
    """Name under which our cells record the same quantity."""
    value: float
    settings: tuple[str, ...]
    """The paper's names of the texts (`table_rows.setting`); a baseline lists those of all rows."""
    columns: ColumnSpec
    panel: str = ""
    """One of several grids or maps in a figure."""
    reported_range: tuple[float, float] | None = None
    """Lowest and highest of several numbers known only as a range; `value` is the middle."""

    @property
    def place(self) -> Place:
        """Shared by all numbers from the same cell."""
        return Place(self.figure, self.panel, self.row, self.columns)

    @property
    def axes(self) -> Mapping[str, tuple[Axis, ...]]:
        """Values that a cell must have besides the setting."""
        return self.columns.axes

    def fits(self, axes: Mapping[str, Axis]) -> bool:
        """Whether a cell of these axes measures this number, as far as the figure defines it."""
        having = {**DEFAULTS, **axes}
        return setting(axes) in self.settings and all(
            having.get(name) in values for name, values in self.columns.axes.items()
        )

    def difference(self, ours: float) -> float:
        """Ours less the paper's; of a range, the signed distance from its nearer end, 0 within."""
        low, high = self.reported_range or (self.value, self.value)
        return ours - min(max(ours, low), high)


@cache
def column_spec(figure: str, group: str, text: str, *, celebrities: bool, ratio: float | None = None) -> ColumnSpec:
    """Describes the cells of a figure in column group `group` that read `text` (`bioS` or `bioR`).

    `celebrities`: whether the row's text has some. `ratio`: the share of questions, if the figure varies it.
    """
    family = FAMILIES.get(figure, "gpt2")
    axes: dict[str, tuple[Axis, ...]] = {
        "model.family": (family,),
        "readout.kind": (READOUT_KINDS.get(group, group),),
    }
    usual: dict[str, tuple[Axis, ...]] = {"model.size": (SIZES[text],)}
    if ratio is not None:
        axes["train.qa_ratio"] = (ratio,)
        return ColumnSpec(group, axes, usual)
    if group == "mixed":
        usual["train.qa_ratio"] = (0.2, 0.8) if family == "gbert" else (0.8,)
        return ColumnSpec(group, axes, usual, ("train.qa_ratio",) if family == "gbert" else ())
    axes["train.qa_ratio"] = (0.0,)
    if group in PROBES:
        rank = RANKS.get(figure, 32 if text == "bioR" else 16)
        # The paper does not state the rank of GBERT's probes.
        (usual if family == "gbert" else axes)["readout.rank_embedding"] = (rank,)
        return ColumnSpec(group, axes, usual)
    if celebrities:
        axes["readout.people"] = ("celebrity",)
    usual["readout.method"] = ("lora",)
    usual["readout.rank_embedding"] = (128, "full") if family == "gbert" else (128,)
    usual["readout.rank_qv"] = (8, 32) if family == "gbert" else (8, 16)
    return ColumnSpec(group, axes, usual, RECIPE)


def grid_spec(rank_qv: str, rank_embedding: str, size: str, text: str) -> ColumnSpec:
    """Describes a QA finetuning in the grids of Figures 2 and 11 by its row and column labels; `size` may be empty."""
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
        # At scale mini, the small network stands for the size of the paper's other figures of this text.
        axes["model.size"] = (size, "mini") if size == SIZES[text] else (size,)
    recipe = tuple(axis for axis in RECIPE if axis not in axes)
    return ColumnSpec("qa", axes, {} if size else {"model.size": (SIZES[text],)}, recipe)


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
    """Heading that a column shares with its neighbours: the readout, or a P-probe's attribute."""
    group, *parts = metric.split("/")
    if group == "p_probe":
        attribute = "birth month" if parts[0] == "first" and parts[-1] == "birth_date" else parts[-1].replace("_", " ")
        return attribute
    return f"{GROUPS[group]}, {TARGET_TITLES[parts[0]]}" if group == "q_probe" else GROUPS[group]  # type: ignore[index]
