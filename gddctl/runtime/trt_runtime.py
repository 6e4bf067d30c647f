"""A TensorRT engine, running: device buffers, one stream, page-locked copies, and a CUDA graph where asked. TensorRT 10, 11 and RTX."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.artifact.engine import EngineRecord
from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.runtime.cpu import this_cpu
from gddctl.runtime.cuda import Buffer, Cuda
from gddctl.runtime.gpu_facts import gpu_facts
from gddctl.runtime.protocol import check_input
from gddctl.runtime.timed import Spans
from gddctl.runtime.trt_bindings import Bindings, find_bindings, last_errors, make_logger
from gddctl.runtime.trt_fit import check_fit

log = logging.getLogger(__name__)

_INPUT_TYPES = {"logits": ("FLOAT", np.float32), "deploy": ("UINT8", np.uint8)}


class TrtRuntime:
    """One engine on device 0. See :class:`gddctl.runtime.protocol.Runtime`; for one thread at a time."""

    def __init__(
        self,
        path: Path,
        record: EngineRecord,
        *,
        cuda_graph: bool = False,
        bindings: Bindings | None = None,
        open_cuda: Callable[[], Cuda] = Cuda,
    ) -> None:
        """Load the engine.

        Args:
            path: the ``.engine`` file.
            record: what its sidecar says; its hash is expected to have been checked.
            cuda_graph: launch copies and kernels as one recorded graph: less work for the CPU per run, same answers.
            bindings: TensorRT; found when not given.
            open_cuda: gives device 0.

        Raises:
            EnvironmentMissing: no such TensorRT, or no driver. Without a driver no object of TensorRT is made: it can end the process.
            ArtifactError: the engine is for another version or device, or does not load.
        """
        self._path, self._record, self._wants_graph = path, record, cuda_graph
        self._bindings, self._open_cuda = bindings, open_cuda
        self.info, self.sha256 = record.info, record.engine_sha256
        self.backend = f"{record.builder}-cuda"
        self._loaded: _Loaded | None = None
        self._open()

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; see the protocol for shapes."""
        return self._open().run(self._checked(batch))

    def run_timed(self, batch: NDArray[Any]) -> tuple[NDArray[Any], Spans]:
        """See :class:`gddctl.runtime.timed.Timed`; CUDA events on the engine's own stream tell the parts."""
        return self._open().run_timed(self._checked(batch))

    def _checked(self, batch: NDArray[Any]) -> NDArray[Any]:
        batch = check_input(batch, self.info, self._path.name)
        record, items = self._record, len(batch)
        if not record.min_batch <= items <= record.max_batch:
            wanted = (min(record.min_batch, items), record.opt_batch, max(record.max_batch, items))
            raise ArtifactError(
                f"{self._path}: built for batches of {record.min_batch} to {record.max_batch}, got {items}",
                remedy=f"use such a batch, or build it again: {record.rebuild} --batch {' '.join(map(str, wanted))}",
            )
        return batch

    def environment(self) -> dict[str, str]:
        """Builder, versions, GPU, driver, and whether a CUDA graph is launched."""
        loaded, record = self._open(), self._record
        return {
            **gpu_facts(),
            "backend": self.backend,
            "provider": loaded.bindings.name,
            record.builder: loaded.bindings.version,
            "numpy": np.__version__,
            "threads": "1",
            "cpu": this_cpu().describe(),
            "gpu": loaded.cuda.name(),
            "compute capability": loaded.cuda.compute_capability(),
            "driver": loaded.cuda.driver_version(),
            "cuda graph": loaded.graph_state,
            "built on": record.device,
            **loaded.sizes(),
        }

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()
            loaded.cuda.close()

    def _open(self) -> _Loaded:
        if self._loaded is None:
            cuda = self._open_cuda()  # first of all: refuses where there is no driver
            try:
                bindings = self._bindings or find_bindings("rtx" if self._record.builder == "tensorrt-rtx" else "tensorrt")
                check_fit(self._path, self._record, bindings, cuda)
                self._loaded = _Loaded(self._path, self._record, bindings, cuda, self._wants_graph)
            except BaseException:
                cuda.close()
                raise
        self._loaded.cuda.activate()
        return self._loaded


class _Loaded:
    """An engine in device memory with its context, stream and buffers."""

    def __init__(self, path: Path, record: EngineRecord, bindings: Bindings, cuda: Cuda, wants_graph: bool) -> None:
        self.cuda, self.bindings, self._path = cuda, bindings, path
        self._logger = make_logger(bindings.trt)
        self._records = wants_graph and not bindings.is_rtx
        self.graph_state = "the library's own" if wants_graph and bindings.is_rtx else "waits for the second run" if wants_graph else "off"
        self._output = "logits" if record.info.graph == "logits" else "mask"
        self._batch = 0  # that the context is set to
        self._graph: tuple[int, int] | None = None  # recorded for that batch
        self._context: Any = None
        self._buffers: list[Buffer] = []
        self._stream = cuda.stream()
        try:
            self._runtime, self._engine = _deserialize(path, record, bindings, self._logger)
            self._check_tensors(bindings, record)
            self._context = self._make_context(bindings, wants_graph)
            self._in, self._out = self._make_buffers(record)
        except BaseException:
            self.close()
            raise

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Copy in, compute, copy out, wait; then the answer is copied once more, for the caller to keep."""
        items, fresh = len(batch), len(batch) != self._batch
        np.copyto(self._in.host[:items], batch)
        if fresh:
            self._set_batch(items)
        if self._graph is not None:
            self.cuda.launch(self._graph[1], self._stream)
        elif self._records and not fresh:  # the run before, of this shape, has done what is done but once
            self._graph = self.cuda.capture(self._stream, lambda: self._enqueue(items))
            self.graph_state = "recorded"
            self.cuda.launch(self._graph[1], self._stream)
        else:
            self._enqueue(items)
        self.cuda.synchronize(self._stream)
        return self._out.host[:items].copy()

    def run_timed(self, batch: NDArray[Any]) -> tuple[NDArray[Any], Spans]:
        """Like :meth:`run`, with an event before and after each part, and never as a recorded graph."""
        items = len(batch)
        np.copyto(self._in.host[:items], batch)
        if items != self._batch:
            self._set_batch(items)
        marks = [self.cuda.event() for _ in range(4)]
        try:
            self.cuda.record(marks[0], self._stream)
            self._in.upload(items, self._stream)
            self.cuda.record(marks[1], self._stream)
            self._expect(self._context.execute_async_v3(self._stream), "failed to run")
            self.cuda.record(marks[2], self._stream)
            self._out.download(items, self._stream)
            self.cuda.record(marks[3], self._stream)
            self.cuda.synchronize(self._stream)
            spans = Spans.between(marks, self.cuda.elapsed_ms, "CUDA events")
        finally:
            for mark in marks:
                self.cuda.destroy_event(mark)
        return self._out.host[:items].copy(), spans

    def sizes(self) -> dict[str, str]:
        """What the engine says it needs beside its weights, where this version of TensorRT tells."""
        found = getattr(self._engine, "device_memory_size_v2", None) or getattr(self._engine, "device_memory_size", None)
        return {} if found is None else {"activation bytes": str(found)}

    def close(self) -> None:
        """Free everything, users before what they use. A device that has failed cannot free: the process' end does that."""
        try:
            self.cuda.synchronize(self._stream)
            self._drop_graph()
            self._context = self._engine = self._runtime = None
            for buffer in self._buffers:
                buffer.free()
            self.cuda.destroy_stream(self._stream)
        except RunFailed as error:
            log.warning("%s: not everything could be freed (%s)", self._path, error)

    def _enqueue(self, items: int) -> None:
        self._in.upload(items, self._stream)
        self._expect(self._context.execute_async_v3(self._stream), "failed to run")
        self._out.download(items, self._stream)

    def _set_batch(self, items: int) -> None:
        self._drop_graph()  # it was recorded for another shape
        self._batch = 0
        self._expect(self._context.set_input_shape("image", self._in.host[:items].shape), f"refuses a batch of {items}")
        self._batch = items

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self.cuda.destroy_graph(self._graph)
            self._graph = None
            self.graph_state = "waits for the second run"

    def _make_buffers(self, record: EngineRecord) -> list[Buffer]:
        """Room for the largest batch, in and out; the engine is told where."""
        info = record.info
        height, width = info.preprocess.size
        given, answer = (
            ((height, width, 3), (height, width)) if info.graph == "deploy" else ((3, height, width), (len(info.classes), height, width))
        )
        for name, shape in (("image", given), (self._output, answer)):
            self._buffers.append(Buffer(self.cuda, (record.max_batch, *shape), _INPUT_TYPES[info.graph][1]))
            self._expect(self._context.set_tensor_address(name, self._buffers[-1].device), f"refuses the address of '{name}'")
        return self._buffers

    def _make_context(self, bindings: Bindings, wants_graph: bool) -> Any:
        # TensorRT-RTX compiles kernels while it runs, which must not be recorded: there the library records by itself.
        if wants_graph and bindings.is_rtx:
            runtime_config = self._engine.create_runtime_config()
            runtime_config.cuda_graph_strategy = bindings.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(runtime_config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise RunFailed(
                f"{self._path}: no room to run it ({last_errors(self._logger)})",
                remedy="close other programs on the GPU, or build it for smaller batches (--batch)",
            )
        return context

    def _check_tensors(self, bindings: Bindings, record: EngineRecord) -> None:
        """The engine is what its record says: names, directions, types, largest batch."""
        engine, trt = self._engine, bindings.trt
        kind = _INPUT_TYPES[record.info.graph][0]
        found = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found[name] = (engine.get_tensor_mode(name), engine.get_tensor_dtype(name).name)
        wanted = {"image": (trt.TensorIOMode.INPUT, kind), self._output: (trt.TensorIOMode.OUTPUT, kind)}
        largest = int(engine.get_tensor_profile_shape("image", 0)[2][0]) if "image" in found else 0
        if found != wanted or largest != record.max_batch:
            raise ArtifactError(
                f"{self._path}: not the engine that its record describes (tensors {sorted(found)}, batches to {largest})",
                remedy=f"build it again: {record.rebuild}",
            )

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise RunFailed(f"{self._path}: TensorRT {what} ({last_errors(self._logger)})")


def _deserialize(path: Path, record: EngineRecord, bindings: Bindings, logger: Any) -> tuple[Any, Any]:
    """The library's runtime and the engine, which must not outlive it."""
    runtime = bindings.trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ArtifactError(
            f"{path}: {bindings.name} does not load this engine ({last_errors(logger)})", remedy=f"build it again here: {record.rebuild}"
        )
    return runtime, engine
