"""Memory: estimates the peak bytes of a stage's tensors.

Of N parameters, weights and gradients take 4 N bytes each, the moments of AdamW 8 N, casts to bf16 2 N; from ZeRO 1 on
moments and a copy of the weights are divided by the workers, from ZeRO 2 on gradients too, at ZeRO 3 also the weights;
several workers need a bucket of up to half a billion gradients. A layer of width d keeps a d bytes of each token for
the backward pass, and where there are no fused kernels for attention 8 h T more (h heads, T tokens); the loss takes l
bytes for each of V logits, or of a chunk of them, and then 4 V d for the gradient of the embedding and 2 V d for what
each chunk adds to it. a and l were counted in the saved tensors of this package's forward (`ACTIVATION`, `LOGIT`).
"""

import math

from ktrain.config import CellConfig
from ktrain.model import sizes
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import Stage
from sweeps.planning import cost

ACTIVATION = {("bf16", True): 40, ("bf16", False): 64, ("fp32", True): 80, ("fp32", False): 120}
LOGIT = {True: 8, False: 12}
"""Bytes, by precision and by whether the code is compiled."""
CHUNKED = {True: 8, False: 20}
"""As `LOGIT`, for a chunk, whose gradient is in memory too."""
BUCKET = 5e8
ANSWERED, LONGEST = 128, 128
"""Rows and tokens of a batch in evaluation, in fp32."""


def estimate(stage: Stage, cell: CellConfig, workers: int, *, gpu: bool, compiled: bool = True) -> float:
    """Estimates the peak bytes of a stage's tensors on each of `workers`, by the formulas above."""
    vocabulary = cost.vocabulary(cell)
    shape = sizes.shape_of(cell.model, vocabulary)
    network = sizes.parameters(cell.model, vocabulary)
    answering = 4.0 * network + ANSWERED * LONGEST * vocabulary * 8
    if stage.kind == "corpus":
        return 0.0
    if stage.kind != "pretrain" and not kind_of(stage.kind).trains:
        return answering
    setting = cell.train if stage.kind == "pretrain" else cell.readout
    trained, frozen, tokens = float(network), 0.0, cell.train.context
    if stage.kind != "pretrain":
        tokens = kind_of(stage.kind).row_tokens(cell)
        if cell.readout.adapted:
            rank = cell.readout.rank_embedding
            embedding = vocabulary * shape.width if rank == "full" else int(rank) * (vocabulary + shape.width)
            frozen = 4.0 * network
            trained = float(embedding + 4 * shape.layers * cell.readout.rank_qv * shape.width)
    elif cell.train.method == "lora":
        frozen = 4.0 * network
        trained = float(4 * shape.layers * cell.train.rank_qv * shape.width)
    rows = math.ceil(setting.batch / workers)
    bytes_per_token = ACTIVATION[setting.precision, compiled] * shape.width + (0 if gpu else 8 * shape.heads * tokens)
    activations = shape.layers * rows * tokens * bytes_per_token
    logits = rows * tokens * vocabulary * LOGIT[compiled]
    chunk = sizes.LOGITS["cuda" if gpu else "cpu"] // 4
    # A network of `hf` computes its own logits, all at once (`model.plain_forward`).
    if frozen == 0.0 and cell.model.family != "hf" and rows * tokens * vocabulary > chunk:
        chunks = math.ceil(rows * tokens * vocabulary / chunk)
        logits = chunk * CHUNKED[compiled] + (4 + 2 * chunks) * vocabulary * shape.width
    casts = 2 * network if setting.precision == "bf16" else 0
    training = frozen + states(trained, setting.zero, workers) + casts + activations + logits
    return max(answering, training)


def states(parameters: float, zero: int, workers: int) -> float:
    """Returns the bytes of weights, gradients and optimizer states on each of `workers` at a ZeRO stage."""
    weights = 4 * parameters / (workers if zero == 3 else 1)
    gradients = 4 * parameters / (workers if zero >= 2 else 1)
    moments = (12 if zero else 8) * parameters / (workers if zero else 1)
    return weights + gradients + moments + (4 * min(parameters, BUCKET) if workers > 1 else 0)
