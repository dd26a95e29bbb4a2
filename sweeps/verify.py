"""`ktrain verify`: reads every file of a store, and moves stages that are damaged aside."""

from typing import Annotated

from typer import Argument

from ktrain.errors import WrongRequest
from ktrain.system.retry import StorageUnavailable
from sweeps.console import own_command, store_words
from sweeps.options import EXIT_DONE, EXIT_FAILED, AxisWords, ScaleName, StoreAddress, planned


def verify(
    sweep: Annotated[
        str | None,
        Argument(
            metavar="SWEEP",
            default_factory=lambda: None,
            show_default=False,
            help="A sweep whose stages to read; without it, every stage of the store.",
        ),
    ],
    axes: AxisWords,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
) -> int:
    """Read every file of the stages in a store, and move damaged stages aside, so that a run makes them again."""
    from ktrain.readout.recomputed import contradiction
    from ktrain.store.open import store_at

    opened = store_at(store)
    keys = opened.present()
    if sweep:
        snapshot = planned(sweep, axes, scale, store).snapshot
        keys = [key for key in keys if key in snapshot.done or key in snapshot.damaged]
    if not keys:
        # A mistyped store would otherwise be found without damage.
        raise WrongRequest(f"store={store}: there is no stage{f' of {sweep}' if sweep else ''} to read")
    damaged = 0
    for key in keys:
        try:
            damage = opened.verify(key)
            if not damage and (damage := contradiction(opened, key)):
                opened.set_aside(key, damage)
        except StorageUnavailable:
            raise
        except OSError as e:
            raise WrongRequest(f"store={store}: {key} cannot be read or moved aside: {e.strerror}") from e
        damaged += bool(damage)
    print(f"{len(keys)} stages read, {damaged or 'none'} of them damaged")
    if damaged:
        again = own_command("run", *([sweep, *axes, *store_words(opened.address)] if sweep else []))
        print(f"`{again}` makes again what its sweep needs; `damaged/` keeps the files until you delete them")
    return EXIT_FAILED if damaged else EXIT_DONE
