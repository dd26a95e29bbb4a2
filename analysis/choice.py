"""Choice: what the cells of a selection come to, without ever mixing what was measured on different people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.cells import Axis, Fold
from analysis.claim_file import MEANT, Selection
from analysis.effects import Effect, mean
from analysis.percent import percent
from analysis.rows import ASKED, written

WRITTEN = (
    *("corpus.kind", "corpus.multi", "corpus.permute", "corpus.fullname", "corpus.couple", "corpus.celebrity_fraction"),
    *("corpus.celebrity.multi", "corpus.celebrity.permute", "corpus.celebrity.fullname"),
    *("corpus.background", "corpus.background_share", "model.family"),
)
"""Axes in which two sides of a comparison may differ, because that is what is compared: how the text is written, and
the kind of network. In all others that say who was read about by what size of network, they must agree."""
LEARNED = 0.90
"""Share of the questions trained on that must be answered for those never trained on to say anything: a network that
has not learned to answer looks like one that has nothing to say."""
HELD_OUT = "/exact_match/test/"
Ground = tuple[tuple[str, str], ...]
"""What was read by which network, as pairs of axis and value: all of `corpus.*` and `model.*`."""
Folds = Mapping[str, Sequence[Fold]]
"""All that a sweep has, by the paper's name of the setting."""
Reading = Effect | str
"""A number, or why there is none."""


@dataclass(frozen=True)
class Choice:
    """The best of the folds that a selection means on one ground."""

    fold: Fold | None
    effect: Effect | None
    compared: int
    """Of how many it is the best."""
    waiting: tuple[str, ...]
    """Why others have no number yet; any of them may still turn out better."""
    lost: tuple[str, ...]
    """Why others will have none: they were blocked, or done without recording it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The cells that the number rests on."""
        return self.fold.counted if self.fold else ()

    @property
    def hopeless(self) -> bool:
        """Whether there is no number and none will come."""
        return self.effect is None and not self.waiting

    @property
    def remark(self) -> str:
        """What the number alone does not say, or why there is none; empty where all is told."""
        told = [f"best of {self.compared}"] if self.compared > 1 else []
        told += [f"{len(self.fold.seeds)} seeds"] if self.fold and len(self.fold.seeds) > 1 else []
        for states in (self.waiting, self.lost):
            told += [f"{states.count(state)} {state}" if self.effect else state for state in dict.fromkeys(states)]
        return ", ".join(told)


def grounds(folds: Folds, selection: Selection) -> dict[Ground, list[Fold]]:
    """The folds that a selection means, in whatever state, apart by what was read by which network.

    A ground on which all is blocked is left out where there is another.
    """
    found: dict[Ground, list[Fold]] = {}
    for fold in folds.get(selection.setting, ()):
        known: Mapping[str, Axis] = {**MEANT, **fold.params}
        if all(known.get(axis) == value for axis, value in selection.cells.items()):
            found.setdefault(ground(fold), []).append(fold)
    alive = {where: members for where, members in found.items() if not all(map(_blocked, members))}
    return alive or found


def ground(fold: Fold) -> Ground:
    """Where a fold belongs."""
    return tuple((axis, written(v)) for axis, v in sorted(fold.axes.items()) if axis.startswith(("corpus.", "model.")))


def shared(of: Ground) -> Ground:
    """The part of a ground in which the two sides of a comparison must agree."""
    return tuple(pair for pair in of if pair[0] not in WRITTEN)


def labels(found: Sequence[Ground]) -> list[str]:
    """For each ground what tells it from the others, such as `corpus.people=1000`."""
    told = _told(found)
    return [", ".join(f"{axis}={_value(where, axis)}" for axis in told) for where in found]


def differing(found: Sequence[Ground]) -> str:
    """For instance `corpus.people (500, 1000)`: the axes in which grounds differ, and their values."""
    return "; ".join(f"{axis} ({', '.join(values)})" for axis, values in _told(found).items())


def _told(found: Sequence[Ground]) -> dict[str, dict[str, None]]:
    axes = dict.fromkeys(axis for where in found for axis, _ in where)
    values = {axis: dict.fromkeys(_value(where, axis) for where in found) for axis in axes}
    return {axis: several for axis, several in values.items() if len(several) > 1}


def _value(where: Ground, axis: str) -> str:
    """Of the ground of a comparison, the values of both sides, where they differ."""
    return " and ".join(dict.fromkeys(value for name, value in where if name == axis)) or "unknown"


def choose(folds: Sequence[Fold], read: Callable[[Fold], Reading]) -> Choice:
    """The fold with the highest number. It is chosen by the number that is then judged, as in the paper, which shows
    the best of its finetunings; so that number lies a little too high."""
    read_out = [(fold, read(fold)) for fold in folds]
    numbers = [(fold, effect) for fold, effect in read_out if isinstance(effect, Effect)]
    reasons = [(fold, reason) for fold, reason in read_out if isinstance(reason, str)]
    waiting = [reason for fold, reason in reasons if not _final(fold)]
    final = [reason for fold, reason in reasons if _final(fold)]
    fold, effect = max(numbers, key=lambda pair: pair[1].value) if numbers else (None, None)
    return Choice(fold, effect, len(numbers), tuple(waiting), tuple(final))


def measured(names: Sequence[str]) -> Callable[[Fold], Reading]:
    """Reads the mean of several metrics, with the mean of their half-widths; nothing of answers to questions never
    trained on where fewer than `LEARNED` of those trained on are answered."""

    def read(fold: Fold) -> Reading:
        if not fold.done:
            return fold.state
        if absent := [name for name in names if name not in fold.metrics]:
            return f"done without {', '.join(absent)}"
        if absent := [name for name in names if name not in fold.interval]:
            return f"done without an interval of {', '.join(absent)}"
        for asked in dict.fromkeys(ASKED.format(group=name.partition("/")[0]) for name in names if HELD_OUT in name):
            if (share := fold.metrics.get(asked, 1.0)) < LEARNED:
                return f"only {percent(share)} % of the questions trained on are answered"
        return mean([Effect.of(fold.metrics[name], fold.interval[name]) for name in names])

    return read


def _final(fold: Fold) -> bool:
    """Whether a fold will not change: done, or blocked, in every seed."""
    return fold.state == "done" or _blocked(fold)


def _blocked(fold: Fold) -> bool:
    return all(state.startswith("blocked") for state in fold.state.split("; "))
