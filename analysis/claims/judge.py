"""Judge: decides which of the paper's conclusions hold in these results, by thresholds fixed before any run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from analysis.claims import effects
from analysis.claims.claim_file import Claim, Part, Selection, Tuning, load_claims, load_tunings
from analysis.claims.effects import Effect
from analysis.claims.selection import (
    ComparisonGroup,
    GroupsBySetting,
    Reading,
    SelectedCells,
    choose,
    comparison_groups,
    differences,
    labels,
    mean_of,
    shared_axes,
)
from analysis.claims.verdict import FAILS, HOLDS, OPEN, Outcome, Verdict
from analysis.measurements.best_settings import shown_groups
from analysis.measurements.cells import Cell, ReplicateGroup, Results
from analysis.measurements.table_rows import own_attributes, setting
from analysis.presentation.number_format import percent, ranged

Point = tuple[str, SelectedCells, SelectedCells]
"""A setting, read out in two ways."""
DIGITS = 9
"""Effects are rounded before they are compared with thresholds: in floating point, 0.3 - 0.2 is less than 0.1."""


def judge(
    results: Results,
    curves: pd.DataFrame | None = None,
    claims: Sequence[Claim] | None = None,
    tunings: Sequence[Tuning] | None = None,
) -> tuple[Verdict, ...]:
    """Returns a verdict on every claim (by default those of `claims.toml`).

    A part holds if the whole 95 % interval of its effect lies on the threshold's right side and fails if all of it lies
    on the wrong one; otherwise, or if cells are missing, there is not enough data. Comparison groups, such as two
    numbers of people, are judged separately, and the part has a verdict if they agree. A claim holds if all its parts
    hold and fails if one fails. Cells of seeds on which their recipe was tuned (`tunings`, by default of `claims.toml`)
    are shown and do not count. `curves` has one row per point of a learning curve: key (of the cell), step, metric,
    value, n, low, high.
    """
    claims = load_claims() if claims is None else claims
    tunings = load_tunings() if tunings is None else tunings
    set_aside = {cell.key: tuning for cell in results.cells for tuning in tunings if tuning.covers(cell)}
    counted = _by_setting(results, (cell for cell in results.cells if cell.key not in set_aside))
    everything = _by_setting(results, results.cells)

    def outcome(part: Part) -> Outcome:
        judged = _judge_part(part, counted, curves)
        return _with_tuning(judged, _judge_part(part, everything, curves), set_aside) if set_aside else judged

    return tuple(_judge_claim(claim, tuple(map(outcome, claim.part))) for claim in claims)


def _by_setting(results: Results, cells: Iterable[Cell]) -> GroupsBySetting:
    """The results of these cells, but for those of people with attributes besides the six: their means are others."""
    groups: dict[str, list[ReplicateGroup]] = {}
    for replicates in shown_groups(replace(results, cells=tuple(cells))):
        if not own_attributes([replicates]):
            groups.setdefault(setting(replicates.params), []).append(replicates)
    return groups


def _with_tuning(counted: Outcome, everything: Outcome, set_aside: Mapping[str, Tuning]) -> Outcome:
    """The outcome on the cells that count, with a note on those that do not; without any that count, no verdict."""
    tunings = dict.fromkeys(set_aside[key] for key in everything.cells if key in set_aside)
    if not tunings:
        return counted if counted.covered else everything
    notes = tuple(map(str, tunings))
    reason = f"{'; '.join(notes)}, which is shown and does not count"
    if counted.effect is not None:
        return replace(counted, why=f"{counted.why} ({reason}: {everything.why})", tuned_on=notes)
    return replace(everything, verdict=OPEN, why=f"{reason}: {everything.why}", tuned_on=notes)


def _judge_claim(claim: Claim, parts: tuple[Outcome, ...]) -> Verdict:
    by_word = {word: [part for part in parts if part.verdict == word] for word in (FAILS, OPEN)}
    if not by_word[FAILS] and not by_word[OPEN]:
        return Verdict(claim, HOLDS, "all parts hold" if len(parts) > 1 else parts[0].why, parts)
    word = FAILS if by_word[FAILS] else OPEN
    whys = [outcome.why if len(parts) == 1 else f"{outcome.part.says}: {outcome.why}" for outcome in by_word[word]]
    return Verdict(claim, word, "; ".join(whys), parts)


def _judge_part(part: Part, groups: GroupsBySetting, curves: pd.DataFrame | None) -> Outcome:
    if part.correlation:
        return _judge_correlation(part, groups)
    if part.lead:
        return _judge_lead(part, groups, curves)
    assert part.value is not None
    if isinstance(part.minus, Selection):
        return _judge_difference(part, part.value, part.minus, groups)
    return _judge_value(part, part.value, groups, mean_of(part.value.metric))


def _judge_value(
    part: Part, selection: Selection, groups: GroupsBySetting, read: Callable[[ReplicateGroup], Reading]
) -> Outcome:
    """Judges a number by itself, or less the baseline of the same people."""
    candidates = comparison_groups(groups, selection)
    if not candidates:
        return _not_covered(part, selection)
    chosen = {group: choose(members, read, selection) for group, members in candidates.items()}
    return _agreement(part, {group: _judge_number(part, selection, best) for group, best in chosen.items()})


def _judge_number(part: Part, selection: Selection, best: SelectedCells) -> Outcome:
    if best.effect is None or best.replicates is None:
        return Outcome(part, OPEN, f"{selection}: {best.remark}")
    effect, why = best.effect, _describe(selection, best)
    if part.minus == "baseline":
        values = [best.replicates.metrics.get(name) for name in selection.baselines]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return Outcome(part, OPEN, f"{selection}: no majority baseline recorded", cells=best.keys)
        effect -= Effect.constant(sum(known) / len(known))
        why += f" less always the commonest value {percent(sum(known) / len(known))}"
    return _compare_to_threshold(part, effect, why, best.keys, may_rise=_why_not_final(selection, best))


def _judge_difference(part: Part, value: Selection, minus: Selection, groups: GroupsBySetting) -> Outcome:
    """Judges one selection less another within each pair of groups that agree in `shared_axes`."""
    ours, theirs = comparison_groups(groups, value), comparison_groups(groups, minus)
    for selection, candidates in ((value, ours), (minus, theirs)):
        if not candidates:
            return _not_covered(part, selection)
    outcomes: dict[ComparisonGroup, Outcome] = {}
    for a, b in [(a, b) for a in ours for b in theirs if shared_axes(a) == shared_axes(b)]:
        one = choose(ours[a], mean_of(value.metric), value)
        other = choose(theirs[b], mean_of(minus.metric), minus)
        if one.effect is None or other.effect is None:
            sides = ((value, one), (minus, other))
            missing = [f"{selection}: {cells.remark}" for selection, cells in sides if cells.effect is None]
            outcomes[a + b] = Outcome(part, OPEN, "; ".join(missing))
            continue
        outcomes[a + b] = _compare_to_threshold(
            part,
            one.effect - other.effect,
            f"{_describe(value, one)} less {_describe(minus, other)}",
            one.keys + other.keys,
            may_rise=_why_not_final(value, one),
            may_fall=_why_not_final(minus, other),
        )
    if not outcomes:
        apart = differences([*map(shared_axes, ours), *map(shared_axes, theirs)])
        return Outcome(part, OPEN, f"the two sides were not measured alike: {apart}")
    return _agreement(part, outcomes)


def _judge_lead(part: Part, groups: GroupsBySetting, curves: pd.DataFrame | None) -> Outcome:
    """Judges how much earlier one learning curve passes a level; blocked models, which never learned, do not count."""
    assert part.lead and part.setting and part.level
    (ahead, behind), level = part.lead, part.level
    selection = Selection(setting=part.setting, metric=(ahead,))

    def read(replicates: ReplicateGroup) -> Reading:
        if not replicates.done:
            return replicates.state
        lead = None if curves is None else effects.lead(curves, replicates.counted, ahead, behind, level)
        return lead or f"no learning curves {ahead} and {behind} that pass {percent(level)} %"

    outcome = _judge_value(part, selection, groups, read)
    if outcome.effect is None:
        return outcome
    return replace(outcome, why=f"{ahead} passes {percent(level)} % before {behind}: {outcome.why}")


def _judge_correlation(part: Part, groups: GroupsBySetting) -> Outcome:
    """Judges the correlation over settings that have both metrics within one comparison group."""
    assert part.correlation and part.settings
    x, y = part.correlation
    points: dict[ComparisonGroup, list[Point]] = {}
    for name in groups:
        ours = comparison_groups(groups, Selection(setting=name, metric=(x,)))
        theirs = comparison_groups(groups, Selection(setting=name, metric=(y,)))
        for group in [group for group in ours if group in theirs]:
            pair = choose(ours[group], mean_of([x])), choose(theirs[group], mean_of([y]))
            points.setdefault(shared_axes(group), []).append((name, *pair))
    planned = {group: members for group, members in points.items() if len(members) >= part.settings}
    if not planned:
        most = max(map(len, points.values()), default=0)
        why = f"needs {part.settings} settings with {x} and {y}, this sweep has {most}"
        return Outcome(part, OPEN, why, covered=False)
    # A group with too many blocked cells will never have a number, so it cannot contradict another group.
    possible = {
        group: members
        for group, members in planned.items()
        if sum(not (a.will_never_finish or b.will_never_finish) for _, a, b in members) >= part.settings
    }
    outcomes = {group: _correlate(part, members) for group, members in (possible or planned).items()}
    return _agreement(part, outcomes)


def _correlate(part: Part, points: Sequence[Point]) -> Outcome:
    """Judges the correlation over the points that have both numbers."""
    assert part.settings
    both = [(name, x, y) for name, x, y in points if x.effect and y.effect]
    missing = [f"{name}: {cells.remark}" for name, x, y in points for cells in (x, y) if cells.effect is None]
    if len(both) < part.settings:
        why = f"needs {part.settings} settings, {len(both)} have both numbers; {'; '.join(missing)}"
        return Outcome(part, OPEN, why)
    effect = effects.correlation([(x.effect, y.effect) for _, x, y in both if x.effect and y.effect])
    if effect is None:
        return Outcome(part, OPEN, f"all {len(both)} settings score alike in one of the two")
    why = f"over {len(both)} settings ({', '.join(name for name, *_ in both)})"
    why += "".join(f"; without {line}" for line in missing)
    keys = tuple(dict.fromkeys(key for _, x, y in both for key in x.keys + y.keys))
    return _compare_to_threshold(part, effect, why, keys)


def _agreement(part: Part, outcomes: Mapping[ComparisonGroup, Outcome]) -> Outcome:
    """The verdict on which all groups agree, with the effect nearest to the threshold; otherwise not enough data."""
    if len(outcomes) == 1:
        return next(iter(outcomes.values()))
    names = dict(zip(outcomes, labels(list(outcomes)), strict=True))
    why = "; ".join(f"{outcome.verdict} at {names[group]}: {outcome.why}" for group, outcome in outcomes.items())
    if len({outcome.verdict for outcome in outcomes.values()}) > 1:
        return Outcome(part, OPEN, f"it is not the same on every ground: {why}")
    numbers = [outcome for outcome in outcomes.values() if outcome.effect]
    closest = min(numbers or outcomes.values(), key=lambda o: abs(o.effect.value - part.threshold) if o.effect else 0)
    return replace(closest, why=why, cells=tuple(key for outcome in outcomes.values() for key in outcome.cells))


def _compare_to_threshold(
    part: Part, effect: Effect, why: str, keys: tuple[str, ...], *, may_rise: str = "", may_fall: str = ""
) -> Outcome:
    """The verdict on an effect; `may_rise` and `may_fall` say why it is no lower or upper bound yet."""
    low, high, threshold = round(effect.low, DIGITS), round(effect.high, DIGITS), part.threshold
    # An interval that ends exactly at the threshold satisfies the claim.
    above = low >= threshold if part.at_least is not None else low > threshold
    below = high < threshold if part.at_least is not None else high <= threshold
    if not (above or below):
        return Outcome(part, OPEN, f"the interval includes the threshold: {why}", effect, cells=keys)
    if doubt := (may_fall if above else may_rise):
        return Outcome(part, OPEN, f"{doubt}: {why}", effect, cells=keys)
    word = HOLDS if above == (part.at_least is not None) else FAILS
    return Outcome(part, word, why, effect, cells=keys)


def _why_not_final(selection: Selection, best: SelectedCells) -> str:
    """Why the number of a selection may be higher than it is; empty if it is final."""
    if best.pending:
        return "cells that are not finished may still turn it"
    return f"{selection}: {best.unlearned}" if best.unlearned else ""


def _not_covered(part: Part, selection: Selection) -> Outcome:
    return Outcome(part, OPEN, f"{selection}: no such cell in this sweep", covered=False)


def _describe(selection: Selection, best: SelectedCells) -> str:
    """For instance `bioS single, QA finetune 5.6 [4.1, 7.0] (best of 2)`."""
    assert best.effect
    number = ranged(best.effect.value, (best.effect.low, best.effect.high))
    return f"{selection} {number}" + (f" ({best.remark})" if best.remark else "")
