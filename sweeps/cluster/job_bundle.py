"""Bundles what a job needs on the cluster: this project's code, the sweep file, and the data folders that it names, and
the `config.json` that its command line names.

No other file of the user is sent: no results, no `.git`, no secrets.
"""

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ktrain.bios import pools, question_wordings, templates
from ktrain.config import CellConfig
from ktrain.data import background
from ktrain.errors import WrongRequest
from ktrain.stages import axes, cell_key
from sweeps.planning.grid import MOST_CELLS, expand, load

PACKAGES = ("ktrain", "sweeps", "analysis")
LARGEST = 100 * 1000 * 1000
"""Bytes. The head keeps a bundle in memory, and every node downloads it."""
FILES: Mapping[str, Callable[[str, Sequence[str]], Iterable[Path]]] = {
    "corpus.pools_folder": lambda folder, _: pools.files(folder),
    "corpus.templates_folder": templates.files,
    "corpus.questions_folder": question_wordings.files,
    "corpus.background": lambda folder, _: background.files(folder),
}
"""The axes that name a folder, and a function that lists the files in use where people have some attributes."""


@contextlib.contextmanager
def pack_job(
    name: str, scale: str, overrides: Mapping[str, Sequence[Any]], most: int | None = MOST_CELLS
) -> Iterator[Path]:
    """A temporary folder with all that a sweep needs, in which it expands to the same cells as here.

    Raises `WrongRequest` if it does not, if a folder of its axes is outside the current one, above `LARGEST`, and for a
    grid of more than `most` cells.
    """
    here = Path.cwd()
    bundled_name = below(name, here)
    cells = expand(load(name), scale, overrides, most)
    with TemporaryDirectory(prefix="ktrain-") as temporary:
        root = Path(temporary).resolve()
        for package in PACKAGES:
            shutil.copytree(
                Path(__file__).parents[2] / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        if name.endswith(".py"):
            _copy(Path(name), root / bundled_name)
        for path in _network_files(overrides):
            # With `..` in its path, a file would be copied outside the bundle.
            if path.is_absolute() or ".." in path.parts or not path.resolve().is_relative_to(here.resolve()):
                raise WrongRequest(f"model.config={path}: name it by a path below {here}, so that it goes with the job")
            _copy(path, root / path)
        for axis, folder, attributes in _folders(cells):
            if not folder.is_relative_to(here):
                raise WrongRequest(f"{axis}={folder}: not below {here}, so it cannot go with the job")
            for path in FILES[axis](str(folder), attributes):
                # Built-in files stand in for those that a folder may lack, and go with the code.
                if path.is_relative_to(folder):
                    _copy(path, root / path.relative_to(here))
        if (size := sum(path.stat().st_size for path in root.rglob("*"))) > LARGEST:
            raise WrongRequest(f"sweep {name}: {size / 1e6:,.0f} MB; at most {LARGEST / 1e6:,.0f} MB can go with a job")
        with contextlib.chdir(root):
            bundled_cells = expand(load(bundled_name), scale, overrides, most)
        for axis, folder, _ in _folders(bundled_cells):
            if not folder.is_relative_to(root):
                raise WrongRequest(f"{axis}={folder}: is not on the cluster; name it by a path from {here}")
        if list(map(cell_key, bundled_cells)) != list(map(cell_key, cells)):
            raise WrongRequest(
                f"sweep {name}: reads files that do not go with the job; those of folders in its axes do"
            )
        yield root


def below(name: str, here: Path) -> str:
    """The name of a sweep in a bundle: a file's path from `here`, or its bare name if it is outside."""
    if not name.endswith(".py"):
        return name
    path = Path(name).absolute()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def command(words: Sequence[str]) -> str:
    """The shell command of a job: `ktrain run` with these words, and with the head's store if they name none."""
    head_store = "${KTRAIN_STORE:?has no value on the head: its cluster file sets it}"
    # With exec, the signal that stops the job reaches Python, not the shell.
    line = " ".join(["exec python -m sweeps.cli run", *map(shlex.quote, words)])
    return line if "--store" in words else f'{line} --store="{head_store}"'


def _folders(cells: Iterable[CellConfig]) -> list[tuple[str, Path, tuple[str, ...]]]:
    """Each axis that names a folder, with the folder and the attributes of the people."""
    named = {
        (axis, value, cell.corpus.attributes)
        for cell in cells
        for axis, value in axes(cell).items()
        if axis in FILES and value
    }
    return [(axis, Path(value), attributes) for axis, value, attributes in sorted(named) if value != background.UNNAMED]


def _network_files(overrides: Mapping[str, Sequence[Any]]) -> list[Path]:
    """The files that the command line's `model.config` names; a value may be the JSON itself."""
    values = [os.path.expanduser(text) for text in map(str, overrides.get("model.config", ())) if "{" not in text]
    return [Path(value) / "config.json" if Path(value).is_dir() else Path(value) for value in values]


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
