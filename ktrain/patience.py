"""Patience: what fails for a while is tried again, for a bounded time, and ends in one line."""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PATIENCE = 150.0
"""Seconds for which a store or a disk may refuse before the work that needs it fails."""
_PAUSES = (0.2, 5.0)
"""Seconds between two attempts: the first pause, and the longest."""
_PASSING = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO,
}  # fmt: skip
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_log = logging.getLogger("ktrain.patience")
T = TypeVar("T")


class StorageAway(OSError):
    """A store or a disk has refused for longer than anybody waits: one line that says which, and why."""


def disk(error: BaseException) -> str | None:
    """Why a disk refused, where that may pass; None for any other error.

    Libraries written in Rust, such as safetensors, tell of it in errors of their own.
    """
    found = _OF_RUST.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return os.strerror(number) if number in _PASSING else None


def persist(
    doing: str,
    once: Callable[[], T],
    *,
    passing: Callable[[BaseException], str | None] = disk,
    patience: float | None = None,
) -> T:
    """What `once` returns; it is called again while it fails in a way that may pass.

    `doing` says in the log and in the error what this is about; `passing` gives the reason of an error that may pass,
    and None for others, which are raised at once. Raises `StorageAway` after `patience` seconds (None: `PATIENCE`).
    """
    begin, (pause, longest), told = time.monotonic(), _PAUSES, False
    allowed = PATIENCE if patience is None else patience
    while True:
        try:
            return once()
        except Exception as error:
            reason = passing(error)
            if reason is None:
                raise
            spent = time.monotonic() - begin
            if spent >= allowed:
                tried = f", tried for {spent:.0f} s" if allowed else ""
                raise StorageAway(f"{doing}: {reason}{tried}") from error
        if not told:
            _log.warning("%s: %s; trying again for up to %.0f s", doing, reason, allowed)
            told = True
        # Many that were refused together must not come back together.
        time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, allowed - spent)))
        pause = min(2 * pause, longest)


def whole(path: Path, text: str) -> None:
    """Writes a file, and its folder where that is missing, whole or not at all. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".part")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
