"""What `ktrain write` shows: how far it is, how many drafts are accepted and why others are not, speed and cost."""

import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.live import Live

from ktrain.ledger import Tally

QUIET_SECONDS = 20.0
"""Between two lines, without a terminal."""
REASONS = 8
"""Reasons for a rejection that the summary tells."""


class View:
    """One line that is rewritten: how far it is, how many drafts are accepted, why not, how fast, and what it costs.

    Without a terminal it is a new line every `QUIET_SECONDS`.
    """

    def __init__(self, name: str, people: int, before: Tally, prices: tuple[float, float], console: Console) -> None:
        """`before` is what earlier runs have kept, `prices` are dollars for a million tokens read and written."""
        self._name, self._people, self._prices, self._console = name, people, prices, console
        self._done, self._now = before, Tally()
        self._began = self._spoke = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2, transient=True)
        self.troubles: dict[str, int] = {}

    def __enter__(self) -> "View":
        if self._console.is_terminal:
            self._live.start()
            self._live.update(self._line())
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def add(self, told: Tally) -> None:
        """A block is kept."""
        self._done, self._now = self._done + told, self._now + told
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.update(self._line())
        elif now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            self._console.print(self._line(), markup=False)

    def _line(self) -> str:
        done = self._done
        pace = self._now.accepted / max(self._seconds, 1e-3)
        left = (self._people - done.accepted) / pace / 60 if pace else 0.0
        why = ", ".join(f"{reason} {count}" for reason, count in list(done.reasons.items())[:2])
        parts = [
            f"{self._name}: {done.accepted:,} of {self._people:,} people",
            f"{done.acceptance:.0%} of {done.drafts:,} drafts accepted" + (f" ({why})" if why else ""),
            f"{60 * pace:,.3g} a minute" + (f", {left:,.0f} minutes left" if left else ""),
            f"{done.prompt_tokens + done.tokens:,} tokens{self._dollars(done)}",
        ]
        return "; ".join(parts)

    @property
    def run(self) -> dict[str, Any]:
        """This run alone, as it is kept."""
        counts = {"seconds": round(self._seconds, 1), **asdict(self._now), "dollars": self._cost(self._now)}
        return counts | {"troubles": dict(self.troubles)}

    def summary(self, told: Tally) -> None:
        """What all of it came to, drafts of earlier runs among them."""
        pace = 60 * self._now.accepted / max(self._seconds, 1e-3)
        lines = [
            f"{self._name}: {told.accepted:,} of {self._people:,} people, {told.acceptance:.1%} of {told.drafts:,} "
            f"drafts accepted, {told.copies:,} near-copies of the prompt",
            *(f"  {count:,} drafts: {why}" for why, count in list(told.reasons.items())[:REASONS]),
            f"  {told.prompt_tokens:,} tokens read, {told.tokens:,} written{self._dollars(told)}",
            f"  in this run {self._now.accepted:,} biographies in {self._seconds:,.0f} s, {pace:,.1f} a minute",
        ]
        if self.troubles:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.troubles.items()))
            lines.append(f"  the endpoint was asked again after {kinds}")
        for line in lines:
            self._console.print(line, markup=False)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _cost(self, told: Tally) -> float:
        return (told.prompt_tokens * self._prices[0] + told.tokens * self._prices[1]) / 1e6

    def _dollars(self, told: Tally) -> str:
        return f", ${self._cost(told):,.2f}" if any(self._prices) else ""
