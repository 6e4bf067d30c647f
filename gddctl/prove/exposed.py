"""An exported graph with its inner tensors as outputs, a few at a time, on ONNX Runtime with the options that the file runs with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.lazy import require
from gddctl.runtime.cpu import usable_cores
from gddctl.runtime.ort_runtime import open_session

_WHY = "comparing the tensors inside two graphs"


@dataclass(frozen=True)
class Tensor:
    """A float tensor of a graph."""

    name: str
    kind: str  # of its node; "input"
    sources: tuple[str, ...]  # what its node reads, constants left out
    elements: int  # of one image; 0 where shape inference does not tell


class ExposedGraph:
    """One ONNX file, opened for looking inside."""

    def __init__(self, path: Path, info: ModelInfo) -> None:
        self._onnx = require("onnx", extra="export", why=_WHY)
        self._ort = require("onnxruntime", extra="cpu", why=_WHY)
        self._path, self._info = path, info
        try:
            self._model = self._onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's DecodeError is not importable by a stable name
            raise ArtifactError(f"{path}: not a readable ONNX file ({error})", remedy="copy or export it again") from error
        self.tensors = {tensor.name: tensor for tensor in self._tensors()}

    def run(self, names: Sequence[str], inputs: Sequence[NDArray[Any]]) -> Iterator[list[NDArray[np.float32]]]:
        """The tensors ``names`` as float32, in their order, for each of ``inputs`` in turn.

        Raises:
            RunFailed: ONNX Runtime fails on the graph.
        """
        kept = {item.name for item in self._model.graph.input}
        wanted = [name for name in names if name not in kept]
        session = self._session(wanted) if wanted else None
        for array in inputs:
            found: dict[str, NDArray[Any]] = dict.fromkeys(kept, array)
            if session is not None:
                try:
                    found |= zip(wanted, session.run(wanted, {"image": array}), strict=True)
                except Exception as error:  # the binding's errors share no narrower base
                    raise RunFailed(f"{self._path}: ONNX Runtime failed inside the graph ({' '.join(str(error).split())[:240]})") from error
            yield [np.asarray(found[name], np.float32) for name in names]

    def _session(self, names: Sequence[str]) -> Any:
        graph = self._model.graph
        outputs = [self._onnx.ValueInfoProto.FromString(item.SerializeToString()) for item in graph.output]
        try:
            del graph.output[:]
            graph.output.extend(self._onnx.ValueInfoProto(name=name) for name in names)
            with tempfile.TemporaryDirectory(prefix="gddctl-locate-") as folder:
                path = Path(folder) / self._path.name
                path.write_bytes(self._model.SerializeToString())
                return open_session(self._ort, path, self._info, "cpu", usable_cores())
        finally:
            del graph.output[:]
            graph.output.extend(outputs)

    def _tensors(self) -> Iterator[Tensor]:
        """Float tensors, in the order in which the graph makes them."""
        inferred = self._onnx.shape_inference.infer_shapes(self._model).graph
        floats = (self._onnx.TensorProto.FLOAT, self._onnx.TensorProto.FLOAT16)
        values = {item.name: item.type.tensor_type for item in (*inferred.input, *inferred.value_info, *inferred.output)}
        constants = {item.name for item in self._model.graph.initializer}
        for item in self._model.graph.input:
            if values[item.name].elem_type in floats:
                yield Tensor(item.name, "input", (), _elements(values[item.name]))
        for node in self._model.graph.node:
            sources = tuple(name for name in node.input if name and name not in constants)
            for name in node.output:
                if name in values and values[name].elem_type in floats and sources:
                    yield Tensor(name, node.op_type, sources, _elements(values[name]))


def _elements(kind: Any) -> int:
    """Of one image: an open batch counts once."""
    return prod(dim.dim_value or 1 for dim in kind.shape.dim)
