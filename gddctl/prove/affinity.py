"""Which CPUs a measured process is pinned to: one per core before hyper-threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def allowed_cpus() -> tuple[int, ...]:
    """Logical CPUs this process may use; empty where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def pick_cpus(count: int, allowed: Sequence[int], topology: Path = _TOPOLOGY) -> tuple[int, ...]:
    """``count`` of ``allowed``, first one per physical core, then siblings; all of them where there are fewer."""
    first, rest, cores = list[int](), list[int](), set[str]()
    for cpu in allowed:
        core = _core_of(cpu, topology)
        (rest if core in cores else first).append(cpu)
        cores.add(core)
    return tuple(sorted((first + rest)[:count]))


def pin(cpus: Sequence[int]) -> None:
    """Pin this process, and the threads it will start, to ``cpus``; nothing where the system cannot."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def _core_of(cpu: int, topology: Path) -> str:
    try:
        return (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)  # unknown topology: each CPU counts as a core
