"""The child process that finds what this machine reaches, and what a graph computes: JSON lines in, JSON lines out.

Started by ``prove.gauge`` as ``python -m gddctl.prove.gauge_worker PARENT_PID``.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.lazy import require
from gddctl.prove.affinity import allowed_cpus, pick_cpus, pin
from gddctl.prove.gauge_models import Arithmetic, matmul_model
from gddctl.prove.latency_worker import run_worker
from gddctl.runtime.describe import read_onnx_info
from gddctl.runtime.ort_providers import disabled_optimizers

SECONDS = 0.5  # of each probe: long enough for a clock to rise, short enough not to be noticed
SIZES = {"cpu": 512, "cuda": 4096}  # of the matrix product; larger ones gain nothing more, see docs/latency.md
COPIED_MB = {"cpu": 64, "cuda": 512}  # of each copy: beyond the caches
_FATAL = 4
_WEIGHTED = ("Conv", "MatMul", "Gemm", "ConvTranspose")


def answer(command: dict[str, Any]) -> dict[str, Any]:
    """One command's answer."""
    match command["do"]:
        case "arithmetic":
            return arithmetic(command["kind"], command["device"], command["threads"])
        case "copy":
            return copy(command["device"], command["threads"])
        case "count":
            return count(Path(command["path"]))
        case other:
            raise ValueError(f"unexpected command '{other}'")


def arithmetic(kind: Arithmetic, device: str, threads: int) -> dict[str, Any]:
    """Multiply-accumulates per second of a matrix product on ONNX Runtime, the best of many: ``{"macs_per_s", "how"}``."""
    pin(pick_cpus(threads, allowed_cpus()))
    ort = require("onnxruntime", extra="cpu" if device == "cpu" else "gpu", why="probing the machine's arithmetic")
    ort.set_default_logger_severity(_FATAL)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    size = SIZES[device]
    model, a = matmul_model(kind, size)
    provider = "CPUExecutionProvider" if device == "cpu" else ("CUDAExecutionProvider", {"use_tf32": "0"})
    session = ort.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != (provider if isinstance(provider, str) else provider[0]):
        return {"macs_per_s": None, "how": ""}
    binding = session.io_binding()
    binding.bind_ortvalue_input("a", ort.OrtValue.ortvalue_from_numpy(a, device, 0))
    binding.bind_output("y", device)

    def product() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    name = "MatMulInteger" if kind == "int8" else "MatMul"
    return {
        "macs_per_s": size**3 / best_seconds(product),
        "how": f"{kind} {name} {size} on ONNX Runtime {device}, {_threads(device, threads)}",
    }


def copy(device: str, threads: int) -> dict[str, Any]:
    """Bytes per second, read plus written, of a copy, the best of many: ``{"bytes_per_s", "how"}``."""
    size = COPIED_MB[device] * 10**6
    if device == "cuda":
        return {"bytes_per_s": 2 * size / _device_copy(size), "how": f"{COPIED_MB[device]} MB inside device memory"}
    pin(pick_cpus(threads, allowed_cpus()))
    parts = [(np.ones(size // threads, np.uint8), np.zeros(size // threads, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # numpy copies without the interpreter's lock

        def every() -> None:
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts))

        seconds = best_seconds(every)
    return {
        "bytes_per_s": 2 * (size // threads) * threads / seconds,
        "how": f"{COPIED_MB[device]} MB by numpy, {_threads(device, threads)}",
    }


def count(path: Path) -> dict[str, Any]:
    """What one image costs in the ONNX file at ``path``: ``{"macs", "activation_bytes"}``.

    Told by ONNX Runtime's own profile of one run on the CPU. Multiply-accumulates come from the graph as it is written, since an
    optimised one has padded channels; bytes of activations from the graph as the CPU provider runs it, fused. Weights are not in those.
    """
    ort = require("onnxruntime", extra="cpu", why="counting what a graph computes")
    info = read_onnx_info(path)
    level = ort.GraphOptimizationLevel
    shape = (1, 3, *info.preprocess.size) if info.graph == "logits" else (1, *info.preprocess.size, 3)
    image = np.zeros(shape, np.float32 if info.graph == "logits" else np.uint8)
    plain = _profile(ort, path, image, level.ORT_DISABLE_ALL, [])
    fused = _profile(ort, path, image, level.ORT_ENABLE_ALL, disabled_optimizers(info))
    moved = sum(int(node["activation_size"]) + int(node["output_size"]) for node in fused)
    return {"macs": sum(map(macs_of, plain)), "activation_bytes": moved}


def macs_of(node: dict[str, Any]) -> int:
    """Multiply-accumulates of one executed node, by the shapes that the profile names."""
    if node["op_name"] not in _WEIGHTED:
        return 0
    left, right = (next(iter(tensor.values())) for tensor in node["input_type_shape"][:2])
    out = int(np.prod(next(iter(node["output_type_shape"][0].values()))))
    if node["op_name"] == "Conv":
        return out * int(np.prod(right[1:]))  # (out, in / groups, kernel …)
    if node["op_name"] == "ConvTranspose":
        return int(np.prod(left)) * int(np.prod(right[1:]))
    return out * int(left[-1])  # Gemm with A transposed is not met in these graphs


def best_seconds(call: Callable[[], object], seconds: float = SECONDS) -> float:
    """The shortest of the calls that fit into ``seconds``, three at least, after one that does not count."""
    call()
    end, best, calls = time.perf_counter() + seconds, float("inf"), 0
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return best


def _profile(ort: Any, path: Path, image: NDArray[Any], level: Any, disabled: list[str]) -> list[dict[str, Any]]:
    """One run's nodes, as ONNX Runtime's profiler writes them."""
    with tempfile.TemporaryDirectory(prefix="gddctl-count-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "run")
        options.graph_optimization_level, options.intra_op_num_threads = level, 1
        options.add_session_config_entry("session.disable_prepacking", "1")  # the profile leaves out weights that were packed
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
        session.run(None, {"image": image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event["args"] for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]


def _device_copy(size: int) -> float:
    """Seconds of the fastest copy inside device memory, by CUDA events."""
    from gddctl.runtime.cuda import Buffer, Cuda

    cuda = Cuda()
    source, target = Buffer(cuda, (size,), np.uint8), Buffer(cuda, (size,), np.uint8)
    stream, start, end = cuda.stream(), cuda.event(), cuda.event()
    times = []
    for _ in range(20):
        cuda.record(start, stream)
        cuda.call("cuMemcpyDtoDAsync_v2", target.device, source.device, size, stream)
        cuda.record(end, stream)
        cuda.synchronize(stream)
        times.append(cuda.elapsed_ms(start, end) / 1000.0)
    for buffer in (source, target):
        buffer.free()
    cuda.destroy_event(start)
    cuda.destroy_event(end)
    cuda.destroy_stream(stream)
    cuda.close()
    return min(times[1:])


def _threads(device: str, threads: int) -> str:
    return "GPU 0" if device == "cuda" else f"{threads} thread{'s' if threads > 1 else ''}"


if __name__ == "__main__":
    run_worker(lambda: answer)
