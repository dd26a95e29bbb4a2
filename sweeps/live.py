"""The live view: what each trial does now, and when the sweep will be done."""

import time
from dataclasses import dataclass
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ktrain.stages import chain, grouped
from sweeps.plan import Plan
from sweeps.setbacks import AGAIN, DRIVER, OVER

QUIET_SECONDS = 20.0
"""Without a terminal, a trial says at most one line in this time."""


@dataclass
class Line:
    """The state of one trial. `left` is the estimated seconds of its stages that have not begun."""

    cells: str
    state: str = "waiting"
    stage: str = ""
    kind: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    speed: float = 0.0
    left: float = 0.0
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
        return (self.steps - self.step) * self.tokens_per_step / self.speed + self.left


class LiveView(Callback):  # type: ignore[misc]
    """Shows trials as Ray Tune hears of them: a table on a terminal, lines elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan, self._console, self._begin = plan, console, time.monotonic()
        self._stages = {p.stage.key: p for p in plan.stages}
        self.lines: dict[str, Line] = {}
        for name, cells in plan.trials().items():
            labels = [_label(plan, cell) for cell in cells]
            self.lines[name] = Line(labels[0] if len(labels) == 1 else f"{labels[0]} (+{len(labels) - 1})")
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
        line = self.lines[trial.config["trial"]["name"]]
        if about := result.get(AGAIN):
            self._begins_again(line, about)
            return
        stage = str(result["stage"])
        if stage != line.stage:
            line.spoke = float("-inf")
        line.state, line.stage = "running", stage
        line.kind = self._stages[stage].stage.kind
        line.step, line.steps = int(result["step"]), int(result["steps"])
        line.loss, line.speed = float(result["loss"]), float(result["tokens_per_second"])
        line.apart = float(result.get("apart", 0.0))
        fleet = self._fleet(trial.config["trial"]["name"], stage)
        line.tokens_per_step = sum(self._stages[key].tokens for key in fleet) / line.steps
        line.left = self._after(trial.config["trial"]["name"], fleet)
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

    def render(self) -> RenderableType:
        """The table of all trials and one line about the whole."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("cell", "stage"):
            table.add_column(column, no_wrap=True)
        table.add_column("", width=18)
        for column in ("step", "loss", "tok/s", "ETA"):
            table.add_column(column, justify="right", no_wrap=True)
        for line in self.lines.values():
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
        done = sum(line.state == "done" for line in self.lines.values())
        spent = time.monotonic() - self._begin
        etas = [line.eta for line in self.lines.values() if line.state == "running" and line.eta is not None]
        ahead = f", about {clock(max(etas))} to go for what runs" if etas else ""
        return Group(table, Text(f"{done} of {len(self.lines)} trials done, {clock(spent)} spent{ahead}", "dim"))

    def _fleet(self, name: str, stage: str) -> list[str]:
        """The stages of a trial that are trained together with `stage`, and told under its name."""
        mine = [c.cell for c in self._plan.cells if c.stages[1].key == name and c.state != "done"]
        for group in grouped(mine):
            keys = [chain(cell)[2].key for cell in group]
            if stage in keys:
                return keys
        return [stage]

    def _after(self, name: str, fleet: list[str]) -> float:
        """Estimated seconds of the stages of a trial that come after those of `fleet`."""
        keys = [s.key for c in self._plan.cells if c.stages[1].key == name for s in c.stages]
        ordered = list(dict.fromkeys(keys))
        later = ordered[ordered.index(fleet[0]) + 1 :]
        return sum(self._stages[k].seconds for k in later if k not in fleet and self._stages[k].state != "done")

    def _say(self, trial: Any, state: str | None) -> None:
        line = self.lines[trial.config["trial"]["name"]]
        if state:
            line.state = state
        now = time.monotonic()
        if self._console.is_terminal or (state is None and now - line.spoke < QUIET_SECONDS):
            return
        line.spoke = now
        doing = line.state
        if state is None:
            eta = f", ETA {clock(line.eta)}" if line.eta else ""
            speed = f", {line.speed:,.0f} tok/s" if line.speed else ""
            points = f", saved every {line.apart:.0f} s" if line.apart >= 1 else ""
            doing = f"{line.kind} {line.step:,}/{line.steps:,}, loss {line.loss:.3f}{speed}{points}{eta}"
        self._print(line, doing)

    def _begins_again(self, line: Line, about: dict[str, Any]) -> None:
        """Said on a terminal too, above the table: it costs money."""
        if about["kind"] != OVER:
            line.state = "starting again"
            self._print(line, f"{about['kind']}: {about['line']}")

    def _print(self, line: Line, text: str) -> None:
        begun = clock(time.monotonic() - self._begin)
        self._console.print(f"[{begun}] {line.cells}: {text}", markup=False, highlight=False)


def clock(seconds: float | None) -> str:
    """`1:02:03`, `2:03`, or a dash where it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _label(plan: Plan, cell: Any) -> str:
    """A cell by its setting and by whatever else varies in the sweep, its readout among readouts of its kind."""
    found = next(c for c in plan.cells if c.cell == cell)
    parts = [found.key.rsplit("-", 1)[0]]
    for axis in plan.varied():
        if not axis.startswith("corpus.") and axis != "seed":
            parts.append(f"{axis.split('.')[-1]}={found.axes[axis]}")
    return " ".join(parts)
