"""One call of ONNX Runtime with its input and output in device memory, each part timed by waiting for it."""

from __future__ import annotations

from time import perf_counter_ns
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.runtime.timed import Spans

_NS_PER_MS = 1e6


class BoundCall:
    """Buffers for one batch size at a time, kept between calls so that no call allocates."""

    def __init__(self, ort: ModuleType, session: Any, output: str, info: ModelInfo, *, device: str) -> None:
        self._ort, self._session, self._output, self._info, self._device = ort, session, output, info, device
        self._shape: tuple[int, ...] = ()
        self._given: Any = None
        self._answer: Any = None
        self._binding: Any = None

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[Any], Spans]:
        """Copy in, compute, copy out; the answer is the caller's own."""
        if batch.shape != self._shape:
            self._bind(batch)
        marks = [perf_counter_ns()]
        self._given.update_inplace(batch)
        marks.append(perf_counter_ns())
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        marks.append(perf_counter_ns())
        answer = self._answer.numpy()
        marks.append(perf_counter_ns())
        spans = Spans.between(marks, lambda start, end: (end - start) / _NS_PER_MS, "wall clock")
        return np.array(answer), spans  # copied: where the device is the host, it is the buffer itself

    def _bind(self, batch: NDArray[Any]) -> None:
        height, width = self._info.preprocess.size
        kind: type[Any] = np.uint8
        shape: tuple[int, ...] = (len(batch), height, width)
        if self._info.graph == "logits":
            kind, shape = np.float32, (len(batch), len(self._info.classes), height, width)
        value = self._ort.OrtValue
        self._given = value.ortvalue_from_shape_and_type(batch.shape, batch.dtype.type, self._device, 0)
        self._answer = value.ortvalue_from_shape_and_type(shape, kind, self._device, 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("image", self._given)
        self._binding.bind_ortvalue_output(self._output, self._answer)
        self._shape = batch.shape
