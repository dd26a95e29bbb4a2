"""The engine is AdamW with clipping and autocast, at every ZeRO stage; the oracle is a plain PyTorch loop.

Tolerance: `FP32`, relative, is rounding of another order of summation (fused AdamW, gradients in buckets). It is that
of bf16 too: only the products inside of forward and backward are bf16, and they are the same on both sides; weights,
optimizer and reductions are fp32. Reductions in bf16, DeepSpeed's default, were off by 4e-5 after six steps.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.ops.op_builder.builder import OpBuilder
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPTNeoXForCausalLM

from ktrain.config import TrainConfig
from ktrain.model import chunked_cross_entropy, sizes
from ktrain.model.forward import LanguageModelLoss
from ktrain.training.deepspeed_engine import Engine

FP32 = 1e-6
STEPS = 6
STAGES = [pytest.param(z, p, id=f"zero{z}-{p}") for z in range(4) for p in ("fp32", "bf16")]
Make = Callable[..., GPTNeoXForCausalLM]
Batch = Callable[..., tuple[Tensor, Tensor]]
Steps = list[tuple[Tensor, Tensor]]


pytestmark = pytest.mark.usefixtures("bf16_here")


@pytest.fixture(autouse=True)
def no_op_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails every test in which DeepSpeed compiles an op: that takes a minute, and a killed build leaves a lock."""
    monkeypatch.setattr(OpBuilder, "load", lambda builder, *_: pytest.fail(f"compiles {builder.name}"))


def setting(**changes: object) -> TrainConfig:
    plain = {"batch": 4, "context": 32, "steps": 30, "warmup": 0, "precision": "fp32", "clip": 1e9}
    return TrainConfig.model_validate(plain | changes)


def rate(step: int) -> float:
    return 3e-3 * (1 - step / 10)


def plain_loop(
    network: GPTNeoXForCausalLM, setting: TrainConfig, batches: Steps
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and final weights of the loop that anybody would write."""
    module = LanguageModelLoss(copy.deepcopy(network))
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=0.0,
        betas=(setting.beta1, setting.beta2),
        eps=setting.epsilon,
        weight_decay=setting.weight_decay,
        # A weight that differs in its last bit may round to another bf16, which is no rounding of fp32 any more.
        fused=setting.precision == "bf16",
    )
    losses = []
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16"):
            loss = module(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), setting.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, dict(module.named_parameters())


def engine_loop(
    network: GPTNeoXForCausalLM, setting: TrainConfig, batches: Steps
) -> tuple[list[float], dict[str, Tensor]]:
    """The same through the engine."""
    engine = Engine(LanguageModelLoss(copy.deepcopy(network)), setting, setting.batch, compile=False)
    losses = [float(engine.step(*batch, learning_rate=rate(step))) for step, batch in enumerate(batches)]
    state = engine.state()
    engine.close()
    return losses, state


def furthest(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest distance of a tensor from what is wanted, relative to its norm."""
    distances = [(found[name] - tensor).norm() / tensor.norm() for name, tensor in wanted.items()]
    return float(torch.stack(distances).max().detach())


@pytest.mark.parametrize(("zero", "precision"), STAGES)
def test_training_is_that_of_a_plain_loop(small: Make, random_batch: Batch, zero: int, precision: str) -> None:
    network, batches = small(spread=0.2), [random_batch(step) for step in range(STEPS)]
    asked = setting(zero=zero, precision=precision)
    losses, weights = plain_loop(network, asked, batches)
    found_losses, found = engine_loop(network, asked, batches)
    assert found_losses == pytest.approx(losses, rel=FP32)
    assert furthest(found, weights) <= FP32


@pytest.mark.parametrize("zero", range(4))
def test_a_loss_by_chunks_trains_alike(
    small: Make, random_batch: Batch, monkeypatch: pytest.MonkeyPatch, zero: int
) -> None:
    network, batches = small(spread=0.2), [random_batch(step) for step in range(STEPS)]
    losses, weights = plain_loop(network, setting(), batches)
    monkeypatch.setattr(sizes, "LOGITS", {"cpu": 4 * network.config.vocab_size * 7})
    monkeypatch.setattr(chunked_cross_entropy, "ALIGNED", {"cpu": 16})
    assert network.config.vocab_size % 16
    found_losses, found = engine_loop(network, setting(zero=zero), batches)
    assert found_losses == pytest.approx(losses, rel=FP32)
    # The gradient of the embedding is summed in another order, and Adam makes small gradients large.
    assert furthest(found, weights) <= 10 * FP32


@pytest.mark.parametrize(("zero", "precision"), STAGES)
def test_the_norm_of_the_gradient_is_clipped(small: Make, random_batch: Batch, zero: int, precision: str) -> None:
    """Adam forgets a constant factor, so the batches differ in weight and clipping makes them alike."""
    network = small(spread=0.2)
    batches = [random_batch(step, total=100.0 ** (step % 2)) for step in range(STEPS)]
    clipped, free = setting(zero=zero, precision=precision, clip=0.1), setting(zero=zero, precision=precision)
    losses, weights = plain_loop(network, clipped, batches)
    found_losses, found = engine_loop(network, clipped, batches)
    assert found_losses == pytest.approx(losses, rel=FP32)
    assert furthest(found, weights) <= FP32
    assert furthest(plain_loop(network, free, batches)[1], weights) > 1000 * FP32


@pytest.mark.parametrize(("zero", "precision"), STAGES)
def test_a_restored_engine_goes_on_bit_by_bit(small: Make, random_batch: Batch, zero: int, precision: str) -> None:
    asked, half = setting(zero=zero, precision=precision, clip=0.5), STEPS // 2
    network = small(spread=0.2)
    engine = Engine(LanguageModelLoss(network), asked, asked.batch, compile=False)
    for step in range(half):
        engine.step(*random_batch(step), learning_rate=rate(step))
    middle = engine.state()
    kept = {name: tensor.clone() for name, tensor in middle.items()}
    losses = [engine.step(*random_batch(step), learning_rate=rate(step)) for step in range(half, STEPS)]
    final = engine.state()
    engine.close()
    assert all(torch.equal(kept[name], tensor) for name, tensor in middle.items()), "a state is a copy"

    module = LanguageModelLoss(small(seed=1))
    module.load_state_dict({name: tensor for name, tensor in middle.items() if "/" not in name}, strict=False)
    again = Engine(module, asked, asked.batch, compile=False)
    again.restore(middle, half, *random_batch(77))
    restored = again.state()
    assert restored.keys() == middle.keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in middle.items())
    assert losses == [again.step(*random_batch(step), learning_rate=rate(step)) for step in range(half, STEPS)]
    state = again.state()
    assert all(torch.equal(state[name], tensor) for name, tensor in final.items())
    assert not any(torch.equal(middle[name], tensor) for name, tensor in final.items() if tensor.any())
    again.close()


@pytest.mark.parametrize("zero", range(4))
def test_the_state_is_full_and_fp32(small: Make, random_batch: Batch, zero: int) -> None:
    """And what is frozen has no part in it, nor does it move."""
    network = small()
    network.gpt_neox.layers[0].requires_grad_(False)
    frozen = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
    shapes = {f"network.{name}": p.shape for name, p in network.named_parameters() if p.requires_grad}
    asked = setting(zero=zero, precision="bf16")
    engine = Engine(LanguageModelLoss(network), asked, asked.batch, compile=False)
    engine.step(*random_batch(0), learning_rate=1e-2)
    state = engine.state()
    engine.close()
    wanted = {f"{name}{part}": shape for name, shape in shapes.items() for part in ("", "/exp_avg", "/exp_avg_sq")}
    assert {name: tensor.shape for name, tensor in state.items()} == wanted
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert frozen
    assert all(torch.equal(p, frozen[name]) for name, p in network.named_parameters() if name in frozen)


@pytest.mark.parametrize("vocabulary", [97, 4000])
@pytest.mark.parametrize("looked", [False, True])
def test_the_weights_of_a_closed_engine_can_be_loaded(
    small: Make, random_batch: Batch, vocabulary: int, looked: bool
) -> None:
    """At ZeRO 3 the parameters were taken apart meanwhile; the network has to be whole again.

    DeepSpeed takes those of more than 100,000 elements apart after each step, and all of them after a look.
    """
    network = small(vocabulary=vocabulary)
    asked = setting(zero=3)
    engine = Engine(LanguageModelLoss(network), asked, asked.batch, compile=False)
    engine.step(*random_batch(0), learning_rate=1e-2)
    state = engine.state()
    if looked:
        with engine.whole():
            for name, parameter in network.named_parameters():
                assert torch.equal(parameter, state[f"network.{name}"])
    engine.close()
    assert all(torch.equal(p, state[f"network.{name}"]) for name, p in network.named_parameters())
    weights = {name.removeprefix("network."): tensor for name, tensor in state.items() if "/" not in name}
    network.load_state_dict(weights, strict=False)
    assert all(torch.equal(p, weights[name]) for name, p in network.named_parameters())
    assert network(input_ids=random_batch(1)[0]).logits.isfinite().all()


def test_a_step_takes_the_rate_that_it_is_given(small: Make, random_batch: Batch) -> None:
    asked = setting(weight_decay=0.0)
    network = small()
    engine = Engine(LanguageModelLoss(network), asked, asked.batch, compile=False)
    engine.step(*random_batch(0), learning_rate=0.0)
    before = engine.state()
    engine.step(*random_batch(0), learning_rate=1e-3)
    after = engine.state()
    engine.close()
    first = small()
    name = "network.gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    assert torch.equal(before[name], first.gpt_neox.layers[0].mlp.dense_h_to_4h.weight)
    # With one gradient twice, Adam's step is the rate times the sign, up to epsilon.
    assert float((after[name] - before[name]).abs().median()) == pytest.approx(1e-3, rel=0.02)


class Looks(TorchDispatchMode):
    """Counts how often a number is fetched from a tensor, for which a host waits until its GPU has done all it was
    told."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(small: Make, random_batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(LanguageModelLoss(small()), setting(), 4, compile=False)
    batch, waits = random_batch(0), list[None]()
    monkeypatch.setattr(get_accelerator(), "synchronize", lambda *_: waits.append(None))
    with Looks() as looks:
        for _ in range(STEPS):
            loss = engine.step(*batch, learning_rate=1e-3)
        assert looks.count == 0 and waits == []
        loss.item()
        assert looks.count == 1
    engine.close()
