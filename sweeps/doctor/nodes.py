"""The checks `nodes` and `drivers`: the nodes as Ray lists them, without a call to any."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.doctor import ports
from sweeps.doctor.finding import FAIL, OK, WARN, Finding, first_line
from sweeps.execution.capacity import DRIVER


@dataclass(frozen=True)
class Machine:
    """A node under a unique name. `object_store` is in bytes; `slots` are for drivers of trials."""

    name: str
    id: str
    address: str
    head: bool
    cpus: float
    gpus: float
    object_store: float
    slots: float
    services: Mapping[int, str]

    def as_json(self) -> dict[str, Any]:
        """Returns a node of `doctor --json`: `name`, `address`, `head`, `cpus`, `gpus`."""
        return {key: asdict(self)[key] for key in ("name", "address", "head", "cpus", "gpus")}


def machines(nodes: list[dict[str, Any]], gcs: str, dashboard: int | None) -> list[Machine]:
    """Returns the living ones of `ray.nodes()`, the head first. `gcs` is HOST:PORT, `dashboard` a port of the head."""
    alive = [node for node in nodes if node["Alive"]]
    hosts = [node["NodeManagerHostname"] for node in alive]
    listed = []
    for node in alive:
        has, host = node["Resources"], node["NodeManagerHostname"]
        head = "node:__internal_head__" in has
        services = {node["NodeManagerPort"]: "Ray node manager", node["ObjectManagerPort"]: "Ray object manager"}
        if head:
            services[int(gcs.rpartition(":")[2])] = ports.GCS
        if head and dashboard:
            services[dashboard] = ports.DASHBOARD
        listed.append(
            Machine(
                name=host if hosts.count(host) == 1 else f"{host}/{node['NodeID'][:4]}",
                id=node["NodeID"],
                address=node["NodeManagerAddress"],
                head=head,
                cpus=has.get("CPU", 0.0),
                gpus=has.get("GPU", 0.0),
                object_store=has.get("object_store_memory", 0.0),
                slots=has.get(DRIVER, 0.0),
                services=services,
            )
        )
    return sorted(listed, key=lambda machine: (not machine.head, machine.name))


def node_finding(machine: Machine, facts: Any) -> Finding:
    """Returns `nodes`: whether the node has answered. `facts` is an exception if it has not."""
    what = f"{'head, ' if machine.head else ''}{machine.cpus:g} CPUs, {machine.gpus:g} GPUs, {machine.address}"
    if not isinstance(facts, Exception):
        return Finding("nodes", OK, what, "", machine.name)
    fix = f"log in at {machine.address} and run ktrain doctor; `ray stop` and `ray start` bring it back"
    if "ModuleNotFoundError" in str(facts) or "ImportError" in str(facts):
        fix = "install this commit of ktrain on this node, as on the head"
    return Finding("nodes", FAIL, f"{what}: {first_line(facts)}", fix, machine.name)


def driver_finding(machines: list[Machine]) -> Finding:
    """Returns `drivers`: whether the drivers of trials have slots, so that they take no CPU from workers."""
    total = sum(machine.slots for machine in machines)
    working = [machine.name for machine in machines if machine.head and machine.cpus and len(machines) > 1]
    if not total:
        fix = f"""ray start --head --num-cpus=0 --resources='{{"{DRIVER}":1000}}'"""
        return Finding("drivers", WARN, f"no node has {DRIVER}: drivers of trials take CPUs", fix, "cluster")
    if working:
        fix = "start Ray there with --num-cpus=0 --num-gpus=0"
        return Finding("drivers", WARN, "trials run on the head, beside Ray's own services", fix, working[0])
    return Finding("drivers", OK, f"{total:g} slots for drivers of trials", "", "cluster")
