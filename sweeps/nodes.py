"""What the nodes of a cluster file must be: a head that only leads, and workers that can train and go away again."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktrain.errors import nearest

if TYPE_CHECKING:
    from sweeps.cluster import ClusterFile

FAMILIES = ("g5", "g6", "g6e", "gr6", "g7", "g7e", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300")
"""AWS's x86 families with NVIDIA GPUs that compute in bf16; g4dn and p3 do not."""
ARM = re.compile(r"^(a1|t4g|g5g|p6e.*|[cmrx]\d+g[a-z]*|[a-z]+\d+g[a-z]*)$")
HEAD_GPU = re.compile(r"^(g|p)\d")
GPUS = re.compile(r"^(g2|g4|a2|a3|a4|a4x)-")
"""Google's machine types that have GPUs."""
DISK = 100
"""GB: system, container and caches."""
DRIVER = "driver_slot"


def types(file: "ClusterFile") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The head's node type and those of workers, by name."""
    found = {name: kind or {} for name, kind in file.get("available_node_types", {}).items()}
    head = found.pop(file.get("head_node_type"), {})
    return head, found


@cache
def _schema() -> Any:
    """Ray's own schema of a cluster file, read without starting Ray."""
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())["properties"]


def _fields(file: "ClusterFile") -> Iterator[str]:
    fields = _schema()
    for field in file.tree:
        if field not in fields:
            yield f"{field}: no such field{nearest(str(field), fields)}"
    (of_a_type,) = fields["available_node_types"]["patternProperties"].values()
    for name, kind in file.get("available_node_types", {}).items():
        for field in kind:
            if field not in (known := of_a_type["properties"]):
                yield f"available_node_types.{name}.{field}: no such field{nearest(str(field), known)}"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,38}", name := str(file.get("cluster_name", ""))):
        yield f"cluster_name={name}: must be up to 39 lower-case letters, digits and hyphens, beginning with a letter"


def _counts(file: "ClusterFile") -> Iterator[str]:
    if file.kind() == "local":
        return
    most = file.get("max_workers")
    if not _count(most) or most < 1:
        yield f"max_workers={most}: must be how many GPU nodes there may be at most, 1 or more (EDIT 1)"
    for name, kind in types(file)[1].items():
        least, limit = kind.get("min_workers", 0), kind.get("max_workers", most)
        if not _count(least):
            yield f"available_node_types.{name}.min_workers={least}: must be a number from 0"
        elif _count(limit) and least > limit:
            yield f"available_node_types.{name}.min_workers={least}: above its max_workers={limit}"
        if not _count(limit) or (_count(most) and limit > most):
            yield f"available_node_types.{name}.max_workers={limit}: must be at most max_workers={most}"
    minutes = file.get("idle_timeout_minutes")
    if not isinstance(minutes, int | float) or not 1 <= minutes <= 60:
        yield f"idle_timeout_minutes={minutes}: must be from 1 to 60; so long is a node billed that does nothing"
    if (speed := file.get("upscaling_speed", 1.0)) is not None and not speed > 0:
        yield f"upscaling_speed={speed}: must be above 0, or no node is ever added"


def _head(file: "ClusterFile") -> Iterator[str]:
    if file.kind() == "local":
        return
    name, known = file.get("head_node_type"), list(file.get("available_node_types", {}))
    if name not in known:
        yield f"head_node_type={name}: must be one of {', '.join(known)}{nearest(str(name), known)}"
        return
    field, (head, workers) = f"available_node_types.{name}", types(file)
    resources, config = head.get("resources", {}), head.get("node_config", {})
    if resources.get("CPU") != 0:
        yield f"{field}.resources.CPU={resources.get('CPU')}: must be 0, or trials run on the head"
    if resources.get("GPU"):
        yield f"{field}.resources.GPU={resources['GPU']}: must be left out, or trials run on the head"
    if not _count(resources.get(DRIVER)) or resources[DRIVER] < 100:
        yield f"{field}.resources.{DRIVER}={resources.get(DRIVER)}: must be a whole number such as 1000, one a trial"
    if head.get("max_workers", 0) != 0:
        yield f"{field}.max_workers={head['max_workers']}: must be 0, or nodes of the head's type are added"
    if _spot(config):
        yield f"{field}.node_config: the head is on the spot market, and the cluster dies with it; leave that out"
    if not workers:
        yield "available_node_types: there is no type of worker, so nothing would ever train"


def _aws(file: "ClusterFile") -> Iterator[str]:
    if file.kind() != "aws":
        return
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region := str(file.get("provider.region"))):
        yield f"provider.region={region}: must be the name of a region, such as us-east-1{nearest(region, _regions())}"
    elif (known := _regions()) and region not in known:
        yield f"provider.region={region}: no such region{nearest(region, known)}"
    for zone in str(file.get("provider.availability_zone", "")).split(","):
        if zone and not zone.strip().startswith(region):
            yield f"provider.availability_zone={zone.strip()}: does not lie in {region}"
    for name, kind in file.get("available_node_types", {}).items():
        field, config = f"available_node_types.{name}.node_config", kind.get("node_config", {})
        instance = str(config.get("InstanceType"))
        if file.get("head_node_type") in file.get("available_node_types"):
            yield from _instance(f"{field}.InstanceType={instance}", instance, head=name == file.get("head_node_type"))
        if "IamInstanceProfile" not in config:
            yield f"{field}.IamInstanceProfile: missing, so it may not use the bucket; aws-account.yaml makes one"
        if not re.match(r"(ami-[0-9a-f]{8,}|resolve:ssm:/)", image := str(config.get("ImageId"))):
            yield f"{field}.ImageId={image}: must be ami-... or resolve:ssm:/...; Ray's own choice is years old"
        if config.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{field}.MetadataOptions.HttpTokens: must be required, or any process there may take the node's keys"
        sizes = [disk.get("Ebs", {}).get("VolumeSize", 0) for disk in config.get("BlockDeviceMappings", [])]
        if max(sizes, default=0) < DISK:
            yield f"{field}.BlockDeviceMappings: VolumeSize={max(sizes, default=0)}: must be at least {DISK} GB"
        if market := config.get("InstanceMarketOptions"):
            kind_of = str(market.get("MarketType"))
            if kind_of != "spot":
                yield f"{field}.InstanceMarketOptions.MarketType={kind_of}: must be spot{nearest(kind_of, ['spot'])}"
    if file.get("auth.ssh_private_key"):
        for name, kind in file.get("available_node_types", {}).items():
            if "KeyName" not in kind.get("node_config", {}):
                yield f"available_node_types.{name}.node_config.KeyName: missing beside auth.ssh_private_key"


def _instance(asked: str, instance: str, *, head: bool) -> Iterator[str]:
    family, dot, size = instance.partition(".")
    if not dot or not size:
        yield f"{asked}: must be a family and a size, such as {'m7i.2xlarge' if head else 'g6e.xlarge'}"
    elif ARM.match(family):
        yield f"{asked}: has an ARM processor; the container is made for x86"
    elif head and HEAD_GPU.match(family):
        yield f"{asked}: has GPUs, which are billed and never used on the head; such as m7i.2xlarge"
    elif not head and family not in FAMILIES:
        yield f"{asked}: has no NVIDIA GPU with bf16; families: {', '.join(FAMILIES)}{nearest(family, FAMILIES)}"


def _gcp(file: "ClusterFile") -> Iterator[str]:
    if file.kind() != "gcp":
        return
    region, zone = str(file.get("provider.region")), str(file.get("provider.availability_zone"))
    if not zone.startswith(f"{region}-"):
        yield f"provider.availability_zone={zone}: does not lie in region={region}"
    if not re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", project := str(file.get("provider.project_id"))):
        yield f"provider.project_id={project}: must be a project's id: 6 to 30 lower-case letters, digits, hyphens"
    for name, kind in file.get("available_node_types", {}).items():
        field, config = f"available_node_types.{name}.node_config", kind.get("node_config", {})
        machine, head = str(config.get("machineType")), name == file.get("head_node_type")
        if head and GPUS.match(machine):
            yield f"{field}.machineType={machine}: has GPUs, which are billed and never used on the head"
        if not head and not GPUS.match(machine) and not config.get("guestAccelerators"):
            yield f"{field}.machineType={machine}: has no GPU; such as g2-standard-4"
        if not head and not kind.get("resources", {}).get("GPU"):
            yield f"available_node_types.{name}.resources.GPU: missing; Ray does not ask Google what a machine has"
        for interface in config.get("networkInterfaces", []):
            parts = str(interface.get("subnetwork")).split("/")
            if project not in parts or region not in parts:
                yield f"{field}.networkInterfaces: subnetwork={'/'.join(parts)}: not of {project} in {region}"


def _local(file: "ClusterFile") -> Iterator[str]:
    if file.kind() != "local":
        return
    if file.get("available_node_types"):
        yield "available_node_types: not for provider.type=local, whose nodes are head_ip and worker_ips"
    head, workers = file.get("provider.head_ip"), file.get("provider.worker_ips")
    if not isinstance(head, str) or not head:
        yield f"provider.head_ip={head}: must be the address of one machine"
    if not isinstance(workers, list) or not workers or not all(isinstance(w, str) and w for w in workers):
        yield f"provider.worker_ips={workers}: must be a list of at least one machine"
        return
    if head in workers:
        yield f"provider.worker_ips: {head} is the head too, on which no trial runs"
    if twice := sorted({w for w in workers if workers.count(w) > 1}):
        yield f"provider.worker_ips: {twice[0]} stands twice"
    for field in ("min_workers", "max_workers"):
        if (number := file.get(field, len(workers))) != len(workers):
            yield f"{field}={number}: there are {len(workers)} in worker_ips; leave it out to use them all"


def _user(file: "ClusterFile") -> Iterator[str]:
    if not file.get("auth.ssh_user"):
        yield "auth.ssh_user: missing: who logs in on the nodes"


RULES: Sequence[Callable[["ClusterFile"], Iterator[str]]] = (_fields, _counts, _head, _aws, _gcp, _local, _user)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _spot(config: Mapping[str, Any]) -> bool:
    scheduling = config.get("scheduling") or {}
    market = config.get("InstanceMarketOptions") or {}
    return bool(market or scheduling.get("preemptible") or scheduling.get("provisioningModel") == "SPOT")


@cache
def _regions() -> list[str]:
    """AWS's regions as far as boto3 knows them, which Ray needs for AWS; none where it is not installed."""
    try:
        import boto3
    except ImportError:
        return []
    return sorted(boto3.session.Session().get_available_regions("ec2"))
