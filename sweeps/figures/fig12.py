"""Figure 12: Figure 3 for bioR, whose biographies a language model writes, and for Llama.

The paper shows exact match on held-out people, for QA finetuning and for mixed training. Rows of (a) GPT-2 and (b)
Llama (`BIOR`): bioR single, multi3 and multi5, each with and without +fullname; of (c) Llama (`BIOS`): the sixteen of
Figure 3.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import finetuned, grid, mixed
from sweeps.recipes.rows import BIOR, BIOS

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
