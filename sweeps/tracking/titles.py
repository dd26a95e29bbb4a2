"""What runs and experiments are called in MLflow, and what stands above them there."""

import getpass
from collections.abc import Mapping
from typing import Any

from ktrain.config import CellConfig
from ktrain.readout.kinds.base import kind_of
from ktrain.readout_registry import names
from ktrain.stages import Stage, active_axes
from ktrain.system.source_commit import DIRTY
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.recipes import rows

NOTE = "mlflow.note.content"
"""MLflow's tag with the description of a run or an experiment."""
COMMIT = "mlflow.source.git.commit"
_IN_NAME = {
    *("corpus.kind", "corpus.multi", "corpus.permute", "corpus.fullname", "corpus.couple", "corpus.background"),
    *("corpus.celebrity_fraction", "readout.kind", "seed", "model.config", "model.start"),
}
"""Axes that the name of a setting, a kind or a seed, or `model.size`, already states."""
_SECTIONS = {"corpus": ("corpus.",), "pretrain": ("corpus.", "model.", "train.")}
"""The axes that can change a stage, by its kind; all of them can change a readout."""
_LONGEST = 40


def stage_name(plan: Plan, cell: PlannedCell, stage: Stage) -> str:
    """`pretrain · bioS single · s0`: kind, setting, whatever else varies in the sweep and can change it, and seed."""
    reached, active = _SECTIONS.get(stage.kind, ("",)), active_axes(cell.cell)
    varied = [axis for axis in plan.varied() if axis.startswith(reached) and axis in active and axis not in _IN_NAME]
    others = " ".join(f"{axis.rpartition('.')[2]}={str(active[axis])[:_LONGEST]}" for axis in varied)
    return " · ".join(filter(None, (_kind(stage.kind), _setting(cell.cell), others, f"s{cell.cell.seed}")))


def stage_note(cell: PlannedCell, stage: Stage) -> str:
    """What a stage is, and how to find the cells that have it."""
    return (
        f"{_work(cell.cell, stage.kind)}\n\nStage `{stage.key}`. It lies below the first cell that has it; "
        f"the tag `ktrain.run.{stage.kind}` of every such cell holds its run ID."
    )


def cell_note(plan: Plan, cell: PlannedCell) -> str:
    """What a cell is, and where its stages are."""
    kind = kind_of(cell.cell.readout.kind).title
    return (
        f"{_setting(cell.cell)}, seed {cell.cell.seed}: {_network(cell.cell)}, read out by {kind}. "
        f"A cell of the sweep `{plan.sweep.name}` at scale {plan.scale}.\n\n"
        "Accuracies are fractions of 1. Its stages are the runs below it; one that it shares lies below the first cell "
        "that has it, and the tags `ktrain.run.*` hold the run IDs of all."
    )


def source_tags(plan: Plan, versions: Mapping[str, Any] | None) -> dict[str, str]:
    """Who made a run, with what; the commit is that in the versions of a manifest."""
    tags = {"mlflow.source.name": f"ktrain run {plan.sweep.name}", "mlflow.source.type": "LOCAL"} | _user()
    return tags | commit_tags(str((versions or {}).get("commit", "")))


def commit_tags(commit: str) -> dict[str, str]:
    """The commit of the code as MLflow has it; nothing where it is not known."""
    if not commit:
        return {}
    dirty = {"mlflow.source.git.dirty": "true"} if commit.endswith(DIRTY) else {}
    return {COMMIT: commit.removesuffix(DIRTY)} | dirty


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # An account without a name, as in some containers.
        return {}


def _kind(kind: str) -> str:
    return kind_of(kind).title if kind in names() else kind


def _setting(cell: CellConfig) -> str:
    by_rules = cell.corpus.kind == "bioR" and cell.corpus.writer.backend == "rules"
    return rows.name_of(cell.corpus) + (" (by rules)" if by_rules else "")


def _network(cell: CellConfig) -> str:
    if cell.model.family == "hf":
        return f"{cell.model.name} ({cell.model.axis})"
    return f"{cell.model.family} of size {cell.model.name}"


def _work(cell: CellConfig, kind: str) -> str:
    corpus, train, readout = cell.corpus, cell.train, cell.readout
    if kind == "corpus":
        return f"{corpus.entries:,} biographies of {corpus.people:,} people, {_setting(cell)}, seed {cell.seed}."
    if kind == "pretrain":
        questions = f", {train.qa_ratio:.0%} of them questions" if train.qa_ratio else ""
        return (
            f"{_network(cell)}, trained on {_setting(cell)} for {train.steps:,} steps of {train.batch} windows of "
            f"{train.context} tokens{questions}; seed {cell.seed}."
        )
    steps = f", {readout.steps:,} steps of {readout.batch} rows" if kind_of(kind).trains else ""
    return f"{_kind(kind)} of {_network(cell)} pretrained on {_setting(cell)}{steps}; seed {cell.seed}."
