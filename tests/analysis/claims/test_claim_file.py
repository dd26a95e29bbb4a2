"""The claims file: what it holds is read, and what is wrong in it is said in one line."""

import hashlib
from pathlib import Path

import pytest

from analysis.claims.claim_file import FILE, Selection, load_claims, sha256
from analysis.measurements.names import majority

GOOD = """
[[claim]]
name = "a"
says = "something"
paper = "section 3"
part = [
  { says = "x", value = { setting = "bioS single", metric = "qa/exact_match/test/mean" }, at_least = 0.1 },
]
"""


def test_the_projects_own_claims_are_read() -> None:
    claims = load_claims()
    assert [claim.name for claim in claims][:2] == ["finetuning_fails", "mixed_training_extracts"]
    assert len(claims) >= 11 and sum(len(claim.part) for claim in claims) >= 24
    assert sha256() == hashlib.sha256(FILE.read_bytes()).hexdigest()[:12]
    kinds = {kind for claim in claims for part in claim.part for kind in ("value", "correlation", "lead") if
             getattr(part, kind)}  # fmt: skip
    assert kinds == {"value", "correlation", "lead"}


def test_a_selection_says_what_else_it_means() -> None:
    finetuned = Selection(setting="bioS single", metric=("qa/exact_match/test/mean",))
    assert finetuned.cells == {
        "model.family": "gpt2",
        "readout.people": "minority",
        "train.qa_ratio": 0.0,
        "readout.kind": "qa_finetune",
    }
    mixed = Selection.model_validate(
        {"setting": "bioS single", "metric": "mixed/exact_match/test/major", "model.family": "gbert"}
    )
    assert mixed.cells == {"model.family": "gbert", "readout.people": "minority", "readout.kind": "mixed"}
    assert str(mixed) == "bioS single, Mixed training, model.family=gbert"


def test_learning_is_demanded_only_where_the_paper_presupposes_it() -> None:
    selections = [s for claim in load_claims() for part in claim.part for s in (part.value, part.minus)]
    gated = [str(s) for s in selections if isinstance(s, Selection) and s.learned is not None]
    assert gated == [
        "bioS single, QA finetune, readout.method=full",
        *["bioS single, Mixed training, model.family=gbert"] * 2,
    ]


@pytest.mark.parametrize(
    ("metric", "baseline"),
    [
        ("qa/exact_match/test/mean", majority("qa", "whole", "mean")),
        ("mixed/exact_match/test/company_city", "baseline/test/company_city"),
        ("p_probe/first/0/mean", "baseline/first/mean"),
        ("p_probe/whole/own/major", "baseline/whole/major"),
        ("q_probe/whole/mean", "baseline/whole/mean"),
    ],
)
def test_each_metric_has_the_baseline_of_what_it_predicts(metric: str, baseline: str) -> None:
    assert Selection(setting="s", metric=(metric,)).baselines == (baseline,)


LEAD = '["bio/first_token/test/mean", "bio/first_token/train/mean"]'
TUNED = '[[tuned_on]]\nreadout = "probe"\nscale = "mini"\nseeds = [0]\nwhy = "x"\n'
WRONG = {
    "unknown key of a claim": ('says = "something"', 'says = "something"\nsay = 1', "claim a, say: Extra inputs"),
    "unknown key of a part": ("at_least", "atleast", "claim a, part 1"),
    "unknown key of a selection": ("metric =", 'readout = "x", metric =', "part 1, value.readout: Extra inputs"),
    "no axis": ("metric =", 'axes = { x = 1 }, metric =', "axes: each stands by its own name"),
    "unknown metric": ("/test/mean", "/tset/mean", "metric qa/exact_match/tset/mean: there is none"),
    "unknown attribute": ("/test/mean", "/test/town", "there is none"),
    "another readout": ("metric =", '"readout.kind" = "mixed", metric =', "readout.kind=mixed"),
    "no setting": ('setting = "bioS single", ', "", "part 1, value.setting: Field required"),
    "no threshold": (", at_least = 0.1", "", "at_least and at_most"),
    "two thresholds": ("at_least = 0.1", "at_least = 0.1, at_most = 0.2", "at_least and at_most"),
    "percent": ("at_least = 0.1", "at_least = 10.0", "less than or equal to 1"),
    "text for a number": ("at_least = 0.1", 'at_least = "0.1"', "valid number"),
    "nothing compared": ("value = {", "minus = {", "has none of value, correlation and lead"),
    "two comparisons": ("at_least", f"lead = {LEAD}, at_least", "value and lead"),
    "settings of no correlation": ("at_least", "settings = 4, at_least", "settings: belongs to correlation"),
    "too few settings": ("value = {", "settings = 3, value = {", "settings: Input should be greater"),
    "level of no lead": ("at_least", "level = 0.9, at_least", "level: belongs to lead"),
    "too much to learn": ("metric =", "learned = 1.5, metric =", "value.learned: Input should be less"),
    "tuned on a stranger": ("[[claim]]", f"{TUNED}[[claim]]", "readout=probe: must be one of qa_finetune"),
    "baseline of no test": ("/test/mean\" }", '/train/mean" }, minus = "baseline"', "has no majority baseline"),
    "minus something": ("at_least", 'minus = "base", at_least', "minus"),
    "no parts": ("part = [", "part = []\nparts = [", "part"),
    "no TOML": ("[[claim]]", "[[claim]", "line"),
    "no claims": (GOOD, "", "claim: Field required"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    before, after, told = WRONG[name]
    assert before in GOOD
    path = tmp_path / "claims.toml"
    path.write_text(GOOD.replace(before, after, 1))
    with pytest.raises(ValueError) as error:
        load_claims(path)
    said = str(error.value)
    assert said.startswith("claims.toml: ") and told in said and "\n" not in said


def test_the_good_file_is_good_and_names_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(GOOD)
    assert load_claims(path)[0].part[0].threshold == 0.1
    path.write_text(GOOD + GOOD)
    with pytest.raises(ValueError, match="claim a: the name is there twice"):
        load_claims(path)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ('correlation = ["q_probe/first/mean", "qa/exact_match/test/mean"]', "correlation: needs settings"),
        ('correlation = ["q_probe/first/mean", "qa/exact/test/mean"], settings = 5', "metric qa/exact/test/mean"),
        ('correlation = ["q_probe/first/mean"], settings = 5', "correlation"),
        ('lead = ["mixed/first_token/train/mean", "bio/first_token/train/mean"]', "lead: needs setting"),
        ('lead = ["mixed/first_token/train/mean", "bio/first_token/train/mean"], setting = "s"', "lead: needs level"),
        ('value = { setting = "s", metric = "q_probe/first/mean", learned = 0.9 }', "has no training questions"),
    ],
)
def test_other_parts_are_checked_too(part: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    value = '{ says = "x", value = { setting = "bioS single", metric = "qa/exact_match/test/mean" }, at_least = 0.1 }'
    path.write_text(GOOD.replace(value, f'{{ says = "x", {part}, at_least = 0.1 }}'))
    with pytest.raises(ValueError) as error:
        load_claims(path)
    assert told in str(error.value)
