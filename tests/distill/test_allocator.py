"""Freed memory is kept while training, and given back afterwards."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from gddctl.distill.allocator import freed_memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

TIMES, BYTES = 10, 48 * 2**20  # above what any glibc keeps by itself
FEW = 100  # faults: ten such tensors are 122,880 small pages, or 240 huge ones; other threads of the process may cause some too


def faults() -> int:
    """Pages that the system hands out while a large tensor comes and goes."""
    for _ in range(3):  # until the heap has its shape
        torch.ones(BYTES // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(BYTES // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_what_is_freed_comes_back_without_the_system() -> None:
    with freed_memory_kept():
        kept = faults()
    given_back = faults()
    assert kept < FEW < given_back


def test_it_ends_with_the_block() -> None:
    with pytest.raises(ValueError, match="x"), freed_memory_kept():
        raise ValueError("x")
    assert faults() > FEW
