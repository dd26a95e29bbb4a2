"""Independent random streams: every draw of the project is a pure function of a seed and a named path."""

import hashlib

import numpy as np


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Returns a NumPy generator for one purpose.

    `path` names the purpose (`"people"`, `"order", epoch`), so a new stream never shifts another one.
    """
    digest = hashlib.sha256("/".join(map(str, path)).encode()).digest()
    words = np.frombuffer(digest, dtype=np.uint32)
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))


def torch_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for a `torch.Generator`, from the same tree of streams."""
    return int(generator(seed, *path).integers(0, 2**63 - 1))
