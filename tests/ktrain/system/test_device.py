"""The precision of a training where the device has bf16 instructions, and where it has none."""

import pytest
import torch

from ktrain.system import device

CPU = torch.device("cpu")


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_products_are_taken_in_bf16_where_it_is_asked_for_and_there(
    monkeypatch: pytest.MonkeyPatch, able: bool, precision: str
) -> None:
    monkeypatch.setattr(device, "processor_has_bf16", lambda: able)
    a = torch.ones(4, 4)
    with device.autocast(precision, CPU):
        product = a @ a
    assert product.dtype == (torch.bfloat16 if able and precision == "bf16" else torch.float32)


@pytest.mark.parametrize(("capability", "able"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], able: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device.multiplies_in_bf16("bf16", torch.device("cuda", 0)) is able


@pytest.mark.parametrize(("able", "products"), [(True, "bf16"), (False, "fp32")])
def test_the_device_is_named_with_its_products(monkeypatch: pytest.MonkeyPatch, able: bool, products: str) -> None:
    monkeypatch.setattr(device, "training_device", lambda: CPU)
    monkeypatch.setattr(device, "processor_name", lambda: "a processor")
    monkeypatch.setattr(device, "processor_has_bf16", lambda: able)
    assert device.describe_device() == {"device": "a processor", "products": products}
