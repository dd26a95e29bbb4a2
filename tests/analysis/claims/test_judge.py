"""Claims: each kind of part can hold, fail and lack data, and nothing is mixed that was not measured alike."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from analysis.claims.claim_file import Claim, Part
from analysis.claims.judge import judge
from analysis.claims.verdict import FAILS, HOLDS, OPEN, Outcome
from analysis.measurements.cells import Axis, Cell, Results
from analysis.measurements.table_rows import setting

BASE: dict[str, Axis] = {"corpus.people": 500, "corpus.multi": 1, "corpus.permute": 0, "corpus.fullname": False}
KINDS = {"qa": "qa_finetune", "bio": "mixed"}
QA, MIXED = "qa/exact_match/test/mean", "mixed/exact_match/test/mean"
TEST, NAME, FIRST = "baseline/test/mean", "q_probe/first/mean", "baseline/first/mean"


def cell(value: float | None, metric: str = QA, *, half: float = 0.03, state: str = "done", **axes: Any) -> Cell:
    """A cell with one metric (`None`: none); axes by the last part of their name, or with `__` for the dot."""
    group = metric.partition("/")[0]
    short = {name.split(".")[1]: name for name in BASE}
    full = BASE | {
        "readout.kind": KINDS.get(group, group),
        "train.qa_ratio": 0.5 if group == "mixed" else 0.0,
        "seed": 0,
    }
    full |= {short.get(name, name.replace("__", ".")): v for name, v in axes.items()}
    known: dict[str, Any] = {}
    if value is not None:
        known = {
            "metrics": {metric: value, TEST: 0.07, FIRST: 0.14},
            "interval": {metric: (max(0.0, value - half), min(1.0, value + half))},
        }
    return Cell(key="/".join(map(str, full.values())), axes=full, params=full, state=state, **known)


def part(text: str) -> Part:
    """A part from what stands in its braces."""
    return Part.model_validate({"says": "something"} | tomllib.loads("x = { " + text + " }")["x"])


def judged(text: str, cells: Sequence[Cell], curves: pd.DataFrame | None = None) -> Outcome:
    claim = Claim(name="c", says="something", paper="section 0", part=(part(text),))
    (verdict,) = judge(Results("s", tuple(cells)), curves, [claim])
    (outcome,) = verdict.parts
    assert verdict.verdict == outcome.verdict and verdict.why == outcome.why
    return outcome


SINGLE = 'setting = "bioS single", metric = "qa/exact_match/test/mean"'
MULTI = 'setting = "bioS multi5", metric = "qa/exact_match/test/mean"'


@pytest.mark.parametrize(
    ("value", "threshold", "verdict"),
    [
        (0.53, "at_least = 0.5", HOLDS),
        (0.53001, "at_least = 0.5", HOLDS),
        (0.52, "at_least = 0.5", OPEN),
        (0.47, "at_least = 0.5", OPEN),
        (0.46, "at_least = 0.5", FAILS),
        (0.47, "at_most = 0.5", HOLDS),
        (0.48, "at_most = 0.5", OPEN),
        (0.53, "at_most = 0.5", OPEN),
        (0.54, "at_most = 0.5", FAILS),
    ],
)
def test_the_whole_interval_must_be_on_one_side(value: float, threshold: str, verdict: str) -> None:
    outcome = judged(f"value = {{ {SINGLE} }}, {threshold}", [cell(value)])
    assert outcome.verdict == verdict and outcome.covered and outcome.cells
    assert ("the interval includes the threshold" in outcome.why) == (verdict == OPEN)


@pytest.mark.parametrize(("share", "verdict"), [(0.89, OPEN), (0.90, HOLDS), (1.0, HOLDS), (None, OPEN)])
def test_a_network_that_has_not_learned_its_own_questions_says_nothing_about_others(
    share: float | None, verdict: str
) -> None:
    one = cell(0.05)
    one = replace(one, metrics={**one.metrics, "qa/exact_match/train/mean": share} if share else one.metrics)
    demanding = f'value = {{ {SINGLE}, learned = 0.9 }}, minus = "baseline", at_most = 0.1'
    outcome = judged(demanding, [one])
    assert outcome.verdict == verdict and outcome.effect
    assert ("only 89.0 % of the questions trained on are answered, not 90.0" in outcome.why) == (share == 0.89)
    assert ("done without qa/exact_match/train/mean" in outcome.why) == (share is None)
    plain = judged(f'value = {{ {SINGLE} }}, minus = "baseline", at_most = 0.1', [one])
    assert plain.verdict == HOLDS, "adapters of the paper answer 30 % of them"


def test_learning_is_asked_of_the_setting_and_never_changes_the_number() -> None:
    learned, wild = cell(0.05, readout__learning_rate=1.0), cell(0.12, readout__learning_rate=2.0)
    learned = replace(learned, metrics={**learned.metrics, "qa/exact_match/train/mean": 1.0})
    wild = replace(wild, metrics={**wild.metrics, "qa/exact_match/train/mean": 0.5})
    text = f"value = {{ {SINGLE}, learned = 0.9 }}, "
    both = judged(text + "at_most = 0.2", [learned, wild])
    assert both.verdict == HOLDS and both.effect and both.effect.value == 0.12, (
        "the best of all, not of those that learned"
    )
    assert judged(text + "at_most = 0.08", [learned, wild]).verdict == FAILS
    assert judged(text + "at_most = 0.08", [wild]).verdict == FAILS, "that a network answers needs no proof of learning"
    assert judged(text + "at_least = 0.2", [wild]).verdict == OPEN, "that it does not answer does"
    against = f"value = {{ {MULTI} }}, minus = {{ {SINGLE}, learned = 0.9 }}, at_least = 0.2"
    assert judged(against, [cell(0.6, multi=5), wild]).verdict == OPEN
    assert judged(against, [cell(0.6, multi=5), wild, learned]).verdict == HOLDS


def probed(seed: int, value: float) -> Cell:
    return replace(cell(value, NAME, seed=seed), scale="mini")


def test_seeds_on_which_a_recipe_was_tuned_are_shown_and_do_not_count() -> None:
    text = f'value = {{ setting = "bioS single", metric = "{NAME}" }}, at_least = 0.5'
    alone = judged(text, [probed(0, 0.9)])
    assert alone.verdict == OPEN and alone.covered and alone.effect and alone.effect.value == 0.9
    assert alone.why.startswith(
        "the recipe of q_probe at mini was tuned on seed 0, which is shown and does not count: "
    )
    assert alone.tuned_on == ("the recipe of q_probe at mini was tuned on seed 0",)
    both = judged(text, [probed(0, 0.9), probed(1, 0.3)])
    assert both.verdict == FAILS and both.effect and both.effect.value == 0.3 and both.cells == (probed(1, 0.3).key,)
    assert "(the recipe of q_probe" in both.why and both.tuned_on
    assert judged(text, [probed(1, 0.9)]).tuned_on == ()
    assert judged(text, [replace(probed(0, 0.9), scale="full")]).verdict == HOLDS
    planned = replace(probed(0, 0.9), metrics={}, interval={}, state="running")
    assert judged(text, [planned]).covered and judged(text, [planned]).why.endswith("running")
    waiting = replace(probed(1, 0.9), metrics={}, interval={}, state="running")
    assert judged(text, [probed(0, 0.9), waiting]).verdict == OPEN
    questions = judged(f"value = {{ {SINGLE} }}, at_least = 0.5", [replace(cell(0.9), scale="mini")])
    assert questions.verdict == HOLDS, "only the recipe of probes was"


def test_rounding_does_not_decide() -> None:
    both = [cell(0.3, half=0.0, multi=5), cell(0.2, half=0.0)]
    assert 0.3 - 0.2 < 0.1
    text = f"value = {{ {MULTI} }}, minus = {{ {SINGLE} }}"
    assert judged(f"{text}, at_least = 0.1", both).verdict == HOLDS
    assert judged(f"{text}, at_most = 0.1", both).verdict == HOLDS


@pytest.mark.parametrize(("other", "verdict"), [(0.10, HOLDS), (0.50, FAILS), (0.42, OPEN), (None, OPEN)])
def test_one_setting_less_another(other: float | None, verdict: str) -> None:
    state = "done" if other is not None else "running"
    cells = [cell(0.6, multi=5), cell(other, state=state)]
    outcome = judged(f"value = {{ {MULTI} }}, minus = {{ {SINGLE} }}, at_least = 0.2", cells)
    assert outcome.verdict == verdict
    if other is None:
        assert outcome.effect is None and outcome.why == "bioS single, QA finetune: running"
    else:
        assert outcome.effect and outcome.effect.value == pytest.approx(0.6 - other)
        assert outcome.effect.high - outcome.effect.value == pytest.approx(0.03 * 2**0.5)
        assert outcome.cells == tuple(c.key for c in cells)


@pytest.mark.parametrize(("metric", "guess"), [(QA, 0.07), (MIXED, 0.07), (NAME, 0.14), ("p_probe/first/0/mean", 0.14)])
def test_the_baseline_is_that_of_the_same_question(metric: str, guess: float) -> None:
    text = f'value = {{ setting = "bioS single", metric = "{metric}" }}, minus = "baseline", '
    outcome = judged(text + "at_most = 0.10", [cell(guess + 0.02, metric)])
    assert outcome.verdict == HOLDS and outcome.effect and outcome.effect.value == pytest.approx(0.02)
    assert outcome.effect.high == pytest.approx(0.05), "a baseline has no width"
    assert judged(text + "at_most = 0.10", [cell(0.5, metric)]).verdict == FAILS
    known = cell(0.5, metric)
    bare = replace(known, metrics={metric: 0.5})
    assert judged(text + "at_most = 0.10", [bare]).why.endswith("no majority baseline recorded")


def test_several_metrics_are_averaged() -> None:
    names = ("mixed/exact_match/test/university", "mixed/exact_match/test/company")
    values = {names[0]: 0.2, names[1]: 0.4}
    bounds = {names[0]: (0.1, 0.3), names[1]: (0.38, 0.42)}
    guesses = {name.replace("mixed/exact_match", "baseline"): 0.1 for name in names}
    both = replace(cell(0.5, MIXED), metrics=values | guesses, interval=bounds)
    text = f'value = {{ setting = "bioS single", metric = {list(names)} }}, minus = "baseline", at_most = 0.27'
    outcome = judged(text, [both])
    assert outcome.effect and outcome.verdict == HOLDS
    assert (outcome.effect.low, outcome.effect.value, outcome.effect.high) == pytest.approx((0.14, 0.2, 0.26))
    one = replace(both, metrics={names[0]: 0.2} | guesses)
    assert judged(text, [one]).why == f"bioS single, Mixed training: done without {names[1]}"
    unsure = replace(both, interval={})
    assert "without an interval" in judged(text, [unsure]).why


def test_what_is_not_there_is_named() -> None:
    text = f"value = {{ {SINGLE} }}, at_least = 0.5"
    outcome = judged(text, [cell(0.9, multi=5)])
    assert not outcome.covered and outcome.why == "bioS single, QA finetune: no such cell in this sweep"
    blocked = judged(text, [cell(None, state="blocked: recall 71 %")])
    assert blocked.covered and blocked.why == "bioS single, QA finetune: blocked: recall 71 %"
    one_sided = judged(f"value = {{ {MULTI} }}, minus = {{ {SINGLE} }}, at_least = 0.2", [cell(0.9, multi=5)])
    assert not one_sided.covered and one_sided.verdict == OPEN


STRANGERS = {
    "another family": {"model__family": "gbert"},
    "trained on celebrities": {"readout__people": "celebrity"},
    "finetuned after mixed training": {"train__qa_ratio": 0.5},
    "another readout": {"readout__kind": "mixed"},
    "another setting": {"corpus__fullname": True},
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_not_meant_is_not_taken(name: str) -> None:
    text = f"value = {{ {SINGLE} }}, at_most = 0.5"
    other = cell(0.9, **STRANGERS[name])
    assert not judged(text, [other]).covered
    assert judged(text, [cell(0.1), other]).verdict == HOLDS


def test_what_is_asked_for_is_taken() -> None:
    celebrities = cell(0.9, readout__people="celebrity", corpus__celebrity_fraction=0.5)
    text = f'value = {{ setting = "{setting(celebrities.params)}", metric = "{QA}", "readout.people" = "celebrity" }}'
    assert judged(f"{text}, at_least = 0.5", [cell(0.1), celebrities]).verdict == HOLDS
    lora = [cell(0.1, readout__method="lora"), cell(0.9, readout__method="full")]
    assert judged(f'value = {{ {SINGLE}, "readout.method" = "lora" }}, at_most = 0.5', lora).verdict == HOLDS
    assert judged(f'value = {{ {SINGLE}, "readout.method" = "full" }}, at_most = 0.5', lora).verdict == FAILS


def test_the_best_of_several_is_judged() -> None:
    three = [cell(v, readout__learning_rate=rate) for v, rate in ((0.1, 1e-3), (0.9, 3e-4), (0.5, 1e-4))]
    outcome = judged(f"value = {{ {SINGLE} }}, at_most = 0.5", three)
    assert outcome.verdict == FAILS and outcome.cells == (three[1].key,) and "best of 3" in outcome.why
    longer = [cell(0.1, train__steps=900), cell(0.9, train__steps=1800)]
    assert judged(f"value = {{ {SINGLE} }}, at_least = 0.5", longer).verdict == HOLDS


@pytest.mark.parametrize("state", ["running", "planned", "missing", "failed: out of memory"])
def test_a_verdict_waits_for_what_may_still_turn_it(state: str) -> None:
    open_ = cell(None, state=state, readout__learning_rate=1.0)
    done = cell(0.1, readout__learning_rate=2.0)
    outcome = judged(f"value = {{ {SINGLE} }}, at_most = 0.5", [done, open_])
    assert outcome.verdict == OPEN and "may still turn it" in outcome.why and state in outcome.why
    assert judged(f"value = {{ {SINGLE} }}, at_least = 0.05", [done, open_]).verdict == HOLDS, "it only gets higher"
    assert judged(f"value = {{ {SINGLE} }}, at_least = 0.5", [done, open_]).verdict == OPEN
    gone = cell(None, state="blocked: recall 71 %", readout__learning_rate=1.0)
    assert judged(f"value = {{ {SINGLE} }}, at_most = 0.5", [done, gone]).verdict == HOLDS
    text = f"value = {{ {MULTI} }}, minus = {{ {SINGLE} }}, at_least = 0.2"
    assert judged(text, [cell(0.9, multi=5), done, open_]).verdict == OPEN, "the other side may still rise"
    assert judged(text, [cell(0.1, multi=5), done, open_]).verdict == FAILS


def test_people_are_never_mixed() -> None:
    text = f"value = {{ {MULTI} }}, minus = {{ {SINGLE} }}, at_least = 0.2"
    apart = judged(text, [cell(0.9, multi=5, people=1000), cell(0.1)])
    assert apart.verdict == OPEN and "not measured alike: corpus.people (1000, 500)" in apart.why
    two = [cell(0.1), cell(0.9, people=1000)]
    assert judged(text, [cell(0.9, multi=5, people=1000), *two]).verdict == FAILS, "at 1000 people both score alike"
    alike = [cell(0.9, multi=5, people=1000), cell(0.1), cell(0.2, people=1000)]
    matched = judged(text, alike)
    assert matched.verdict == HOLDS and matched.effect and matched.effect.value == pytest.approx(0.7)


def test_each_ground_is_judged_apart() -> None:
    text = f"value = {{ {SINGLE} }}, at_least = 0.5"
    outcome = judged(text, [cell(0.1), cell(0.9, people=1000)])
    assert outcome.verdict == OPEN and outcome.effect is None and "not the same on every ground" in outcome.why
    assert "fails at corpus.people=500: " in outcome.why and "holds at corpus.people=1000: " in outcome.why
    agreed = judged(text, [cell(0.9, people=1000), cell(0.6), cell(0.8, people=2000)])
    assert agreed.verdict == HOLDS and agreed.effect and agreed.effect.value == 0.6 and len(agreed.cells) == 3
    waiting = judged(text, [cell(0.9), cell(None, state="running", people=1000)])
    assert waiting.verdict == OPEN and "not enough data at corpus.people=1000" in waiting.why
    gone = judged(text, [cell(0.9), cell(None, state="blocked: recall 71 %", people=1000)])
    assert gone.verdict == HOLDS, "where nothing was measured there is nothing to agree with"
    text = f"value = {{ {MULTI} }}, minus = {{ {SINGLE} }}, at_least = 0.2"
    pairs = [cell(v, multi=m, people=n) for m, n, v in ((5, 500, 0.9), (1, 500, 0.1), (5, 1000, 0.9), (1, 1000, 0.3))]
    both = judged(text, pairs)
    assert both.verdict == HOLDS and both.effect and both.effect.value == pytest.approx(0.6) and len(both.cells) == 4
    assert "holds at corpus.people=500: bioS multi5" in both.why
    sizes = [cell(0.9, model__size="124m"), cell(0.1, model__size="302m")]
    assert "holds at model.size=124m" in judged(f"value = {{ {SINGLE} }}, at_least = 0.5", sizes).why
    shares = [cell(v, MIXED, corpus__celebrity__multi=m) for v, m in ((0.9, 5), (0.3, 2))]
    one_sided = f'value = {{ setting = "{setting(shares[0].params)}", metric = "{MIXED}" }}, minus = {{ {SINGLE} }}, '
    told = judged(one_sided + "at_least = 0.5", [*shares, cell(0.1)]).why
    assert "fails at corpus.celebrity.multi=2" in told and "holds at corpus.celebrity.multi=5" in told


def test_sides_may_differ_in_how_they_were_trained() -> None:
    mixed = f'value = {{ setting = "bioS single", metric = "{MIXED}" }}, minus = {{ {SINGLE} }}, at_least = 0.2'
    assert judged(mixed, [cell(0.9, MIXED, train__steps=1800), cell(0.1, train__steps=900)]).verdict == HOLDS
    gbert = f'value = {{ {SINGLE} }}, minus = {{ {SINGLE}, "model.family" = "gbert" }}, at_least = 0.2'
    families = [cell(0.9, model__family="gpt2"), cell(0.1, model__family="gbert")]
    assert judged(gbert, families).verdict == HOLDS


def test_seeds_are_replicates() -> None:
    seeds = [cell(v, half=0.001, seed=k) for k, v in enumerate((0.55, 0.60, 0.56))]
    outcome = judged(f"value = {{ {SINGLE} }}, at_least = 0.53", seeds)
    assert outcome.verdict == OPEN and "3 seeds" in outcome.why and outcome.effect and outcome.effect.low < 0.51
    assert judged(f"value = {{ {SINGLE} }}, at_least = 0.53", seeds[:1]).verdict == HOLDS
    waiting = [*seeds, cell(None, state="running", seed=3)]
    assert judged(f"value = {{ {SINGLE} }}, at_least = 0.5", waiting).cells == tuple(c.key for c in seeds)


CORRELATION = f'correlation = ["{NAME}", "{QA}"], settings = 4, at_least = 0.80'


def points(*pairs: tuple[float | None, float | None]) -> list[Cell]:
    """For each pair a setting of its own, read out by a probe and by questions."""
    found = []
    for k, (x, y) in enumerate(pairs, start=1):
        found.append(cell(x, NAME, multi=k, state="running" if x is None else "done"))
        found.append(cell(y, multi=k, state="running" if y is None else "done"))
    return found


RISING = ((0.1, 0.05), (0.3, 0.27), (0.5, 0.45), (0.6, 0.54), (0.7, 0.63), (0.9, 0.8))


def test_a_correlation_holds_fails_or_lacks_settings() -> None:
    falling = tuple((x, 0.85 - y) for x, y in RISING)
    outcome = judged(CORRELATION, points(*RISING))
    assert outcome.verdict == HOLDS and outcome.effect and outcome.effect.value > 0.99 and len(outcome.cells) == 12
    assert judged(CORRELATION, points(*falling)).verdict == FAILS
    near = judged(CORRELATION, points((0.50, 0.50), (0.52, 0.52), (0.54, 0.54), (0.56, 0.56)))
    assert near.verdict == OPEN and "includes the threshold" in near.why
    flat = judged(CORRELATION, points((0.5, 0.1), (0.5, 0.5), (0.5, 0.7), (0.5, 0.9)))
    assert flat.verdict == OPEN and "score alike" in flat.why
    few = judged(CORRELATION, points(*RISING[:3]))
    assert not few.covered and "needs 4 settings" in few.why and "this sweep has 3" in few.why
    waiting = judged(CORRELATION, points(*RISING[:3], (None, 0.8)))
    assert waiting.covered and waiting.verdict == OPEN and "3 have both" in waiting.why and "running" in waiting.why
    more = judged(CORRELATION, points(*RISING, (0.7, None)))
    assert more.verdict == HOLDS and "over 6 settings" in more.why and "without bioS multi7: running" in more.why


def test_a_correlation_is_over_the_same_people() -> None:
    pairs = points(*RISING)
    moved = [
        replace(c, axes=dict(c.axes) | {"corpus.people": 1000}, params=dict(c.params) | {"corpus.people": 1000})
        for c in pairs
    ]
    apart = [b if b.axes["readout.kind"] == "q_probe" else a for a, b in zip(pairs, moved, strict=True)]
    assert not judged(CORRELATION, apart).covered
    assert judged(CORRELATION, [*pairs, *moved]).why.startswith("holds at corpus.people=500: over 6 settings")
    falling = [
        replace(c, metrics={QA: 0.9 - c.metrics[QA]}, interval={QA: (0, 1)}) if QA in c.metrics else c for c in moved
    ]
    assert "fails at corpus.people=1000" in judged(CORRELATION, [*pairs, *falling]).why
    gone = [replace(c, state="blocked: recall 71 %", metrics={}, interval={}) for c in moved]
    assert judged(CORRELATION, [*pairs, *gone]).verdict == HOLDS
    assert judged(CORRELATION, gone).covered and judged(CORRELATION, gone).verdict == OPEN
    assert judged(CORRELATION, [*pairs, *moved[:2]]).verdict == HOLDS, "one setting at other people is no other point"


LEAD = (
    'lead = ["mixed/first_token/train/mean", "bio/first_token/train/mean"], setting = "bioS single", level = 0.9, '
    "at_least = 0.2"
)


def learned(key: str, questions: int, biographies: int, half: float = 0.02) -> pd.DataFrame:
    """Curves that pass 90 % in a line at these steps."""
    passing = {"mixed/first_token/train/mean": questions, "bio/first_token/train/mean": biographies}
    points = [(step, name, min(1.0, 0.9 * step / at)) for step in range(0, 201, 5) for name, at in passing.items()]
    return pd.DataFrame(
        [
            {"key": key, "step": step, "metric": name, "value": v, "n": 250, "low": v - half, "high": v + half}
            for step, name, v in points
        ]
    )


def test_a_lead_holds_fails_or_lacks_curves() -> None:
    mixed = cell(0.8, MIXED)
    held = judged(LEAD, [mixed], learned(mixed.key, 60, 100))
    assert held.verdict == HOLDS and held.effect and held.effect.value == pytest.approx(0.4)
    assert held.why.startswith("mixed/first_token/train/mean passes 90.0 % before bio/first_token/train/mean: ")
    assert judged(LEAD, [mixed], learned(mixed.key, 100, 60)).verdict == FAILS
    assert judged(LEAD, [mixed], learned(mixed.key, 80, 80)).verdict == FAILS
    assert "includes" in judged(LEAD, [mixed], learned(mixed.key, 80, 100)).why
    for curves in (None, learned("another", 60, 100), learned(mixed.key, 400, 500)):
        lacking = judged(LEAD, [mixed], curves)
        assert lacking.verdict == OPEN and lacking.covered and "no learning curves" in lacking.why
    blocked = cell(None, MIXED, state="blocked: recall 71 %")
    unread = judged(LEAD, [blocked], learned(blocked.key, 60, 100))
    assert unread.verdict == OPEN and "recall 71 %" in unread.why, "it leads for never having read"
    assert not judged(LEAD, [cell(0.1)], learned(mixed.key, 60, 100)).covered


def claim_of(*thresholds: str) -> Claim:
    parts = tuple(part(f"value = {{ {SINGLE} }}, {text}") for text in thresholds)
    return Claim(name="c", says="something", paper="section 0", part=parts)


@pytest.mark.parametrize(
    ("thresholds", "verdict"),
    [
        (("at_least = 0.4", "at_most = 0.6"), HOLDS),
        (("at_least = 0.4", "at_most = 0.3"), FAILS),
        (("at_least = 0.5", "at_most = 0.3"), FAILS),
        (("at_least = 0.5", "at_most = 0.6"), OPEN),
    ],
)
def test_a_claim_holds_if_all_its_parts_hold(thresholds: Sequence[str], verdict: str) -> None:
    (found,) = judge(Results("s", (cell(0.5),)), None, [claim_of(*thresholds)])
    assert found.verdict == verdict and found.tested and len(found.covered) == 2
    assert ("something: " in found.why) == (verdict != HOLDS)


def test_every_claim_of_the_project_is_judged_of_nothing() -> None:
    found = judge(Results("s", ()))
    assert len(found) >= 11 and {verdict.verdict for verdict in found} == {OPEN}
    assert not any(verdict.covered for verdict in found) and all(verdict.why for verdict in found)
