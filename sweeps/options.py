"""What commands share: exit codes, the words and options of more than one command, and the plan that they name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from sweeps.console import STORE_VARIABLE

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

EXIT_DONE, EXIT_FAILED, EXIT_WRONG, EXIT_INTERRUPTED = 0, 1, 2, 130


def _sweep_names() -> list[str]:
    from sweeps.planning.grid import builtin

    return builtin()


def _axis_names() -> list[str]:
    from sweeps.planning.axes import AXES

    return [f"{axis}=" for axis in AXES]


def _scale_names() -> list[str]:
    from sweeps.recipes.scales import SCALES

    return list(SCALES)


SweepName = Annotated[
    str,
    Argument(
        metavar="SWEEP",
        help="A sweep of this project, such as demo or fig3, or the path of your own file.",
        autocompletion=_sweep_names,
    ),
]
AxisWords = Annotated[
    list[str],
    Argument(
        metavar="axis=v1,v2",
        default_factory=list,
        show_default=False,
        help="Axes to set, or to add to the grid.",
        autocompletion=_axis_names,
    ),
]
ScaleName = Annotated[
    str, Option("--scale", metavar="SCALE", help="mini, small, medium or full.", autocompletion=_scale_names)
]
StoreAddress = Annotated[
    str,
    Option(
        "--store", metavar="STORE", envvar=STORE_VARIABLE, help="Folder, or s3://, gs:// or az:// address, of results."
    ),
]
Wide = Annotated[bool, Option("--wide", help="Show every column, however narrow the terminal is.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
HeadAddress = Annotated[
    str | None,
    Option(
        "--address",
        metavar="URL",
        help="Dashboard of the cluster's head, behind a tunnel; without it, http://127.0.0.1:8265.",
    ),
]
ClusterPath = Annotated[
    str | None, Option("--cluster", metavar="FILE", help="The cluster's file; a tunnel is opened for this command.")
]
Workers = Annotated[int, Option("--workers", help="Least data-parallel workers of a trial.")]
Threads = Annotated[int, Option("--threads", help="CPU threads of a worker.")]
CheckpointSeconds = Annotated[
    float, Option("--checkpoint-seconds", help="Longest time between two checkpoints, in seconds.")
]
NoCompile = Annotated[bool, Option("--no-compile", help="Train without torch.compile.")]
MostGpus = Annotated[
    int | None, Option("--gpus-max", help="GPUs that the cluster can grow to, if its autoscaler does not say.")
]
ManyCells = Annotated[bool, Option("--many-cells", help="Allow a grid of more than 100,000 cells.")]
GpuMemory = Annotated[float | None, Option("--gpu-memory", help="GiB of the smallest GPU, if no node can say.")]


def planned(
    sweep: str,
    axes: Sequence[str],
    scale: str,
    store: str,
    *,
    workers: int = 1,
    writable: bool = False,
    many_cells: bool = False,
) -> "Plan":
    """Returns the plan of a sweep against a store, which must be writable where `writable` says so; creates nothing.

    Raises `WrongRequest`, also for a grid of more than `grid.MOST_CELLS` cells unless `many_cells` allows it.
    """
    from ktrain.store.open import store_at
    from sweeps.planning import grid, plan

    loaded = grid.load(sweep)
    most = None if many_cells else grid.MOST_CELLS
    plan_made = plan.make(loaded, scale, grid.parse_overrides(axes), store_at(store), workers, most)
    if writable:
        plan_made.store.require_writable(store)
    return plan_made
