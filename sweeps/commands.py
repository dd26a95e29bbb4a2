"""What the nodes of a cluster file are told to do: the container, the versions, the store, and the start of Ray."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ktrain.errors import nearest

if TYPE_CHECKING:
    from sweeps.cluster import ClusterFile

ROOT = Path(__file__).parents[1]
STORE = re.compile(r"KTRAIN_STORE=[\"']?([^\s\"'>;]+)")
SCHEMES = {"aws": ("s3",), "gcp": ("gs",), "local": ("s3", "gs", "az", "")}
PINNED = re.compile(r"\b(ray|torch|deepspeed|mlflow)(?:\[[\w,]+\])?==([\w.+]+)")
LOOSE = re.compile(r"pip3? install\b[^;&|]*?[\s'\"](ray|torch|deepspeed|mlflow)(\[[\w,]+\])?(?=[\s'\"]|$)")
LISTS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
DASHBOARD = "8265"


def stores(file: "ClusterFile") -> list[str]:
    """The addresses that its commands give to `KTRAIN_STORE`, each once."""
    return list(dict.fromkeys(match[1] for _, text in file.strings() for match in STORE.finditer(text)))


def _present(file: "ClusterFile") -> Iterator[str]:
    for field in (f"{name}_commands" for name in LISTS):
        if field not in file.tree:
            yield f"{field}: missing, so Ray would run its own, which may install another version of Ray"
        elif not isinstance(file.tree[field], list) or not all(isinstance(c, str) for c in file.tree[field]):
            yield f"{field}: must be a list of shell commands"
        elif field == "setup_commands" and not file.tree[field]:
            yield "setup_commands: empty, so the nodes do not learn where the store is"


def _store(file: "ClusterFile") -> Iterator[str]:
    found = stores(file)
    if not found:
        yield "setup_commands: none of them says KTRAIN_STORE=..., where all nodes keep results"
    if len(found) > 1:
        yield f"setup_commands: KTRAIN_STORE has {len(found)} values: {', '.join(found)}"
    for store in found:
        parts, allowed = urlsplit(store), SCHEMES[file.kind()]
        words = " or ".join(f"{scheme}://..." if scheme else "the whole path of a shared folder" for scheme in allowed)
        if parts.scheme not in allowed:
            yield f"KTRAIN_STORE={store}: must be {words}, which all nodes see{nearest(parts.scheme, allowed)}"
        elif not parts.scheme and not Path(store).is_absolute():
            yield f"KTRAIN_STORE={store}: must be {words}, which all nodes see"
        elif parts.scheme and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", parts.netloc):
            yield f"KTRAIN_STORE={store}: {parts.netloc or 'nothing'} is not the name of a bucket"


def _versions(file: "ClusterFile") -> Iterator[str]:
    for field, text in file.strings():
        for match in PINNED.finditer(text):
            if (ours := _ours(match[1])) != match[2]:
                yield f"{field}: {match[0]}: must be {match[1]}=={ours}, as here"
        if loose := LOOSE.search(text):
            yield f"{field}: {loose[1]} without a version: must be {loose[1]}=={_ours(loose[1])}, as here"
        if re.search(r"ray-[\d.]+(\.dev\d+)?-cp\d+|ray-wheels", text):
            yield f"{field}: installs a wheel of Ray by its address; must be ray=={_ours('ray')}, as here"
        image = re.search(r"\brayproject/ray[\w-]*:([\w.-]+)", text)
        if image and not image[1].startswith(_ours("ray")):
            yield f"{field}: {image[0]}: must be Ray {_ours('ray')}, as here"


def _container(file: "ClusterFile") -> Iterator[str]:
    docker = file.get("docker")
    if file.kind() == "local" and not docker:
        return
    if not docker:
        yield "docker: missing, so the nodes have neither Ray nor PyTorch; it names the image of cluster/Dockerfile"
        return
    image, name = docker.get("image"), docker.get("container_name")
    if not name:
        yield "docker.container_name: missing, so Ray would run nothing in the container"
    if not image:
        yield "docker.image: missing: the image of cluster/Dockerfile, such as ktrain:0.1.0"
    elif ":" not in str(image).rpartition("/")[2] or str(image).endswith(":latest"):
        yield f"docker.image={image}: must have a version, so that nodes that come later have the same"
    for field in ("head_image", "worker_image"):
        if docker.get(field, image) != image:
            yield f"docker.{field}={docker[field]}: must be the image of all nodes, {image}"
    for option in docker.get("run_options") or []:
        if re.match(r"(-p|--publish)\b", str(option)):
            yield f"docker.run_options: {option}: opens a port of the node; reach it through an SSH tunnel instead"
    built = [
        m[1] for c in file.get("initialization_commands", []) if (m := re.search(r"docker build .*?--tag[ =](\S+)", c))
    ]
    if image and built and image not in built:
        yield f"docker.image={image}: initialization_commands build {built[0]}"
    if image and not built and "/" not in str(image):
        yield f"docker.image={image}: names no registry, and no command builds it"


def _starts(file: "ClusterFile") -> Iterator[str]:
    ports = {}
    for role in ("head", "worker"):
        field = f"{role}_start_ray_commands"
        listed = [c for c in file.get(field, []) if isinstance(c, str)]
        lines = [c for c in listed if re.search(r"\bray start\b", c)]
        if field in file.tree and len(lines) != 1:
            yield f"{field}: must have one `ray start`, has {len(lines)}"
            continue
        if lines and not any(re.search(r"\bray stop\b", c) for c in listed[: listed.index(lines[0])]):
            yield f"{field}: `ray stop` must come before `ray start`, or a second `ray up` fails"
        for line in lines:
            options = _options(line)
            if (role, file.kind()) == ("head", "local") and "RAY_enable_autoscaler_v2=0" not in line:
                yield f"{field}: RAY_enable_autoscaler_v2=0 must stand before `ray start`, or a machine is left out"
            for option in options:
                if option not in (known := _known()):
                    yield f"{field}: {option}: `ray start` has no such option{nearest(option, known)}"
            yield from (_starts_head if role == "head" else _starts_worker)(field, options)
            ports[role] = (
                options.get("--port", "6379") if role == "head" else options.get("--address", ":").rpartition(":")[2]
            )
    if len(set(ports.values())) > 1:
        yield f"worker_start_ray_commands: --address has port {ports['worker']}, the head has --port={ports['head']}"


def _starts_head(field: str, options: dict[str, str]) -> Iterator[str]:
    for option, wanted in {
        "--head": "",
        "--num-cpus": "0",
        "--dashboard-host": "127.0.0.1",
        "--autoscaling-config": "~/ray_bootstrap_config.yaml",
    }.items():
        if options.get(option) != wanted and not (option == "--dashboard-host" and options.get(option) == "localhost"):
            why = {
                "--num-cpus": ", or trials run on the head",
                "--dashboard-host": ", or who reaches the port can run anything there",
                "--autoscaling-config": ", or there will be no workers",
            }.get(option, "")
            said = f"{option}={options[option]}" if option in options else f"{option} is missing"
            yield f"{field}: {said}: must be {option}{'=' if wanted else ''}{wanted}{why}"
    if (port := options.get("--dashboard-port", DASHBOARD)) != DASHBOARD:
        yield f"{field}: --dashboard-port={port}: must be {DASHBOARD}, where ktrain's tunnel ends"
    try:
        slots = json.loads(options.get("--resources", "{}")).get("driver_slot")
    except (ValueError, AttributeError):
        yield f"{field}: --resources={options['--resources']}: must be JSON, such as '{{\"driver_slot\":1000}}'"
        return
    if not isinstance(slots, int) or slots < 100:
        yield f"{field}: --resources: driver_slot={slots}: must be a whole number such as 1000, one a trial"


def _starts_worker(field: str, options: dict[str, str]) -> Iterator[str]:
    if "--head" in options:
        yield f"{field}: --head: a worker joins the head, by --address=$RAY_HEAD_IP:6379"
    elif not options.get("--address", "").startswith("$RAY_HEAD_IP:"):
        yield f"{field}: --address={options.get('--address')}: must be $RAY_HEAD_IP:6379"
    if "driver_slot" in options.get("--resources", ""):
        yield f"{field}: --resources: driver_slot is the head's: drivers must not stand on nodes that may vanish"


RULES: Sequence[Callable[["ClusterFile"], Iterator[str]]] = (_present, _store, _versions, _container, _starts)


def _options(line: str) -> dict[str, str]:
    """The options of the `ray start` in a command line."""
    try:
        words = shlex.split(re.split(r"\bray start\b", line, maxsplit=1)[1])
    except ValueError:
        words = line.split()
    found: dict[str, str] = {}
    for k, word in enumerate(words):
        if word in (";", "&&", "||"):
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            after = words[k + 1] if not equals and k + 1 < len(words) and not words[k + 1].startswith("-") else value
            found[name] = after
    return found


@cache
def _known() -> frozenset[str]:
    """The options of `ray start`, from its own command line."""
    from ray.scripts.scripts import start

    options: Any = start.params
    return frozenset(name for option in options for name in (*option.opts, *option.secondary_opts))


@cache
def _ours(package: str) -> str:
    """The version that all nodes must have: the one installed here, else the one that the project pins."""
    try:
        return version(package)
    except PackageNotFoundError:
        wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        return next((m[1] for line in wanted if (m := re.match(rf"{package}\b.*==([\w.]+)", line))), "")
