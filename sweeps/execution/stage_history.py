"""When each finished stage was made, on what, from which code and in how many seconds, as its manifest says."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sweeps.planning.plan import Plan, Planned

HEADERS = ("stage", "finished (UTC)", "seconds", "device", "commit")
NOTE = (
    "Seconds from the start of a stage to its publication; of stages that do not say when they began, those of "
    "training. Readouts that are trained together have one start."
)
DASH = "–"  # noqa: RUF001
COMMIT = 12
"""Characters of a commit that are shown."""


def stage_lines(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Returns a line under `HEADERS` for each finished stage of a plan; a dash for what its manifest does not say."""
    return tuple(_line(plan, planned) for planned in plan.stages if planned.state == "done")


def devices(plan: Plan) -> list[str]:
    """Returns the names of the processors and GPUs that the finished stages were made on; of those without bf16
    instructions with the precision that took its place."""
    named = (_device(plan, planned) for planned in plan.stages if planned.state == "done")
    return list(dict.fromkeys(name for name in named if name != DASH))


def last_finished(plan: Plan) -> str:
    """Returns when the last stage was finished, or a dash."""
    ends = (_moment(plan, planned, "created") for planned in plan.stages if planned.state == "done")
    return _written(max((end for end in ends if end), default=None))


def _line(plan: Plan, planned: Planned) -> tuple[str, ...]:
    commit, _, dirty = _manifest(plan, planned)["versions"].get("commit", "").partition("-")
    shown = f"{commit[:COMMIT]}{' and changes' if dirty else ''}" if commit else DASH
    end = _moment(plan, planned, "created")
    return planned.stage.key, _written(end), _seconds(plan, planned, end), _device(plan, planned), shown


def _seconds(plan: Plan, planned: Planned, end: datetime | None) -> str:
    if (start := _moment(plan, planned, "started")) and end:
        return f"{(end - start).total_seconds():,.0f}"
    speed = plan.snapshot.done[planned.stage.key].metrics.get("speed/tokens_per_second")
    return f"{planned.tokens / speed:,.0f}" if speed else DASH


def _device(plan: Plan, planned: Planned) -> str:
    machine = _manifest(plan, planned).get("machine", {})
    named = str(machine.get("device", DASH))
    return f"{named}, fp32 for bf16" if machine.get("products") == "fp32" else named


def _moment(plan: Plan, planned: Planned, field: str) -> datetime | None:
    with suppress(ValueError, TypeError, KeyError):
        return datetime.fromisoformat(_manifest(plan, planned)[field]).astimezone(UTC)
    return None


def _manifest(plan: Plan, planned: Planned) -> Mapping[str, Any]:
    return plan.snapshot.done[planned.stage.key].manifest


def _written(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else DASH
