"""What every kind of readout says of itself, so that nothing else in the code has to know its name."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ktrain import readout_registry
from ktrain.config import ATTRIBUTES, CellConfig, ReadoutConfig
from ktrain.data.token_estimates import QUESTION_WIDTH, tokens_per_question
from ktrain.model import sizes
from ktrain.readout.measured import Measured
from ktrain.readout_registry import BUILT_IN, register

__all__ = ["Measured", "ReadoutKind", "kind_of", "kinds", "register"]

if TYPE_CHECKING:
    # These import pandas and PyTorch, for which a plan does not wait.
    import pandas as pd

    from ktrain.data.corpus import Corpus
    from ktrain.readout.job import ReadoutJob

TRAINING_METRICS = frozenset({"speed/tokens_per_second", "speed/peak_memory_bytes", "speed/gpus"})
"""Metrics that a readout of any kind may have (`ktrain.training.artifacts.measurement_files`)."""
RANKS = {"rank_qv", "rank_embedding"}
"""The settings in which adapters that are trained together may differ."""


class ReadoutKind:
    """A kind of readout. A kind that trains nothing defines `measure`; one that trains overrides `read_out`.

    Class attributes are its plain description; the analysis, which imports nothing of this package, gets it as JSON.
    """

    name: str
    """The value of the axis `readout.kind`, and the kind of the stage."""
    version: int = 1
    """Raised by hand when the code comes to give other results: every key of the kind changes."""
    title: str
    """The name of its column group in tables, figures and MLflow."""
    prefix: str = ""
    """What its metric names begin with; the kind's name unless it says otherwise."""
    columns: tuple[str, ...] = ("mean",)
    """The metrics after the prefix that tables and figures show, the main one first."""
    label: str = "accuracy on held-out people (%)"
    """What the columns are, on tables and axes."""
    figure: str = "columns"
    """Which figure draws it: `answers`, `probes`, or `columns`, which draws any kind."""
    trains: bool = False
    """Whether `readout.steps` and the other settings of training mean anything."""
    asks: bool = False
    """Whether it asks questions, so that their wording (`corpus.question_wordings`) is part of its key."""
    probe: bool = False
    """Whether states of the frozen network are classified."""
    tasks: int = 1
    """How many adapters are trained for a cell, each on a task of its own; of the six attributes (`task_count`)."""

    # What it refuses, and what is asked.

    def adapted(self, readout: ReadoutConfig) -> bool:
        """Whether adapters are trained over a frozen network, many at once."""
        return self.probe

    def check_readout(self, readout: ReadoutConfig) -> None:
        """Raises `ValueError` for settings of a readout that contradict each other."""

    def check_cell(self, cell: CellConfig) -> None:
        """Raises `ValueError` for a cell that cannot be read out in this way."""

    def reads(self, field: str, readout: ReadoutConfig) -> bool:
        """Whether a setting of the readout can change its result; comparisons with the paper leave others out."""
        return (self.trains and field != "packed") or field in ("people", "recall_gate")

    def identity(self, readout: ReadoutConfig) -> dict[str, Any]:
        """The settings that are hashed. Some are left out at their defaults, because they are newer than many keys."""
        unsaid = {"people"} if readout.people == "minority" else set()
        if readout.dropout is None or not self.reads("dropout", readout):
            unsaid.add("dropout")
        if not readout.packed or not self.reads("packed", readout):
            unsaid.add("packed")
        if readout.modules is None or not self.adapted(readout):
            unsaid.add("modules")
        return readout.model_dump(exclude=unsaid)

    def shared(self, readout: ReadoutConfig) -> dict[str, Any]:
        """The settings in which readouts of one pretraining must agree to be trained together."""
        return readout.model_dump(exclude=RANKS if self.adapted(readout) else None)

    def settings(self, scale: str) -> Mapping[str, Any]:
        """The readout's settings at a scale before any axis is set, where they are not those of QA finetuning."""
        return {}

    def refusal_key(self, cell: CellConfig) -> Hashable:
        """Cells with equal keys have equal refusals, which are looked up once."""
        return None

    def refused_tasks(self, cell: CellConfig) -> tuple[str, ...]:
        """One line for each task that this cell has too few people for."""
        return ()

    # What it costs.

    def row_tokens(self, cell: CellConfig) -> int:
        """Tokens that a row of its training holds, padding included."""
        return QUESTION_WIDTH

    def tokens(self, cell: CellConfig) -> int:
        """Tokens that a cell trains on, or answers where nothing is trained."""
        if not self.trains:
            return cell.corpus.people * len(cell.corpus.attributes) * tokens_per_question(cell.corpus)
        return cell.readout.steps * cell.readout.batch * self.row_tokens(cell) * self.task_count(cell)

    def task_count(self, cell: CellConfig) -> int:
        """How many adapters are trained for a cell, each on a task of its own."""
        return self.tasks

    def passes(self, cell: CellConfig) -> float | None:
        """How often it trains on each of the questions it trains on, about; None where it trains on no question."""
        return None

    def flops(self, cell: CellConfig, per_token: int) -> float:
        """Operations of training, of which a token of `row_tokens` takes `per_token` where all weights are trained."""
        if not self.trains:
            return 0.0
        # Frozen weights have no gradient: four of the six multiplications a parameter.
        share = 2 / 3 if self.adapted(cell.readout) else 1.0
        return self.tokens(cell) * per_token * share

    def size(self, cell: CellConfig, vocabulary: int) -> int:
        """Bytes of the published stage, with the network in fp32 where one was trained."""
        return 4 * sizes.parameters(cell.model, vocabulary) if self.trains else 0

    # What it does.

    def read_out(self, job: "ReadoutJob") -> None:
        """Reads the network out and publishes the stage of each cell; every rank calls it.

        Raises `GuardFailure`, `Diverged`.
        """
        from ktrain.readout import measuring

        measuring.measure_and_publish(job, self.metric_prefix, self.measure)

    def measure(self, network: Any, corpus: "Corpus", cell: CellConfig) -> Measured:
        """What a kind that trains nothing finds; rank 0 alone calls it."""
        raise NotImplementedError(f"readout kind {self.name} defines neither measure nor read_out")

    def recomputed(self, predictions: "pd.DataFrame") -> dict[str, float]:
        """Metrics by name that follow from `predictions.parquet`, which `ktrain verify` compares with the published
        ones; a kind that publishes no predictions has none."""
        return {}

    def metric_names(self) -> frozenset[str]:
        """Every metric that a stage of the kind can hold, `TRAINING_METRICS` apart. A kind of the user's own need not
        name those that begin with its prefix or with `baseline/`."""
        return frozenset()

    def attribute_metrics(self, attributes: Sequence[str]) -> frozenset[str]:
        """Every metric besides `metric_names` that a stage of the kind can hold where people have these attributes."""
        return frozenset()

    def writes(self, metric: str, attributes: Sequence[str] = ATTRIBUTES) -> bool:
        """Whether a stage of the kind can hold a metric where people have these attributes; `ktrain verify` calls every
        other one damage."""
        if metric in self.metric_names() | self.attribute_metrics(attributes) | TRAINING_METRICS:
            return True
        return self.name not in BUILT_IN and metric.startswith((f"{self.metric_prefix}/", "baseline/"))

    # How it is shown.

    @property
    def metric_prefix(self) -> str:
        """What its metric names begin with."""
        return self.prefix or self.name

    def charts(self) -> Mapping[str, tuple[str, ...]]:
        """The bar charts of its comparison view in MLflow, which has fractions of 1: metrics by title, the main one
        first."""
        return {self.label.removesuffix(" (%)"): tuple(f"{self.metric_prefix}/{column}" for column in self.columns)}

    def description(self) -> dict[str, Any]:
        """What the analysis needs in order to show its results."""
        return {
            "name": self.name,
            "title": self.title,
            "prefix": self.metric_prefix,
            "columns": list(self.columns),
            "label": self.label,
            "figure": self.figure,
        }


def kind_of(name: str) -> ReadoutKind:
    """The kind of a name. Raises `KeyError` where there is none."""
    return cast(ReadoutKind, readout_registry.kind_of(name))


def kinds() -> tuple[ReadoutKind, ...]:
    """All kinds, those built in first."""
    return tuple(kind_of(name) for name in readout_registry.names())
