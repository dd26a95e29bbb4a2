"""Verdicts on claims and on their parts, as data."""

from dataclasses import dataclass
from typing import Literal

from analysis.claims.claim_file import Claim, Part
from analysis.claims.effects import Effect

Word = Literal["holds", "fails", "not enough data"]
HOLDS: Word = "holds"
FAILS: Word = "fails"
OPEN: Word = "not enough data"


@dataclass(frozen=True)
class Outcome:
    """The verdict on one part of a claim."""

    part: Part
    verdict: Word
    why: str
    """The numbers behind the verdict, or what is missing."""
    effect: Effect | None = None
    covered: bool = True
    """Whether the plan has cells, in whatever state, for every side of the comparison."""
    cells: tuple[str, ...] = ()
    """Keys of the cells behind the effect."""
    tuned_on: tuple[str, ...] = ()
    """Recipes that were tuned on seeds of this comparison; those seeds are shown and do not count."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim."""

    claim: Claim
    verdict: Word
    why: str
    parts: tuple[Outcome, ...]

    @property
    def covered(self) -> tuple[Outcome, ...]:
        """The parts for which the plan has cells."""
        return tuple(part for part in self.parts if part.covered)

    @property
    def tested(self) -> bool:
        """Whether the plan has cells for every part."""
        return len(self.covered) == len(self.parts)

    @property
    def in_sweep(self) -> Word:
        """The verdict on the parts for which the plan has cells; of a claim that is tested whole, `verdict`."""
        words = {outcome.verdict for outcome in self.covered}
        return FAILS if FAILS in words else OPEN if OPEN in words or not words else HOLDS

    @property
    def scope(self) -> str:
        """`in 1 of 1 tested parts; 4 are not in this sweep`; empty for a claim that is tested whole."""
        if self.tested:
            return ""
        alike = sum(outcome.verdict == self.in_sweep for outcome in self.covered)
        rest = len(self.parts) - len(self.covered)
        return (
            f"in {alike} of {len(self.covered)} tested parts; {rest} {'is' if rest == 1 else 'are'} not in this sweep"
        )
