"""A logits graph to a deploy graph: uint8 image in, uint8 class map out, normalisation and argmax inside. Surgery on the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.data.preprocess import gain_and_shift
from gddctl.export.artifact_file import write_artifact
from gddctl.export.graph_file import load_artifact


def to_deploy(logits: Artifact, out: Path) -> Artifact:
    """Wrap ``logits``: uint8 (B, H, W, 3) RGB -> float -> (B, 3, H, W) -> normalised -> logits -> argmax -> uint8 (B, H, W).

    The same weights and, in an INT8 file, the same ranges; its mask is the argmax of the logits file's answer, pixel for pixel.

    Raises:
        ArtifactError: ``logits`` is a deploy graph already, or was changed after export.
    """
    if logits.info.graph != "logits":
        raise ArtifactError(f"{logits.path}: already a deploy graph", remedy="give the logits file of the same student")
    model = load_artifact(logits)
    info = logits.info.model_copy(update={"graph": "deploy", "parent_sha256": logits.sha256})
    _prepend_normalisation(model.graph, info)
    _append_argmax(model.graph, info)
    return write_artifact(model, info, out)


def _prepend_normalisation(graph: Any, info: ModelInfo) -> None:
    """Cast first: runtimes refuse to transpose uint8. Then the very factor and summand of ``data.preprocess.normalise``.

    They are written out for a whole row of pixels and applied before the transposition. As three numbers after it, ONNX Runtime moves
    the transposition behind them where the first convolution takes channels last, as INT8 ones do, and broadcasts three numbers at a
    time: 1.0 of 17 ms of an INT8 student at 180 x 240, for what takes 0.1 ms.
    """
    onnx = require("onnx", extra="export", why="making a deploy graph")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    height, width = info.preprocess.size
    pairs = [gain_and_shift(info.preprocess, channel) for channel in range(3)]  # of the image as it comes: RGB
    gain, shift = (np.tile(np.array(values, np.float32), (1, 1, width, 1)) for values in zip(*pairs, strict=True))
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "image":
                node.input[place] = "normalised"
    planes = "normalised" if info.preprocess.channel_order == "rgb" else "image_planes"
    nodes = [
        helper.make_node("Cast", ["image"], ["image_float"], name="deploy_cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["image_float", "deploy_gain"], ["image_scaled"], name="deploy_gain_mul"),
        helper.make_node("Add", ["image_scaled", "deploy_shift"], ["image_shifted"], name="deploy_shift_add"),
        helper.make_node("Transpose", ["image_shifted"], [planes], name="deploy_transpose", perm=[0, 3, 1, 2]),
    ]
    if planes != "normalised":
        nodes.append(helper.make_node("Gather", [planes, "deploy_order"], ["normalised"], name="deploy_order_channels", axis=1))
        graph.initializer.append(numpy_helper.from_array(np.array((2, 1, 0), np.int64), "deploy_order"))
    graph.initializer.extend([numpy_helper.from_array(gain, "deploy_gain"), numpy_helper.from_array(shift, "deploy_shift")])
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    graph.input[0].CopyFrom(helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [batch, height, width, 3]))


def _append_argmax(graph: Any, info: ModelInfo) -> None:
    """Ties go to the lower class id, as in numpy and torch.

    In a file for OpenVINO the classes come last first: its argmax over the last axis takes half the time of the one over planes, the
    transposition included; ONNX Runtime takes the same time for both.
    """
    onnx = require("onnx", extra="export", why="making a deploy graph")
    helper = onnx.helper
    height, width = info.preprocess.size
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param
    source, axis = "logits", 1
    if info.target == "openvino":
        source, axis = "logits_last", 3
        graph.node.append(helper.make_node("Transpose", ["logits"], [source], name="deploy_logits_last", perm=[0, 2, 3, 1]))
    graph.node.append(helper.make_node("ArgMax", [source], ["mask_wide"], name="deploy_argmax", axis=axis, keepdims=0, select_last_index=0))
    graph.node.append(helper.make_node("Cast", ["mask_wide"], ["mask"], name="deploy_mask", to=onnx.TensorProto.UINT8))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("mask", onnx.TensorProto.UINT8, [batch, height, width]))
