"""Settings of the memory allocator of this process."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`, from its malloc.h."""
KEPT = 2**30
"""Bytes: freed memory up to this much, and single tensors up to this size, stay with the process."""
MOST_BEFORE = 2**25
"""The largest size of a single tensor that an older glibc takes (mallopt(3): 4 MiB times the bytes of a `long`)."""
GROWTH = 2**26
"""Bytes by which the process asks the kernel for memory."""


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors for the next step. Does nothing where the allocator is another.

    By default glibc returns the large tensors of a step to the kernel, which fills each of their pages with zeros when
    the next step asks for it again: 4,800 page faults and a tenth of a step at scale `mini` (docs/speed.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_TOP_PAD, GROWTH)
        # Unset, it would stay at 128 KiB: glibc no longer moves it once one of the others is set.
        if not mallopt(M_MMAP_THRESHOLD, KEPT):
            mallopt(M_MMAP_THRESHOLD, MOST_BEFORE)


def return_freed_memory() -> None:
    """Makes glibc return what it keeps of freed memory to the kernel. Does nothing where the allocator is another."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
