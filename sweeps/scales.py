"""Scales: the same experiment on a laptop, on one GPU and as in the paper. Sizes and budgets, nothing else."""

from ktrain.config import Cell, Corpus, Model, PoolSizes, Readout, Train, Writer

MINI = Cell(
    corpus=Corpus(
        people=500,
        tokenizer="bpe-2048",
        writer=Writer(backend="rules"),
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

PROBE = {
    "rank_qv": 0,
    "learning_rate": 1e-3,
    "decay": "linear",
    "final_learning_rate": 0.0,
    "weight_decay": 0.3,
}
P_PROBE = Readout.model_validate({"kind": "p_probe", "rank_embedding": 2, "steps": 30_000, "batch": 50, **PROBE})
Q_PROBE = Readout.model_validate({"kind": "q_probe", "rank_embedding": 16, "steps": 30_000, "batch": 200, **PROBE})
"""The paper's probes (section 4, appendix C). They train with dropout on, whose rate is `model.dropout`."""

PROBE_MINI = {
    "learning_rate": 1e-2,
    "lora_scale": 0.3,
    "beta2": 0.98,
    "recall_gate": 0.97,
}
"""A hundredth of the paper's steps needs ten times its rate, and a hundredth of its people forgives no update of
tokens by which people are told apart: docs/miniature.md."""

PROBES: dict[str, dict[str, Readout]] = {
    "mini": {
        "p_probe": P_PROBE.model_copy(update={**PROBE_MINI, "steps": 100, "token_share": 0.1}),
        "q_probe": Q_PROBE.model_copy(update={**PROBE_MINI, "steps": 300, "batch": 100, "token_share": 0.5}),
    },
    "small": {
        "p_probe": P_PROBE.model_copy(update={"steps": 10_000}),
        "q_probe": Q_PROBE.model_copy(update={"steps": 10_000}),
    },
    "full": {"p_probe": P_PROBE, "q_probe": Q_PROBE},
}


def base(scale: str, kind: str) -> Cell:
    """The cell of a scale before any axis is set, with the hyperparameters of a readout kind."""
    cell = SCALES[scale]
    probe = PROBES[scale].get(kind)
    return cell.model_copy(update={"readout": probe}) if probe else cell
