"""A path to a running model: a bundle folder runs on torch, an .onnx file on ONNX Runtime or OpenVINO, an .engine file on TensorRT."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import verify_file
from gddctl.core.lazy import require
from gddctl.runtime.describe import ENGINE_SUFFIX, read_info, read_onnx_info, require_model
from gddctl.runtime.protocol import Device, Runtime, check_target

__all__ = ["open_runtime", "read_info"]


def open_runtime(
    path: Path,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    allow_foreign_target: bool = False,
    cuda_graph: bool = False,
    max_batch: int | None = None,
) -> Runtime:
    """Open a model for running.

    Args:
        path: a bundle folder, an ONNX file with gddctl's description, or a TensorRT engine with its record beside it.
        device: where a bundle or an ONNX file runs; an engine runs on the GPU it was built for. On ``"tensorrt"`` a bundle
            takes CUDA, on ``"openvino"`` the CPU. An INT8 file for OpenVINO runs there on ``"cpu"`` too. A device that does not load is
            an error, never replaced by another.
        threads: of the CPU, inside one run; None takes every core this process may use.
        allow_foreign_target: also open an INT8 file quantised for another runtime, for comparing values; not for timing. One for
            OpenVINO then runs on ONNX Runtime where OpenVINO is not installed.
        cuda_graph: of an engine: launch each run as one recorded graph.
        max_batch: of an ONNX file on ``"tensorrt"``: batches up to this will come, so that none of them makes it build anew.

    Raises:
        UsageError: no such path, or not a model.
        ArtifactError: broken, changed after export, not ours, or quantised for another target.
        EnvironmentMissing: the runtime or the device is not there.
    """
    require_model(path)
    if path.is_dir():
        require("torch", extra="train", why=f"running the bundle {path}")
        from gddctl.runtime.torch_runtime import TorchRuntime

        return TorchRuntime(path, device="cpu" if device in ("cpu", "openvino") else "cuda", threads=threads)
    if path.suffix == ENGINE_SUFFIX:
        from gddctl.runtime.trt_fit import check_engine_file
        from gddctl.runtime.trt_runtime import TrtRuntime

        return TrtRuntime(path, check_engine_file(path), cuda_graph=cuda_graph)
    sha256, info = verify_file(path), read_onnx_info(path)
    device = _device_of(info, device, allow_foreign_target)
    if not allow_foreign_target:
        check_target(info, device, str(path))
    if device == "openvino":
        from gddctl.runtime.openvino_runtime import OpenvinoRuntime

        return OpenvinoRuntime(path, info, sha256, threads=threads)
    from gddctl.runtime.ort_runtime import OrtRuntime

    return OrtRuntime(path, info, sha256, device=device, threads=threads, max_batch=max_batch)


def _device_of(info: ModelInfo, device: Device, allow_foreign_target: bool) -> Device:
    """``device``, or OpenVINO for an INT8 file on the CPU that was made for it."""
    if device != "cpu" or (info.precision, info.target) != ("int8", "openvino"):
        return device
    return "cpu" if allow_foreign_target and find_spec("openvino") is None else "openvino"
