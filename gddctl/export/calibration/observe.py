"""Two passes over the images: ranges of every activation, then histograms of those that are quantised. Nothing else is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.calibration.histogram import Counter, Histogram
from gddctl.export.onnx_ops import choice_of
from gddctl.quant.choice import Choice
from gddctl.runtime.cpu import usable_cores

Ranges = dict[str, tuple[float, float]]

# Their output's range follows exactly from their inputs': a reduction over it would be work for nothing.
_SAME_VALUES = frozenset({"Concat", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})

_SMALL = 64  # elements: a constant up to this size may be a shape, which inference reads


class RangeWatcher:
    """The lowest and highest value of every float activation, over all images shown. Memory does not grow with their number.

    Lowest and highest are found inside the graph's own run; no activation leaves it.
    """

    def __init__(self, model: Any, place: str) -> None:
        """``model`` is the FP32 logits graph, called ``place`` in messages."""
        self._place = place
        self._names = float_activations(model)
        self._derived = derived_ranges(model, self._names)
        self._watched = [name for name in self._names if name not in self._derived]
        self._session = _session(add_reductions(model, self._watched).SerializeToString())
        self._low = np.full(len(self._watched), np.inf)
        self._high = np.full(len(self._watched), -np.inf)

    def observe(self, batch: NDArray[np.float32]) -> None:
        """Show one batch, (B, 3, h, w) normalised.

        Raises:
            ArtifactError: a tensor is not finite.
        """
        count = len(self._watched)
        found: list[Any] = self._session.run(None, {"image": batch})
        low, high, total = (np.array([float(value) for value in found[k * count : (k + 1) * count]]) for k in range(3))
        broken = ~(np.isfinite(low) & np.isfinite(high) & np.isfinite(total))
        if broken.any():
            name = self._watched[int(np.argmax(broken))]
            raise ArtifactError(
                f"{self._place}: NaN or infinity in tensor '{name}' while calibrating",
                remedy="the student's weights are broken; train it again",
            )
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def ranges(self) -> Ranges:
        """(lowest, highest) by tensor, in graph order."""
        found = {name: (float(low), float(high)) for name, low, high in zip(self._watched, self._low, self._high, strict=True)}
        for name, (kind, sources) in self._derived.items():  # in graph order: sources come first
            low, high = min(found[source][0] for source in sources), max(found[source][1] for source in sources)
            found[name] = (max(low, 0.0), max(high, 0.0)) if kind == "Relu" else (low, high)
        return {name: found[name] for name in self._names}


class HistogramWatcher:
    """Histograms of chosen tensors within known ranges. One image's activations are held at a time."""

    def __init__(self, model: Any, ranges: Mapping[str, tuple[float, float]], names: Sequence[str]) -> None:
        onnx = require("onnx", extra="export", why="calibrating")
        self._counters = {name: Counter(name, *ranges[name]) for name in names}
        self._fetched = [name for name in names if name != "image"]
        watched = _without_outputs(model)
        watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in self._fetched)
        serialised = watched.SerializeToString()
        del watched  # the weights lie about often enough while a session is made
        self._session = _session(serialised)

    def observe(self, batch: NDArray[np.float32]) -> None:
        """Show one batch, (B, 3, h, w) normalised."""
        if "image" in self._counters:
            self._counters["image"].add(batch)
        for image in range(len(batch)):
            found: list[Any] = self._session.run(self._fetched, {"image": batch[image : image + 1]})
            for name in reversed(self._fetched):
                self._counters[name].add(found.pop())  # let go of at once

    def histograms(self) -> dict[str, Histogram]:
        """By tensor."""
        return {name: counter.result() for name, counter in self._counters.items()}


def choices_of(model: Any) -> tuple[Choice, ...]:
    """What is quantised, by every placement that a target may take."""
    return choice_of(model, "codes"), choice_of(model, "inputs")


def tensors_to_code(choices: Iterable[Choice]) -> tuple[str, ...]:
    """The tensors that set a code of their own in some placement, each once."""
    return tuple(dict.fromkeys(choice.code_of(name) for choice in choices for name in choice.tensors))


def float_activations(model: Any) -> tuple[str, ...]:
    """Every float tensor that is computed from the image, and the image itself, in graph order."""
    onnx = require("onnx", extra="export", why="calibrating")
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    kinds = {item.name: item.type.tensor_type.elem_type for item in (*inferred.value_info, *inferred.output)}
    from_image = {"image"}
    found = ["image"]
    for node in graph.node:
        if node.op_type == "Shape" or not from_image.intersection(node.input):
            continue
        for name in node.output:
            from_image.add(name)
            if kinds.get(name) == onnx.TensorProto.FLOAT:
                found.append(name)
    return tuple(found)


def derived_ranges(model: Any, names: Iterable[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Tensor -> (kind of node, its inputs), of those whose range follows from their inputs' ranges."""
    known = set(names)
    shaped = {"Reshape", "Squeeze", "Unsqueeze"}  # their second input is no activation
    derived = {}
    for node in model.graph.node:
        sources = tuple(node.input[:1] if node.op_type in shaped else node.input)
        if (node.op_type == "Relu" or node.op_type in _SAME_VALUES) and node.output[0] in known and known.issuperset(sources):
            derived[node.output[0]] = (node.op_type, sources)
    return derived


def add_reductions(model: Any, names: Sequence[str]) -> Any:
    """A copy of ``model`` that gives, for each name, its minimum, maximum and sum of magnitudes instead of the logits.

    The sum is there for NaN, which a minimum or maximum may step over.
    """
    onnx = require("onnx", extra="export", why="calibrating")
    watched = _without_outputs(model)
    graph = watched.graph
    for kind in ("ReduceMin", "ReduceMax", "ReduceL1"):
        for place, name in enumerate(names):
            output = f"{kind}_{place}"
            graph.node.append(onnx.helper.make_node(kind, [name], [output], name=output, keepdims=0))
            graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    return watched


def _without_outputs(model: Any) -> Any:
    """A copy to give other outputs to."""
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    return copy


def _without_weights(model: Any) -> Any:
    """A copy in which large constants are inputs of their type and shape: inferring types need not carry them about."""
    onnx = require("onnx", extra="export", why="calibrating")
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    for part in ("node", "input", "output"):
        getattr(graph, part).extend(getattr(model.graph, part))
    for item in model.graph.initializer:
        if math.prod(item.dims) > _SMALL:
            graph.input.append(onnx.helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)))
        else:
            graph.initializer.append(item)
    return light


def _session(serialised: bytes) -> Any:
    ort = require("onnxruntime", extra="cpu", why="calibrating")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only: what matters reaches us as exceptions
    options.intra_op_num_threads, options.inter_op_num_threads = usable_cores(), 1
    options.enable_cpu_mem_arena = False  # the arena keeps the largest of everything it ever held
    return ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
