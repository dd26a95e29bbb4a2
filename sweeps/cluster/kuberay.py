"""Rules for a RayCluster (ray.io/v1) of KubeRay, whose structure Kubernetes validates."""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from sweeps.cluster.file import ClusterFile, Rule, attempted, listed, lookup, mapping
from sweeps.cluster.security import secrets

REQUIRED: dict[str, tuple[Any, str]] = {
    "spec.authOptions.mode": ("token", "or who reaches a port of Ray can run anything on all pods"),
    "spec.enableInTreeAutoscaling": (True, "or no worker starts, and none ends when it is idle"),
    "spec.headGroupSpec.rayStartParams.num-cpus": ("0", "or trials run on the head"),
}
"""Fields that must be there, their value, and why."""
FIXED: dict[str, tuple[Any, str]] = {
    "spec.headGroupSpec.serviceType": ("ClusterIP", "or the dashboard can be reached from outside Kubernetes"),
    "spec.headGroupSpec.enableIngress": (False, "or the dashboard can be reached from outside Kubernetes"),
}
"""Fields that may be left out; another value opens a port."""
IMAGE = re.compile(r"^[\w./:-]+/[\w./-]+:(?!latest$)[\w.-]+$")


OTHER_KINDS = {
    "RayJob": "it is one job with a cluster of its own, and ktrain submits its jobs itself",
    "RayService": "it serves requests, and trains nothing",
}


def _kind(file: ClusterFile) -> Iterator[str]:
    kind = file.get("kind")
    if kind != "RayCluster":
        why = OTHER_KINDS.get(str(kind), "nothing else is checked or used here")
        yield f'kind={json.dumps(kind)}: must be "RayCluster"; {why}'


def _fields(file: ClusterFile) -> Iterator[str]:
    for field, (required, why) in (REQUIRED | FIXED).items():
        value = file.get(field, required if field in FIXED else None)
        if value != required:
            yield f"{field}={json.dumps(value)}: must be {json.dumps(required)}, {why}"
    if (ray := file.get("spec.rayVersion")) != (ours := version("ray")):
        yield f"spec.rayVersion={ray}: must be {ours}, as here"
    if not re.search(r"driver_slot\W+\d{3,}", str(file.get("spec.headGroupSpec.rayStartParams.resources"))):
        yield "spec.headGroupSpec.rayStartParams.resources: must hold driver_slot, such as 1000, one a trial"


def _groups(file: ClusterFile) -> Iterator[str]:
    groups = listed(file.get("spec.workerGroupSpecs"))
    if not groups:
        yield "spec.workerGroupSpecs: there is no group of workers, so nothing would ever train"
    for k, group in enumerate(groups):
        yield from attempted(f"spec.workerGroupSpecs[{k}]", _group(f"spec.workerGroupSpecs[{k}]", group))


def _group(field: str, group: Any) -> Iterator[str]:
    limits = mapping(lookup(group, "template.spec.containers.0.resources.limits"))
    if str(limits.get("nvidia.com/gpu") or 0) == "0":
        yield f"{field}: its limits have no nvidia.com/gpu, so nothing trains there"
    if lookup(group, "numOfHosts", 1) != 1:
        yield f"{field}.numOfHosts={group['numOfHosts']}: must be 1, or each replica is billed so many times"
    if (lookup(group, "maxReplicas") or 0) < 1:
        yield f"{field}.maxReplicas={group.get('maxReplicas')}: must be how many GPU pods there may be, 1 or more"


def _pods(file: ClusterFile) -> Iterator[str]:
    pods = {"spec.headGroupSpec": file.get("spec.headGroupSpec.template.spec")}
    for k, group in enumerate(listed(file.get("spec.workerGroupSpecs"))):
        pods[f"spec.workerGroupSpecs[{k}]"] = lookup(group, "template.spec")
    images = sorted({str(lookup(pod, "containers.0.image")) for pod in pods.values()})
    if len(images) > 1:
        yield f"spec: the images differ: {', '.join(images)}; must be one"
    for image in images:
        if not IMAGE.match(image):
            yield f"spec: image={image}: must name a registry and a version other than latest"
    for field, pod in pods.items():
        yield from attempted(field, _pod(field, mapping(pod)))


def _pod(field: str, pod: dict[str, Any]) -> Iterator[str]:
    if pod.get("hostNetwork"):
        yield f"{field}: hostNetwork: opens Ray's ports on the machine; leave it out"
    entries = map(mapping, listed(lookup(pod, "containers.0.env")))
    environment = {entry.get("name"): entry.get("value") for entry in entries}
    store = str(environment.get("KTRAIN_STORE"))
    if urlsplit(store).scheme not in ("s3", "gs", "az"):
        yield f"{field}: KTRAIN_STORE={store}: must be s3://, gs:// or az://, which all pods see"
    if (mode := environment.get("RAY_AUTH_MODE", "token")) != "token":
        yield f"{field}: RAY_AUTH_MODE={mode}: must be token"


def rules(file: ClusterFile) -> Sequence[Rule]:
    """The rules for a resource; of another kind than `RayCluster`, whose fields are elsewhere, its kind alone."""
    cluster = (_fields, _groups, _pods) if file.get("kind") == "RayCluster" else ()
    return (_kind, *cluster, secrets)
