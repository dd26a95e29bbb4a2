"""Settings of the memory allocator of this process."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`, from its malloc.h."""
KEPT = 2**30
"""Bytes: freed memory up to this much, and single tensors up to this size, stay with the process."""
GROWTH = 2**26
"""Bytes by which the process asks the kernel for memory."""


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors for the next step. Does nothing where the allocator is another.

    By default glibc returns the large tensors of a step to the kernel, which fills each of their pages with zeros when
    the next step asks for it again: 4,800 page faults and a tenth of a step at scale `mini` (docs/speed.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for parameter, value in ((M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, GROWTH), (M_MMAP_THRESHOLD, KEPT)):
            mallopt(parameter, value)
