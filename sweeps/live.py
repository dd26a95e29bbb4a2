"""The live view: what each trial does now, and when the sweep will be done."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ktrain.stages import grouped
from sweeps.plan import Plan, PlannedCell, differing
from sweeps.setbacks import AGAIN, DRIVER, OVER

QUIET_SECONDS = 20.0
"""Without a terminal, a trial says at most one line in this time, and where many run, in so much more."""
TALKATIVE = 4
"""So many trials may speak as often as that."""
SUMMARY_SECONDS = 60.0
"""Between two lines about the whole, without a terminal."""
AROUND = 6
"""Lines of a terminal that the table leaves free."""


@dataclass
class Line:
    """The state of one trial: `waiting`, `starting`, `running`, `done` or `failed`. `left` is the planned seconds of
    its stages that have not begun, `planned` of all of them, `pace` the measured time of its stage over the planned."""

    cells: str
    state: str = "waiting"
    kind: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    speed: float = 0.0
    left: float = 0.0
    planned: float = 0.0
    pace: float | None = None
    tokens_per_step: float = 0.0
    apart: float = 0.0
    spoke: float = float("-inf")

    @property
    def eta(self) -> float | None:
        """Seconds until the trial is done."""
        if self.state == "done":
            return 0.0
        if not self.speed:
            return None
        return (self.steps - self.step) * self.tokens_per_step / self.speed + self.left * (self.pace or 1.0)

    @property
    def live(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in ("starting", "running")


class LiveView(Callback):  # type: ignore[misc]
    """Shows trials as Ray Tune hears of them: a table on a terminal, lines elsewhere.

    `wall` tells from the seconds that each trial still takes when all will be done.
    """

    def __init__(
        self, plan: Plan, console: Console, wall: Callable[[Mapping[str, float]], float] | None = None
    ) -> None:
        self._console, self._wall = console, wall
        self._begin = self._summed = time.monotonic()
        self._stages = {p.stage.key: p for p in plan.stages}
        self._courses: dict[str, list[tuple[str, ...]]] = {}
        varied = _varied(plan)
        self.lines: dict[str, Line] = {}
        for name, cells in plan.trials().items():
            course = _course(cells)
            planned = sum(self._stages[key].seconds for keys in course for key in keys if self._to_do(key))
            self._courses[name] = course
            self.lines[name] = Line(_label(cells, varied), planned=planned)
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=2, transient=True)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune saves its callbacks, and a view of this terminal is of no use in another process."""
        return {}

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune began a trial; its workers come up in the next seconds."""
        self._say(trial, "starting")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported a line of its curve, or a driver why its workers are begun again."""
        name = trial.config["trial"]["name"]
        line = self.lines[name]
        if about := result.get(AGAIN):
            self._begins_again(line, about)
            return
        stage = str(result["stage"])
        kind = self._stages[stage].stage.kind
        if kind != line.kind:
            line.spoke = float("-inf")
        line.state, line.kind = "running", kind
        line.step, line.steps = int(result["step"]), int(result["steps"])
        line.loss, line.speed = float(result["loss"]), float(result["tokens_per_second"])
        line.apart = float(result.get("apart", 0.0))
        now = next(k for k, keys in enumerate(self._courses[name]) if stage in keys)
        fleet = [self._stages[key] for key in self._courses[name][now]]
        tokens, planned = sum(p.tokens for p in fleet), sum(p.seconds for p in fleet)
        line.tokens_per_step = tokens / line.steps
        line.pace = tokens / line.speed / planned if line.speed and planned else None
        later = (key for keys in self._courses[name][now + 1 :] for key in keys if self._to_do(key))
        line.left = sum(self._stages[key].seconds for key in later)
        self._say(trial, None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done."""
        self._say(trial, "done")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        self._say(trial, "failed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune gives a trial another driver."""
        self._begins_again(self.lines[trial.config["trial"]["name"]], {"kind": DRIVER, "line": "it gets another one"})

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray Tune has looked at everything once more, some ten times a second."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._summed >= SUMMARY_SECONDS:
            self._summed = now
            self._print(self.summary())

    def render(self) -> RenderableType:
        """The table of the trials, of those at work where the terminal has no room for all, and the summary."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("cell", "stage"):
            table.add_column(column, no_wrap=True)
        table.add_column("", width=18)
        for column in ("step", "loss", "tok/s", "ETA"):
            table.add_column(column, justify="right", no_wrap=True)
        room = max(1, self._console.height - AROUND)
        lines = list(self.lines.values())
        shown = lines if len(lines) <= room else [line for line in lines if line.live][:room]
        for line in shown:
            running = line.state == "running"
            table.add_row(
                line.cells,
                line.kind if running else Text(line.state, style="dim"),
                ProgressBar(line.steps or 1, line.step, width=18) if running else "",
                f"{line.step:,} / {line.steps:,}" if running else "",
                f"{line.loss:.3f}" if running and line.loss is not None else "",
                f"{line.speed:,.0f}" if running and line.speed else "",
                clock(line.eta) if line.eta else "",
            )
        return Group(table, Text(self.summary(), "dim"))

    def summary(self) -> str:
        """How many trials are in which state, and about when all will be done."""
        lines = self.lines.values()
        count = {state: sum(line.state == state for line in lines) for state in ("done", "waiting", "failed")}
        states = [f"{count['done']} of {len(lines)} trials done", f"{sum(line.live for line in lines)} running"]
        states += [f"{count[state]} {state}" for state in ("waiting", "failed") if count[state]]
        ahead = f", about {clock(self._ahead())} to go" if self._ahead() else ""
        return f"{', '.join(states)}, {clock(time.monotonic() - self._begin)} spent{ahead}"

    def _ahead(self) -> float | None:
        """Seconds until all is done: of what runs as measured, of the others as planned and as fast as what runs."""
        etas = {name: line.eta for name, line in self.lines.items() if line.live}
        known = {name: eta for name, eta in etas.items() if eta is not None}
        if not known:
            return None
        pace = statistics.median([line.pace for line in self.lines.values() if line.pace] or [1.0])
        left = {name: line.planned * pace for name, line in self.lines.items() if line.live or line.state == "waiting"}
        left |= known
        return self._wall(left) if self._wall else max(left.values())

    def _to_do(self, key: str) -> bool:
        return self._stages[key].state != "done"

    def _say(self, trial: Any, state: str | None) -> None:
        line = self.lines[trial.config["trial"]["name"]]
        if state:
            line.state = state
        if self._console.is_terminal:
            return
        now = time.monotonic()
        if state is None:
            live = sum(line.live for line in self.lines.values())
            if now - line.spoke < QUIET_SECONDS * max(1.0, live / TALKATIVE):
                return
        line.spoke = now
        doing = line.state
        if state is None:
            eta = f", ETA {clock(line.eta)}" if line.eta else ""
            speed = f", {line.speed:,.0f} tok/s" if line.speed else ""
            points = f", saved every {line.apart:.0f} s" if line.apart >= 1 else ""
            doing = f"{line.kind} {line.step:,}/{line.steps:,}, loss {line.loss:.3f}{speed}{points}{eta}"
        self._print(f"{line.cells}: {doing}")

    def _begins_again(self, line: Line, about: dict[str, Any]) -> None:
        """Said on a terminal too, above the table: it costs money."""
        if about["kind"] != OVER:
            line.state = "starting again"
            self._print(f"{line.cells}: {about['kind']}: {about['line']}")

    def _print(self, text: str) -> None:
        spent = clock(time.monotonic() - self._begin)
        self._console.print(f"[{spent}] {text}", markup=False, highlight=False, soft_wrap=True)


def clock(seconds: float | None) -> str:
    """`1:02:03`, `2:03`, or a dash where it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _course(cells: tuple[PlannedCell, ...]) -> list[tuple[str, ...]]:
    """The stages of a trial in their order; those that are trained together, and told under one name, in one step."""
    keys = {id(planned.cell): planned.stages[2].key for planned in cells}
    readouts = [tuple(keys[id(cell)] for cell in group) for group in grouped([planned.cell for planned in cells])]
    corpus, pretrain, _ = cells[0].stages
    return [(corpus.key,), (pretrain.key,), *readouts]


def _varied(plan: Plan) -> dict[str, list[str]]:
    """By kind of readout the axes in which cells differ, its own in which cells of this kind do."""
    groups: dict[str, list[PlannedCell]] = {}
    for planned in plan.cells:
        groups.setdefault(planned.cell.readout.kind, []).append(planned)
    common = [axis for axis in plan.varied() if not axis.startswith("readout.") or axis == "readout.kind"]
    own = {kind: [axis for axis in differing(cells) if axis.startswith("readout.")] for kind, cells in groups.items()}
    return {kind: [*common, *axes] for kind, axes in own.items()}


def _label(cells: Sequence[PlannedCell], varied: Mapping[str, Sequence[str]]) -> str:
    """A trial by its setting, what else varies in the sweep and not between its own cells, and how many these are."""
    first = cells[0]
    parts = [first.key.rsplit("-", 1)[0]]
    for axis in varied[first.cell.readout.kind]:
        alike = all(cell.axes[axis] == first.axes[axis] for cell in cells)
        if alike and not axis.startswith("corpus.") and axis != "seed":
            parts.append(f"{axis.split('.')[-1]}={first.axes[axis]}")
    return " ".join(parts) + (f" (+{len(cells) - 1})" if len(cells) > 1 else "")
