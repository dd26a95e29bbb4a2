"""Rules for machines: a head that only leads, workers that can train, and limits on what is billed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from ktrain.errors import nearest
from sweeps.cluster.file import ClusterFile, Rule, attempted, listed, lookup, mapping

FAMILIES = ("g5", "g6", "g6e", "gr6", "g7", "g7e", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300")
"""AWS's x86 families with NVIDIA GPUs that compute in bf16, unlike those of g4dn and p3."""
ARM = re.compile(r"^(a1|t4g|g5g|p6e.*|[cmrx]\d+g[a-z]*|[a-z]+\d+g[a-z]*)$")
AWS_GPU = re.compile(r"^(g|p)\d")
GCP_GPU = re.compile(r"^(g2|g4|a2|a3|a4|a4x)-")
DISK = 100
"""GB for the system, the container and caches."""
FILL_IN = re.compile(
    r"[<{$\[(].*|your.*|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|(?i:(?:head|worker)_?(?:node_?)?\d*_?(?:ip|host|hostname|address)_?\d*"
    r"|xx+(?:[.-]x+)*|x(?:\.x)+|[\d.]+\.[xyz]+|to-?do|change-?me|tbd|\.{2,}|placeholder.*|(?:.*\.)?example(?:\.\w+)?)"
    r"|192\.0\.2\.\d+|198\.51\.100\.\d+|203\.0\.113\.\d+|1\.2\.3\.4"
)
"""Hosts that examples and documentation write for a machine that the reader has to fill in."""
IPV6 = re.compile(r"\[?[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%\w+)?\]?")
NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})?)*\.?"
)
LONGEST_IDLE = 60
"""Minutes for which a node without work may be billed."""


class NodeType(NamedTuple):
    """One of `available_node_types`: its field, its content, its `node_config`, and whether it is the head's."""

    field: str
    content: dict[str, Any]
    config: dict[str, Any]
    is_head: bool


def node_types(file: ClusterFile) -> Iterator[NodeType]:
    """The node types of a file for AWS or Google Cloud."""
    for name, value in mapping(file.get("available_node_types")).items():
        content, is_head = mapping(value), name == file.get("head_node_type")
        yield NodeType(f"available_node_types.{name}", content, mapping(content.get("node_config")), is_head)


def _limits(file: ClusterFile) -> Iterator[str]:
    if file.kind() == "local":
        return
    yield from attempted("max_workers", _most(file))
    yield from attempted("idle_timeout_minutes", _idle(file))
    for node in node_types(file):
        yield from attempted(f"{node.field}.idle_timeout_s", _idle_type(node))


def _most(file: ClusterFile) -> Iterator[str]:
    most = file.get("max_workers", 0)
    if most < 1:
        yield f"max_workers={most}: must be how many GPU nodes there may be at most, 1 or more (EDIT 1)"


def _idle(file: ClusterFile) -> Iterator[str]:
    minutes = file.get("idle_timeout_minutes")
    if minutes is None or not 1 <= minutes <= LONGEST_IDLE:
        yield f"idle_timeout_minutes={minutes}: must be from 1 to {LONGEST_IDLE}; an idle node is billed for so long"


def _idle_type(node: NodeType) -> Iterator[str]:
    seconds = node.content.get("idle_timeout_s")
    if seconds is not None and not 60 <= seconds <= 60 * LONGEST_IDLE:
        yield f"{node.field}.idle_timeout_s={seconds}: must be from 60 to {60 * LONGEST_IDLE}"


def _head(file: ClusterFile) -> Iterator[str]:
    if file.kind() == "local":
        return
    types = list(node_types(file))
    if len(types) < 2:
        yield "available_node_types: must have a head and at least one type of worker, or nothing ever trains"
    for node in (node for node in types if node.is_head):
        yield from attempted(f"{node.field}.resources", _head_resources(node))
        if node.content.get("max_workers") not in (None, 0):
            line = "must be 0, or more machines of the head's type start"
            yield f"{node.field}.max_workers={node.content['max_workers']}: {line}"
        if _spot(node.config):
            field = f"{node.field}.node_config"
            yield f"{field}: the head is on the spot market, and the cluster dies with it; leave that out"


def _head_resources(node: NodeType) -> Iterator[str]:
    field, resources = f"{node.field}.resources", mapping(node.content.get("resources"))
    if resources.get("CPU") != 0:
        yield f"{field}.CPU={resources.get('CPU')}: must be 0, or trials run on the head"
    if resources.get("GPU"):
        yield f"{field}.GPU={resources['GPU']}: must be left out, or trials run on the head"
    if (resources.get("driver_slot") or 0) < 100:
        yield f"{field}.driver_slot={resources.get('driver_slot')}: must be one a trial, such as 1000"


def _aws(file: ClusterFile) -> Iterator[str]:
    if file.kind() != "aws":
        return
    for type_field, _, config, is_head in node_types(file):
        field = f"{type_field}.node_config"
        yield from _instance_type(f"{field}.InstanceType", str(config.get("InstanceType")), head=is_head)
        if "IamInstanceProfile" not in config:
            yield f"{field}.IamInstanceProfile: missing, so it may not use the bucket; aws-account.yaml makes one"
        if not re.match(r"(ami-|resolve:ssm:/)", image := str(config.get("ImageId"))):
            yield f"{field}.ImageId={image}: must be ami-... or resolve:ssm:/...; Ray's default image is years old"
        if lookup(config, "MetadataOptions.HttpTokens") != "required":
            yield f"{field}.MetadataOptions.HttpTokens: must be required, or any process there may take the node's keys"
        yield from attempted(f"{field}.BlockDeviceMappings", _disk(f"{field}.BlockDeviceMappings", config))


def _disk(field: str, config: Mapping[str, Any]) -> Iterator[str]:
    sizes = [lookup(disk, "Ebs.VolumeSize", 0) for disk in listed(config.get("BlockDeviceMappings"))]
    if words := [size for size in sizes if not isinstance(size, int) or isinstance(size, bool)]:
        yield f"{field}: VolumeSize={json.dumps(words[0])}: must be a number of GB, without quotes"
    elif max(sizes, default=0) < DISK:
        yield f"{field}: VolumeSize={max(sizes, default=0)}: must be at least {DISK} GB"


def _instance_type(field: str, instance: str, *, head: bool) -> Iterator[str]:
    family = instance.partition(".")[0]
    if ARM.match(family):
        yield f"{field}={instance}: has an ARM processor; the container is made for x86"
    elif head and AWS_GPU.match(family):
        yield f"{field}={instance}: has GPUs, which the head never uses; such as m7i.2xlarge"
    elif not head and family not in FAMILIES:
        known = ", ".join(FAMILIES)
        yield f"{field}={instance}: has no NVIDIA GPU with bf16; families: {known}{nearest(family, FAMILIES)}"


def _gcp(file: ClusterFile) -> Iterator[str]:
    if file.kind() != "gcp":
        return
    for field, content, config, is_head in node_types(file):
        machine = str(config.get("machineType"))
        if is_head:
            if GCP_GPU.match(machine):
                yield f"{field}.node_config.machineType={machine}: has GPUs, which the head never uses"
            continue
        if not GCP_GPU.match(machine) and not config.get("guestAccelerators"):
            yield f"{field}.node_config.machineType={machine}: has no GPU; such as g2-standard-4"
        if not lookup(content, "resources.GPU"):
            yield f"{field}.resources.GPU: missing; Ray does not ask Google what a machine has"


def _local(file: ClusterFile) -> Iterator[str]:
    if file.kind() != "local":
        return
    head, workers = file.get("provider.head_ip"), listed(file.get("provider.worker_ips"))
    if not workers:
        yield f"provider.worker_ips={file.get('provider.worker_ips')}: must be a list of at least one machine"
    elif head in workers:
        yield f"provider.worker_ips: {head} is the head too, on which no trial runs"
    for field, host in [("head_ip", head), *(("worker_ips", worker) for worker in workers)]:
        if fault := host_fault(host):
            yield f"provider.{field}={json.dumps(host)}: {fault}"
    for host in sorted({str(host) for host in workers if workers.count(host) > 1}):
        yield f"provider.worker_ips: {host} stands there twice"


def host_fault(host: Any) -> str | None:
    """What is wrong with the name or address of a machine, which `ray up` hands to SSH as it is; None if nothing is."""
    if not isinstance(host, str) or not host:
        return "must be the name or the address of a machine"
    example = "must be a name or an address alone"
    if host != "".join(host.split()):
        return f"holds a blank; {example}"
    if "://" in host:
        return f"begins with {host.partition('://')[0]}://; {example}"
    if "@" in host:
        return f"holds a user; {example}, the user is auth.ssh_user"
    if FILL_IN.fullmatch(host):
        return "is still to be replaced by a machine of yours"
    if IPV6.fullmatch(host):
        return None
    if ":" in host:
        return f"holds a port; {example}, and SSH at port 22 (another one stands in ~/.ssh/config)"
    if re.fullmatch(r"[\d.]+", host) and not _is_address(host):
        return "is no address: four numbers up to 255"
    if _is_address(host) and (address := ip_address(host)) and (address.is_unspecified or address.is_multicast):
        return "is no address of one machine"
    return None if NAME.fullmatch(host) else f"is no name of a machine; {example}"


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _user(file: ClusterFile) -> Iterator[str]:
    if not file.get("auth.ssh_user"):
        yield "auth.ssh_user: missing, so Ray would start the head and could not log in"


RULES: Sequence[Rule] = (_limits, _head, _aws, _gcp, _local, _user)


def _spot(config: Mapping[str, Any]) -> bool:
    """Whether a node is bought on the spot market; Google's `scheduling` is a mapping, or a list of mappings."""
    scheduling = config.get("scheduling")
    parts = [mapping(part) for part in (scheduling if isinstance(scheduling, list) else [scheduling])]
    preemptible = any(str(part.get("preemptible", "")).casefold() == "true" for part in parts)
    model = any(str(part.get("provisioningModel", "")).upper() == "SPOT" for part in parts)
    return bool(config.get("InstanceMarketOptions")) or preemptible or model
