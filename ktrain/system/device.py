"""The device that trains, the precision in which it multiplies, and moving tensors to it."""

import torch
from torch import Tensor

from ktrain.system.processor import processor_has_bf16, processor_name


def training_device() -> torch.device:
    """Returns this process's GPU, or the CPU if there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def multiplies_in_bf16(precision: str, device: torch.device) -> bool:
    """Returns whether `device` takes the matrix products of a training of this precision in bf16.

    A device without instructions for bf16 computes in fp32 instead: it would multiply bf16 numbers one by one, thirty
    times slower than fp32 (measured on a processor with AVX2 alone).
    """
    return precision == "bf16" and _has_bf16(device)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns the context in which a forward pass of this precision runs on `device`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_in_bf16(precision, device))


def describe_device() -> dict[str, str]:
    """Returns the `device` that this process trains on, by its name, and the `products` of a bf16 training on it."""
    device = training_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {"device": name, "products": "bf16" if multiplies_in_bf16("bf16", device) else "fp32"}


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return processor_has_bf16()


def to_device(tensor: Tensor, where: torch.device) -> Tensor:
    """Returns the tensor on device `where`. A copy from CPU to GPU does not wait for work queued on the GPU."""
    if where.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(where)
    return tensor.pin_memory().to(where, non_blocking=True)
