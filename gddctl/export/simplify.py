"""Rewrites after the exporter: the same numbers in forms with good kernels everywhere, and nothing of the build machine inside."""

from __future__ import annotations

from typing import Any

from gddctl.core.lazy import require


def simplify(model: Any) -> None:
    """In place: global means as GlobalAveragePool; source lines, scopes and paths that the exporter notes on nodes removed."""
    onnx = require("onnx", extra="export", why="exporting a bundle")
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and _over_the_map(onnx, node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    read = {name for node in model.graph.node for name in node.input}
    kept = [item for item in constants.values() if item.name in read]
    if len(kept) < len(constants):
        copies = [onnx.TensorProto.FromString(item.SerializeToString()) for item in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(copies)
    strip_notes(model)


def strip_notes(model: Any) -> None:
    """Remove doc strings and notes: they hold paths of the build machine, and make equal exports differ."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def _over_the_map(onnx: Any, node: Any, constants: dict[str, Any]) -> bool:
    """Whether a ReduceMean averages height and width and keeps both as 1."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if attributes.get("keepdims", 1) != 1 or len(node.input) != 2 or node.input[1] not in constants:
        return False
    return sorted(int(axis) % 4 for axis in onnx.numpy_helper.to_array(constants[node.input[1]]).reshape(-1)) == [2, 3]
