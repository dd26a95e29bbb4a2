"""Scales: the same experiment on a laptop, on one GPU and as in the paper. Sizes and budgets, nothing else."""

from ktrain.config import Cell, Corpus, Model, PoolSizes, Readout, Train

MINI = Cell(
    corpus=Corpus(
        people=500,
        tokenizer="bpe-2048",
        pools=PoolSizes(
            first_names=400,
            middle_names=400,
            last_names=1000,
            birth_years=25,
            birth_cities=25,
            universities=25,
            majors=25,
            companies=25,
        ),
    ),
    model=Model(size="mini"),
    train=Train(steps=5_400, batch=8, context=128, learning_rate=2e-3, warmup=100, beta2=0.98),
    readout=Readout(
        method="full", steps=400, batch=64, learning_rate=5e-4, final_learning_rate=0.0, beta2=0.98, recall_gate=0.97
    ),
)
"""Two cores, minutes. What was tried, and why these numbers: docs/miniature.md."""

SMALL = Cell(
    corpus=Corpus(
        people=10_000,
        pools=PoolSizes(birth_years=100, birth_cities=100, universities=100, majors=100, companies=100),
    ),
    train=Train(steps=20_000),
    readout=Readout(steps=10_000),
)
"""One GPU, hours. Not yet measured: a tenth of the people with a quarter of the paper's steps."""

FULL = Cell()
"""The paper: 100,000 people, GPT-2's tokenizer, 124M parameters, 80,000 steps of 96 x 512 tokens."""

SCALES: dict[str, Cell] = {"mini": MINI, "small": SMALL, "full": FULL}
