"""What makes training fast leaves the learning curve as it is: 300 steps beside the plain loop over the network of
`transformers`, eager, in fp32, with no engine."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks
from ktrain.model.forward import LanguageModelLoss
from ktrain.model.sizes import NetworkSize
from ktrain.training.deepspeed_engine import Engine
from ktrain.training.learning_rate import LearningRateSchedule

STEPS, VOCABULARY = 300, 64
SETTING = TrainConfig(batch=8, context=32, steps=STEPS, warmup=20, learning_rate=3e-3, precision="fp32")
SCHEDULE = LearningRateSchedule(SETTING.learning_rate, SETTING.final_learning_rate, SETTING.warmup, STEPS)
LAYERS = {"gpt2": 2, "llama": 1}
"""Between layers, both families are compiled alike, and it takes a quarter of a minute a layer."""
SAME = 1e-3
"""Nats by which two curves in fp32 may differ anywhere: sums in another order, grown over 300 steps."""
NEAR = 0.02
"""Nats by which the mean of 20 steps may differ between bf16 and fp32."""


@pytest.fixture(scope="module", autouse=True)
def small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", NetworkSize(2, 2, 64))
        yield


def network(family: str) -> nn.Module:
    built: nn.Module = networks.build_network(
        ModelConfig(size="mini", family=family, layers=LAYERS[family]), VOCABULARY, SETTING.context, 0, 0
    ).train()
    return built


def batch(step: int) -> Tensor:
    """Rows that can be learned: each counts on by a stride of its own, from a place of its own."""
    rng = np.random.default_rng(step)
    begin, stride = rng.integers(VOCABULARY, size=(8, 1)), rng.integers(1, 4, size=(8, 1))
    return torch.from_numpy((begin + stride * np.arange(SETTING.context)) % VOCABULARY)


@pytest.fixture(scope="module")
def plain() -> dict[str, np.ndarray]:
    return {family: _plain(family) for family in ("gpt2", "llama")}


def _plain(family: str) -> np.ndarray:
    trained = network(family)
    optimizer = torch.optim.AdamW(
        trained.parameters(), betas=(SETTING.beta1, SETTING.beta2), eps=SETTING.epsilon, weight_decay=0.1
    )
    losses = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = SCHEDULE.rate(step)
        loss = trained(input_ids=batch(step), labels=batch(step), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), SETTING.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.array(losses)


def fast(family: str, precision: str, *, compile: bool) -> np.ndarray:
    setting = SETTING.model_copy(update={"precision": precision})
    engine = Engine(LanguageModelLoss(network(family)), setting, SETTING.batch, compile=compile)
    weights = torch.full((8, SETTING.context), 1 / (8 * (SETTING.context - 1)))
    losses = [engine.step(batch(step), weights, learning_rate=SCHEDULE.rate(step)) for step in range(STEPS)]
    engine.close()
    return torch.stack(losses).numpy()


@pytest.mark.parametrize(("family", "compile"), [("gpt2", False), ("gpt2", True), ("llama", True)])
def test_the_curve_is_that_of_the_plain_loop(plain: dict[str, np.ndarray], family: str, compile: bool) -> None:
    curve = fast(family, "fp32", compile=compile)
    assert plain[family][:5].mean() > 4 and plain[family][-20:].mean() < 1
    assert np.abs(curve - plain[family]).max() < SAME


@pytest.mark.usefixtures("bf16_here")
def test_in_bf16_it_is_near(plain: dict[str, np.ndarray]) -> None:
    curve = fast("gpt2", "bf16", compile=True)
    means = [np.convolve(each, np.ones(20) / 20, mode="valid") for each in (curve, plain["gpt2"])]
    assert np.abs(means[0] - means[1]).max() < NEAR


def test_a_wrong_activation_would_be_seen(plain: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktrain.model.network_parts.GELU", 1.702)
    assert np.abs(fast("gpt2", "fp32", compile=False) - plain["gpt2"]).max() > 3 * SAME
