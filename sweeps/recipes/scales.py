"""Scales: the same experiment on a laptop, on one GPU, and as in the paper. They differ in sizes and budgets alone."""

from ktrain import readout_registry
from ktrain.config import CellConfig, CorpusConfig, ModelConfig, PoolsConfig, ReadoutConfig, TrainConfig, WriterConfig
from ktrain.readout.kinds.base import kind_of

MINI = CellConfig(
    corpus=CorpusConfig(
        people=500,
        tokenizer="bpe-2048",
        writer=WriterConfig(backend="rules"),
        pools=PoolsConfig(
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
    model=ModelConfig(size="mini"),
    train=TrainConfig(steps=5_400, batch=8, context=128, learning_rate=2e-3, warmup=100, beta2=0.98),
    readout=ReadoutConfig(
        method="full", steps=400, batch=64, learning_rate=5e-4, final_learning_rate=0.0, beta2=0.98, recall_gate=0.97
    ),
)
"""Minutes on two cores. docs/miniature.md says what was tried, and why these numbers."""

MINIATURES = {"mini": 1, "small": 4}
"""Scales of small networks and texts, with their factor on the training steps of `mini`. The paper shows a biography
540 times, `mini` 150 times."""

SMALL = MINI.model_copy(
    update={"train": MINI.train.model_copy(update={"steps": MINIATURES["small"] * MINI.train.steps})}
)
"""The miniature, read about as often as the paper's biographies are: a night on two cores with bf16 instructions. Not
measured yet."""

MEDIUM = CellConfig(
    corpus=CorpusConfig(
        people=10_000,
        pools=PoolsConfig(birth_years=100, birth_cities=100, universities=100, majors=100, companies=100),
    ),
    train=TrainConfig(steps=20_000),
    readout=ReadoutConfig(steps=10_000),
)
"""Hours on one GPU: a tenth of the paper's people with a quarter of its steps. Not measured yet."""

FULL = CellConfig(readout=ReadoutConfig(packed=True))
"""The paper: 100,000 people, GPT-2's tokenizer, 124M parameters, 80,000 steps of 96 x 512 tokens, finetuning on windows
of as many."""

SCALES: dict[str, CellConfig] = {"mini": MINI, "small": SMALL, "medium": MEDIUM, "full": FULL}

PROBE = {
    "rank_qv": 0,
    "learning_rate": 1e-3,
    "decay": "linear",
    "final_learning_rate": 0.0,
    "weight_decay": 0.3,
}
P_PROBE = ReadoutConfig.model_validate({"kind": "p_probe", "rank_embedding": 2, "steps": 30_000, "batch": 50, **PROBE})
Q_PROBE = ReadoutConfig.model_validate(
    {"kind": "q_probe", "rank_embedding": 16, "steps": 30_000, "batch": 200, **PROBE}
)
"""The paper's probes (section 4, appendix C), but for dropout."""
PROBE_FULL = {"dropout": 0.1}
"""The paper's probes train with dropout on in the frozen network. Its rate is not stated; this is GPT-2's default."""

PROBE_MINI = {
    "learning_rate": 1e-2,
    "lora_scale": 0.3,
    "beta2": 0.98,
    "recall_gate": 0.97,
}
"""With a hundredth of the paper's steps, probes need ten times its rate. With a hundredth of its people, updates of the
tokens that tell people apart would overfit (docs/miniature.md)."""

PROBES_MINI = {
    "p_probe": P_PROBE.model_copy(update={**PROBE_MINI, "steps": 120, "token_share": 0.1}),
    "q_probe": Q_PROBE.model_copy(update={**PROBE_MINI, "steps": 300, "batch": 100, "token_share": 0.5}),
}
PROBES: dict[str, dict[str, ReadoutConfig]] = {
    "mini": PROBES_MINI,
    "small": PROBES_MINI,
    "medium": {
        "p_probe": P_PROBE.model_copy(update={"steps": 10_000}),
        "q_probe": Q_PROBE.model_copy(update={"steps": 10_000}),
    },
    "full": {
        "p_probe": P_PROBE.model_copy(update=PROBE_FULL),
        "q_probe": Q_PROBE.model_copy(update=PROBE_FULL),
    },
}


def base(scale: str, kind: str) -> CellConfig:
    """Returns the cell of a scale before any axis is set, with the hyperparameters of a readout kind."""
    cell = SCALES[scale]
    if probe := PROBES[scale].get(kind):
        return cell.model_copy(update={"readout": probe})
    own = kind_of(kind).settings(scale) if kind in readout_registry.names() else {}
    return cell.model_copy(update={"readout": cell.readout.model_copy(update=dict(own))}) if own else cell
