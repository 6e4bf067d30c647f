"""An exported file on OpenVINO's CPU plugin: the precisions that the file asks for, or an error."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError, EnvironmentMissing, RunFailed
from gddctl.core.lazy import require
from gddctl.runtime.cpu import this_cpu, usable_cores
from gddctl.runtime.protocol import check_input

MAX_COMPILED = 3  # batch sizes kept compiled at once: one for full batches, one for the last of a set, one for single images
MIN_INTEGER_SHARE = 0.9  # of an INT8 file's integer convolutions that must run as such
_INTEGER = ("u8", "i8")


class OpenvinoRuntime:
    """One file on the CPU plugin. See :class:`gddctl.runtime.protocol.Runtime`.

    The graph is compiled anew for each batch size, since fixed shapes run a few percent faster than a free batch axis. Floats are
    computed in FP32: left to itself, the plugin silently takes BF16 or FP16 where the CPU has them.
    """

    def __init__(self, path: Path, info: ModelInfo, sha256: str, *, threads: int | None = None) -> None:
        self._path, self._threads = path, threads or usable_cores()
        self._openvino = require("openvino", extra="openvino", why=f"running {path.name}")
        self.info, self.sha256 = info, sha256
        self.backend = "openvino-cpu"
        self._core: Any = None
        self._model: Any = None
        self._compiled: dict[int, Any] = {}  # batch size -> (compiled model, request); the newest use last
        self._lock = threading.Lock()  # a request answers one caller at a time
        self._open(1)

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; see the protocol for shapes."""
        batch = check_input(batch, self.info, self._path.name)
        with self._lock:
            _, request = self._open(batch.shape[0])
            try:
                answer = request.infer({"image": batch}, share_inputs=True, share_outputs=True)[0]
                result: NDArray[Any] = np.array(answer)  # a copy: the request's own memory is written again by the next run
            except RuntimeError as error:
                raise RunFailed(f"{self._path}: OpenVINO failed on a batch of {batch.shape} ({_first_line(error)})") from error
        return result

    def environment(self) -> dict[str, str]:
        """Plugin, version, threads, instruction set, and in which types the convolutions run."""
        with self._lock:
            compiled, _ = self._open(1)
            ran = executed(compiled)
            return {
                "backend": self.backend,
                "provider": f"CPU plugin, {self._core.get_property('CPU', 'FULL_DEVICE_NAME')}",
                "openvino": self._openvino.get_version(),
                "numpy": np.__version__,
                "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
                "cpu": this_cpu().describe(),
                "floats": str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string()),
                "convolutions": ", ".join(f"{kind} {count}" for kind, count in sorted(ran.items())) or "none",
            }

    def executed(self) -> dict[str, int]:
        """Convolutions by the type they run in, of the graph compiled for one image."""
        with self._lock:
            return executed(self._open(1)[0])

    def __enter__(self) -> Self:
        with self._lock:
            self._open(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._compiled.clear()
            self._model = self._core = None

    def _open(self, batch: int) -> Any:
        """The compiled graph and a request for this batch size."""
        if batch not in self._compiled:
            if self._model is None:
                self._core = self._openvino.Core()
                self._model = read_model(self._core, self._path)
                _check_names(self._model, self._path, "logits" if self.info.graph == "logits" else "mask")
            compiled = compile_for(self._openvino, self._core, self._model, batch, self._threads, self._path)
            _check_executed(compiled, self.info, self._path)
            while len(self._compiled) >= MAX_COMPILED:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[batch] = (compiled, compiled.create_infer_request())
        self._compiled[batch] = found = self._compiled.pop(batch)
        return found


def read_model(core: Any, path: Path) -> Any:
    """The graph as OpenVINO reads it.

    Raises:
        ArtifactError: it cannot.
    """
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise ArtifactError(f"{path}: OpenVINO cannot load it ({_first_line(error)})", remedy="copy or export it again") from error


def compile_for(openvino: ModuleType, core: Any, model: Any, batch: int, threads: int, path: Path) -> Any:
    """``model`` for the CPU and one batch size, for the shortest single answer.

    Raises:
        ArtifactError: OpenVINO cannot compile it.
    """
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else BF16 or FP16 where the CPU has them, and another answer than the file's
        "ENABLE_HYPER_THREADING": True,  # as many threads as were asked for, also beyond the physical cores
    }
    try:
        fixed = model.clone()
        shape = fixed.input("image").get_partial_shape()
        shape[0] = openvino.Dimension(batch)
        fixed.reshape({"image": shape})
        return core.compile_model(fixed, "CPU", hints)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: OpenVINO cannot compile it ({_first_line(error)})", remedy="copy or export it again") from error


def executed(compiled: Any) -> dict[str, int]:
    """Convolutions of a compiled graph by the type that the plugin computes them in: ``{"f32": 1, "u8": 27}``."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        notes = node.get_rt_info()
        if notes["layerType"].astype(str) == "Convolution":
            counts[notes["runtimePrecision"].astype(str)] += 1
    return dict(counts)


def _check_executed(compiled: Any, info: ModelInfo, path: Path) -> None:
    """An INT8 file whose convolutions run in float would be measured as what it is not."""
    expected = info.census.get("conv.int8", 0) if info.precision == "int8" else 0
    ran = executed(compiled)
    whole = sum(ran.get(kind, 0) for kind in _INTEGER)
    if whole < MIN_INTEGER_SHARE * expected:
        raise EnvironmentMissing(
            f"{path}: OpenVINO computes only {whole} of its {expected} INT8 convolutions in INT8 on this CPU ({this_cpu().describe()})",
            remedy="run the fp32 file here, or export for this machine: gddctl export BUNDLE --precision int8 --target ort-cpu",
        )


def _check_names(model: Any, path: Path, output: str) -> None:
    inputs, outputs = ([item.get_any_name() for item in items] for items in (model.inputs, model.outputs))
    if inputs != ["image"] or outputs != [output]:
        raise ArtifactError(f"{path}: takes {inputs} and gives {outputs}; expected ['image'] and ['{output}']", remedy="export it again")


def _first_line(error: Exception) -> str:
    """The last telling line of OpenVINO's error, which begins with where in its sources it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
