"""Turns at compiling: of several processes of a machine that need the same code, one compiles it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable for the folder where PyTorch's compiler keeps its code."""


@contextmanager
def compile_turn(code: str) -> Iterator[None]:
    """Runs the block, which compiles what the name `code` stands for, once no other process is at the same.

    The first one compiles; those that wait for it, and all later ones, find the code in the compiler's cache. Trials of
    a sweep start together and often differ in their data alone, and compiling takes all cores for a minute. The kernel
    frees the turn of a process that dies, and the next one compiles. Takes no turns where the cache has no folder of
    its own or cannot be written.
    """
    turn = _turn(code)
    if turn is None or turn.exists():
        yield
        return
    with turn.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not turn.exists():
            yield
            turn.touch()
            return
    yield


def _turn(code: str) -> Path | None:
    """Returns the file that says that `code` has been compiled; it lies in the cache, and goes with it."""
    if not (folder := os.environ.get(CACHE)):
        return None
    turns = Path(folder) / "turns"
    try:
        turns.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return turns / code if os.access(turns, os.W_OK) else None
