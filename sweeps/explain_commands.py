"""The commands that explain: why a key is another, what the axes mean, and what a model is fed."""

import json
from typing import Annotated, Literal

from typer import Argument, Option

from ktrain.errors import WrongRequest, nearest
from sweeps.options import EXIT_DONE, AsJson, AxisWords, ManyCells, ScaleName, StoreAddress, planned


def why(
    key: Annotated[
        str,
        Argument(
            metavar="KEY", help="Key of a stage in the store or, with --sweep, of any stage or cell; or its start."
        ),
    ],
    axes: AxisWords,
    sweep: Annotated[
        str | None,
        Option("--sweep", metavar="SWEEP", help="A sweep whose stages and cells count besides the store's."),
    ] = None,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    as_json: AsJson = False,
    many_cells: ManyCells = False,
) -> int:
    """Explain which settings, data or code versions separate the key of a stage or cell from the nearest one."""
    from ktrain.store.open import store_at
    from sweeps.planning import key_diff

    if axes and not sweep:
        raise WrongRequest(f"{axes[0]}: axes are those of a sweep, which --sweep names")
    made = planned(sweep, axes, scale, store, many_cells=many_cells) if sweep else None
    difference = key_diff.explain_key(key, store_at(store), made)
    print(json.dumps(difference.as_json(), indent=1)) if as_json else key_diff.show(difference)
    return EXIT_DONE


def axes(
    prefix: Annotated[
        str, Argument(metavar="PREFIX", help="Begin of a name, such as train, or a part of it, such as steps.")
    ] = "",
    scale: ScaleName = "mini",
    as_json: AsJson = False,
) -> int:
    """List the axes of a sweep with what they allow, their values at a scale, and what they mean."""
    from dataclasses import asdict

    from sweeps.planning.axis_table import describe_axes
    from sweeps.recipes.scales import SCALES
    from sweeps.show import axes as show_axes

    if scale not in SCALES:
        raise WrongRequest(f"scale={scale}: must be one of {', '.join(SCALES)}{nearest(scale, SCALES)}")
    described = describe_axes(prefix, SCALES[scale])
    print(json.dumps([asdict(axis) for axis in described], indent=1)) if as_json else show_axes(described, scale)
    return EXIT_DONE


def show(
    what: Annotated[
        Literal["people", "entries", "questions", "classes", "window"], Argument(metavar="WHAT", help="What to show.")
    ],
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    kind: Annotated[str | None, Option("--kind", help="bioS or bioR, short for corpus.kind=...")] = None,
    count: Annotated[int, Option("-n", help="How many.")] = 3,
    step: Annotated[int, Option("--step", help="Training step of a window.")] = 0,
) -> int:
    """Show the people, entries, questions, probe classes or windows that a model is fed."""
    from ktrain.store.open import store_at
    from sweeps import Sweep
    from sweeps.planning.feasibility import check
    from sweeps.planning.grid import expand, parse_overrides
    from sweeps.show import show_inputs

    words = [*axes, *([f"corpus.kind={kind}"] if kind else [])]
    cells = expand(Sweep("show", {}), scale, parse_overrides(words))
    if len(cells) > 1:
        raise WrongRequest(f"{' '.join(words)}: show takes one setting, these are {len(cells)}")
    steps = cells[0].train.steps
    if count < 1 or not 0 <= step < steps:
        raise WrongRequest(f"-n {count} --step {step}: n from 1, step below {steps}")
    check(cells[0])
    show_inputs(what, cells[0], count, step, store_at(store))
    return EXIT_DONE
