"""Collectives of a job's process group: every rank must call each of them, in the same order."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def broadcast_from_rank0(value: T) -> T:
    """Returns the object that rank 0 passed; what the other ranks pass is ignored."""
    if dist.get_world_size() == 1:
        return value
    objects = [value]
    dist.broadcast_object_list(objects, src=0)
    return objects[0]


def broadcast_ints(*values: int) -> tuple[int, ...]:
    """Returns the integers that rank 0 passed, in one broadcast of one tensor: cheaper than that of an object."""
    if dist.get_world_size() == 1:
        return values
    tensor = torch.tensor(values)
    if torch.cuda.is_available():
        tensor = tensor.cuda()
    dist.broadcast(tensor, src=0)
    return tuple(tensor.tolist())


def gather_objects(value: T) -> list[T]:
    """Returns the objects of all ranks, by rank."""
    objects = [value] * dist.get_world_size()
    if len(objects) > 1:
        dist.all_gather_object(objects, value)
    return objects


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Returns the elementwise mean of a tensor over ranks."""
    if dist.get_world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    total /= dist.get_world_size()
    return total


def rank_share(rows: Tensor, dimension: int = 0) -> Tensor:
    """Returns this rank's rows of a batch, every `world_size`-th along `dimension`, contiguous."""
    if dist.get_world_size() == 1:
        return rows
    return rows.movedim(dimension, 0)[dist.get_rank() :: dist.get_world_size()].movedim(0, dimension).contiguous()
