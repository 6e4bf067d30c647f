"""The most memory that this process has taken, and errors that say there was not enough."""

from __future__ import annotations

import resource
import sys

import torch

_KIB = 1024 if sys.platform.startswith("linux") else 1  # unit of ru_maxrss: KiB on Linux, bytes on macOS


def peak_memory_mb() -> float:
    """In 10^6 bytes: on CUDA the most that tensors took at once, else the largest resident set, interpreter and libraries included."""
    if torch.cuda.is_available() and (taken := torch.cuda.max_memory_allocated()):
        return taken / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 1e6


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on the device or the host."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # PyTorch's allocator for the CPU
