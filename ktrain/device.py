"""The device that trains, and how tensors come to it."""

import torch
from torch import Tensor


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def moved(tensor: Tensor, where: torch.device) -> Tensor:
    """The tensor on `where`; from the host's memory without waiting for what a GPU still does."""
    if where.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(where)
    return tensor.pin_memory().to(where, non_blocking=True)
