"""The process group of the workers of a trial."""

import os
import socket
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined]

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others."""


def join_alone() -> None:
    """Makes a process group of this process alone, if there is no group yet."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, value)
    if not dist.is_initialized():
        _use_loopback()
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(_backend(), store=alone, rank=0, world_size=1)


def join_group(ranks: Mapping[str, int], host: str, broadcast: Callable[[Any], Any], private: Path | None) -> None:
    """Makes one process group of all workers; each of them must call.

    `ranks` holds the numbers of a launcher, by the names of their environment variables, which this sets; `host` is the
    address of this machine. `broadcast` returns what rank 0 passes to it. Where `host` is loopback, all workers are on
    this machine: they meet in a file in `private`, a folder of this account alone, and listen on loopback. Elsewhere
    rank 0 listens at a port before it tells the others: a port that was only found free may be another trial's by now.
    """
    os.environ.update({name: str(number) for name, number in ranks.items()})
    rank, world = ranks["RANK"], ranks["WORLD_SIZE"]
    if world == 1:
        join_alone()
        return
    if private and ip_address(host).is_loopback:
        _use_loopback()
        file = broadcast(str(private / f"group-{uuid.uuid4().hex}") if rank == 0 else None)
        store: Store = FileStore(file, world)
    else:
        store = _store_at_port(host, rank, world, broadcast)
    dist.init_process_group(_backend(), store=store, rank=rank, world_size=world, timeout=TIMEOUT)


def _store_at_port(host: str, rank: int, world: int, broadcast: Callable[[Any], Any]) -> TCPStore:
    store = None
    if rank == 0:
        store = TCPStore(host, 0, world, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    host, port = broadcast((host, store.port) if store else None)
    os.environ.update({"MASTER_ADDR": host, "MASTER_PORT": str(port)})
    return store or TCPStore(host, port, world, is_master=False, timeout=TIMEOUT)


def _use_loopback() -> None:
    """Lets Gloo and NCCL, which ask for no password, listen on loopback alone."""
    for _, name in socket.if_nameindex():
        # `lo` on Linux, `lo0` on macOS.
        if name in ("lo", "lo0"):
            os.environ.update({"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name})


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"
