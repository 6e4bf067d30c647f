"""What this CPU can do: the instruction sets that decide how INT8 is computed."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# The sets worth naming beside a latency, by the kernel's spelling; the Arm ones after the x86 ones.
NOTABLE = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve")
_X86 = ("x86_64", "amd64", "i686", "i386")


@dataclass(frozen=True)
class Cpu:
    """A processor as the kernel describes it."""

    machine: str  # "x86_64", "aarch64"
    model: str
    flags: frozenset[str]

    @property
    def is_x86(self) -> bool:
        """Of the x86 family."""
        return self.machine.lower() in _X86

    @property
    def has_vnni(self) -> bool:
        """8-bit dot products that accumulate in 32 bits without saturating in between (x86)."""
        return bool(self.flags & {"avx512_vnni", "avx_vnni"})

    @property
    def int8_saturates(self) -> bool:
        """Whether u8 x s8 products of full range overflow their 16-bit sums: x86 without VNNI."""
        return self.is_x86 and not self.has_vnni

    def describe(self) -> str:
        """One line: model and notable instruction sets."""
        return " ".join([f"{self.model} ({self.machine}):", *(flag for flag in NOTABLE if flag in self.flags)])


def parse_cpuinfo(text: str, machine: str) -> Cpu:
    r"""Read the text of ``/proc/cpuinfo``.

    >>> parse_cpuinfo("model name : X\nflags : avx2 avx512_vnni\n", "x86_64").has_vnni
    True
    """
    model, flags = "", frozenset[str]()
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "Model", "Hardware") and not model:
            model = value
        elif key in ("flags", "Features") and not flags:
            flags = frozenset(value.split())
    return Cpu(machine=machine, model=model or "unknown CPU", flags=flags)


@lru_cache(maxsize=1)
def this_cpu() -> Cpu:
    """The processor this process runs on; no flags where the kernel does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpuinfo(text, platform.machine())


def has_vnni() -> bool:
    """Whether this CPU has VNNI."""
    return this_cpu().has_vnni


def describe() -> str:
    """This CPU in one line."""
    return this_cpu().describe()


def usable_cores() -> int:
    """Logical cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
