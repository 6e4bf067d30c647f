"""A path to a running model: a bundle folder runs on torch, an .onnx file on ONNX Runtime, an .engine file on TensorRT."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.manifest import verify_file
from gddctl.runtime.describe import ENGINE_SUFFIX, read_info, read_onnx_info, require_model
from gddctl.runtime.protocol import Device, Runtime, check_target

__all__ = ["open_runtime", "read_info"]


def open_runtime(
    path: Path, *, device: Device = "cpu", threads: int | None = None, allow_foreign_target: bool = False, cuda_graph: bool = False
) -> Runtime:
    """Open a model for running.

    Args:
        path: a bundle folder, an ONNX file with gddctl's description, or a TensorRT engine with its record beside it.
        device: where a bundle or an ONNX file runs; an engine runs on the GPU it was built for. On ``"tensorrt"`` a bundle
            takes CUDA. A device that does not load is an error, never replaced by another.
        threads: of the CPU, inside one run; None takes every core this process may use.
        allow_foreign_target: also open an INT8 file quantised for another runtime, for comparing values; not for timing.
        cuda_graph: of an engine: launch each run as one recorded graph.

    Raises:
        UsageError: no such path, or not a model.
        ArtifactError: broken, changed after export, not ours, or quantised for another target.
        EnvironmentMissing: the runtime or the device is not there.
    """
    require_model(path)
    if path.is_dir():
        from gddctl.runtime.torch_runtime import TorchRuntime

        return TorchRuntime(path, device="cpu" if device == "cpu" else "cuda", threads=threads)
    if path.suffix == ENGINE_SUFFIX:
        from gddctl.runtime.trt_fit import check_engine_file
        from gddctl.runtime.trt_runtime import TrtRuntime

        return TrtRuntime(path, check_engine_file(path), cuda_graph=cuda_graph)
    sha256, info = verify_file(path), read_onnx_info(path)
    if not allow_foreign_target:
        check_target(info, device, str(path))
    from gddctl.runtime.ort_runtime import OrtRuntime

    return OrtRuntime(path, info, sha256, device=device, threads=threads)
