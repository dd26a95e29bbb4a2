"""What a run says before it begins and after it has ended: a line each."""

from collections import Counter
from dataclasses import replace

from sweeps.console import counted, format_duration, format_hours, shown_path
from sweeps.planning import cost, summary
from sweeps.planning.plan import Plan


def header(plan: Plan, *, here: bool) -> str:
    """Returns which cells a run has to do, about how long that takes on this machine or, unless `here`, on one device
    of a cluster, and which store it fills."""
    plan = replace(plan, gpus=cost.devices_here(plan.device) if here else 1)
    device = plan.device.name
    devices = f"{plan.gpus} {device}s" if plan.gpus > 1 else f"one {device}"
    cells = f"{sum(map(len, plan.trials().values()))} of {counted(len(plan.cells), 'cell')} to do"
    duration = format_hours(max(60.0, summary.wall_clock(plan)))
    store = shown_path(plan.store.address)
    return f"{plan.sweep.name} at scale {plan.scale}: {cells}, about {duration} on {devices}; store {store}"


def closing(plan: Plan, seconds: float | None) -> str:
    """Returns how many cells are done, in how many seconds if anything was to do, and what became of the others."""
    states = Counter(cell.state.partition(":")[0] for cell in plan.cells)
    done = f"{states.pop('done', 0):,} of {counted(len(plan.cells), 'cell')} done"
    others = [f"{number:,} {state}" for state, number in states.items()]
    return ", ".join([f"{done} in {format_duration(seconds)}" if seconds is not None else done, *others])
