"""Selection: the number that the cells of a selection give, never mixing cells that read about different people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.claims.claim_file import MEANT, Selection
from analysis.claims.effects import Effect, mean
from analysis.measurements.cells import Axis, ReplicateGroup
from analysis.measurements.table_rows import SHAPE, TRAIN_ACCURACY, format_value
from analysis.presentation.number_format import percent

WRITTEN = (
    *("corpus.kind", "corpus.multi", "corpus.permute", "corpus.fullname", "corpus.couple", "corpus.celebrity_fraction"),
    *("corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname"),
    *("corpus.background", "corpus.background_share", "model.family"),
)
"""Axes in which the two sides of a comparison may differ, because claims compare ways of writing and network families.
All other axes of people, text and network size must agree."""
ComparisonGroup = tuple[tuple[str, str], ...]
"""Text and network as pairs of axis and value: all of `corpus.*` and `model.*`. Claims compare within one."""
GroupsBySetting = Mapping[str, Sequence[ReplicateGroup]]
"""All results of a sweep, by the paper's name of the setting."""
Reading = Effect | str
"""A number, or the reason why there is none."""


@dataclass(frozen=True)
class SelectedCells:
    """The best result that a selection has in one comparison group."""

    replicates: ReplicateGroup | None
    effect: Effect | None
    compared: int
    """Number of results of which this is the best."""
    pending: tuple[str, ...]
    """Why other results have no number yet; each may still turn out better."""
    unavailable: tuple[str, ...]
    """Why other results will never have one: blocked, or done without recording it."""
    unlearned: str = ""
    """Why a low number means nothing: no result answers the share of training questions that the selection demands."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The cells behind the number."""
        return self.replicates.counted if self.replicates else ()

    @property
    def will_never_finish(self) -> bool:
        """Whether there is no number and none will come."""
        return self.effect is None and not self.pending

    @property
    def remark(self) -> str:
        """Selection, seeds and missing results behind the number, or why there is none; empty if nothing is to add."""
        remarks = [f"best of {self.compared}"] if self.compared > 1 else []
        if self.replicates and self.replicates.compared > 1 and self.replicates.final:
            remarks.append(self.replicates.state)
        if self.replicates and len(self.replicates.seeds) > 1:
            remarks.append(f"{len(self.replicates.seeds)} seeds")
        for reasons in (self.pending, self.unavailable):
            for reason in dict.fromkeys(reasons):
                remarks.append(f"{reasons.count(reason)} {reason}" if self.effect else reason)
        return ", ".join(remarks)


def comparison_groups(groups: GroupsBySetting, selection: Selection) -> dict[ComparisonGroup, list[ReplicateGroup]]:
    """The results that a selection means, in whatever state, by comparison group.

    A group whose cells are all blocked is left out if another one is not.
    """
    by_group: dict[ComparisonGroup, list[ReplicateGroup]] = {}
    for replicates in groups.get(selection.setting, ()):
        axes: Mapping[str, Axis] = {**MEANT, **replicates.params}
        if all(axes.get(axis) == value for axis, value in selection.cells.items()):
            by_group.setdefault(comparison_group(replicates), []).append(replicates)
    alive = {group: members for group, members in by_group.items() if not all(map(_blocked, members))}
    return alive or by_group


def comparison_group(replicates: ReplicateGroup) -> ComparisonGroup:
    """The group to which a result belongs."""
    axes = sorted(replicates.axes.items())
    return tuple((axis, format_value(value)) for axis, value in axes if axis.startswith(("corpus.", "model.")))


def shared_axes(group: ComparisonGroup) -> ComparisonGroup:
    """The part of a group in which the two sides of a comparison must agree."""
    return tuple(pair for pair in group if pair[0] not in WRITTEN)


def labels(groups: Sequence[ComparisonGroup]) -> list[str]:
    """For each group the axes that distinguish it from the others, such as `corpus.people=1000`."""
    distinguishing = _values_by_axis(groups)
    return [", ".join(f"{axis}={_value(group, axis)}" for axis in distinguishing) for group in groups]


def differences(groups: Sequence[ComparisonGroup]) -> str:
    """The axes in which groups differ, with their values, such as `corpus.people (500, 1000)`."""
    return "; ".join(f"{axis} ({', '.join(values)})" for axis, values in _values_by_axis(groups).items())


def _values_by_axis(groups: Sequence[ComparisonGroup]) -> dict[str, dict[str, None]]:
    """Axes that differ between groups, with their values in order of appearance."""
    axes = dict.fromkeys(axis for group in groups for axis, _ in group if axis not in SHAPE)
    values = {axis: dict.fromkeys(_value(group, axis) for group in groups) for axis in axes}
    return {axis: several for axis, several in values.items() if len(several) > 1}


def _value(group: ComparisonGroup, axis: str) -> str:
    """The value of an axis; a comparison's group joins both sides, so it may hold two values."""
    return " and ".join(dict.fromkeys(value for name, value in group if name == axis)) or "unknown"


def choose(
    candidates: Sequence[ReplicateGroup], read: Callable[[ReplicateGroup], Reading], selection: Selection | None = None
) -> SelectedCells:
    """Returns the candidate with the highest number; with `selection`, checks its `learned` share of questions.

    The paper also shows the best of its finetunings. Selecting by the number that is then judged biases it slightly
    upwards.
    """
    numbers: list[tuple[ReplicateGroup, Effect]] = []
    pending, unavailable = [], []
    for replicates in candidates:
        reading = read(replicates)
        if replicates.state.startswith("best of") and not replicates.final:
            # Another sample of the search may still be chosen, and its number may be higher or lower.
            pending.append(replicates.state)
        elif isinstance(reading, Effect):
            numbers.append((replicates, reading))
        elif _final(replicates):
            unavailable.append(reading)
        else:
            pending.append(reading)
    best, effect = max(numbers, key=lambda pair: pair[1].value) if numbers else (None, None)
    measured = [replicates for replicates, _ in numbers]
    unlearned = _unlearned(measured, selection) if selection and numbers else ""
    return SelectedCells(best, effect, len(numbers), tuple(pending), tuple(unavailable), unlearned)


def _unlearned(measured: Sequence[ReplicateGroup], selection: Selection) -> str:
    """Why none of these results has learned its training questions; empty if one has, or if none has to."""
    if selection.learned is None:
        return ""
    name = TRAIN_ACCURACY.format(group=selection.metric[0].partition("/")[0])
    shares = [replicates.metrics[name] for replicates in measured if name in replicates.metrics]
    if not shares:
        return f"done without {name}"
    if max(shares) >= selection.learned:
        return ""
    return f"only {percent(max(shares))} % of the questions trained on are answered, not {percent(selection.learned)}"


def mean_of(names: Sequence[str]) -> Callable[[ReplicateGroup], Reading]:
    """Returns a reader of the mean of several metrics, with the mean of their half-widths."""

    def read(replicates: ReplicateGroup) -> Reading:
        if not replicates.done:
            return replicates.state
        if absent := [name for name in names if name not in replicates.metrics]:
            return f"done without {', '.join(absent)}"
        if absent := [name for name in names if name not in replicates.interval]:
            return f"done without an interval of {', '.join(absent)}"
        return mean([Effect.of(replicates.metrics[name], replicates.interval[name]) for name in names])

    return read


def _final(replicates: ReplicateGroup) -> bool:
    """Whether nothing will change any more: each seed, and each sample of a search, is done or blocked."""
    return replicates.final or replicates.state.startswith("no sample has") or _blocked(replicates)


def _blocked(replicates: ReplicateGroup) -> bool:
    return all(state.startswith("blocked") for state in replicates.state.split("; "))
