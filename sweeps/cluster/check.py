"""`ktrain cluster check`: the faults of a cluster file, before `ray up` or KubeRay bills anything.

Ray's own validation runs first. The rules beside it cover what Ray accepts although it costs money, opens a port or
gives away a secret. What Kubernetes or a cloud refuses by itself, before it bills anything, has no rule here.
"""

import contextlib
import copy
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from typer import Argument

from ktrain.errors import nearest
from sweeps.cluster import kuberay, nodes, ray_start, security
from sweeps.cluster.file import ClusterFile, Rule, attempted
from sweeps.options import EXIT_DONE, EXIT_WRONG

PROVIDERS = ("aws", "gcp", "local")
PLACEHOLDER = re.compile(r"\byour-[a-z-]+|/your/")
"""Marks a value in a shipped file that its user must replace."""
EDIT = re.compile(r"# EDIT (\d)")


def check(name: str) -> list[str]:
    """One line for each fault of a cluster file. Raises `WrongRequest` if the file cannot be read."""
    file = ClusterFile.read(name)
    if file.kind() == "kuberay":
        faults = _apply(kuberay.rules(file), file)
    elif file.kind() in PROVIDERS:
        faults = [*_ray_faults(file.tree), *_apply((*nodes.RULES, *ray_start.RULES, *security.RULES), file)]
    else:
        faults = [f"provider.type={file.kind()}: must be {', '.join(PROVIDERS)}{nearest(file.kind(), PROVIDERS)}"]
    return [*_unedited(file), *(fault for fault in dict.fromkeys(faults) if not PLACEHOLDER.search(fault))]


def check_file(
    path: Annotated[str, Argument(metavar="[FILE]", help="The cluster's file.")] = "cluster.yaml",
) -> int:
    """Check a cluster file before anything is billed, and print a line for each fault."""
    faults = check(path)
    for fault in faults:
        print(f"{path}: {' '.join(fault.split())}")
    if not faults:
        print(f"{path}: no faults; ray up {path} would start machines that are billed")
    return EXIT_WRONG if faults else EXIT_DONE


def _apply(rules: Iterable[Rule], file: ClusterFile) -> list[str]:
    return [fault for rule in rules for fault in attempted("file", rule(file))]


def _unedited(file: ClusterFile) -> Iterator[str]:
    for number, line in enumerate(file.text.splitlines(), 1):
        if not line.lstrip().startswith("#") and (placeholder := PLACEHOLDER.search(line.partition(" #")[0])):
            edit = f"EDIT {match[1]}" if (match := EDIT.search(line)) else "an edit"
            yield f"line {number}: {placeholder[0]} is still to be replaced ({edit})"


def _ray_faults(tree: dict[str, Any]) -> Iterator[str]:
    """Ray's own validation: its JSON schema, then the two functions that `ray up` calls first (private to Ray)."""
    from jsonschema import Draft7Validator

    errors = [_schema_fault(error) for error in Draft7Validator(_ray_schema()).iter_errors(tree)]
    yield from errors
    if errors:
        return
    import click
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray").setLevel(logging.ERROR)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            validate_config(prepare_config(copy.deepcopy(tree)))
    except click.ClickException as e:
        yield f"file: {e.message or output.getvalue()}"
    except Exception as e:
        yield f"file: Ray refuses it: {type(e).__name__}: {json.dumps(str(e))}"


def _schema_fault(error: Any) -> str:
    """A line for an error of `jsonschema`, with the nearest field for an unknown one."""
    field = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        unknown = str(next((name for name in error.instance if name not in allowed), ""))
        return f"{f'{field}.' if field else ''}{unknown}: no such field{nearest(unknown, allowed)}"
    return f"{field or 'file'}: {error.message}"


def _ray_schema() -> Any:
    """Ray's JSON schema of a cluster file, read without importing Ray."""
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
