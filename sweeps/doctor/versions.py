"""The checks `versions`, `same-versions` and `same-code`: against the project's pins, and against the driver."""

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
from sweeps.doctor.finding import CheckContext, Finding, fail, ok, warn

SHOWN = ("ray", "torch", "deepspeed", "transformers", "mlflow")
"""Packages whose versions a pass shows."""
CODE = ("ktrain", "sweeps", "analysis")
ROOT = Path(ktrain.__file__).parent.parent


def facts() -> dict[str, str]:
    """Returns what must be equal on all nodes: versions of Python and of requirements, and a hash of our code."""
    own = {"python": platform.python_version(), "ktrain": ktrain.__version__, "code": code()}
    return own | {name: _installed(name) or "missing" for name in requirements()}


@functools.cache
def requirements() -> dict[str, Requirement]:
    """Returns the project's requirements by name: of a checkout's pyproject.toml, or of the installed package."""
    file = ROOT / "pyproject.toml"
    if file.is_file():
        lines = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = [line for line in importlib.metadata.requires("ktrain") or [] if "extra ==" not in line]
    return {line.name: line for line in map(Requirement, lines)}


def pins() -> dict[str, str]:
    """Returns the exact versions that a checkout is tested with; none for an installed package."""
    file = ROOT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def code(root: Path = ROOT) -> str:
    """Returns 16 hex digits over the names and bytes of the project's own files below `root`."""
    total = hashlib.sha256()
    files = (path for package in CODE for path in (root / package).rglob("*") if path.is_file())
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        total.update(f"{path.relative_to(root).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def pinned(_: CheckContext) -> Iterator[Finding]:
    """`versions`: the installed packages meet the project's requirements and pins."""
    return judge(facts(), requirements(), pins())


def judge(
    installed: Mapping[str, str], required: Mapping[str, Requirement], exact: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields a failure for each package outside its requirement and a warning for other pins, or one pass."""
    wrong = {name: line for name, line in required.items() if not _allowed(installed[name], line.specifier)}
    for name, line in wrong.items():
        pin = exact.get(name)
        install = f"pip install '{name}=={pin}'" if pin else f"pip install '{line}'"
        yield fail("versions", f"{name} {installed[name]}, needed is {line}", install)
    other = [
        f"{name} {installed[name]} (tested: {exact[name]})"
        for name in required
        if name not in wrong and name in exact and not _same(installed[name], exact[name])
    ]
    if other:
        yield warn("versions", ", ".join(other), "pip install -c constraints.txt -e . puts back what is tested")
    elif not wrong:
        yield ok("versions", ", ".join(f"{name} {installed[name]}" for name in ("python", *SHOWN)))


def compared(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[Finding]:
    """Yields `same-versions` and `same-code` of a node with facts `there`; `here` are the driver's."""
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
        detail = f"code {there.get('code', 'unknown')} (driver: {here['code']})"
        yield fail("same-code", detail, "install the same commit of ktrain on this node, and restart Ray there")


def _equal(name: str, here: Mapping[str, str], there: Mapping[str, str]) -> bool:
    if name == "python":
        return here[name].split(".")[:2] == there.get(name, "").split(".")[:2]
    return _same(here[name], there.get(name, ""))


def _same(a: str, b: str) -> bool:
    """Whether two versions agree up to their builds: torch for CPUs is another build of the same version."""
    try:
        return Version(Version(a).public) == Version(Version(b).public)
    except InvalidVersion:
        return a == b


def _allowed(version: str, allowed: SpecifierSet) -> bool:
    try:
        return allowed.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
