"""What a build takes of disk and memory, looked for before minutes of work."""

from __future__ import annotations

import shutil
from pathlib import Path

from gddctl.core.errors import RunFailed

# Seen with TensorRT-RTX 1.7 on students at 360 x 480: 362 MB at most for a file of 12 MB, 466 MB for one of 64 MB, the libraries included.
_MEMORY_PER_BYTE, _MEMORY_BASE = 3, 320 * 2**20
_MEMORY_TUNING = 2**30  # TensorRT proper times kernels on the GPU; on a Jetson that is the same memory
_DISK_PER_BYTE, _DISK_BASE = 2, 16 * 2**20  # the engine, at most about as large as the file, beside a temporary of it


def check_resources(onnx_bytes: int, folder: Path, *, tunes: bool) -> None:
    """Refuse a build that this machine cannot finish.

    Args:
        onnx_bytes: size of the ONNX file.
        folder: where the engine will lie.
        tunes: kernels are timed on the GPU (TensorRT proper).

    Raises:
        RunFailed: too little memory or disk, with what is there and what is needed.
    """
    memory = _MEMORY_BASE + _MEMORY_PER_BYTE * onnx_bytes + (_MEMORY_TUNING if tunes else 0)
    if (free := available_memory()) is not None and free < memory:
        raise RunFailed(
            f"building the engine takes about {memory // 2**20} MiB of memory, {free // 2**20} MiB are free",
            remedy="close other programs or add swap, then start the same command again",
        )
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    disk, left = _DISK_BASE + _DISK_PER_BYTE * onnx_bytes, shutil.disk_usage(there).free
    if left < disk:
        raise RunFailed(
            f"{folder}: building the engine takes about {disk // 2**20} MiB of disk, {left // 2**20} MiB are free",
            remedy="free some space or choose another --out",
        )


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that can still be taken: the kernel's estimate (swap included), or what a container has left; None where nobody tells."""
    try:
        fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if " kB" in line}
        free: int | None = fields["MemAvailable"] + fields.get("SwapFree", 0)
    except (OSError, KeyError, ValueError, IndexError):
        free = None
    try:
        left = int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return free
    return left if free is None else min(free, left)
