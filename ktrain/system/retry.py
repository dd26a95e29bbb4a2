"""Repeats operations on stores and disks that fail for a while, and ends with one line when patience runs out."""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 150.0
"""Seconds for which a store or a disk may fail before the work that needs it fails too."""
_PAUSES = (0.2, 5.0)
"""Seconds between two attempts: the first pause and the longest."""
_TRANSIENT = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO,
}  # fmt: skip
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
_log = logging.getLogger("ktrain.retry")
T = TypeVar("T")


class StorageUnavailable(OSError):
    """A store or a disk has failed for longer than `PATIENCE`. The message is one line that says which, and why."""


def disk_error(error: BaseException) -> str | None:
    """Returns the reason of a disk error that may pass, such as a full disk; None for any other error.

    Libraries written in Rust, such as safetensors, raise errors of their own with the number in the message.
    """
    number = error.errno if isinstance(error, OSError) else None
    if not isinstance(error, OSError) and (in_message := _RUST_ERROR.search(str(error))):
        number = int(in_message[1])
    return os.strerror(number) if number in _TRANSIENT else None


def retry_until(
    doing: str,
    once: Callable[[], T],
    *,
    passing: Callable[[BaseException], str | None] = disk_error,
    patience: float | None = None,
) -> T:
    """Calls `once` until it succeeds, and returns its result.

    `doing` names the operation in the log and in the error. `passing` returns the reason of an error that may pass, and
    None for any other, which is raised at once. Raises `StorageUnavailable` after `patience` seconds (None:
    `PATIENCE`).
    """
    begin, (pause, longest), logged = time.monotonic(), _PAUSES, False
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
                raise StorageUnavailable(f"{doing}: {reason}{tried}") from error
        if not logged:
            _log.warning("%s: %s; trying again for up to %.0f s", doing, reason, allowed)
            logged = True
        # A random pause spreads the retries of processes that failed at the same moment.
        time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, allowed - spent)))
        pause = min(2 * pause, longest)
