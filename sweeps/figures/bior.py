"""The demo's contrast in free text: one biography of each person, or five."""

from sweeps import Sweep
from sweeps.recipes.readouts import finetuned, grid

sweep = Sweep(
    name="bior",
    question="Does what holds of templates hold of free text?",
    figure="fig12",
    grid=grid(("bioR single", "bioR multi5"), finetuned),
)
