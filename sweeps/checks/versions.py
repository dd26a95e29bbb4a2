"""Versions: those installed against the project's pins, and every node of a cluster against the others."""

import functools
import hashlib
import importlib.metadata
import platform
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

import ktrain
from sweeps.checks.finding import Finding, Setting, fail, ok, warn

TOLD = ("ray", "torch", "deepspeed", "transformers", "mlflow")
"""Packages whose versions are told although they are right."""
CODE = ("ktrain", "sweeps", "analysis")
ROOT = Path(ktrain.__file__).parent.parent


def facts() -> dict[str, str]:
    """What must be equal on all nodes: Python, every package that the project asks for, and a hash of its own code."""
    found = {"python": platform.python_version(), "ktrain": ktrain.__version__, "code": code()}
    return found | {name: _installed(name) or "missing" for name in requirements()}


@functools.cache
def requirements() -> dict[str, Requirement]:
    """The project's requirements by name: as installed, or in a checkout those of its pyproject.toml."""
    file = ROOT / "pyproject.toml"
    if file.is_file():
        lines = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = [line for line in importlib.metadata.requires("ktrain") or [] if "extra ==" not in line]
    return {asked.name: asked for asked in map(Requirement, lines)}


def pins() -> dict[str, str]:
    """The exact versions that the project is tested with, of a checkout; none where only its packages are there."""
    file = ROOT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def code(root: Path = ROOT) -> str:
    """16 hexadecimal digits over the names and bytes of the project's own files below `root`."""
    total = hashlib.sha256()
    files = (path for package in CODE for path in (root / package).rglob("*") if path.is_file())
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        total.update(f"{path.relative_to(root).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def pinned(_: Setting) -> Iterator[Finding]:
    """`versions`: what is installed here is what the project asks for."""
    return judged(facts(), requirements(), pins())


def judged(found: Mapping[str, str], asked: Mapping[str, Requirement], exact: Mapping[str, str]) -> Iterator[Finding]:
    """A line for each package outside its requirement, one for those that differ from the pins, or one for all."""
    wrong = {name: line for name, line in asked.items() if not _allowed(found[name], line.specifier)}
    for name, line in wrong.items():
        pin = exact.get(name)
        install = f"pip install '{name}=={pin}'" if pin else f"pip install '{line}'"
        yield fail("versions", f"{name} {found[name]}, needed is {line}", install)
    other = [
        f"{name} {found[name]} (tested: {exact[name]})"
        for name in asked
        if name not in wrong and name in exact and not _same(found[name], exact[name])
    ]
    if other:
        yield warn("versions", ", ".join(other), "pip install -c constraints.txt -e . puts back what is tested")
    elif not wrong:
        yield ok("versions", ", ".join(f"{name} {found[name]}" for name in ("python", *TOLD)))


def compared(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[Finding]:
    """`same-versions` and `same-code` of a node, whose facts are `there`; `here` is the driver."""
    names = [name for name in here if name != "code"]
    other = [f"{n} {there.get(n, 'unknown')} (driver: {here[n]})" for n in names if not _equal(n, here, there)]
    fix = "use one container file or one set-up command for all nodes, and restart Ray on this one"
    if other:
        yield fail("same-versions", ", ".join(other), fix)
    else:
        yield ok("same-versions", f"{len(names)} versions as on the driver")
    if here["code"] == there.get("code"):
        yield ok("same-code", f"ktrain {here['ktrain']}, code {here['code']}")
    else:
        seen = f"code {there.get('code', 'unknown')} (driver: {here['code']})"
        yield fail("same-code", seen, "install the same commit of ktrain on this node, and restart Ray there")


def _equal(name: str, here: Mapping[str, str], there: Mapping[str, str]) -> bool:
    if name == "python":
        return here[name].split(".")[:2] == there.get(name, "").split(".")[:2]
    return _same(here[name], there.get(name, ""))


def _same(a: str, b: str) -> bool:
    """Whether two versions agree but for their builds: torch for CPUs is another build of the same version."""
    try:
        return Version(Version(a).public) == Version(Version(b).public)
    except InvalidVersion:
        return a == b


def _allowed(version: str, asked: SpecifierSet) -> bool:
    try:
        return asked.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
