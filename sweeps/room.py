"""Room: the GPUs, CPUs and memory that trials may hold at once, of what a cluster has or can grow to."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ktrain.errors import WrongRequest

GIB = 2**30
DRIVER = "driver_slot"
"""The resource of a trial's driver, which only waits for its workers. A driver that held any share of a CPU would take
from the last one what a worker needs whole, and the trial would wait for ever."""
HEAD = "node:__internal_head__"
"""What Ray declares on the head of every cluster, 1 of it: drivers are there where nothing says `driver_slot`."""
DRIVER_OF_HEAD = 0.001
LEAD = 0.7 * GIB
"""What a trial that runs takes of the memory of the machine where its driver is: 0.67 GB was measured (PSS) of the
driver, Ray Train's controller, and the four helpers that Ray starts for them."""
GROWN = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on the head: the cluster file with the resources of each node type filled in."""
GPU_GIB = {
    "B200": 179,
    "H200": 140,
    "H100": 79,
    "A100-80G": 79,
    "A100-40G": 39,
    "A100": 39,
    "L40S": 44,
    "L4": 22,
    "A10G": 22,
    "A10": 22,
    "V100": 15,
    "T4": 14,
}
"""What programs see of the memory of GPUs, in GiB, by the names that Ray gives them; of two sizes the smaller. For
nodes that are not there yet; those that are there are asked."""


@dataclass(frozen=True)
class Need:
    """What each worker of a trial holds: CPUs and bytes of memory, or a GPU, or one worker alone a share of a GPU."""

    workers: int = 1
    cpus: int = 0
    gpus: Fraction = Fraction(0)
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """As Ray is told, of each worker."""
        if self.gpus:
            return {"GPU": float(self.gpus)}
        told: dict[str, float] = {"CPU": self.cpus}
        return told | ({"memory": self.memory} if self.memory else {})


@dataclass(frozen=True)
class Node:
    """Machines of one kind, `count` of them; `memory` and `gpu_memory` in bytes, None where they are not known."""

    cpus: float = 0
    gpus: float = 0
    memory: float | None = None
    gpu_memory: float | None = None
    count: int = 1


@dataclass(frozen=True)
class Room:
    """Machines on which trials may run, and how many drivers of trials there may be."""

    nodes: tuple[Node, ...]
    drivers: float = math.inf

    @cached_property
    def gpus(self) -> int:
        """GPUs of all machines."""
        return int(sum(node.count * int(node.gpus) for node in self.nodes))

    @cached_property
    def gpu_memory(self) -> float | None:
        """Bytes of the smallest GPU, because a worker may come to any; None where one is not known."""
        known = [node.gpu_memory for node in self.nodes if node.gpus]
        return min((size for size in known if size), default=None) if all(known) else None

    @cached_property
    def memory(self) -> float | None:
        """Bytes of the largest machine that has CPUs; None where it is not known."""
        known = [node.memory for node in self.nodes if node.cpus >= 1]
        return max((size for size in known if size), default=None) if all(known) else None

    def workers(self, need: Need) -> int:
        """How many workers alike fit at once, each whole on one machine."""
        if need.gpus:
            return self.gpus * int(1 / need.gpus)

        def fit(node: Node) -> int:
            fits = node.cpus // max(1, need.cpus)
            if need.memory and node.memory is not None:
                fits = min(fits, node.memory // need.memory)
            return int(fits) * node.count

        return sum(map(fit, self.nodes))

    def holds(self, needs: Sequence[Need]) -> bool:
        """Whether trials of these needs fit at once.

        Shares of a GPU are counted by whole GPUs, those of one size together: so there is a place for each, and shares
        that lie about never keep a worker from a whole one.
        """
        if len(needs) > self.drivers:
            return False
        whole = sum(need.workers for need in needs if need.gpus == 1)
        shares: dict[Fraction, int] = {}
        rest = Fraction(0)
        for need in needs:
            if 0 < need.gpus < 1:
                shares[need.gpus] = shares.get(need.gpus, 0) + 1
            elif not need.gpus:
                fit = self.workers(need)
                rest += Fraction(need.workers, fit) if fit else Fraction(2)
        shared = sum(math.ceil(Fraction(count, int(1 / share))) for share, count in shares.items())
        return whole + shared <= self.gpus and rest <= 1

    def share(self, need: Need) -> float:
        """The part of all that a trial takes."""
        return need.workers / max(1, self.workers(need))


def found(
    gpus_most: int | None = None, gpu_gib: float | None = None, *, lead: float = LEAD
) -> tuple[Room, dict[str, float]]:
    """The room of the cluster that Ray is connected to, and the resources of a trial's driver in it.

    Nodes that are there, and those that autoscaling may add: as Ray's autoscaler reports or as `ray up` has left word
    on the head, where either does; `gpus_most` says it where neither does. `gpu_gib` is the memory of a GPU in GiB
    where it is to be taken for something else than it is; `lead` bytes are what leading a trial takes. Raises
    `WrongRequest` for numbers that cannot be.
    """
    import ray

    if gpus_most is not None and gpus_most < 1:
        raise WrongRequest(f"gpus-max={gpus_most}: must be at least 1")
    if gpu_gib is not None and not gpu_gib > 0:
        raise WrongRequest(f"gpu-memory={gpu_gib:g}: must be above 0 (GiB)")
    alive = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    asked = {} if gpu_gib else _asked([n["NodeID"] for n in alive if n["Resources"].get("GPU")])
    here = [_node(n["Resources"], n.get("Labels", {}), memory=asked.get(n["NodeID"])) for n in alive]
    types = _types()
    # What has begun counts once: the head besides, and of all others the most that there may be.
    heads = [node for node, n in zip(here, alive, strict=True) if HEAD in n["Resources"]]
    grown = [*heads, *types]
    nodes = grown if types and _gpus(grown) >= _gpus(here) and _cpus(grown) >= _cpus(here) else here
    if gpus_most is not None:
        nodes = _widened(nodes, gpus_most)
    if gpu_gib:
        nodes = [Node(n.cpus, n.gpus, n.memory, gpu_gib * GIB if n.gpus else None, n.count) for n in nodes]
    slots = total.get(DRIVER, 0.0)
    driver = {DRIVER: 1.0} if slots else {HEAD: DRIVER_OF_HEAD}
    leads = [n["Resources"] for n in alive if n["Resources"].get(DRIVER if slots else HEAD)]
    memory = sum(resources.get("memory", math.inf) for resources in leads)
    # One can always be led: a machine that is too small for that is not told by its memory alone.
    return Room(tuple(nodes), min(slots or 0.5 / DRIVER_OF_HEAD, max(1.0, memory // lead))), driver


def _node(
    resources: Mapping[str, float], labels: Mapping[str, str], *, memory: float | None = None, count: int = 1
) -> Node:
    kinds = [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
    kind = next(iter(kinds), labels.get("ray.io/accelerator-type", ""))
    known = GPU_GIB.get(re.sub(r"^NVIDIA[- ]|^nvidia-tesla-|^nvidia-", "", kind).upper())
    gpus = resources.get("GPU", 0.0)
    gpu_memory = (memory or (known * GIB if known else None)) if gpus else None
    return Node(resources.get("CPU", 0.0), gpus, resources.get("memory"), gpu_memory, count)


def _types() -> list[Node]:
    """The kinds of workers that autoscaling may add, each as often as it may; empty where nobody knows."""
    from ray._private.state import state

    config = state.get_cluster_config()
    if config and config.node_group_configs:
        groups = [group for group in config.node_group_configs if "head" not in group.name and group.max_count > 0]
        return [_node(dict(group.resources), {}, count=group.max_count) for group in groups]
    try:
        return grown(yaml.safe_load(GROWN.expanduser().read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []


def grown(file: Mapping[str, Any]) -> list[Node]:
    """The workers of a cluster file when all are there; of kinds that are too many together, those with most GPUs."""
    kinds = [kind for name, kind in file["available_node_types"].items() if name != file["head_node_type"]]
    left, nodes = int(file["max_workers"]), []
    for kind in sorted(kinds, key=lambda kind: -kind["resources"].get("GPU", 0)):
        count = min(left, int(kind.get("max_workers", left)))
        left -= count
        if count:
            nodes.append(_node(kind["resources"], kind.get("labels") or {}, count=count))
    return nodes


def _widened(nodes: Iterable[Node], gpus: int) -> list[Node]:
    """The same machines with `gpus` GPUs in all; those that are not there yet are as large as the smallest there."""
    kept = list(nodes)
    known = [node.gpu_memory for node in kept if node.gpus]
    more = gpus - _gpus(kept)
    if more < 0:
        raise WrongRequest(f"gpus-max={gpus}: there are {_gpus(kept):.0f} GPUs already")
    smallest = min((size for size in known if size), default=None) if all(known) else None
    return [*kept, Node(gpus=1, gpu_memory=smallest, count=int(more))]


def _gpus(nodes: Iterable[Node]) -> float:
    return sum(node.gpus * node.count for node in nodes)


def _cpus(nodes: Iterable[Node]) -> float:
    return sum(node.cpus * node.count for node in nodes)


def _asked(nodes: Sequence[str]) -> dict[str, float]:
    """Bytes of the smallest GPU of each node, asked of its driver; nodes whose GPUs are only declared are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {
        node: ray.remote(num_cpus=0, max_retries=0)(_gpu_bytes)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote()
        for node in nodes
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=60) if asked else None
    answers: dict[str, Any] = {}
    for node, reply in asked.items():
        try:
            answers[node] = ray.get(reply, timeout=0.1)
        except Exception:  # A node that has gone, or is too busy to answer, is as good as unknown.
            continue
    return {node: float(size) for node, size in answers.items() if size}


def _gpu_bytes() -> int | None:
    """Of the smallest GPU of this machine; None where there is none."""
    import ray._private.thirdparty.pynvml as nvml

    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
        return min((int(nvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles), default=None)
    except nvml.NVMLError:
        return None
