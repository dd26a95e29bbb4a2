"""What a job takes along to the cluster: this project's code, the user's sweep file, and the files of its folders.

Nothing else of the user's goes: neither results nor `.git` nor files of secrets.
"""

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ktrain import background, pools, templates
from ktrain.config import Cell
from ktrain.errors import WrongRequest
from ktrain.stages import axes, cell_key
from sweeps.sweep import expand, load

PACKAGES = ("ktrain", "sweeps", "analysis")
LARGEST = 100 * 1000 * 1000
"""Bytes. The head keeps a parcel in memory, and every node fetches it."""
FILES: Mapping[str, Callable[[str], Iterable[Path]]] = {
    "corpus.pools_folder": pools.files,
    "corpus.templates_folder": templates.files,
    "corpus.background": background.files,
}
"""The axes that name a folder, and which of its files count."""


@contextlib.contextmanager
def packed(name: str, scale: str, overrides: Mapping[str, Sequence[Any]]) -> Iterator[Path]:
    """A folder with all that a sweep needs, in which it gives the same cells as here.

    Raises `WrongRequest` for a sweep that does not, for a folder that does not lie below this one, and for too much.
    """
    here = Path.cwd()
    inside = below(name, here)
    cells = expand(load(name), scale, overrides)
    with TemporaryDirectory(prefix="ktrain-") as made:
        root = Path(made).resolve()
        for package in PACKAGES:
            shutil.copytree(
                Path(__file__).parents[1] / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        if name.endswith(".py"):
            _copy(Path(name), root / inside)
        for axis, folder in _folders(cells):
            if not folder.is_relative_to(here):
                raise WrongRequest(f"{axis}={folder}: not below {here}, so it cannot go with the job")
            for path in FILES[axis](str(folder)):
                _copy(path, root / path.relative_to(here))
        if (size := sum(path.stat().st_size for path in root.rglob("*"))) > LARGEST:
            raise WrongRequest(f"sweep {name}: {size / 1e6:,.0f} MB; at most {LARGEST / 1e6:,.0f} MB can go with a job")
        with contextlib.chdir(root):
            there = expand(load(inside), scale, overrides)
        for axis, folder in _folders(there):
            if not folder.is_relative_to(root):
                raise WrongRequest(f"{axis}={folder}: lies nowhere on the cluster; name it by a path from {here}")
        if list(map(cell_key, there)) != list(map(cell_key, cells)):
            raise WrongRequest(
                f"sweep {name}: reads files that do not go with the job; those of folders in its axes do"
            )
        yield root


def below(name: str, here: Path) -> str:
    """The name of a sweep in a parcel: a file's path from here, or its bare name where it lies elsewhere."""
    path = Path(name).absolute()
    return name if not name.endswith(".py") else str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def command(words: Sequence[str]) -> str:
    """The shell command of a job: `ktrain run` with these words, and the head's store where they name none."""
    known = "${KTRAIN_STORE:?has no value on the head: its cluster file sets it}"
    # Without exec, the shell would be told to stop instead.
    line = " ".join(["exec python -m sweeps.cli run", *map(shlex.quote, words)])
    return line if "--store" in words else f'{line} --store="{known}"'


def _folders(cells: Iterable[Cell]) -> list[tuple[str, Path]]:
    """The folders that axes name, with the axis."""
    found = {(axis, value) for cell in cells for axis, value in axes(cell).items() if axis in FILES and value}
    return [(axis, Path(value)) for axis, value in sorted(found) if value != background.TO_BE_NAMED]


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
