"""Figure 12: Figure 3 for biographies by a language model, and for Llama."""

from sweeps import Sweep
from sweeps.recipes import finetuned, grid, mixed
from sweeps.rows import BIOR, BIOS

sweep = Sweep(
    name="fig12",
    question="Do other texts and another network say the same as Figure 3?",
    figure="fig12",
    parts=(
        Sweep("a: bioR, GPT-2", grid(BIOR, finetuned, mixed)),
        Sweep("b: bioR, Llama", grid(BIOR, finetuned, mixed, family="llama")),
        Sweep("c: bioS, Llama", grid(BIOS, finetuned, mixed, family="llama")),
    ),
    best_of=("readout.rank_qv",),
)
