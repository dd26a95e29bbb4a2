"""The live view: what each trial does now, and when the sweep will be done."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from ktrain.restart_policy import Interruption, Kind
from ktrain.stages import grouped
from ktrain.system.retry import StorageUnavailable
from ktrain.training.progress import Progress, from_result
from sweeps.console import format_duration
from sweeps.execution.progress_table import BAR, progress_table
from sweeps.execution.restart_log import interruption_of
from sweeps.planning.plan import Plan, PlannedCell, differing
from sweeps.planning.reasons import blocked_lines

QUIET_SECONDS = 20.0
"""Seconds between two lines of one trial, without a terminal."""
UNTHROTTLED = 4
"""Trials that may run before each prints less often: with twice as many, each prints half as often."""
SUMMARY_SECONDS = 60.0
"""Seconds between two summaries, without a terminal."""
FREE_LINES = 6
"""Lines of a terminal that the table leaves free."""
NEVER = float("-inf")
ENDED = ("done", "paused", "stopped early", "blocked", "failed")


@dataclass
class TrialProgress:
    """The state of one trial: `waiting`, `starting`, `running`, `starting again`, `done`, `paused`, `stopped early`,
    `blocked` or `failed`. It is blocked if a cell of it is, because its network does not recall what it has read. With
    `pause_at` it pauses in its pretraining, after so many steps, until a search has compared it with others.

    `latest` is the last progress of the current stage, whose kind is `kind` and whose steps have `tokens_per_step`
    tokens. `planned` is the planned seconds of all stages, `later` of those that have not begun; `pace` is the time of
    the current stage as measured, over its time as planned.
    """

    label: str
    planned: float
    state: str = "waiting"
    kind: str = ""
    latest: Progress | None = None
    tokens_per_step: float = 0.0
    later: float = 0.0
    pace: float | None = None
    last_printed: float = NEVER
    pause_at: int | None = None

    @property
    def eta(self) -> float | None:
        """Seconds until the trial is done, None if not known."""
        if self.ended and self.state != "failed":
            return 0.0
        if self.latest is None or not self.latest.tokens_per_second:
            return None
        tokens = (self.latest.steps - self.latest.step) * self.tokens_per_step
        return tokens / self.latest.tokens_per_second + self.later * (self.pace or 1.0)

    @property
    def live(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in ("starting", "running")

    @property
    def ended(self) -> bool:
        """Whether Ray Tune has reported its end."""
        return self.state in ENDED


class ProgressView(Callback):  # type: ignore[misc]
    """Shows trials as Ray Tune reports them: as a table on a terminal, as lines elsewhere.

    `wall` returns the seconds until all trials are done, from the seconds that each still takes.
    """

    def __init__(
        self, plan: Plan, console: Console, wall: Callable[[Mapping[str, float]], float] | None = None
    ) -> None:
        self._plan, self._console, self._wall = plan, console, wall
        self._began = self._last_summary = time.monotonic()
        self._stages = {p.stage.key: p for p in plan.stages}
        self._orders: dict[str, list[tuple[str, ...]]] = {}
        self.lines: dict[str, TrialProgress] = {}
        varied = _varied(plan)
        for name, cells in plan.trials().items():
            self._orders[name] = _stage_order(cells)
            planned, pause_at = self._planned_seconds(self._orders[name]), plan.pause_at(name)
            share = pause_at / cells[0].cell.train.steps if pause_at else 1.0
            self.lines[name] = TrialProgress(_label(cells, varied), planned * share, pause_at=pause_at)
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=2, transient=True)

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray Tune saves its callbacks, and a view of this terminal is of no use elsewhere."""
        return {}

    def __enter__(self) -> "ProgressView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune started a trial; its workers come up in the next seconds."""
        self._change_state(trial, "starting")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported progress, or a driver why its workers start again."""
        name = trial.config["trial"]["name"]
        line = self.lines[name]
        if interruption := interruption_of(result):
            self._print_restart(line, interruption)
            return
        key, line.latest = from_result(result)
        line.state = "running"
        kind = self._stages[key].stage.kind
        if kind != line.kind:
            line.kind, line.last_printed = kind, NEVER
        self._estimate(line, key, self._orders[name])
        if line.pause_at is not None:
            line.latest, line.later = replace(line.latest, steps=max(line.pause_at, line.latest.step)), 0.0
        self._print_progress(line, line.latest)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done, or its network was not asked; of that the reason is printed, on a terminal
        too, above the table."""
        name = trial.config["trial"]["name"]
        cells = self._cells_now(name)
        if blocked := blocked_lines(cells):
            self._change_state(trial, "blocked", *blocked)
        elif failures := [cell.state for cell in cells if cell.state.startswith("failed")]:
            # A loss that diverges does not fail a trial of a search.
            self._change_state(trial, "stopped early", *dict.fromkeys(failures))
        else:
            self._change_state(trial, "done" if self.lines[name].pause_at is None else "paused")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        self._change_state(trial, "failed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune gives a trial another driver."""
        line = self.lines[trial.config["trial"]["name"]]
        self._print_restart(line, Interruption(Kind.DRIVER_LOST, "it gets another one"))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray Tune ended an iteration of its own loop, of which there are some ten a second."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_summary >= SUMMARY_SECONDS:
            self._last_summary = now
            self._print(self.summary())

    def render(self) -> RenderableType:
        """Returns a table of the trials, or of those that run if the terminal is too small, and the summary."""
        room = max(1, self._console.height - FREE_LINES)
        lines = list(self.lines.values())
        if len(lines) > room:
            lines = [line for line in lines if line.live][:room]
        table = progress_table([_cells_of_row(line) for line in lines], self._console.width)
        return Group(table, Text(self.summary(), "dim"))

    def summary(self) -> str:
        """Returns how many trials are in which state, and about when all will be done."""
        lines = self.lines.values()
        count = Counter(line.state for line in lines)
        states = [f"{count['done']} of {len(lines)} trials done", f"{sum(line.live for line in lines)} running"]
        states += [f"{count[state]} {state}" for state in ("waiting", *ENDED[1:]) if count[state]]
        seconds = self._seconds_to_go()
        to_go = f", about {format_duration(seconds)} to go" if seconds else ""
        return f"{', '.join(states)}, {format_duration(time.monotonic() - self._began)} spent{to_go}"

    def _seconds_to_go(self) -> float | None:
        """Seconds until all is done: measured for what runs, and for the rest as planned, at the pace of what runs."""
        etas = {name: line.eta for name, line in self.lines.items() if line.live}
        measured = {name: eta for name, eta in etas.items() if eta is not None}
        if not measured:
            return None
        pace = statistics.median([line.pace for line in self.lines.values() if line.pace] or [1.0])
        unfinished = {name: line for name, line in self.lines.items() if line.live or line.state == "waiting"}
        seconds = {name: line.planned * pace for name, line in unfinished.items()} | measured
        return self._wall(seconds) if self._wall else max(seconds.values())

    def _estimate(self, line: TrialProgress, key: str, order: Sequence[tuple[str, ...]]) -> None:
        """Sets what the ETA of a trial follows from, which is in stage `key`, together with those trained with it."""
        assert line.latest
        now = next(index for index, keys in enumerate(order) if key in keys)
        together = [self._stages[key] for key in order[now]]
        tokens, planned = sum(p.tokens for p in together), sum(p.seconds for p in together)
        speed = line.latest.tokens_per_second
        line.tokens_per_step = tokens / line.latest.steps
        line.pace = tokens / speed / planned if speed and planned else None
        line.later = self._planned_seconds(order[now + 1 :])

    def _planned_seconds(self, order: Sequence[tuple[str, ...]]) -> float:
        """Planned seconds of the stages that were not done when the run began."""
        stages = (self._stages[key] for keys in order for key in keys)
        return sum(planned.seconds for planned in stages if planned.state != "done")

    def _cells_now(self, name: str) -> Sequence[PlannedCell]:
        """Returns the cells of a trial with their states in the store; none where it does not answer."""
        try:
            return self._plan.refreshed({cell.key for cell in self._plan.trials()[name]}).cells
        except StorageUnavailable:
            # What only says how it went must not end the run; its end looks at the store again.
            return ()

    def _change_state(self, trial: Any, state: str, *reasons: str) -> None:
        line = self.lines[trial.config["trial"]["name"]]
        line.state = state
        if reasons or not self._console.is_terminal:
            line.last_printed = time.monotonic()
            for text in reasons or (state,):
                self._print(f"{line.label}: {text}")

    def _print_progress(self, line: TrialProgress, latest: Progress) -> None:
        """Prints a trial's progress, unless there is a terminal or its last line was printed a moment ago."""
        now = time.monotonic()
        live = sum(line.live for line in self.lines.values())
        if self._console.is_terminal or now - line.last_printed < QUIET_SECONDS * max(1.0, live / UNTHROTTLED):
            return
        line.last_printed = now
        speed = f", {latest.tokens_per_second:,.0f} tok/s" if latest.tokens_per_second else ""
        saved = f", saved every {latest.apart:.0f} s" if latest.apart >= 1 else ""
        eta = f", ETA {format_duration(line.eta)}" if line.eta else ""
        step = f"{line.kind} {latest.step:,}/{latest.steps:,}"
        self._print(f"{line.label}: {step}, loss {latest.loss:.3f}{speed}{saved}{eta}")

    def _print_restart(self, line: TrialProgress, interruption: Interruption) -> None:
        """Prints why a trial starts again, on a terminal too, above the table: restarts cost money."""
        if interruption.kind != Kind.GIVEN_UP:
            line.state = "starting again"
            self._print(f"{line.label}: {interruption.text}")

    def _print(self, text: str) -> None:
        spent = format_duration(time.monotonic() - self._began)
        self._console.print(f"[{spent}] {text}", markup=False, highlight=False, soft_wrap=True)


def _cells_of_row(line: TrialProgress) -> Sequence[RenderableType]:
    latest = line.latest
    if line.state != "running" or latest is None:
        eta = format_duration(line.eta) if line.eta else ""
        return Text(line.label), Text(line.state, style="dim"), "", "", "", "", eta
    return (
        Text(line.label),
        Text(line.kind),
        ProgressBar(latest.steps or 1, latest.step, width=BAR),
        f"{latest.step:,} / {latest.steps:,}",
        f"{latest.loss:.3f}",
        f"{latest.tokens_per_second:,.0f}" if latest.tokens_per_second else "",
        format_duration(line.eta) if line.eta else "",
    )


def _stage_order(cells: tuple[PlannedCell, ...]) -> list[tuple[str, ...]]:
    """Returns the keys of a trial's stages in order; readouts that are trained together, and reported under the key of
    one of them, stand together."""
    keys = {id(planned.cell): planned.stages.readout.key for planned in cells}
    readouts = [tuple(keys[id(cell)] for cell in group) for group in grouped([planned.cell for planned in cells])]
    stages = cells[0].stages
    return [(stages.corpus.key,), (stages.pretrain.key,), *readouts]


def _varied(plan: Plan) -> dict[str, list[str]]:
    """Returns, by kind of readout, the axes in which cells differ; of `readout.*` axes, those in which its own do."""
    groups: dict[str, list[PlannedCell]] = {}
    for planned in plan.cells:
        groups.setdefault(planned.cell.readout.kind, []).append(planned)
    common = [axis for axis in plan.varied() if not axis.startswith("readout.") or axis == "readout.kind"]
    own = {kind: [axis for axis in differing(cells) if axis.startswith("readout.")] for kind, cells in groups.items()}
    return {kind: [*common, *axes] for kind, axes in own.items()}


def _label(cells: Sequence[PlannedCell], varied: Mapping[str, Sequence[str]]) -> str:
    """Returns the setting of a trial, the axes that vary in the sweep but not in it, and how many more cells it has."""
    first = cells[0]
    parts = [first.key.rsplit("-", 1)[0]]
    for axis in varied[first.cell.readout.kind]:
        alike = all(cell.axes[axis] == first.axes[axis] for cell in cells)
        if alike and not axis.startswith("corpus.") and axis != "seed":
            parts.append(f"{axis.split('.')[-1]}={first.axes[axis]}")
    return " ".join(parts) + (f" (+{len(cells) - 1})" if len(cells) > 1 else "")
