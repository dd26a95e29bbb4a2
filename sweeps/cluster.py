"""Cluster files: what `ray up` or KubeRay is given, read and checked before anything is billed.

Ray's own validation comes last, because its words are for those who know its schema; much that would cost money, fail
minutes later or open a port passes it.
"""

import argparse
import contextlib
import copy
import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ktrain.errors import WrongRequest, nearest
from sweeps import commands as start
from sweeps import exposure, kuberay, nodes

SHIPPED = ("aws", "gcp", "local")
PLACEHOLDER = re.compile(r"\byour-[a-z-]+|/your/")
"""What stands in a shipped file where its user must say something."""
EDIT = re.compile(r"# EDIT (\d)")


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file that is YAML and a mapping: `tree` is its content, `text` what was written."""

    path: Path
    text: str
    tree: dict[str, Any]

    @classmethod
    def read(cls, name: str) -> "ClusterFile":
        """Raises `WrongRequest` where there is none, or it is not what a cluster file must be."""
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            beside = [str(p) for p in (*path.parent.glob("*.yaml"), *Path("cluster").glob("*.yaml"))]
            raise WrongRequest(f"cluster={name}: no such file{nearest(name, beside)}") from None
        except (OSError, UnicodeDecodeError) as e:
            raise WrongRequest(f"cluster={name}: not readable: {e}") from e
        try:
            tree = yaml.load(text, _Loader)
        except yaml.YAMLError as e:
            raise WrongRequest(f"cluster={name}: not YAML: {' '.join(str(e).split())}") from e
        if not isinstance(tree, dict):
            raise WrongRequest(f"cluster={name}: must be a mapping of fields, this is {type(tree).__name__}")
        return cls(path, text, tree)

    def get(self, field: str, default: Any = None) -> Any:
        """What stands at a field such as `provider.type`."""
        found: Any = self.tree
        for part in field.split("."):
            if not isinstance(found, dict) or part not in found:
                return default
            found = found[part]
        return found

    def strings(self) -> Iterator[tuple[str, str]]:
        """Every text in it, with its field."""
        return _strings(self.tree, "")

    def kind(self) -> str:
        """`aws`, `gcp`, `local` or another provider's name; `kuberay` for a resource of Kubernetes."""
        return "kuberay" if "kind" in self.tree or "apiVersion" in self.tree else str(self.get("provider.type"))


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which no field stands twice: Ray would take the last one without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Raises `yaml.YAMLError` for a field that stands twice."""
        names = [key.value for key, _ in node.value]
        if twice := {name for name in names if names.count(name) > 1}:
            raise yaml.MarkedYAMLError(None, None, f"{min(twice)} stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def check(name: str) -> list[str]:
    """One line for each fault of a cluster file. Raises `WrongRequest` where it cannot be read at all."""
    file = ClusterFile.read(name)
    unedited, found = list(_unedited(file)), list[str]()
    if file.kind() == "kuberay":
        found = [*kuberay.faults(file.tree), *exposure.secrets(file)]
    elif file.kind() not in SHIPPED:
        found = [f"provider.type={file.kind()}: must be {', '.join(SHIPPED)}{nearest(file.kind(), SHIPPED)}"]
    else:
        for rule in (*nodes.RULES, *start.RULES, *exposure.RULES):
            with contextlib.suppress(*_MISFIT):
                found += [fault for fault in rule(file) if fault not in found]
        found = found or list(_rays_own(file.tree))
    return unedited + [fault for fault in found if not PLACEHOLDER.search(fault)]


_MISFIT = (TypeError, AttributeError, KeyError)
"""What a rule stumbles over where a list or a text stands in place of a mapping: Ray's schema then says which."""


def store(name: str) -> str:
    """The address that the nodes of a cluster keep results at; empty where its file says none."""
    return next(iter(start.stores(ClusterFile.read(name))), "")


def add(commands: Any) -> None:
    """The command `cluster check`."""
    parser = commands.add_parser("cluster", help="check a cluster file before anything is billed")
    parser.add_argument("what", choices=("check",))
    parser.add_argument("file", nargs="?", default="cluster.yaml", help="the cluster's file (default: cluster.yaml)")
    parser.set_defaults(handler=_check)


def _check(arguments: argparse.Namespace) -> int:
    faults = check(arguments.file)
    for fault in faults:
        print(f"{arguments.file}: {' '.join(fault.split())}")
    if not faults:
        print(f"{arguments.file}: nothing wrong is seen; ray up {arguments.file} would start what is billed")
    return 2 if faults else 0


def _unedited(file: ClusterFile) -> Iterator[str]:
    for number, line in enumerate(file.text.splitlines(), 1):
        if not line.lstrip().startswith("#") and (left := PLACEHOLDER.search(line.partition(" #")[0])):
            edit = f"EDIT {match[1]}" if (match := EDIT.search(line)) else "an edit"
            yield f"line {number}: {left[0]} is still to be replaced ({edit})"


def _strings(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{field}.{name}".lstrip("."))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from _strings(inner, f"{field}[{k}]")
    elif isinstance(value, str):
        yield field, value


def _rays_own(tree: dict[str, Any]) -> Iterator[str]:
    """What Ray's launcher itself says, by the two functions that `ray up` calls first; they are private to Ray."""
    import click
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray").setLevel(logging.ERROR)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            validate_config(prepare_config(copy.deepcopy(tree)))
    except ValidationError as e:
        unknown = re.findall(r"'([^']+)' (?:was|were) unexpected", e.message)
        hint = nearest(unknown[0], e.schema.get("properties", {})) if unknown else ""
        yield f"{'.'.join(map(str, e.absolute_path)) or 'file'}: {e.message}{hint}"
    except click.ClickException as e:
        yield f"file: {e.message or said.getvalue()}"
    except Exception as e:
        yield f"file: Ray refuses it: {type(e).__name__}: {json.dumps(str(e))}"
