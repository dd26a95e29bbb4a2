"""Hosts: a Ray cluster on one machine, whose nodes can be drained, and removed as hard as by a cloud.

All nodes share the machine's address, but each has a disk of its own, which goes with it.
"""

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from sweeps.execution import local_ray

WORKER, WAITER = "RayTrainWorker", "ImplicitFunc"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    # A cluster notices within two seconds, and not within half a minute, that a node is gone.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    # How long workers wait for room before they say that there is none.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "CUDA_VISIBLE_DEVICES": "",
}


class Hosts:
    """A head that takes no trial, and nodes of one CPU each."""

    def __init__(self, count: int, disks: Path) -> None:
        """Starts the head and `count` nodes, in the surroundings that this process has then; nodes keep their files
        below `disks`."""
        self._confined = ExitStack()
        self._confined.enter_context(local_ray.confined())
        self._folder = os.environ["RAY_TMPDIR"]
        os.environ.update(SETTINGS)
        from ray.cluster_utils import Cluster

        self._disks, self._count, self._disk_of = disks, 0, dict[str, Path]()
        self._cluster = Cluster(shutdown_at_exit=False)
        try:
            self._add(num_cpus=0, resources={"driver_slot": 1000}, include_dashboard=False)
            self.address = str(self._cluster.address)
            for _ in range(count):
                self.add()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._confined.close()

    def _processes(self) -> list[psutil.Process]:
        """All that were started for the cluster, known to it or not."""
        processes = []
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if self._folder in " ".join(child.cmdline()):
                    processes += [child, *child.children(recursive=True)]
        return processes

    @property
    def nodes(self) -> list[Any]:
        """The nodes that take trials, oldest first."""
        return sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)

    def add(self) -> Any:
        """Adds a node."""
        self._count += 1
        disk = self._disks / str(self._count)
        node = self._add(num_cpus=1, env_vars={"KTRAIN_CACHE": str(disk)})
        self._disk_of[node.node_id] = disk
        return node

    def _add(self, **words: Any) -> Any:
        """Starts a node; tries again if a busy machine exceeds the half minute that Ray allows."""
        for left in (2, 1, 0):
            try:
                return self._cluster.add_node(object_store_memory=100_000_000, **words)
            except Exception as error:
                if not left or "timed out during startup" not in str(error):
                    raise

    def busy(self) -> list[Any]:
        """The nodes on which a worker trains."""
        return [node for node in self.nodes if any(_named(process, WORKER) for process in _family(node))]

    def waiters(self) -> list[psutil.Process]:
        """The processes of Ray Tune that each wait for the workers of a trial."""
        return [process for process in _family(self._cluster.head_node) if _named(process, WAITER)]

    def remove(self, node: Any) -> None:
        """Kills every process of a node at once and deletes its disk, as if its machine were gone."""
        self._end(node)
        shutil.rmtree(self._disk_of[node.node_id], ignore_errors=True)
        self._cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, seconds: float) -> None:
        """Announces the end of a node, as `ktrain watch-preemption` does."""
        import time

        from sweeps.cluster.preemption import Node, Notice

        Node(self.address, node.node_id).drain(Notice("spot", time.time() + seconds))

    def _end(self, node: Any) -> None:
        for process in _family(node):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _family(node: Any) -> list[psutil.Process]:
    """The processes of a node: those that were started for it, and all under them."""
    processes = []
    for group in node.all_processes.values():
        for started in group:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(started.process.pid)
                processes += [process, *process.children(recursive=True)]
    return processes


def _named(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.Error):
        return name in " ".join(process.cmdline())
    return False
