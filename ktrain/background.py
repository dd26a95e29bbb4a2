"""Background text: plain text that is read besides the biographies, as the paper reads books and Wikipedia."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ktrain.compose import Composed
from ktrain.errors import WrongRequest
from ktrain.pools import read_text
from ktrain.tokenizer import eos_id

TO_BE_NAMED = "?"
"""In the grid of a sweep: a folder that only its user can name, by the axis `corpus.background`."""


def files(folder: str) -> list[Path]:
    """The `*.txt` files of a folder and of those inside it, sorted. Raises `WrongRequest` where there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise WrongRequest(f"corpus.background={folder}: no such folder")
    found = sorted(root.rglob("*.txt"))
    if not found:
        raise WrongRequest(f"corpus.background={folder}: holds no *.txt file")
    return found


def tokens(folder: str, tokenizer: Tokenizer) -> Composed:
    """Each file as one text that ends in EOS; raises what `files` raises, and for text that is not UTF-8."""
    # In the order of their content, which is identity; where a file lies is not.
    encoded = tokenizer.encode_batch(sorted(read_text(path) for path in files(folder)))
    rows = [np.array([*e.ids, eos_id(tokenizer)], dtype=np.uint16) for e in encoded]
    return Composed(
        ids=np.concatenate(rows),
        offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        spans=np.zeros((len(rows), 0, 2), dtype=np.int16),
    )
