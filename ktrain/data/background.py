"""Background text: plain text that pretraining mixes with the entries, as the paper mixes books and Wikipedia."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ktrain.bios.fragment_encoder import TokenizedTexts
from ktrain.bios.pools import read_text
from ktrain.bios.tokenizer import eos_id, id_type
from ktrain.errors import WrongRequest

UNNAMED = "?"
"""Placeholder in the grid of a sweep for a folder that the user must name with the axis `corpus.background`."""


def files(folder: str) -> list[Path]:
    """The `*.txt` files of a folder and its subfolders, sorted; none that are hidden, and no folders or broken links.

    Raises `WrongRequest` if there are none, and for one that is empty.
    """
    root = Path(folder)
    if not root.is_dir():
        raise WrongRequest(f"corpus.background={folder}: no such folder")
    # Editors and notebooks keep copies in hidden folders.
    visible = (path for path in root.rglob("*.txt") if not any(part[0] == "." for part in path.relative_to(root).parts))
    paths = sorted(path for path in visible if path.is_file())
    if not paths:
        raise WrongRequest(f"corpus.background={folder}: holds no *.txt file")
    if empty := next((path for path in paths if not path.stat().st_size), None):
        raise WrongRequest(f"corpus.background={folder}: {empty.relative_to(root)} is empty")
    return paths


def encode_background(folder: str, tokenizer: Tokenizer) -> TokenizedTexts:
    """Tokenizes each file as one text that ends in EOS.

    Raises `WrongRequest` like `files`, for invalid UTF-8, and for a text of blanks.
    """
    texts = {path: read_text(path) for path in files(folder)}
    if blank := next((path for path, text in texts.items() if not text.strip()), None):
        raise WrongRequest(f"corpus.background={folder}: {blank.relative_to(folder)} is empty")
    # Sorted by content, which is part of the stage key; the folder of a file is not.
    encodings = tokenizer.encode_batch(sorted(texts.values()))
    eos, kind = eos_id(tokenizer), id_type(tokenizer)
    rows = [np.array([*e.ids, eos], dtype=kind) for e in encodings]
    return TokenizedTexts(
        ids=np.concatenate(rows),
        offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        spans=np.zeros((len(rows), 0, 2), dtype=np.int16),
    )
