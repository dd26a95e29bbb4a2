"""A sweep: what to vary, and what to call it. `grid` expands it into cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktrain.errors import WrongRequest, is_text, nearest, shorten
from sweeps.planning import sampling
from sweeps.planning.axes import check_axis

BUILTIN = Path(__file__).parents[1] / "figures"
FIGURES = tuple(sorted((path.stem for path in BUILTIN.glob("fig*.py")), key=lambda name: (len(name), name)))
"""The figures of the paper that a sweep can regenerate."""
NAME = r"\w[\w .+-]*"
"""The form of a sweep's name, which becomes that of files and of an experiment."""
LONGEST_NAME = 200
"""Bytes of a sweep's name; file systems take 255 for that of a file."""
_DEEPEST = 20
"""Levels of parts within parts."""


@dataclass(frozen=True)
class Sweep:
    """What to vary. `grid` maps axes to `tune.grid_search([...])` or to a fixed value; where scales need different
    values, it is a function of the scale's name.

    A grid search over dicts of axes, under any name that is no axis, varies several axes together, because the rows of
    a figure are seldom a product. A sweep with `parts` has no grid of its own: its cells are those of its parts, each
    once. Raises `WrongRequest`, which is a `ValueError`, for a sweep with both, and for a field of another type or with
    an unknown figure or axis.
    """

    name: str
    grid: Mapping[str, Any] | Callable[[str], Mapping[str, Any]] = field(default_factory=dict)
    question: str = ""
    """One sentence for the report: what this sweep asks."""
    figure: str = ""
    """The figure of the paper that this sweep regenerates, such as `fig3`."""
    best_of: tuple[str, ...] = ()
    """Axes of which only the value with the best test accuracy is shown, as in the paper for its finetunings. Those of
    the parts are added."""
    parts: tuple["Sweep", ...] = ()
    """The sweeps that this one combines."""
    samples: int = 0
    """How many settings are drawn from the grid's distributions (`tune.loguniform`, ...); the same ones every time."""
    searcher: str = "random"
    """What draws them: `random`, or `optuna`, which learns from the metric of the samples that are done."""
    metric: str = ""
    """The metric by which the best sample is shown alone, of those in `sampling.METRICS`; else all are shown."""
    scheduler: str = ""
    """What stops most samples early, in pretraining: `asha`, or nothing."""
    search_seed: int = 0
    """Another one draws other samples."""
    callbacks: tuple[Any, ...] = field(default=(), compare=False)
    """Ray Tune's callbacks (`ray.tune.Callback`), which hear every line of progress; docs/extending.md has one."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise WrongRequest(f"sweep: name={shorten(self.name)}: must be a text")
        if not self.name.strip() or not self.name.isprintable() or len(self.name.encode()) > LONGEST_NAME:
            raise WrongRequest(f"sweep: name={shorten(self.name)}: is not a name of 1 to {LONGEST_NAME} bytes")
        if fault := self._fault():
            raise WrongRequest(f"sweep {self.name}: {fault}")
        for axis in self.best_of:
            check_axis(axis)
        best_of = (*self.best_of, *(axis for part in self.parts for axis in part.best_of))
        object.__setattr__(self, "best_of", tuple(dict.fromkeys(best_of)))
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "callbacks", tuple(self.callbacks))

    def __getstate__(self) -> dict[str, Any]:
        """Returns all but the callbacks: Ray Tune saves what holds a plan, and a logger's locks and files cannot be
        saved."""
        return {**vars(self), "callbacks": ()}

    def _fault(self) -> str:
        """Returns the field that has a wrong type or value, and what is allowed; empty if there is none."""
        if not isinstance(self.grid, Mapping) and not callable(self.grid):
            return f"grid={shorten(self.grid)}: must be a dict of axes, or a function of the scale that returns one"
        if not isinstance(self.question, str) or not is_text(self.question):
            return f"question={shorten(self.question)}: must be a text"
        if not isinstance(self.figure, str) or self.figure not in ("", *FIGURES):
            hint = nearest(shorten(self.figure), FIGURES)
            return f"figure={shorten(self.figure)}: must be one of {', '.join(FIGURES)}{hint}"
        if not isinstance(self.best_of, tuple | list) or not all(isinstance(axis, str) for axis in self.best_of):
            return f"best_of={shorten(self.best_of)}: must be a tuple of axes"
        if not isinstance(self.parts, tuple | list) or not all(isinstance(part, Sweep) for part in self.parts):
            return f"parts={shorten(self.parts)}: must be a tuple of sweeps"
        if not isinstance(self.callbacks, tuple | list):
            return f"callbacks={shorten(self.callbacks)}: must be a tuple of ray.tune.Callback"
        for callback in self.callbacks:
            if isinstance(callback, type) or not callable(getattr(callback, "on_trial_result", None)):
                return f"callbacks: {shorten(callback)} is no ray.tune.Callback (an object, not its class)"
        if fault := sampling.request_fault(self.samples, self.searcher, self.metric, self.search_seed, self.scheduler):
            return fault
        if self.parts and (self.grid or self.samples):
            return "has parts, so it has no grid of its own, nor samples"
        if self.depth > _DEEPEST:
            return f"parts: has more than {_DEEPEST} levels of parts within parts"
        return ""

    @property
    def depth(self) -> int:
        """How many levels of parts within parts there are; 0 without parts."""
        return 1 + max(part.depth for part in self.parts) if self.parts else 0

    @property
    def leaves(self) -> tuple["Sweep", ...]:
        """The sweeps with a grid of their own: this one, or those of its parts."""
        return tuple(leaf for part in self.parts for leaf in part.leaves) if self.parts else (self,)

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures of the paper that this sweep and its parts regenerate."""
        figures = (self.figure, *(figure for part in self.parts for figure in part.figures))
        return tuple(dict.fromkeys(filter(None, figures)))
