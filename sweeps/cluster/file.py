"""Reads cluster files: YAML that holds a mapping and no field twice."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ktrain.errors import WrongRequest, nearest, shorten
from ktrain.fingerprint import regular_file
from ktrain.system.home_folder import expanded


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file for `ray up` or KubeRay: `text` as written and `tree` as parsed."""

    path: Path
    text: str
    tree: dict[str, Any]

    @classmethod
    def read(cls, name: str) -> "ClusterFile":
        """Reads and parses a file. Raises `WrongRequest` if it is missing, unreadable or not a YAML mapping."""
        path = expanded(name)
        try:
            text = regular_file(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            candidates = [str(p) for p in (*path.parent.glob("*.yaml"), *Path("cluster").glob("*.yaml"))]
            raise WrongRequest(f"cluster={name}: no such file{nearest(name, candidates)}") from None
        except (OSError, UnicodeDecodeError) as e:
            raise WrongRequest(f"cluster={name}: not readable: {getattr(e, 'strerror', None) or e}") from e
        try:
            documents = [tree for tree in yaml.load_all(text, _Loader) if tree is not None]
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            raise WrongRequest(f"cluster={name}: not YAML: {shorten(e, 300)}") from e
        if len(documents) > 1:
            kinds = ", ".join(
                str(tree.get("kind", "no kind")) if isinstance(tree, dict) else "no mapping" for tree in documents
            )
            raise WrongRequest(
                f"cluster={name}: holds {len(documents)} YAML documents ({kinds}); name a file with one, the cluster"
            )
        tree = documents[0] if documents else None
        if not isinstance(tree, dict):
            raise WrongRequest(f"cluster={name}: must be a mapping of fields, this is {type(tree).__name__}")
        return cls(path, text, tree)

    def get(self, field: str, default: Any = None) -> Any:
        """The value of a field such as `provider.type`."""
        return lookup(self.tree, field, default)

    def strings(self) -> Iterator[tuple[str, str]]:
        """Every string value with the path of its field."""
        return _strings(self.tree, "")

    def kind(self) -> str:
        """`provider.type`, such as `aws`; `kuberay` for a Kubernetes resource."""
        return "kuberay" if "kind" in self.tree or "apiVersion" in self.tree else str(self.get("provider.type"))


Rule = Callable[[ClusterFile], Iterator[str]]
"""Yields one line for each fault that it sees in a file."""


STUMBLES = (TypeError, AttributeError, KeyError, ValueError)
"""What a rule raises where a field has another form than the rule expects."""


def attempted(field: str, faults: Iterable[str]) -> Iterator[str]:
    """Yields what a rule says about a field. Where the rule cannot be applied, that is a fault of its own.

    `faults` must be lazy, such as a generator, so that what the rule has said before it stumbles is kept.
    """
    try:
        yield from faults
    except STUMBLES:
        yield f"{field}: holds a list, a text or nothing where something else must be; not every rule could be applied"


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one: so a rule says what is missing there."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def lookup(tree: Any, field: str, default: Any = None) -> Any:
    """The value at a dotted path, in which a number is an index: `spec.containers.0.image`."""
    value = tree
    for part in field.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return default
    return value


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses duplicate fields, of which plain YAML silently keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Raises `yaml.YAMLError` for a field that occurs twice."""
        names = [key.value for key, _ in node.value]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise yaml.MarkedYAMLError(None, None, f"{min(duplicates)} occurs twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def _strings(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{field}.{name}".lstrip("."))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from _strings(inner, f"{field}[{k}]")
    elif isinstance(value, str):
        yield field, value
