"""The paper's central contrast on a laptop: one biography of each person, or five wordings in shuffled order."""

from collections.abc import Mapping
from typing import Any

from sweeps import Sweep, grid_search
from sweeps.recipes.readouts import WHOLE_WINDOWS

ROWS = ({"corpus.multi": 1, "corpus.permute": 0}, {"corpus.multi": 5, "corpus.permute": 1})
SHORT = {**WHOLE_WINDOWS, "corpus.people": 300, "train.steps": 2_700, "readout.steps": 300}
"""Half of the miniature's tokens for the same contrast; docs/miniature.md says what was tried on seed 100."""


def grid(scale: str) -> Mapping[str, Any]:
    """Returns both rows; at `mini` with the smallest budget, at `small` with whole windows."""
    budget = {"mini": SHORT, "small": WHOLE_WINDOWS}.get(scale, {})
    return {"setting": grid_search([{**row, **budget} for row in ROWS])}


sweep = Sweep(
    name="demo",
    question="Can a model answer questions about people whom it has only read about?",
    figure="fig3",
    grid=grid,
)
