"""Verdicts as text: counted, for a console and as JSON."""

import io
import json
import tomllib
from collections.abc import Callable

import pytest
from rich.console import Console

from analysis.claims.claim_file import Claim, Part, sha256
from analysis.claims.judge import judge
from analysis.claims.verdict import Verdict
from analysis.claims.verdict_table import as_json, counted, effect, rich_table, shown, threshold
from analysis.measurements.cells import Cell, Results

VALUE = 'value = { setting = "bioS single", metric = "qa/exact_match/test/mean" }'
OTHER = 'minus = { setting = "bioS multi5", metric = "qa/exact_match/test/mean" }'
ABSENT = 'value = { setting = "bioS multi2", metric = "qa/exact_match/test/mean" }'


def claim(name: str, *parts: str) -> Claim:
    tables = [{"says": f"part {k}"} | tomllib.loads(f"x = {{ {text} }}")["x"] for k, text in enumerate(parts)]
    return Claim(name=name, says=f"claim {name}", paper="section 0", part=tuple(map(Part.model_validate, tables)))


@pytest.fixture
def verdicts(make: Callable[..., Cell]) -> tuple[Verdict, ...]:
    """One that holds, one that fails, one open, one that this sweep has in part, and one that it has nothing of."""
    results = Results("s", (make(0.5), make(0.2, multi=5), make(0.8, multi=5, readout="mixed", qa_ratio=0.8)))
    claims = [
        claim("held", f"{VALUE}, at_least = 0.4"),
        claim("failed", f'{VALUE}, minus = "baseline", at_most = 0.1', f"{VALUE}, {OTHER}, at_least = 0.1"),
        claim("open", f"{VALUE}, at_least = 0.5"),
        claim("in_part", f"{VALUE}, at_least = 0.4", f"{ABSENT}, at_least = 0.4"),
        claim("elsewhere", f"{ABSENT}, at_least = 0.4"),
    ]
    return judge(results, None, claims)


def test_whole_claims_are_counted(verdicts: tuple[Verdict, ...]) -> None:
    assert counted(verdicts) == "1 holds, 1 fails, 1 not enough data"
    assert counted(verdicts[:1] * 7 + verdicts[1:2] * 2) == "7 hold, 2 fail"
    assert counted(verdicts[3:]) is None
    assert [verdict.claim.name for verdict in shown(verdicts)] == ["held", "failed", "open", "in_part"]


def test_effects_and_thresholds_are_in_one_unit(verdicts: tuple[Verdict, ...], make: Callable[..., Cell]) -> None:
    held, failed = verdicts[0].parts[0], verdicts[1].parts[1]
    assert (effect(held), threshold(held)) == ("50.0 [47.0, 53.0]", "at least 40.0")
    assert (effect(failed), threshold(failed)) == ("+30.0 [+25.8, +34.2]", "at least +10.0")
    assert effect(verdicts[4].parts[0]) == "–"  # noqa: RUF001
    text = 'correlation = ["q_probe/first/mean", "qa/exact_match/test/mean"], settings = 4, at_least = 0.8'
    points = ((1, 0.1), (2, 0.3), (3, 0.6), (4, 0.9))
    pairs = [make(v, multi=m, readout=kind) for m, v in points for kind in ("q_probe", "qa_finetune")]
    (verdict,) = judge(Results("s", tuple(pairs)), None, [claim("c", text)])
    assert effect(verdict.parts[0]) == "1.00 [0.99, 1.00]" and threshold(verdict.parts[0]) == "at least 0.80"


def test_the_console_shows_what_the_sweep_bears_on(verdicts: tuple[Verdict, ...]) -> None:
    console = Console(width=144, record=True, file=io.StringIO())
    console.print(rich_table(verdicts))
    lines = console.export_text().splitlines()
    assert sha256() in lines[0]
    (failed,) = [line for line in lines if "claim failed" in line]
    (part,) = [line for line in lines if "+30.0 [+25.8, +34.2]" in line]
    assert failed.index("fails") == part.index("holds"), "verdicts stand in one column"
    (in_part,) = [k for k, line in enumerate(lines) if "claim in_part" in line]
    assert lines[in_part].split()[-1] == "holds" and "not enough data" not in lines[in_part]
    assert "holds in 1 of 1 tested parts; 1 is not in this sweep" in lines[in_part + 1]
    assert any("the interval includes the threshold" in line for line in lines)
    assert not any("elsewhere" in line or "no such cell" in line for line in lines)
    assert rich_table(verdicts[4:]) == ""


def test_the_json_has_everything(verdicts: tuple[Verdict, ...]) -> None:
    told = json.loads(json.dumps(as_json(verdicts), allow_nan=False))
    assert told["sha256"] == sha256() and [c["verdict"] for c in told["claims"]] == [v.verdict for v in verdicts]
    held, _, _, in_part, elsewhere = told["claims"]
    (part,) = held["parts"]
    assert part["effect"] == 0.5 and part["interval"] == [0.47, 0.53] and part["at_least"] == 0.4 and part["cells"]
    assert in_part["tested"] is False and in_part["parts"][1]["covered"] is False
    assert in_part["in_sweep"] == "holds" and in_part["scope"].startswith("in 1 of 1 tested parts")
    assert held["in_sweep"] == "holds" and held["scope"] == ""
    assert elsewhere["parts"][0]["effect"] is None and "no such cell" in elsewhere["why"]
    assert told["claims"][1]["parts"][0]["at_most"] == 0.1
