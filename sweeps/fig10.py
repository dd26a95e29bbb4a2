"""Figure 10: how large a share of questions mixed training needs."""

from sweeps import Sweep
from sweeps.recipes import grid, mixed_at

ROWS = (
    "bioS single",
    "bioR single",
    "bioS single+permute1",
    "bioR single+fullname",
    "bioS single+permute2",
    "bioR single+permute5",
    "bioS multi2+permute",
    "bioR multi3",
    "bioS multi5+permute",
    "bioR multi5",
)

sweep = Sweep(
    name="fig10",
    question="How many questions have to be mixed in?",
    figure="fig10",
    grid=grid(ROWS, mixed_at(0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9)),
)
