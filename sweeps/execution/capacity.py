"""Capacity: the GPUs, CPUs and memory that trials may hold at once, of what a cluster has or can grow to."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ktrain.errors import WrongRequest
from ktrain.system.home_folder import expanded

GIB = 2**30
DRIVER = "driver_slot"
"""The resource that a trial's driver holds. A driver only waits for its workers. If it held any share of a CPU, the
last worker could lack a whole one, and the trial would wait for ever."""
HEAD = "node:__internal_head__"
"""Ray declares 1 of this resource on the head of every cluster. Drivers run there if no node declares `driver_slot`."""
DRIVER_OF_HEAD = 0.001
DRIVER_BYTES = 0.7 * GIB
"""Memory that a running trial takes on its driver's machine: 0.67 GB (PSS) measured over the driver, Ray Train's
controller, and the four helpers that Ray starts for them."""
BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""`ray up` leaves the cluster file here on the head, with the resources of each node type filled in."""
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
"""Memory of GPUs in GiB as programs see it, by Ray's names for them; the smaller one where a name has two sizes. Used
only for nodes that have not started: on running nodes the GPU's driver is asked."""


@dataclass(frozen=True)
class ResourceRequest:
    """What each worker of a trial holds: CPUs and bytes of memory, or a GPU. A trial with one worker may hold a share
    of a GPU.
    """

    workers: int = 1
    cpus: int = 0
    gpus: Fraction = Fraction(0)
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """The request of one worker, in Ray's names."""
        if self.gpus:
            return {"GPU": float(self.gpus)}
        resources: dict[str, float] = {"CPU": self.cpus}
        return resources | ({"memory": self.memory} if self.memory else {})


@dataclass(frozen=True)
class NodeCapacity:
    """`count` machines of one kind; `memory` and `gpu_memory` are in bytes, None where unknown."""

    cpus: float = 0
    gpus: float = 0
    memory: float | None = None
    gpu_memory: float | None = None
    count: int = 1


@dataclass(frozen=True)
class ClusterCapacity:
    """The machines on which trials may run, and how many drivers there may be at once."""

    nodes: tuple[NodeCapacity, ...]
    drivers: float = math.inf

    @cached_property
    def gpus(self) -> int:
        """GPUs of all machines."""
        return int(sum(node.count * int(node.gpus) for node in self.nodes))

    @cached_property
    def gpu_memory(self) -> float | None:
        """Bytes of the smallest GPU, because a worker may land on any; None if one is unknown."""
        known = [node.gpu_memory for node in self.nodes if node.gpus]
        return min((size for size in known if size), default=None) if all(known) else None

    @cached_property
    def memory(self) -> float | None:
        """Bytes of the largest machine that has CPUs; None if one is unknown."""
        known = [node.memory for node in self.nodes if node.cpus >= 1]
        return max((size for size in known if size), default=None) if all(known) else None

    def workers(self, need: ResourceRequest) -> int:
        """Counts how many identical workers fit at once, each whole on one machine."""
        if need.gpus:
            return self.gpus * int(1 / need.gpus)

        def on_node(node: NodeCapacity) -> int:
            count = node.cpus // max(1, need.cpus)
            if need.memory and node.memory is not None:
                count = min(count, node.memory // need.memory)
            return int(count) * node.count

        return sum(map(on_node, self.nodes))

    def fits(self, needs: Sequence[ResourceRequest]) -> bool:
        """Whether trials with these requests can run at once.

        Shares of a GPU count in whole GPUs, each size by itself: half GPUs never lie beside thirds. So every share has
        a place, and scattered shares never keep a worker from a whole GPU.
        """
        if len(needs) > self.drivers:
            return False
        whole_gpus = 0
        trials_by_share: dict[Fraction, int] = {}
        cpu_load = Fraction(0)
        for need in needs:
            if need.gpus == 1:
                whole_gpus += need.workers
            elif need.gpus:
                trials_by_share[need.gpus] = trials_by_share.get(need.gpus, 0) + 1
            else:
                most = self.workers(need)
                cpu_load += Fraction(need.workers, most) if most else Fraction(2)
        shared_gpus = sum(math.ceil(Fraction(count, int(1 / share))) for share, count in trials_by_share.items())
        return whole_gpus + shared_gpus <= self.gpus and cpu_load <= 1

    def share(self, need: ResourceRequest) -> float:
        """The part of the cluster that a trial takes."""
        return need.workers / max(1, self.workers(need))


def measure_capacity(
    gpus_most: int | None = None, gpu_gib: float | None = None, *, driver_bytes: float = DRIVER_BYTES
) -> tuple[ClusterCapacity, dict[str, float]]:
    """Returns the capacity of the cluster that Ray is connected to, and the resources that a trial's driver holds.

    Counts the nodes that run and those that autoscaling may add, which Ray's autoscaler or the file that `ray up` left
    on the head tells; where neither does, `gpus_most` may. `gpu_gib` replaces the measured memory of a GPU, in GiB;
    `driver_bytes` is the memory of a trial's driver. Raises `WrongRequest` for impossible numbers.
    """
    import ray

    if gpus_most is not None and gpus_most < 1:
        raise WrongRequest(f"gpus-max={gpus_most}: must be at least 1")
    if gpu_gib is not None and not gpu_gib > 0:
        raise WrongRequest(f"gpu-memory={gpu_gib:g}: must be above 0 (GiB)")
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = _largest_extent(alive, measure_gpus=gpu_gib is None)
    if gpus_most is not None:
        nodes = _widened(nodes, gpus_most)
    if gpu_gib is not None:
        nodes = [replace(node, gpu_memory=gpu_gib * GIB if node.gpus else None) for node in nodes]
    drivers, driver = _drivers(alive, driver_bytes)
    return ClusterCapacity(tuple(nodes), drivers), driver


def _largest_extent(alive: Sequence[Mapping[str, Any]], *, measure_gpus: bool) -> list[NodeCapacity]:
    """The cluster as it runs, or as autoscaling may grow it where that is known and larger."""
    with_gpus = [node["NodeID"] for node in alive if node["Resources"].get("GPU")]
    gpu_bytes = _measure_gpus(with_gpus) if measure_gpus else {}
    running = [_node(n["Resources"], n.get("Labels", {}), memory=gpu_bytes.get(n["NodeID"])) for n in alive]
    addable = _addable()
    # Workers that run are among those that may be added. The head is not, so it counts besides.
    heads = [node for node, n in zip(running, alive, strict=True) if HEAD in n["Resources"]]
    extended = [*heads, *addable]
    if addable and _gpus(extended) >= _gpus(running) and _cpus(extended) >= _cpus(running):
        return extended
    return running


def _drivers(alive: Sequence[Mapping[str, Any]], driver_bytes: float) -> tuple[float, dict[str, float]]:
    """How many drivers there may be, by declared slots and by memory, and the resources that one holds."""
    slots = sum(node["Resources"].get(DRIVER, 0.0) for node in alive)
    resource, amount = (DRIVER, 1.0) if slots else (HEAD, DRIVER_OF_HEAD)
    hosts = [node["Resources"] for node in alive if node["Resources"].get(resource)]
    memory = sum(resources.get("memory", math.inf) for resources in hosts)
    # One driver is always allowed: memory alone does not tell whether a machine is too small for it.
    by_memory = max(1.0, memory // driver_bytes)
    return min(slots or 0.5 / DRIVER_OF_HEAD, by_memory), {resource: amount}


def _node(
    resources: Mapping[str, float], labels: Mapping[str, str], *, memory: float | None = None, count: int = 1
) -> NodeCapacity:
    """A node from its resources and labels in Ray's names; `memory` are the measured bytes of its smallest GPU."""
    kinds = [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
    kind = next(iter(kinds), labels.get("ray.io/accelerator-type", ""))
    known = GPU_GIB.get(re.sub(r"^NVIDIA[- ]|^nvidia-tesla-|^nvidia-", "", kind).upper())
    gpus = resources.get("GPU", 0.0)
    gpu_memory = (memory or (known * GIB if known else None)) if gpus else None
    return NodeCapacity(resources.get("CPU", 0.0), gpus, resources.get("memory"), gpu_memory, count)


def _addable() -> list[NodeCapacity]:
    """The kinds of workers that autoscaling may add, each with the most that there may be; empty if nothing tells."""
    from ray._private.state import state

    config = state.get_cluster_config()
    if config and config.node_group_configs:
        groups = [group for group in config.node_group_configs if "head" not in group.name and group.max_count > 0]
        return [_node(dict(group.resources), {}, count=group.max_count) for group in groups]
    try:
        return workers_of(yaml.safe_load(expanded(BOOTSTRAP_FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []


def workers_of(file: Mapping[str, Any]) -> list[NodeCapacity]:
    """Returns the workers of a cluster file at its largest; if `max_workers` limits it, most GPUs first."""
    kinds = [kind for name, kind in file["available_node_types"].items() if name != file["head_node_type"]]
    left, nodes = int(file["max_workers"]), []
    for kind in sorted(kinds, key=lambda kind: -kind["resources"].get("GPU", 0)):
        count = min(left, int(kind.get("max_workers", left)))
        left -= count
        if count:
            nodes.append(_node(kind["resources"], kind.get("labels") or {}, count=count))
    return nodes


def _widened(nodes: Iterable[NodeCapacity], gpus: int) -> list[NodeCapacity]:
    """Adds nodes up to `gpus` GPUs in all; an added GPU is as large as the smallest that is there."""
    kept = list(nodes)
    more = gpus - _gpus(kept)
    if more < 0:
        raise WrongRequest(f"gpus-max={gpus}: there are {_gpus(kept):.0f} GPUs already")
    smallest = ClusterCapacity(tuple(kept)).gpu_memory
    return [*kept, NodeCapacity(gpus=1, gpu_memory=smallest, count=int(more))]


def _gpus(nodes: Iterable[NodeCapacity]) -> float:
    return sum(node.gpus * node.count for node in nodes)


def _cpus(nodes: Iterable[NodeCapacity]) -> float:
    return sum(node.cpus * node.count for node in nodes)


def _measure_gpus(nodes: Sequence[str]) -> dict[str, float]:
    """Returns the bytes of the smallest GPU of each node, by the node's id, as its driver reports.

    Leaves out nodes that do not answer within a minute and nodes whose GPUs are declared but not there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    replies = {
        node: ray.remote(num_cpus=0, max_retries=0)(_gpu_bytes)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote()
        for node in nodes
    }
    if replies:
        ray.wait(list(replies.values()), num_returns=len(replies), timeout=60)
    sizes: dict[str, float] = {}
    for node, reply in replies.items():
        try:
            size = ray.get(reply, timeout=0.1)
        except Exception:  # A node that is gone or too busy to answer has GPUs of unknown memory.
            continue
        if size:
            sizes[node] = float(size)
    return sizes


def _gpu_bytes() -> int | None:
    """Returns the bytes of this machine's smallest GPU; None if it has none."""
    import ray._private.thirdparty.pynvml as nvml

    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
        return min((int(nvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles), default=None)
    except nvml.NVMLError:
        return None
