"""Which GPU, driver and CUDA libraries a process computes with: GPU 0, asked of the driver itself, without any toolkit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_char, c_int
from pathlib import Path
from typing import Any

NOT_KNOWN = "n/a"
_MAPS = Path("/proc/self/maps")  # what this process has loaded; Linux alone tells
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NAME_BYTES, _VERSION_BYTES = 256, 96  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE is 80

Load = Callable[[str], Any]


def gpu_facts(load: Load = ctypes.CDLL, maps: Path = _MAPS) -> dict[str, str]:
    """What a number measured on GPU 0 must be read with; ``"n/a"`` for what nobody here tells.

    ``gpu``, ``compute capability``; ``driver``: the newest CUDA that the driver serves, as engines name it; ``NVIDIA driver``: its own
    number, from NVML; ``cuda``, ``cudnn``: the libraries that this process has loaded, so ask after it has run.
    """
    return {**_device(load), "NVIDIA driver": _driver(load), "cuda": _runtime(load, maps), "cudnn": _cudnn(load, maps)}


def _device(load: Load) -> dict[str, str]:
    """Name, compute capability and the CUDA that the driver serves; no context is made for it."""
    found = dict.fromkeys(("gpu", "compute capability", "driver"), NOT_KNOWN)
    with suppress(OSError, AttributeError):  # no library, or one that lacks a function: not known
        cuda, device, name = load("libcuda.so.1"), c_int(), (c_char * _NAME_BYTES)()
        major, minor, version = c_int(), c_int(), c_int()
        if cuda.cuInit(0) or cuda.cuDeviceGet(byref(device), 0):
            return found
        if not cuda.cuDeviceGetName(name, _NAME_BYTES, device) and name.value:
            found["gpu"] = name.value.decode(errors="replace")
        if not cuda.cuDeviceGetAttribute(byref(major), _MAJOR, device) and not cuda.cuDeviceGetAttribute(byref(minor), _MINOR, device):
            found["compute capability"] = f"{major.value}.{minor.value}"
        if not cuda.cuDriverGetVersion(byref(version)):
            found["driver"] = _dotted(version.value)
    return found


def _driver(load: Load) -> str:
    with suppress(OSError, AttributeError):
        nvml, text = load("libnvidia-ml.so.1"), (c_char * _VERSION_BYTES)()
        if nvml.nvmlInit_v2():
            return NOT_KNOWN
        try:
            if not nvml.nvmlSystemGetDriverVersion(text, _VERSION_BYTES) and text.value:
                return bytes(text.value).decode(errors="replace")
        finally:
            nvml.nvmlShutdown()
    return NOT_KNOWN


def _runtime(load: Load, maps: Path) -> str:
    version = c_int()
    with suppress(OSError, AttributeError):
        if (path := _loaded("libcudart.so", maps)) and not load(path).cudaRuntimeGetVersion(byref(version)):
            return _dotted(version.value)
    return NOT_KNOWN


def _cudnn(load: Load, maps: Path) -> str:
    with suppress(OSError, AttributeError):
        if not (path := _loaded("libcudnn.so", maps)):
            return NOT_KNOWN
        library, numbers = load(path), [c_int(), c_int(), c_int()]
        if not any(library.cudnnGetProperty(which, byref(number)) for which, number in enumerate(numbers)):  # major, minor, patch level
            return ".".join(str(number.value) for number in numbers)
    return NOT_KNOWN


def _loaded(name: str, maps: Path) -> str:
    """The file of the library ``name`` that this process has loaded; empty for none."""
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        path = line.partition("/")[2]
        if path.rpartition("/")[2].startswith(name):
            return f"/{path}"
    return ""


def _dotted(version: int) -> str:
    """CUDA's own form, 1000 x major + 10 x minor.

    >>> _dotted(12060)
    '12.6'
    """
    return f"{version // 1000}.{version % 1000 // 10}"
