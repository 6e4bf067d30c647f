"""An exported file on ONNX Runtime, failing closed: the provider that was asked for, or an error."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.lazy import require
from gddctl.runtime.cpu import this_cpu, usable_cores
from gddctl.runtime.gpu_facts import gpu_facts
from gddctl.runtime.ort_binding import BoundCall
from gddctl.runtime.ort_providers import (
    check_placement,
    describe_placement,
    disabled_optimizers,
    missing,
    placement,
    provider_name,
    providers_of,
)
from gddctl.runtime.probe import nvidia_driver
from gddctl.runtime.protocol import OrtDevice, check_input
from gddctl.runtime.timed import Spans

_FATAL = 4  # ONNX Runtime's log severities: 0 verbose … 4 fatal; what matters reaches us as exceptions
_X86_NO_VNNI_PRECISION = "session.x64quantprecision"  # widens u8 x s8 sums where the CPU would saturate them


class OrtRuntime:
    """One file, one provider. See :class:`gddctl.runtime.protocol.Runtime`."""

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        sha256: str,
        *,
        device: OrtDevice = "cpu",
        threads: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        self._path, self._device, self._max_batch = path, device, max_batch
        self._threads = threads or usable_cores()
        self._ort = require("onnxruntime", extra="cpu" if device == "cpu" else "gpu", why=f"running {path.name}")
        self.info, self.sha256 = info, sha256
        self.backend = f"onnxruntime-{device}"
        self._session: Any = None
        self._bound: BoundCall | None = None
        self._output = "logits" if info.graph == "logits" else "mask"
        self._open()

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; see the protocol for shapes."""
        batch = check_input(batch, self.info, self._path.name)
        session = self._open()
        try:
            (result,) = session.run([self._output], {"image": batch})
        except Exception as error:  # the binding's errors share no narrower base
            raise RunFailed(f"{self._path}: ONNX Runtime failed on a batch of {batch.shape} ({_first_line(error)})") from error
        answer: NDArray[Any] = result
        return answer

    def run_timed(self, batch: NDArray[Any]) -> tuple[NDArray[Any], Spans | None]:
        """See :class:`gddctl.runtime.timed.Timed`; buffers on the device, each part waited for."""
        if self._device == "cpu":
            return self.run(batch), None
        batch = check_input(batch, self.info, self._path.name)
        session = self._open()
        if self._bound is None:
            self._bound = BoundCall(self._ort, session, self._output, self.info, device="cuda")
        try:
            return self._bound.run(batch)
        except Exception as error:  # the binding's errors share no narrower base
            raise RunFailed(f"{self._path}: ONNX Runtime failed on a batch of {batch.shape} ({_first_line(error)})") from error

    def environment(self) -> dict[str, str]:
        """Provider, version, threads, instruction set, the GPU and its libraries, and where the graph's nodes were placed."""
        session = self._open()
        return {
            "backend": self.backend,
            "provider": session.get_providers()[0],
            "onnxruntime": self._ort.__version__,
            "numpy": np.__version__,
            "threads": str(self._threads),
            "cpu": this_cpu().describe(),
            **({} if self._device == "cpu" else gpu_facts()),
            **describe_placement(placement(session)),
        }

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session = self._bound = None

    def _open(self) -> Any:
        if self._session is None:
            self._session = open_session(self._ort, self._path, self.info, self._device, self._threads, self._max_batch)
            _check_names(self._session, self._path, self._output)
        return self._session


def open_session(ort: ModuleType, path: Path, info: ModelInfo, device: OrtDevice, threads: int, max_batch: int | None = None) -> Any:
    """An ``InferenceSession`` that really runs on ``device``; for ``max_batch`` see :func:`~gddctl.runtime.ort_providers.providers_of`.

    Raises:
        EnvironmentMissing: the provider of ``device`` does not load here, or leaves computing to the CPU.
        ArtifactError: ONNX Runtime cannot read the file.
    """
    provider = provider_name(device)
    if provider not in ort.get_available_providers():
        raise missing(provider, f"this build of onnxruntime has {', '.join(ort.get_available_providers())}")
    if device != "cpu" and not (driver := nvidia_driver()).devices:
        raise missing(provider, driver.reason)  # told by the driver: the provider itself only writes to the terminal and moves on
    ort.set_default_logger_severity(_FATAL)
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if this_cpu().int8_saturates:
        options.add_session_config_entry(_X86_NO_VNNI_PRECISION, "1")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the loader and its fall-back report by print
            if device != "cpu":
                ort.preload_dlls()  # finds the CUDA and cuDNN wheels beside it; says nothing useful when they are absent
            session = _session(ort, path, info, device, options, max_batch)
    except Exception as error:  # the binding's errors share no narrower base
        raise ArtifactError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)})", remedy="copy or export it again") from error
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise missing(provider, f"the session came up on {', '.join(session.get_providers())} instead")
    check_placement(placement(session), device)
    return session


def _session(ort: ModuleType, path: Path, info: ModelInfo, device: OrtDevice, options: Any, max_batch: int | None) -> Any:
    """The session for batches up to ``max_batch``; for any batch where the provider does not take that.

    TensorRT wants the shapes of all that its parts of the graph take, and where it leaves a part to CUDA, those have inputs without a name
    of ours. The session then comes up without TensorRT, or not at all.
    """

    def made(most: int | None) -> Any:
        providers = providers_of(device, info, most)
        return ort.InferenceSession(str(path), options, providers=providers, disabled_optimizers=disabled_optimizers(info))

    if device == "tensorrt" and max_batch is not None:
        with contextlib.suppress(Exception):  # tried again below, where it is told
            session = made(max_batch)
            if session.get_providers()[0] == provider_name(device):
                return session
    return made(None)


def _check_names(session: Any, path: Path, output: str) -> None:
    inputs, outputs = [item.name for item in session.get_inputs()], [item.name for item in session.get_outputs()]
    if inputs != ["image"] or outputs != [output]:
        raise ArtifactError(f"{path}: takes {inputs} and gives {outputs}; expected ['image'] and ['{output}']", remedy="export it again")


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:240]
