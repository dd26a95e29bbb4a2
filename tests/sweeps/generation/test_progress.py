"""What is said while drafts are written."""

import io

import pytest
from rich.console import Console

from ktrain.generation.drafts import DraftStats
from sweeps.generation import progress
from sweeps.generation.progress import GenerationProgress


def test_the_time_left_is_that_of_the_blocks_left_and_not_of_what_may_never_be_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One person in ten: the other nine have had their attempts and are not asked again."""
    out, clock = io.StringIO(), iter([0.0, 600.0, 600.0, 600.0, 600.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = GenerationProgress("text", 40, DraftStats(), (0.0, 0.0), Console(file=out, width=200), blocks=4)
    shown.add(DraftStats(drafts=80, accepted=1))
    assert "1 of 40 people" in out.getvalue() and "30 minutes left" in out.getvalue()
