"""Callbacks of the user's own, `Sweep(callbacks=...)`: Ray Tune calls them beside this project's, and one that raises
an error is not called again, so that no logger ends a training."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from ktrain.errors import shorten

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

HOOKS = tuple(name for name in vars(Callback) if name == "setup" or name.startswith("on_"))
"""What Ray Tune calls."""
log = logging.getLogger("ktrain.callbacks")


class GuardedCallback(Callback):  # type: ignore[misc]
    """Forwards every hook to a callback until that raises an error, which it logs in one line."""

    def __init__(self, callback: Any) -> None:
        self._callback, self._failed = callback, False

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray Tune saves its callbacks, and no other process continues with them."""
        return {}

    def use_plan(self, plan: "Plan") -> None:
        """Hands the plan to a callback that has a method of this name."""
        if hasattr(self._callback, "use_plan"):
            self.forward("use_plan", plan)

    def forward(self, hook: str, *args: Any, **info: Any) -> None:
        """Calls a hook of the callback."""
        if self._failed:
            return
        try:
            getattr(self._callback, hook)(*args, **info)
        except Exception as e:
            self._failed = True
            name = type(self._callback).__name__
            log.warning(
                "callback %s: %s: %s: %s; it is not called again", name, hook, type(e).__name__, shorten(e, 200)
            )


def _forwarding(hook: str) -> Callable[..., None]:
    def call(self: GuardedCallback, *args: Any, **info: Any) -> None:
        self.forward(hook, *args, **info)

    return call


for _hook in HOOKS:
    setattr(GuardedCallback, _hook, _forwarding(_hook))


def guarded(callbacks: Sequence[Any], plan: "Plan") -> list[GuardedCallback]:
    """Returns callbacks that cannot end a run, after each that has a method `use_plan` was handed the plan."""
    safe = [GuardedCallback(callback) for callback in callbacks]
    for callback in safe:
        callback.use_plan(plan)
    return safe
