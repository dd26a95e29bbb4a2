"""Claims: which of the paper's conclusions hold in these results, by thresholds that were set before any run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from analysis import effects
from analysis.cells import Fold, Results, replicates
from analysis.choice import Choice, Folds, Ground, Reading, choose, differing, grounds, labels, measured, shared
from analysis.claim_file import Claim, Part, Selection, load, sha256
from analysis.effects import Effect
from analysis.percent import percent, ranged
from analysis.rows import setting

__all__ = ["Outcome", "Verdict", "judge", "load", "sha256"]

Word = Literal["holds", "fails", "not enough data"]
HOLDS: Word = "holds"
FAILS: Word = "fails"
OPEN: Word = "not enough data"
Point = tuple[str, Choice, Choice]
"""A setting, read out in two ways."""
DIGITS = 9
"""Effects are compared with thresholds after rounding: 0.3 - 0.2 is not less than 0.1."""


@dataclass(frozen=True)
class Outcome:
    """What became of one part of a claim."""

    part: Part
    verdict: Word
    why: str
    """The numbers that it rests on, or what is missing."""
    effect: Effect | None = None
    covered: bool = True
    """Whether the plan has cells for every side of the comparison, in whatever state."""
    cells: tuple[str, ...] = ()
    """Keys of the cells that the effect rests on."""


@dataclass(frozen=True)
class Verdict:
    """What became of one claim."""

    claim: Claim
    verdict: Word
    why: str
    parts: tuple[Outcome, ...]

    @property
    def covered(self) -> tuple[Outcome, ...]:
        """The parts that the plan has cells for."""
        return tuple(part for part in self.parts if part.covered)

    @property
    def tested(self) -> bool:
        """Whether the plan has cells for every part."""
        return len(self.covered) == len(self.parts)


def judge(
    results: Results, curves: pd.DataFrame | None = None, claims: Sequence[Claim] | None = None
) -> tuple[Verdict, ...]:
    """A verdict on every claim (by default, those of `claims.toml`).

    A part holds if the whole 95 % interval of its effect is on the threshold's right side, and fails if all of it is
    on the wrong one; else there is not enough data, as where cells are missing. Where there are several grounds, such
    as two numbers of people, each is judged apart, and the part has a verdict where they agree. A claim holds if all
    its parts hold, and fails if one fails. `curves` are learning curves with a row per point: key (of the cell), step,
    metric, value, n, low, high.
    """
    folds: dict[str, list[Fold]] = {}
    for fold in replicates(results):
        folds.setdefault(setting(fold.params), []).append(fold)
    return tuple(_claim(claim, folds, curves) for claim in (load() if claims is None else claims))


def _claim(claim: Claim, folds: Folds, curves: pd.DataFrame | None) -> Verdict:
    parts = tuple(_part(part, folds, curves) for part in claim.part)
    by = {word: [part for part in parts if part.verdict == word] for word in (FAILS, OPEN)}
    if not by[FAILS] and not by[OPEN]:
        return Verdict(claim, HOLDS, "all parts hold" if len(parts) > 1 else parts[0].why, parts)
    word = FAILS if by[FAILS] else OPEN
    whys = [outcome.why if len(parts) == 1 else f"{outcome.part.says}: {outcome.why}" for outcome in by[word]]
    return Verdict(claim, word, "; ".join(whys), parts)


def _part(part: Part, folds: Folds, curves: pd.DataFrame | None) -> Outcome:
    if part.correlation:
        return _correlation(part, folds)
    if part.lead:
        return _lead(part, folds, curves)
    assert part.value is not None
    if isinstance(part.minus, Selection):
        return _difference(part, part.value, part.minus, folds)
    return _alone(part, part.value, folds, measured(part.value.metric))


def _alone(part: Part, selection: Selection, folds: Folds, read: Callable[[Fold], Reading]) -> Outcome:
    """A number by itself, or less the baseline of the same people."""
    if not (found := grounds(folds, selection)):
        return _absent(part, selection)
    return _apart(part, {where: _number(part, selection, choose(members, read)) for where, members in found.items()})


def _number(part: Part, selection: Selection, best: Choice) -> Outcome:
    if best.effect is None or best.fold is None:
        return Outcome(part, OPEN, f"{selection}: {best.remark}")
    effect, why = best.effect, _told(selection, best)
    if part.minus == "baseline":
        values = [best.fold.metrics.get(name) for name in selection.baselines]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return Outcome(part, OPEN, f"{selection}: no majority baseline recorded", cells=best.keys)
        effect -= Effect.constant(sum(known) / len(known))
        why += f" less always the commonest value {percent(sum(known) / len(known))}"
    return _compared(part, effect, why, best.keys, higher=bool(best.waiting))


def _difference(part: Part, value: Selection, minus: Selection, folds: Folds) -> Outcome:
    """One selection less another on the same ground."""
    ours, theirs = grounds(folds, value), grounds(folds, minus)
    for selection, found in ((value, ours), (minus, theirs)):
        if not found:
            return _absent(part, selection)
    outcomes: dict[Ground, Outcome] = {}
    for a, b in [(a, b) for a in ours for b in theirs if shared(a) == shared(b)]:
        one, other = choose(ours[a], measured(value.metric)), choose(theirs[b], measured(minus.metric))
        if one.effect is None or other.effect is None:
            lacking = [f"{s}: {c.remark}" for s, c in ((value, one), (minus, other)) if c.effect is None]
            outcomes[a + b] = Outcome(part, OPEN, "; ".join(lacking))
            continue
        why, keys = f"{_told(value, one)} less {_told(minus, other)}", one.keys + other.keys
        higher, lower = bool(one.waiting), bool(other.waiting)
        outcomes[a + b] = _compared(part, one.effect - other.effect, why, keys, higher=higher, lower=lower)
    if not outcomes:
        apart = differing([*map(shared, ours), *map(shared, theirs)])
        return Outcome(part, OPEN, f"the two sides were not measured alike: {apart}")
    return _apart(part, outcomes)


def _lead(part: Part, folds: Folds, curves: pd.DataFrame | None) -> Outcome:
    """One learning curve less another; the model must have come through, or it leads for never having read."""
    assert part.lead and part.setting
    ahead, behind = part.lead
    selection = Selection(setting=part.setting, metric=(ahead,))

    def read(fold: Fold) -> Reading:
        if not fold.done:
            return fold.state
        found = None if curves is None else effects.lead(curves, fold.counted, ahead, behind)
        return found or f"no learning curves {ahead} and {behind}"

    outcome = _alone(part, selection, folds, read)
    return replace(outcome, why=f"{ahead} less {behind}: {outcome.why}") if outcome.effect else outcome


def _correlation(part: Part, folds: Folds) -> Outcome:
    """Over settings in which both metrics were measured on the same ground."""
    assert part.correlation and part.settings
    x, y = part.correlation
    points: dict[Ground, list[Point]] = {}
    for name in folds:
        ours, theirs = (grounds(folds, Selection(setting=name, metric=(metric,))) for metric in (x, y))
        for where in [where for where in ours if where in theirs]:
            pair = choose(ours[where], measured([x])), choose(theirs[where], measured([y]))
            points.setdefault(shared(where), []).append((name, *pair))
    planned = {where: found for where, found in points.items() if len(found) >= part.settings}
    if not planned:
        most = max(map(len, points.values()), default=0)
        why = f"needs {part.settings} settings with {x} and {y}, this sweep has {most}"
        return Outcome(part, OPEN, why, covered=False)
    # Where too much is blocked there will be no number, which says nothing against one from elsewhere.
    possible = {
        where: found
        for where, found in planned.items()
        if sum(not (a.hopeless or b.hopeless) for _, a, b in found) >= part.settings
    }
    return _apart(part, {where: _over(part, found) for where, found in (possible or planned).items()})


def _over(part: Part, points: Sequence[Point]) -> Outcome:
    """The correlation over the points that have both numbers."""
    assert part.settings
    both = [(name, x, y) for name, x, y in points if x.effect and y.effect]
    lacking = [f"{name}: {c.remark}" for name, x, y in points for c in (x, y) if c.effect is None]
    if len(both) < part.settings:
        why = f"needs {part.settings} settings, {len(both)} have both numbers; {'; '.join(lacking)}"
        return Outcome(part, OPEN, why)
    effect = effects.correlation([(x.effect, y.effect) for _, x, y in both if x.effect and y.effect])
    if effect is None:
        return Outcome(part, OPEN, f"all {len(both)} settings score alike in one of the two")
    why = f"over {len(both)} settings ({', '.join(name for name, *_ in both)})"
    keys = tuple(dict.fromkeys(key for _, x, y in both for key in x.keys + y.keys))
    return _compared(part, effect, why + "".join(f"; without {line}" for line in lacking), keys)


def _apart(part: Part, outcomes: Mapping[Ground, Outcome]) -> Outcome:
    """What was judged on several grounds: their verdict where they agree, with the effect nearest to the threshold."""
    if len(outcomes) == 1:
        return next(iter(outcomes.values()))
    names = dict(zip(outcomes, labels(list(outcomes)), strict=True))
    why = "; ".join(f"{outcome.verdict} at {names[where]}: {outcome.why}" for where, outcome in outcomes.items())
    if len({outcome.verdict for outcome in outcomes.values()}) > 1:
        return Outcome(part, OPEN, f"it is not the same on every ground: {why}")
    numbers = [outcome for outcome in outcomes.values() if outcome.effect]
    closest = min(numbers or outcomes.values(), key=lambda o: abs(o.effect.value - part.threshold) if o.effect else 0)
    return replace(closest, why=why, cells=tuple(key for outcome in outcomes.values() for key in outcome.cells))


def _compared(
    part: Part, effect: Effect, why: str, keys: tuple[str, ...], *, higher: bool = False, lower: bool = False
) -> Outcome:
    """The verdict on an effect that unfinished cells may still turn out `higher` or `lower`."""
    low, high, threshold = round(effect.low, DIGITS), round(effect.high, DIGITS), part.threshold
    above, below = low >= threshold, high <= threshold
    if part.at_least is not None:
        below = high < threshold
    else:
        above = low > threshold
    word: Word = OPEN
    if above or below:
        if (above and lower) or (below and higher):
            why = f"cells that are not finished may still turn it: {why}"
        else:
            word = HOLDS if above == (part.at_least is not None) else FAILS
    else:
        why = f"the interval includes the threshold: {why}"
    return Outcome(part, word, why, effect, cells=keys)


def _absent(part: Part, selection: Selection) -> Outcome:
    return Outcome(part, OPEN, f"{selection}: no such cell in this sweep", covered=False)


def _told(selection: Selection, best: Choice) -> str:
    """For instance `bioS single, QA finetune 5.6 [4.1, 7.0] (best of 2)`."""
    assert best.effect
    number = ranged(best.effect.value, (best.effect.low, best.effect.high))
    return f"{selection} {number}" + (f" ({best.remark})" if best.remark else "")
