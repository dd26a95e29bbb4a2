import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sweeps.execution.stage_history import HEADERS, devices, last_finished, stage_lines
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]


def with_manifest(plan: Plan, key: str, **fields: Any) -> Plan:
    """The plan with other fields in a stage's manifest."""
    stage = plan.snapshot.done[key]
    manifest = json.loads(json.dumps(stage.manifest)) | fields
    done = {**plan.snapshot.done, key: replace(stage, manifest=manifest)}
    return replace(plan, snapshot=replace(plan.snapshot, done=done))


def test_a_stage_says_when_where_how_long_and_from_which_code(planned: Planner, publish: Callable[..., None]) -> None:
    assert stage_lines(planned()) == () and last_finished(planned()) == "–"  # noqa: RUF001
    first = planned().cells[0].stages
    for stage in first:
        publish(stage)
    plan = with_manifest(
        planned(),
        first.pretrain.key,
        started="2026-01-31T23:59:00+00:00",
        created="2026-02-01T00:01:05+00:00",
        machine={"device": "NVIDIA H100", "products": "bf16"},
        versions={"commit": "0123456789abcdef0123456789abcdef01234567-dirty"},
    )
    lines = {line[0]: line for line in stage_lines(plan)}
    assert list(lines) == [stage.key for stage in first] and all(len(line) == len(HEADERS) for line in lines.values())
    assert lines[first.pretrain.key][1:] == ("2026-02-01 00:01", "125", "NVIDIA H100", "0123456789ab and changes")
    assert "NVIDIA H100" in devices(plan)
    assert last_finished(plan) > "2026-02-01 00:01", "the readout was published just now"


def test_a_device_that_computes_in_fp32_what_should_be_bf16_says_so(
    planned: Planner, publish: Callable[..., None]
) -> None:
    first = planned().cells[0].stages
    publish(first.pretrain)
    plan = with_manifest(planned(), first.pretrain.key, machine={"device": "AMD EPYC", "products": "fp32"})
    assert devices(plan) == ["AMD EPYC, fp32 for bf16"]


def test_an_older_stage_has_its_seconds_of_training(planned: Planner, publish: Callable[..., None]) -> None:
    first = planned().cells[0].stages
    publish(first.pretrain)
    plan = with_manifest(planned(), first.pretrain.key, created="no date", machine={}, versions={}, started=None)
    (line,) = stage_lines(plan)
    assert line[1:] == ("–", f"{60 * 4 * 64 / 400:,.0f}", "–", "–")  # noqa: RUF001
    assert devices(plan) == []
