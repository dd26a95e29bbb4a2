"""A folder with a text file for each attribute: those of the user's own folders, and the built-in ones."""

from collections.abc import Sequence
from pathlib import Path

from ktrain.config import ATTRIBUTES


def attribute_files(folder: str | None, builtin: Path, attributes: Sequence[str]) -> list[Path]:
    """Returns `<attribute>.txt` of each attribute, whether it exists or not; without `folder`, those of `builtin`.

    Where a folder has no file of the six, but `attributes` has others besides them, the six have the built-in files.
    """
    root = builtin if folder is None else Path(folder)
    alone = len(attributes) > len(ATTRIBUTES) and not any((root / f"{name}.txt").exists() for name in ATTRIBUTES)
    return [(builtin if alone and name in ATTRIBUTES else root) / f"{name}.txt" for name in attributes]
