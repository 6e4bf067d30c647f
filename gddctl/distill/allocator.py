"""Memory that one step frees is kept for the next: given back to the system, it would come back page by page, each one cleared anew."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
_ALL = 2**31 - 1  # bytes
_LARGEST_MAPPED = (2**30, 2**25)  # bytes; older C libraries take no more than the second
_USUAL_TRIM = 2**26  # where the C library's own adaptation ends


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within this block the C library keeps what is freed; afterwards it gives back what it can.

    The most memory that a training takes is the same. Of a step on a CPU the page faults were a tenth of the time (docs/lab.md). Nothing
    happens where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    any(library.mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_MAPPED)
    library.mallopt(_TRIM_THRESHOLD, _ALL)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_MAPPED[-1])
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        library.malloc_trim(0)
