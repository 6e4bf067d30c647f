"""Somebody else's graph rewritten into ours: opset, folding, batch, ends, names. The numbers stay."""

from __future__ import annotations

import re
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.foreign_ends import Ends
from gddctl.export.foreign_run import open_model
from gddctl.export.graph_file import MAX_IR
from gddctl.export.onnx_ops import name_tensors
from gddctl.export.preflight import MIN_OPSET, STANDARD, Finding, opset_of
from gddctl.export.simplify import copies, simplify

MAX_OPSET = 22  # the newest that IR 10 carries
_TO_PLANES, _TO_PIXELS = [0, 3, 1, 2], [0, 2, 3, 1]
_FOLDED = re.compile(r"^(Conv[A-Z][a-z]+Fusion_[A-Z]+_)+")  # what ONNX Runtime puts before the name of a weight it folded something into


def convert_opset(model: Any, opset: int, place: str) -> tuple[Any, list[Finding]]:
    """``model`` at ``opset``, by onnx's own converter; a newer one that does not go down stays where it is if we can carry it.

    Raises:
        ArtifactError: the converter cannot, and the graph's own opset is no good to us.
    """
    onnx = require("onnx", extra="export", why="converting an ONNX file")
    given, findings = opset_of(model), []
    if model.ir_version > MAX_IR:
        findings.append(Finding("fixed", f"IR version lowered from {model.ir_version} to {MAX_IR}"))
    for item in [item for item in model.opset_import if item.domain not in STANDARD]:
        model.opset_import.remove(item)  # nothing uses it, or reading would have refused the file
    if given != opset:
        try:
            converted = onnx.version_converter.convert_version(model, opset)
            onnx.checker.check_model(converted)
        except Exception as error:  # the converter's errors share no narrower base
            words = " ".join(str(error).split())[:200]
            if not MIN_OPSET <= given <= MAX_OPSET:
                raise ArtifactError(
                    f"{place}: opset {given} does not convert to {opset} ({words})", remedy=f"export it with opset {opset}"
                ) from error
            findings.append(Finding("note", f"opset {given} kept: it does not convert to {opset} ({words})"))
        else:
            model = converted
            findings.append(Finding("fixed", f"opset {'raised' if given < opset else 'lowered'} from {given} to {opset}"))
    model.ir_version = MAX_IR
    return model, findings


def give_shape(model: Any, shape: tuple[int, ...]) -> None:
    """Let the output declare its shape, the batch apart, in place: the converter of opsets asks for it."""
    onnx = require("onnx", extra="export", why="importing an ONNX file")
    name = model.graph.output[0].name
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, *shape[1:]]))


def put_ends(
    model: Any, ends: Ends, size: tuple[int, int], channels: int, logits_layout: str, logits_size: tuple[int, int]
) -> list[Finding]:
    """Let the graph take ``image`` (1, 3, H, W) float32 and give ``logits`` (1, K, H, W), in place.

    Args:
        model: the graph; its batch is 1 until it is freed.
        ends: as found.
        size: (height, width) of the image.
        channels: K.
        logits_layout: "nchw" or "nhwc", as the file answers.
        logits_size: (height, width) as the file answers.
    """
    onnx = require("onnx", extra="export", why="importing an ONNX file")
    graph, helper, findings = model.graph, onnx.helper, []
    rename(graph, {name: f"given_{name}" for name in ("image", "logits") if name not in (ends.image, ends.logits)})
    rename(graph, {ends.image: "image", ends.logits: "given_answer"})
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, *size]))
    graph.output.append(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, channels, *size]))
    if ends.image != "image":
        findings.append(Finding("fixed", f"the input '{ends.image}' is called 'image' now"))
    if ends.logits != "logits":
        findings.append(Finding("fixed", f"the output '{ends.logits}' is called 'logits' now"))
    if ends.layout == "nhwc":
        rename_reads(graph, {"image": "image_pixels"})
        graph.node.insert(0, helper.make_node("Transpose", ["image"], ["image_pixels"], name="gddctl:image_pixels", perm=_TO_PIXELS))
        findings.append(Finding("fixed", "it takes (batch, H, W, 3); it gets (batch, 3, H, W) and transposes floats, not bytes"))
    answer = "given_answer"
    if logits_layout == "nhwc":
        graph.node.append(helper.make_node("Transpose", [answer], ["given_planes"], name="gddctl:given_planes", perm=_TO_PLANES))
        answer = "given_planes"
        findings.append(Finding("fixed", "its answer (batch, H, W, classes) is transposed to (batch, classes, H, W)"))
    if logits_size != size:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, channels, *size], np.int64), "logits_size"))
        attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        graph.node.append(helper.make_node("Resize", [answer, "", "", "logits_size"], ["logits"], name="gddctl:logits", **attributes))
        what = f"its logits are {logits_size[0]} x {logits_size[1]}: a bilinear Resize to {size[0]} x {size[1]} was appended"
        findings.append(Finding("fixed", what))
    else:
        graph.node.append(helper.make_node("Identity", [answer], ["logits"], name="gddctl:logits"))
    return findings


def fold(model: Any, place: str) -> Any:
    """Constants computed, BatchNormalization inside the convolutions, identities gone: ONNX Runtime's basic optimisations, saved.

    Raises:
        ArtifactError: it does not load, or what came out is not standard ONNX.
    """
    onnx = require("onnx", extra="export", why="folding a graph")
    folded, before = model, -1
    while len(folded.graph.node) != before:  # functions of the standard (CastLike) are written out in one pass and folded in the next
        before = len(folded.graph.node)
        with tempfile.TemporaryDirectory(prefix="gddctl-fold-") as folder:
            path = Path(folder) / "folded.onnx"
            open_model(folded, place, level="ORT_ENABLE_BASIC", save_as=str(path))
            folded = onnx.load(str(path))
    if bad := [node.op_type for node in folded.graph.node if node.domain not in STANDARD]:
        raise ArtifactError(f"{place}: folding brought operators outside the standard ({bad[0]})", remedy="report it with gddctl doctor")
    for item in [item for item in folded.opset_import if item.domain not in STANDARD]:
        folded.opset_import.remove(item)
    for node in folded.graph.node:
        node.domain = ""
    folded.ir_version = MAX_IR
    _unfolded_batchnorm(onnx, folded)
    return folded


def name_batch(model: Any) -> None:
    """Let the batch be whatever comes, in place, and trust the graph's own arithmetic of sizes with it."""
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]


def free_batch(model: Any) -> Any:
    """Give a graph that was folded for one image a free batch, in place: what was one stays first, everything else is written out."""
    onnx = require("onnx", extra="export", why="importing an ONNX file")
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (*inferred.value_info, *inferred.output)}
    constants = {item.name for item in graph.initializer}
    for place, node in enumerate(copies(graph.node)):
        shape = shapes.get(node.output[0], [])
        if node.op_type == "Reshape" and node.input[0] not in constants and len(shape) > 1 and all(shape):
            name = f"{node.output[0]}_shape_any"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, *shape[1:]], np.int64), name))
            graph.node[place].input[1] = name
    name_batch(model)
    return model


def finish(model: Any) -> None:
    """Our rewrites and our names, in place."""
    _name_weights(model.graph)  # before the sizes get names of ours
    simplify(model)
    name_tensors(model)


def rename(graph: Any, names: dict[str, str]) -> None:
    """Rename tensors everywhere, in place."""
    rename_reads(graph, names)
    for node in graph.node:
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
    for item in (*graph.initializer, *graph.input, *graph.output):
        item.name = names.get(item.name, item.name)


def rename_reads(graph: Any, names: dict[str, str]) -> None:
    """Let every node read other tensors, in place."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def _unfolded_batchnorm(onnx: Any, model: Any) -> None:
    """What stands behind no convolution becomes a factor and a summand per channel."""
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    nodes = []
    for node in copies(graph.node):
        if node.op_type != "BatchNormalization" or not all(name in constants for name in node.input[1:]):
            nodes.append(node)
            continue
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        scale, bias, mean, variance = (onnx.numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:])
        gain = scale / np.sqrt(variance + given.get("epsilon", 1e-5))
        name = node.output[0]
        for label, value in (("gain", gain), ("shift", bias - mean * gain)):
            graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32).reshape(-1, 1, 1), f"{name}_{label}"))
        nodes.append(onnx.helper.make_node("Mul", [node.input[0], f"{name}_gain"], [f"{name}_scaled"], name=f"{name}_scaled"))
        nodes.append(onnx.helper.make_node("Add", [f"{name}_scaled", f"{name}_shift"], [name], name=name))
    del graph.node[:]
    graph.node.extend(nodes)


def _name_weights(graph: Any) -> None:
    """Weights by the path of their module, and no constant or size that could bear the name of an activation."""
    names: dict[str, str] = {}
    constants = {item.name for item in graph.initializer}
    taken = set[str]()
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        module, number = _module(node), 2
        while node.input[1] not in names and f"{module}.weight" in taken:
            module, number = f"{_module(node)}_{number}", number + 1
        for name, kind in zip(node.input[1:], ("weight", "bias"), strict=False):
            if name in constants and name not in names and f"{module}.{kind}" not in taken:
                names[name] = f"{module}.{kind}"
                taken.add(names[name])
    for place, name in enumerate(sorted(constants - set(names))):
        names[name] = f"constant:{place}"
    made = [name for node in graph.node for name in node.output if name and name != "logits"]
    rename(graph, names | {name: f"value:{place}" for place, name in enumerate(made)})


def _module(node: Any) -> str:
    """The module that a convolution stands for: by its weight's name, else by the scopes in the node's own.

    TorchScript calls a folded weight onnx::Conv_12 and the node /layer1/layer1.0/conv1/Conv.
    """
    weight = _FOLDED.sub("", node.input[1])
    if not weight.startswith("onnx::") and weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    scopes = [part for part in node.name.split("/") if part][:-1]
    kept = [part for part, following in pairwise([*scopes, ""]) if not following.startswith(f"{part}.")]
    return ".".join(kept) or re.sub(r"[^\w.]+", "_", weight)
