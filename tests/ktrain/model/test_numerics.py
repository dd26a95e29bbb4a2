"""What makes training fast leaves the learning curve as it is: 300 steps beside the plain loop over the network of
`transformers`, eager, in fp32, with no engine."""

import functools

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
SAME = 1e-3
"""Nats by which two curves in fp32 may differ anywhere: sums in another order, grown over 300 steps."""
NEAR = 0.02
"""Nats by which the mean of 20 steps may differ between bf16 and fp32."""


@pytest.fixture(scope="module", autouse=True)
def small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", NetworkSize(2, 2, 64))
        yield


def network(family: str, layers: int) -> nn.Module:
    built: nn.Module = networks.build_network(
        ModelConfig(size="mini", family=family, layers=layers), VOCABULARY, SETTING.context, 0, 0
    ).train()
    return built


def batch(step: int) -> Tensor:
    """Rows that can be learned: each counts on by a stride of its own, from a place of its own."""
    rng = np.random.default_rng(step)
    begin, stride = rng.integers(VOCABULARY, size=(8, 1)), rng.integers(1, 4, size=(8, 1))
    return torch.from_numpy((begin + stride * np.arange(SETTING.context)) % VOCABULARY)


@functools.cache
def plain(family: str, layers: int) -> np.ndarray:
    trained = network(family, layers)
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


def fast(family: str, layers: int, precision: str, *, compile: bool) -> np.ndarray:
    setting = SETTING.model_copy(update={"precision": precision})
    engine = Engine(LanguageModelLoss(network(family, layers)), setting, SETTING.batch, compile=compile)
    weights = torch.full((8, SETTING.context), 1 / (8 * (SETTING.context - 1)))
    losses = [engine.step(batch(step), weights, learning_rate=SCHEDULE.rate(step)) for step in range(STEPS)]
    engine.close()
    return torch.stack(losses).numpy()


# Between layers both families are compiled alike, in either precision, and it takes a quarter of a minute a layer.
@pytest.mark.parametrize(("family", "layers", "compile"), [("gpt2", 2, False), ("gpt2", 2, True), ("llama", 1, True)])
def test_the_curve_is_that_of_the_plain_loop(family: str, layers: int, compile: bool) -> None:
    curve, wanted = fast(family, layers, "fp32", compile=compile), plain(family, layers)
    assert wanted[:5].mean() > 4 and wanted[-20:].mean() < 1
    assert np.abs(curve - wanted).max() < SAME


@pytest.mark.usefixtures("bf16_here")
def test_in_bf16_it_is_near() -> None:
    curves = fast("gpt2", 1, "bf16", compile=True), plain("gpt2", 1)
    means = [np.convolve(curve, np.ones(20) / 20, mode="valid") for curve in curves]
    assert np.abs(means[0] - means[1]).max() < NEAR


def test_a_wrong_activation_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktrain.model.network_parts.GELU", 1.702)
    assert np.abs(fast("gpt2", 2, "fp32", compile=False) - plain("gpt2", 2)).max() > 3 * SAME
