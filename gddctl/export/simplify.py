"""Rewrites after the exporter: the same numbers in forms with good kernels everywhere, and nothing of the build machine inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from gddctl.core.lazy import require


def simplify(model: Any) -> None:
    """In place: global means as GlobalAveragePool, the batch size of every Resize read off the image, the exporter's notes removed.

    A Resize whose size is read off its own input gives that input a second reader, which keeps runtimes from fusing what makes it.
    """
    onnx = require("onnx", extra="export", why="exporting a bundle")
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and _over_the_map(onnx, node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    _size_from_image(onnx, model)
    drop_unread(model.graph)
    strip_notes(model)


def strip_notes(model: Any) -> None:
    """Remove doc strings and notes: they hold paths of the build machine, and make equal exports differ."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def drop_unread(graph: Any) -> None:
    """Remove nodes and constants that no output depends on."""
    wanted, kept = {item.name for item in graph.output}, []
    for node in reversed(copies(graph.node)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    constants = [item for item in copies(graph.initializer) if item.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def copies(messages: Any) -> list[Any]:
    """Copies that outlive the clearing of the list they stand in."""
    result = []
    for message in messages:
        copy = type(message)()
        copy.CopyFrom(message)
        result.append(copy)
    return result


def _over_the_map(onnx: Any, node: Any, constants: dict[str, Any]) -> bool:
    """Whether a ReduceMean averages height and width and keeps both as 1."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if attributes.get("keepdims", 1) != 1 or len(node.input) != 2 or node.input[1] not in constants:
        return False
    return sorted(int(axis) % 4 for axis in onnx.numpy_helper.to_array(constants[node.input[1]]).reshape(-1)) == [2, 3]


def _size_from_image(onnx: Any, model: Any) -> None:
    """Size of each Resize: the image's batch, then the channels, height and width that are fixed anyway."""
    graph, helper = model.graph, onnx.helper
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (*inferred.value_info, *inferred.output)}
    nodes, found = [], False
    done = {node.output[0] for node in graph.node if node.op_type == "Concat" and node.input[0] == "image_batch"}
    for node in copies(graph.node):
        fixed, name = shapes.get(node.output[0], [])[1:], f"{node.output[0]}_size"
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3] not in done and len(fixed) == 3 and all(fixed):
            found = True
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(fixed, np.int64), f"{name}_fixed"))
            nodes.append(helper.make_node("Concat", ["image_batch", f"{name}_fixed"], [name], name=name, axis=0))
            node.input[3] = name
        nodes.append(node)
    if found:
        nodes.insert(0, helper.make_node("Shape", ["image"], ["image_batch"], name="image_batch", start=0, end=1))
    del graph.node[:]
    graph.node.extend(nodes)
