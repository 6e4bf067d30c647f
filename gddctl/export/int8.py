"""An FP32 logits graph and a calibration record to an INT8 graph in Q/DQ form, placed as the target's runtime fuses integer kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gddctl.core.artifact.calibration import CalibrationRecord, preprocess_sha256
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import Target
from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.artifact_file import write_artifact
from gddctl.export.census import census_of, check_int8
from gddctl.export.classifier import split_taps
from gddctl.export.dilation import trim_padding
from gddctl.export.graph_file import load_artifact
from gddctl.export.half import beyond_half, cast_to_half
from gddctl.export.onnx_ops import choice_of, ops_of
from gddctl.export.simplify import copies
from gddctl.quant.choice import Choice, last_convs
from gddctl.quant.scheme import (
    Affine,
    Scheme,
    activation_affine,
    bias_safe,
    quantise_bias,
    quantise_weight,
    scheme_for,
    weight_scales,
)
from gddctl.runtime.cpu import this_cpu


def quantize(
    fp32: Artifact,
    record: CalibrationRecord,
    out: Path,
    *,
    target: Target = "ort-cpu",
    keep: frozenset[str] | set[str] = frozenset(),
    scheme: Scheme | None = None,
) -> Artifact:
    """Quantise for the runtime ``target``; what is not INT8 is FP16 for TensorRT and FP32 elsewhere.

    Args:
        fp32: the logits graph that ``record`` was made on.
        record: ranges of its activations; one record serves every target.
        out: the .onnx file; written whole, or not at all.
        target: whose kernels the pairs are placed for.
        keep: outputs of convolutions to leave in high precision besides the classifiers.
        scheme: types and bits; None takes what suits the target, and for ``ort-cpu`` this machine's CPU.

    Raises:
        ArtifactError: record and graph do not belong together, or the result's convolutions are not INT8.
    """
    check_pair(fp32, record)
    cpu = this_cpu()
    scheme = scheme or scheme_for(target, x86=cpu.is_x86, saturates=cpu.int8_saturates)
    model = load_artifact(fp32)
    choice = choice_of(model, scheme.placement, keep)
    unknown = set(keep) - {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    if unknown:
        raise ArtifactError(f"{fp32.path}: no convolution gives '{min(unknown)}', so it cannot be kept in high precision")
    classifiers = last_convs(ops_of(model.graph), {item.name for item in model.graph.output})
    insert_qdq(model, choice, record, scheme)
    if scheme.scale == "float16":
        cast_to_half(model, beyond_half(record.observed))
    # Before the cutting below multiplies the integer convolutions.
    check_int8(census_of(model), str(out), kept=len(set(keep) | classifiers))
    if target == "ort-cpu":
        trim_padding(model)
    if target == "openvino":
        split_taps(model)
    changes = {"precision": "int8", "target": target, "parent_sha256": fp32.sha256, "calibration_sha256": record.digest}
    info = fp32.info.model_copy(update={**changes, "kept": tuple(sorted(keep))})
    return write_artifact(model, info, out)


def insert_qdq(model: Any, choice: Choice, record: CalibrationRecord, scheme: Scheme) -> None:
    """Put Q/DQ pairs behind the chosen tensors and DQ behind the weights of the convolutions between them, in place."""
    codes = codes_of(choice, record, scheme)
    editor = _Editor(model.graph, scheme)
    for name in choice.tensors:
        editor.code_activation(name, codes[name])
    editor.code_convs(choice, codes)
    editor.finish()


def codes_of(choice: Choice, record: CalibrationRecord, scheme: Scheme) -> dict[str, Affine]:
    """Scale and zero point of every chosen tensor.

    Raises:
        ArtifactError: the record lacks one.
    """
    missing = [name for name in choice.tensors if name not in record.ranges]
    if missing:
        raise ArtifactError(
            f"the calibration record lacks {len(missing)} tensors of the graph ('{missing[0]}', …)", remedy="calibrate again"
        )
    return {name: activation_affine(*record.ranges[choice.code_of(name)], scheme) for name in choice.tensors}


class _Editor:
    """Collects new nodes and constants for a graph, then writes them in topological order."""

    def __init__(self, graph: Any, scheme: Scheme) -> None:
        self._onnx = require("onnx", extra="export", why="quantising a graph")
        self._graph, self._scheme = graph, scheme
        self._weights = {item.name: item for item in graph.initializer}
        self._after: dict[str, list[Any]] = {}  # tensor -> nodes to stand behind its maker; "" is the start of the graph

    def code_activation(self, name: str, code: Affine) -> None:
        """Everyone who reads ``name`` reads its dequantised form from now on (but those who only ask for its shape)."""
        kind = np.uint8 if self._scheme.activation == "uint8" else np.int8
        scale, zero = self._constant(f"{name}_scale", np.float32(code.scale)), self._constant(f"{name}_zero", kind(code.zero_point))
        self._after[name] = [
            self._node("QuantizeLinear", [name, scale, zero], f"{name}_q"),
            self._node("DequantizeLinear", [f"{name}_q", scale, zero], f"{name}_dq"),
        ]
        for node in self._graph.node:
            if node.op_type == "Shape":
                continue
            for place, source in enumerate(node.input):
                if source == name:
                    node.input[place] = f"{name}_dq"

    def code_convs(self, choice: Choice, codes: dict[str, Affine]) -> None:
        """Weights and biases of every convolution but those that stay in float."""
        for node in self._graph.node:
            if node.op_type != "Conv" or node.output[0] in choice.float_convs:
                continue
            source = node.input[0].removesuffix("_dq")
            input_scale = codes[source].scale
            weight = self._onnx.numpy_helper.to_array(self._weights[node.input[1]])
            scales = weight_scales(weight, self._scheme)
            if len(node.input) > 2 and self._scheme.bias == "int32":
                bias = self._onnx.numpy_helper.to_array(self._weights[node.input[2]])
                scales = bias_safe(scales, bias, input_scale)
                bias_code = quantise_bias(bias, input_scale, scales)
                node.input[2] = self._dequantised(node.input[2], bias_code, np.float32(input_scale) * scales, np.zeros(len(bias), np.int32))
            code = quantise_weight(weight, scales, self._scheme)
            node.input[1] = self._dequantised(node.input[1], code, scales, np.zeros(len(scales), np.int8))

    def finish(self) -> None:
        """Write the nodes back, each pair right behind what makes its tensor, and drop constants nobody reads."""
        nodes = list(self._after.pop("", []))
        nodes += self._after.pop("image", [])
        for node in self._graph.node:
            nodes.append(node)
            for name in node.output:
                nodes += self._after.pop(name, [])
        nodes = copies(nodes)
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = copies(item for item in self._weights.values() if item.name in read)
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        del self._graph.value_info[:]  # stale: inferred again by whoever needs it

    def _dequantised(self, name: str, code: Any, scales: Any, zeros: Any) -> str:
        result = f"{name}_dq"
        if f"{name}_code" not in self._weights:
            inputs = [self._constant(f"{name}_code", code), self._constant(f"{name}_scale", scales), self._constant(f"{name}_zero", zeros)]
            self._after.setdefault("", []).append(self._node("DequantizeLinear", inputs, result, axis=0))
        return result

    def _constant(self, name: str, value: Any) -> str:
        self._weights[name] = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return self._onnx.helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", **attributes)


def check_pair(fp32: Artifact, record: CalibrationRecord) -> None:
    """The record was made on this very model, through this preprocessing.

    Raises:
        ArtifactError: it was not.
    """
    if fp32.info.graph != "logits" or fp32.info.precision != "fp32":
        raise ArtifactError(
            f"{fp32.path}: quantisation starts from an fp32 logits graph, this is {fp32.info.precision} {fp32.info.graph}",
            remedy="give the fp32 logits file; make the deploy graph afterwards",
        )
    if record.weights_sha256 != fp32.info.weights_sha256:
        raise ArtifactError(f"{fp32.path}: the calibration record belongs to other weights", remedy="calibrate on this student")
    if record.preprocess_sha256 != preprocess_sha256(fp32.info.preprocess.model_dump_json()):
        raise ArtifactError(f"{fp32.path}: the calibration record was made with other preprocessing", remedy="calibrate again")
