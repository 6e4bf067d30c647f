"""A graph's float tensors to FP16 by casts, in place: every type stands in the file, none is left to a runtime's choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.onnx_ops import ops_of
from gddctl.export.simplify import copies
from gddctl.quant.choice import last_convs

HALF_MAX = float(np.finfo(np.float16).max)  # 65504
HEADROOM = 2.0  # a value twice as large as any seen in calibration still fits
_SIZES_FROM = 1  # Resize: region, scales and sizes keep their types


def beyond_half(ranges: Mapping[str, tuple[float, float]]) -> set[str]:
    """Tensors whose calibrated range, with headroom, leaves FP16.

    >>> sorted(beyond_half({"a": (-1.0, 40000.0), "b": (0.0, 30000.0)}))
    ['a']
    """
    return {name for name, (low, high) in ranges.items() if max(-low, high) * HEADROOM > HALF_MAX}


def cast_to_half(model: Any, keep: set[str]) -> None:
    """Let every node compute in FP16 but those before the first convolution, those behind the classifiers, and what touches ``keep``.

    The graph's inputs and outputs keep their types. Scales of Q and DQ become FP16 too: make them FP16 numbers beforehand.

    Raises:
        ArtifactError: the opset has no FP16 scales and the graph has Q/DQ nodes.
    """
    onnx = require("onnx", extra="export", why="casting a graph to FP16")
    graph = model.graph
    opset = next(item.version for item in model.opset_import if item.domain == "")
    if opset < 19 and any(node.op_type == "DequantizeLinear" for node in graph.node):
        raise ArtifactError(f"opset {opset} has no FP16 scales", remedy="export with opset 19 or later; 20 is the default")
    _Caster(onnx, graph, float_nodes(graph, keep)).run()
    del graph.value_info[:]


def float_nodes(graph: Any, keep: set[str]) -> set[str]:
    """First outputs of the nodes that :func:`cast_to_half` lets compute in FP32."""
    constants = {item.name: item for item in graph.initializer}
    ops = ops_of(graph)
    behind, before = set[str](), set[str]()
    classifiers = last_convs(ops, {item.name for item in graph.output})
    convolved = set[str]()
    for op in ops:
        if op.kind == "Conv" or convolved.intersection(op.inputs):
            convolved.add(op.output)
        elif op.kind != "DequantizeLinear":  # the image is rounded to codes once, from FP32
            before.add(op.output)
        if set(op.inputs) & (behind | classifiers) and op.kind != "Conv":
            behind.add(op.output)
    large = {node.output[0] for node in graph.node if any(name in constants and _peak(constants[name]) > HALF_MAX for name in node.input)}
    named = {node.output[0] for node in graph.node if keep.intersection(node.output) or keep.intersection(_sources(node))}
    return behind | before | large | named


def _sources(node: Any) -> set[str]:
    """Activations a node reads, by the names they had before Q/DQ pairs stood behind them."""
    return {name.removesuffix("_dq") for name in node.input}


class _Caster:
    """Rewrites the nodes in order, with one shared Cast per tensor and type."""

    def __init__(self, onnx: Any, graph: Any, in_float: set[str]) -> None:
        self._onnx, self._graph, self._in_float = onnx, graph, in_float
        self._half, self._float = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        self._constants = {item.name: item for item in graph.initializer}
        self._types = {item.name: item.type.tensor_type.elem_type for item in graph.input}
        self._types |= {item.name: item.data_type for item in graph.initializer}
        self._nodes: list[Any] = []
        self._made: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        """Rewrite the graph."""
        outputs = {item.name: item.type.tensor_type.elem_type for item in self._graph.output}
        for node in copies(self._graph.node):
            wanted = self._float if node.output[0] in self._in_float else self._half
            for place, name in enumerate(node.input):
                fixed = node.op_type == "Resize" and place >= _SIZES_FROM
                if name and not fixed and self._types.get(name) in (self._half, self._float):
                    node.input[place] = self._as(name, wanted)
            self._nodes.append(node)
            kind = self._result_type(node, wanted)
            for name in node.output:
                self._types[name] = kind
            if (name := node.output[0]) in outputs and kind != outputs[name]:
                node.output[0] = f"{name}_half"
                self._types[node.output[0]] = kind
                self._nodes.append(self._onnx.helper.make_node("Cast", [node.output[0]], [name], name=f"{name}_cast", to=outputs[name]))
                self._types[name] = outputs[name]
        read = {name for node in self._nodes for name in node.input}
        constants = copies(item for item in self._constants.values() if item.name in read)
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(constants)

    def _result_type(self, node: Any, wanted: int) -> int:
        """The type of a node's result; float types follow what it computes in."""
        kinds = self._onnx.TensorProto
        match node.op_type:
            case "Shape" | "ArgMax":
                return int(kinds.INT64)
            case "Cast":
                return int(next(item.i for item in node.attribute if item.name == "to"))
            case "QuantizeLinear":
                return int(self._types[node.input[2]])
            case "DequantizeLinear":
                return int(self._types[node.input[1]])
            case _:
                first = self._types[node.input[0]]
                return int(wanted) if first in (self._half, self._float) else int(first)

    def _as(self, name: str, kind: int) -> str:
        """``name`` in the float type ``kind``: itself, a converted constant, or a Cast's result."""
        if self._types[name] == kind:
            return name
        if (name, kind) in self._made:
            return self._made[name, kind]
        word = "half" if kind == self._half else "float"
        result = f"{name}_{word}"
        if name in self._constants:
            value = self._onnx.numpy_helper.to_array(self._constants[name])
            kind_of = np.float16 if kind == self._half else np.float32
            self._constants[result] = self._onnx.numpy_helper.from_array(value.astype(kind_of), result)
        else:
            self._nodes.append(self._onnx.helper.make_node("Cast", [name], [result], name=f"{result}_cast", to=kind))
        self._types[result] = kind
        self._made[name, kind] = result
        return result


def _peak(constant: Any) -> float:
    onnx = require("onnx", extra="export", why="casting a graph to FP16")
    value = onnx.numpy_helper.to_array(constant)
    return float(np.abs(value).max()) if value.dtype == np.float32 and value.size else 0.0
