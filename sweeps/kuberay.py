"""What a RayCluster of KubeRay must be, as far as this project uses it. Kubernetes itself checks the rest."""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from ktrain.errors import nearest

SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
            "additionalProperties": False,
            "properties": {
                "rayVersion": {"type": "string"},
                "authOptions": {
                    "type": "object",
                    "required": ["mode"],
                    "additionalProperties": False,
                    "properties": {"mode": {"const": "token"}, "secretName": {"type": "string"}},
                },
                "enableInTreeAutoscaling": {"const": True},
                "autoscalerOptions": {"type": "object"},
                "headGroupSpec": {
                    "type": "object",
                    "required": ["rayStartParams", "template"],
                    "additionalProperties": False,
                    "properties": {
                        "serviceType": {"const": "ClusterIP"},
                        "enableIngress": {"const": False},
                        "rayStartParams": {"$ref": "#/definitions/params"},
                        "template": {"$ref": "#/definitions/template"},
                    },
                },
                "workerGroupSpecs": {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/group"}},
            },
        },
    },
    "definitions": {
        "params": {"type": "object", "additionalProperties": {"type": "string"}},
        "group": {
            "type": "object",
            "required": ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            "additionalProperties": False,
            "properties": {
                "groupName": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 0},
                "minReplicas": {"type": "integer", "minimum": 0},
                "maxReplicas": {"type": "integer", "minimum": 1},
                "idleTimeoutSeconds": {"type": "integer", "minimum": 60},
                "numOfHosts": {"const": 1},
                "rayStartParams": {"$ref": "#/definitions/params"},
                "template": {"$ref": "#/definitions/template"},
            },
        },
        "template": {
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["containers"],
                    "properties": {
                        "hostNetwork": {"const": False},
                        "containers": {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/container"}},
                    },
                }
            },
        },
        "container": {
            "type": "object",
            "required": ["name", "image", "resources"],
            "properties": {
                "name": {"type": "string"},
                "image": {"type": "string", "pattern": r"^[\w./:-]+/[\w./-]+:(?!latest$)[\w.-]+$"},
                "resources": {"type": "object", "required": ["limits"]},
            },
        },
    },
}
"""JSON schema of the fields that are used; names as in the reference of ray.io/v1."""


def faults(tree: dict[str, Any]) -> Iterator[str]:
    """One line for each fault of a RayCluster."""
    found = [_line(error) for error in sorted(_validator().iter_errors(tree), key=lambda e: str(e.absolute_path))]
    yield from found
    if found:
        return
    spec = tree["spec"]
    if spec["rayVersion"] != (ours := version("ray")):
        yield f"spec.rayVersion={spec['rayVersion']}: must be {ours}, as here"
    if not spec.get("enableInTreeAutoscaling"):
        yield "spec.enableInTreeAutoscaling: must be true, or there will be no workers"
    params = spec["headGroupSpec"]["rayStartParams"]
    if params.get("num-cpus") != "0":
        told = f"rayStartParams.num-cpus={params.get('num-cpus')}"
        yield f'spec.headGroupSpec.{told}: must be "0", or trials run on the head'
    if not re.search(r"driver_slot\W+\d{3,}", params.get("resources", "")):
        yield "spec.headGroupSpec.rayStartParams.resources: must hold driver_slot, such as 1000, one a trial"
    containers = {"headGroupSpec": spec["headGroupSpec"]["template"]["spec"]["containers"][0]}
    for k, group in enumerate(spec["workerGroupSpecs"]):
        field = f"workerGroupSpecs[{k}]"
        containers[field] = group["template"]["spec"]["containers"][0]
        if not int(containers[field]["resources"]["limits"].get("nvidia.com/gpu", 0)):
            yield f"spec.{field}: its limits have no nvidia.com/gpu, so nothing trains there"
        if group["minReplicas"] > group["maxReplicas"]:
            yield f"spec.{field}.minReplicas={group['minReplicas']}: above maxReplicas={group['maxReplicas']}"
    if len({container["image"] for container in containers.values()}) > 1:
        yield f"spec: the images differ: {', '.join(sorted({c['image'] for c in containers.values()}))}; must be one"
    for field, container in containers.items():
        values = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
        store = str(values.get("KTRAIN_STORE"))
        if urlsplit(store).scheme not in ("s3", "gs", "az"):
            yield f"spec.{field}: KTRAIN_STORE={store}: must be s3://, gs:// or az://, which all pods see"
        if values.get("RAY_AUTH_MODE", "token") != "token":
            yield f"spec.{field}: RAY_AUTH_MODE={values['RAY_AUTH_MODE']}: must be token"


def _line(error: Any) -> str:
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(".")
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next((name for name in error.instance if name not in known), "")
        return f"{f'{place}.' if place else ''}{unknown}: no such field{nearest(unknown, known)}"
    if error.validator == "const":
        return f"{place}={json.dumps(error.instance)}: must be {json.dumps(error.validator_value)}"
    if error.validator == "pattern":
        return f"{place}={error.instance}: must name a registry and a version other than latest"
    return f"{place or 'file'}: {error.message}"


@cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(SPEC)
