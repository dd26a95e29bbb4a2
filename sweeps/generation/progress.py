"""Progress of `ktrain generate`: people done, accepted drafts and reasons for rejection, speed and cost."""

import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.live import Live

from ktrain.generation.drafts import DraftStats

QUIET_SECONDS = 20.0
"""Seconds between two lines if there is no terminal."""
REASONS = 8
"""Reasons for rejection in the summary."""


class GenerationProgress:
    """One line that a terminal redraws; without a terminal, a new line every `QUIET_SECONDS`.

    `troubles` counts failed requests by kind.
    """

    def __init__(
        self,
        name: str,
        people: int,
        before: DraftStats,
        prices: tuple[float, float],
        console: Console,
        *,
        blocks: int,
    ) -> None:
        """`before` counts the drafts of earlier runs; `prices` are dollars per million tokens read and written; this
        run works through `blocks` blocks of people, each with all attempts that it takes or may take."""
        self._blocks, self._blocks_done = blocks, 0
        self._name, self._people, self._prices, self._console = name, people, prices, console
        self._total, self._this_run = before, DraftStats()
        self._started = self._last_print = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2, transient=True)
        self.troubles: dict[str, int] = {}

    def __enter__(self) -> "GenerationProgress":
        if self._console.is_terminal:
            self._live.start()
            self._live.update(self._line())
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def add(self, stats: DraftStats) -> None:
        """Adds the drafts of a block."""
        self._total, self._this_run = self._total + stats, self._this_run + stats
        self._blocks_done += 1
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.update(self._line())
        elif now - self._last_print >= QUIET_SECONDS:
            self._last_print = now
            self._console.print(self._line(), markup=False)

    def _line(self) -> str:
        total = self._total
        pace = self._this_run.accepted / max(self._seconds, 1e-3)
        # By blocks and not by what is accepted: people for whom no attempt succeeds are done too.
        left = self._seconds * (self._blocks / self._blocks_done - 1) / 60 if self._blocks_done else 0.0
        why = ", ".join(f"{reason} {count}" for reason, count in list(total.reasons.items())[:2])
        parts = [
            f"{self._name}: {total.accepted:,} of {self._people:,} people",
            f"{total.acceptance:.0%} of {total.drafts:,} drafts accepted" + (f" ({why})" if why else ""),
            f"{60 * pace:,.3g} a minute" + (f", {left:,.0f} minutes left" if left else ""),
            f"{total.prompt_tokens + total.tokens:,} tokens{self._dollars(total)}",
        ]
        return "; ".join(parts)

    @property
    def run(self) -> dict[str, Any]:
        """Duration, counts and cost of this run alone, for `DraftStore.log_run`."""
        counts = {"seconds": round(self._seconds, 1), **asdict(self._this_run), "dollars": self._cost(self._this_run)}
        return counts | {"troubles": dict(self.troubles)}

    def summary(self, stats: DraftStats) -> None:
        """Prints the totals over all runs, and the speed of this one."""
        pace = 60 * self._this_run.accepted / max(self._seconds, 1e-3)
        lines = [
            f"{self._name}: {stats.accepted:,} of {self._people:,} people, {stats.acceptance:.1%} of {stats.drafts:,} "
            f"drafts accepted, {stats.copies:,} near-copies of the prompt",
            *(f"  {count:,} drafts: {why}" for why, count in list(stats.reasons.items())[:REASONS]),
            f"  {stats.prompt_tokens:,} tokens read, {stats.tokens:,} written{self._dollars(stats)}",
            f"  in this run {self._this_run.accepted:,} biographies in {self._seconds:,.0f} s, {pace:,.1f} a minute",
        ]
        if self.troubles:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.troubles.items()))
            lines.append(f"  the endpoint was asked again after {kinds}")
        for line in lines:
            self._console.print(line, markup=False)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _cost(self, stats: DraftStats) -> float:
        return (stats.prompt_tokens * self._prices[0] + stats.tokens * self._prices[1]) / 1e6

    def _dollars(self, stats: DraftStats) -> str:
        return f", ${self._cost(stats):,.2f}" if any(self._prices) else ""
