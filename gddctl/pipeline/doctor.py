"""What this machine can do, found by trying rather than by asking."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from gddctl import __version__
from gddctl.core.config.sections import Builder
from gddctl.core.errors import EnvironmentMissing
from gddctl.pipeline.finding import Finding
from gddctl.pipeline.readiness import readiness
from gddctl.runtime import cpu, probe
from gddctl.runtime.trt_bindings import find_bindings


def examine() -> list[Finding]:
    """Every finding, in the order a reader asks. A part that is missing or broken is a finding, never an error."""
    return [
        Finding("gddctl", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"),
        Finding("CPU", "ok", f"{os.cpu_count()} cores, {cpu.describe()}"),
        _memory(),
        _driver(),
        *_training(),
        *_onnxruntime(),
        _module("onnx", "export", "export"),
        _module("openvino", "running on OpenVINO", "openvino"),
        _tensorrt("tensorrt", "TensorRT"),
        _tensorrt("rtx", "TensorRT-RTX"),
        _module("jinja2", "report.html", "report"),
        _module("transformers", "teachers from transformers", "teachers"),
        *readiness(),
    ]


def _memory() -> Finding:
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = shutil.disk_usage(".").free
    return Finding("memory and disk", "ok", f"{pages * page / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB free on this disk")


def _driver() -> Finding:
    state = probe.nvidia_driver()
    if state.devices:
        return Finding("NVIDIA driver", "ok", f"{state.devices} device(s), driver API {state.version}")
    return Finding(
        "NVIDIA driver", "missing", state.reason or "no device", "needed for CUDA, TensorRT runtimes and their latency; not for export"
    )


def _training() -> Iterator[Finding]:
    yield _module("torch", "training", "train", _torch_detail)
    yield _module("torchvision", "training", "train")  # imported, because it breaks next to the wrong build of torch
    for package in ("segmentation-models-pytorch", "lightning-fabric", "albumentations"):
        version = _version(package)
        remedy = None if version else 'for training: pip install "gddctl[train]"'
        yield Finding(package, "ok" if version else "missing", f"{version} installed" if version else "not installed", remedy)


def _torch_detail(torch: Any) -> str:
    cuda = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "no CUDA device usable"
    return f"{torch.__version__}, {cuda}, {torch.get_num_threads()} threads"


def _onnxruntime() -> Iterator[Finding]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(installed) == 2:
        yield Finding(
            "ONNX Runtime packages", "broken", "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of the extras cpu or gpu",
        )  # fmt: skip
    finding = _module("onnxruntime", "running ONNX files", "cpu")
    yield finding
    if finding.state != "ok":
        return
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"):
        loaded, reason = probe.ort_provider(provider)
        remedy = None if loaded else "listed as available is not usable: a session was made and the provider was not in it"
        yield Finding(provider, "ok" if loaded else "missing", "loads" if loaded else reason, remedy)


def _tensorrt(builder: Builder, name: str) -> Finding:
    try:
        found = find_bindings(builder)
    except EnvironmentMissing as error:
        return Finding(name, "missing", error.message, error.remedy)
    driver = probe.nvidia_driver()
    if driver.devices:
        return Finding(name, "ok", f"{found.version}, builds and runs engines for the GPU here")
    if found.is_rtx:
        return Finding(name, "ok", f"{found.version}, builds engines for RTX GPUs; runs none here ({driver.reason})")
    return Finding(
        name, "missing", f"{found.version} imports, but builds and runs nothing here ({driver.reason})", "needs the NVIDIA driver and a GPU"
    )


def _module(module: str, purpose: str, extra: str, detail: Callable[[Any], str] | None = None) -> Finding:
    remedy = f'for {purpose}: pip install "gddctl[{extra}]"'
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return Finding(module, "missing", "not installed", remedy)
    except Exception as error:  # a half-installed package may raise anything while importing, and doctor must go on
        return Finding(module, "broken", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", remedy)
    return Finding(module, "ok", detail(found) if detail else str(getattr(found, "__version__", "imports")))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
