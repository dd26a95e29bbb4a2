"""Rules for what nodes run: the container, the versions, the store, and the start of Ray."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from ktrain.errors import nearest
from sweeps.cluster.file import ClusterFile, Rule

ROOT = Path(__file__).parents[2]
STORE = re.compile(r"KTRAIN_STORE=[\"']?([^\s\"'>;]+)")
SCHEMES = {"aws": ("s3",), "gcp": ("gs",), "local": ("s3", "gs", "az", "")}
PINNED = re.compile(r"\b(ray|torch|deepspeed|mlflow)(?:\[[\w,]+\])?==([\w.+]+)")
UNPINNED = re.compile(r"pip3? install\b[^;&|]*?[\s'\"](ray|torch|deepspeed|mlflow)(\[[\w,]+\])?(?=[\s'\"]|$)")
RAY_WHEEL = re.compile(r"ray-[\d.]+(\.dev\d+)?-cp\d+|ray-wheels")
RAY_IMAGE = re.compile(r"\brayproject/ray[\w-]*:([\w.-]+)")
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
HEAD_OPTIONS = {
    "--head": ("", ""),
    "--num-cpus": ("0", ", or trials run on the head"),
    "--dashboard-host": ("127.0.0.1", ", or who reaches the port can run anything there"),
    "--autoscaling-config": ("~/ray_bootstrap_config.yaml", ", or there will be no workers"),
}
"""Options of the head's `ray start`: their value, and why."""


def stores(file: ClusterFile) -> list[str]:
    """The distinct addresses that commands assign to `KTRAIN_STORE`."""
    return list(dict.fromkeys(match[1] for _, text in file.strings() for match in STORE.finditer(text)))


def store(name: str) -> str:
    """The address at which a cluster file's nodes keep results; empty if the file sets none."""
    return next(iter(stores(ClusterFile.read(name))), "")


def _commands(file: ClusterFile) -> Iterator[str]:
    for field in (f"{name}_commands" for name in COMMANDS):
        if field not in file.tree:
            yield f"{field}: missing, so Ray would run its own, which may install another version of Ray"


def _store(file: ClusterFile) -> Iterator[str]:
    addresses, allowed = stores(file), SCHEMES[file.kind()]
    if not addresses:
        yield "setup_commands: none of them says KTRAIN_STORE=..., where all nodes keep results"
    if len(addresses) > 1:
        yield f"setup_commands: KTRAIN_STORE has {len(addresses)} values: {', '.join(addresses)}"
    forms = " or ".join(f"{scheme}://..." if scheme else "the whole path of a shared folder" for scheme in allowed)
    for address in addresses:
        scheme = urlsplit(address).scheme
        if scheme not in allowed or (not scheme and not Path(address).is_absolute()):
            hint = nearest(scheme, allowed) if scheme else ""
            yield f"KTRAIN_STORE={address}: must be {forms}, which all nodes see{hint}"


def _versions(file: ClusterFile) -> Iterator[str]:
    for field, text in file.strings():
        for match in PINNED.finditer(text):
            if (ours := _our_version(match[1])) != match[2]:
                yield f"{field}: {match[0]}: must be {match[1]}=={ours}, as here"
        if loose := UNPINNED.search(text):
            yield f"{field}: {loose[1]} without a version: must be {loose[1]}=={_our_version(loose[1])}, as here"
        if RAY_WHEEL.search(text):
            yield f"{field}: installs a wheel of Ray by its address; must be ray=={_our_version('ray')}, as here"
        if (image := RAY_IMAGE.search(text)) and not image[1].startswith(_our_version("ray")):
            yield f"{field}: {image[0]}: must be Ray {_our_version('ray')}, as here"


def _container(file: ClusterFile) -> Iterator[str]:
    docker = file.get("docker")
    if not docker:
        if file.kind() != "local":
            yield "docker: missing, so the nodes have neither Ray nor PyTorch; it names the image of cluster/Dockerfile"
        return
    image = docker.get("image")
    if not image:
        # Ray's own validation names it.
        return
    if ":" not in image.rpartition("/")[2] or image.endswith(":latest"):
        yield f"docker.image={image}: must have a version, so that nodes that come later have the same"
    for field in ("head_image", "worker_image"):
        if docker.get(field, image) != image:
            yield f"docker.{field}={docker[field]}: must be the image of all nodes, {image}"
    builds = (re.search(r"docker build .*?--tag[ =](\S+)", line) for line in file.get("initialization_commands", []))
    built = [match[1] for match in builds if match]
    if "/" not in image and image not in built:
        yield f"docker.image={image}: names no registry, and no command builds it{nearest(image, built)}"


def _start(file: ClusterFile) -> Iterator[str]:
    ports = {}
    for role in ("head", "worker"):
        field = f"{role}_start_ray_commands"
        commands = file.get(field, [])
        starts = [k for k, command in enumerate(commands) if re.search(r"\bray start\b", command)]
        if field in file.tree and len(starts) != 1:
            yield f"{field}: must have one `ray start`, has {len(starts)}"
        if len(starts) != 1:
            continue
        if not any(re.search(r"\bray stop\b", command) for command in commands[: starts[0]]):
            yield f"{field}: `ray stop` must come before `ray start`, or a second `ray up` fails"
        line = commands[starts[0]]
        options = _options(line)
        if role == "head":
            yield from _head_start(field, options)
            ports[role] = options.get("--port", "6379")
            if file.kind() == "local" and "RAY_enable_autoscaler_v2=0" not in line:
                yield f"{field}: RAY_enable_autoscaler_v2=0 must stand before `ray start`, or a machine is left out"
        else:
            yield from _worker_start(field, options)
            ports[role] = options.get("--address", "").rpartition(":")[2] or "6379"
    if len(set(ports.values())) > 1:
        yield f"worker_start_ray_commands: --address has port {ports['worker']}, the head has --port={ports['head']}"


def _head_start(field: str, options: dict[str, str]) -> Iterator[str]:
    for option, (required, why) in HEAD_OPTIONS.items():
        value = options.get(option)
        if value == required or (option == "--dashboard-host" and value == "localhost"):
            continue
        actual = f"{option} is missing" if value is None else f"{option}={value}"
        yield f"{field}: {actual}: must be {option}{'=' if required else ''}{required}{why}"
    resources = options.get("--resources", "")
    if not re.search(r"driver_slot\W+\d{3,}", resources):
        yield f"{field}: --resources={resources}: must be such as '{{\"driver_slot\":1000}}', one slot a trial"


def _worker_start(field: str, options: dict[str, str]) -> Iterator[str]:
    if not options.get("--address", "").startswith("$RAY_HEAD_IP:"):
        yield f"{field}: --address={options.get('--address')}: must be $RAY_HEAD_IP:6379, or it does not join the head"
    if "driver_slot" in options.get("--resources", ""):
        yield f"{field}: --resources: driver_slot is the head's: drivers must not stand on nodes that may vanish"


RULES: Sequence[Rule] = (_commands, _store, _versions, _container, _start)


def _options(line: str) -> dict[str, str]:
    """The options of the `ray start` in a command line."""
    try:
        words = shlex.split(re.split(r"\bray start\b", line, maxsplit=1)[1])
    except ValueError:
        words = line.split()
    options: dict[str, str] = {}
    for k, word in enumerate(words):
        if word in (";", "&&", "||"):
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if not equals and k + 1 < len(words) and not words[k + 1].startswith("-"):
                value = words[k + 1]
            options[name] = value
    return options


@cache
def _our_version(package: str) -> str:
    """The version that all nodes must have: the one installed here, else the one that the project pins."""
    try:
        return version(package)
    except PackageNotFoundError:
        requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        pins = (re.match(rf"{package}\b.*==([\w.]+)", requirement) for requirement in requirements)
        return next((match[1] for match in pins if match), "")
