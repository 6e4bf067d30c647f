"""Float classifiers wider than one place, as products per tap and a sum of shifted maps: the same sums in another order.

A 3x3 convolution from 512 channels to a dozen classes fills a fraction of a vector register in OpenVINO's float kernels. As a 1x1
convolution to classes x taps it fills them, and the sum over taps costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gddctl.core.lazy import require
from gddctl.export.simplify import copies, drop_unread

MAX_CLASSES = 32  # above, the kernels are full without it


def split_taps(model: Any) -> int:
    """Rewrite, in place, the float convolutions to few channels. Returns how many were rewritten."""
    onnx = require("onnx", extra="export", why="quantising a graph")
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    nodes, count = [], 0
    for node in copies(graph.node):
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or not _fits(onnx, node, list(weight.dims)):
            nodes.append(node)
            continue
        classes, _, height, width = weight.dims
        taps, result = height * width, node.output[0]
        kernel = onnx.numpy_helper.to_array(weight).transpose(0, 2, 3, 1).reshape(classes * taps, -1, 1, 1)
        places = np.zeros((classes, taps, height, width), np.float32)
        places.reshape(classes, taps, taps)[:, np.arange(taps), np.arange(taps)] = 1  # tap t of a class reads the map of tap t
        names = f"{result}_taps_weight", f"{result}_places"
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for value, name in zip((kernel, places), names, strict=True)
        )
        first = onnx.helper.make_node("Conv", [node.input[0], names[0]], [f"{result}_taps"], name=f"{result}_taps", kernel_shape=[1, 1])
        node.input[0], node.input[1] = first.output[0], names[1]
        _set_group(onnx, node, classes)
        nodes += [first, node]
        count += 1
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    return count


def _set_group(onnx: Any, node: Any, group: int) -> None:
    kept = [item for item in copies(node.attribute) if item.name != "group"]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("group", group)])


def _fits(onnx: Any, node: Any, dims: list[int]) -> bool:
    """A plain convolution with a float weight of its own, several taps, stride 1 and few outputs."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    plain = attributes.get("group", 1) == 1 and set(attributes.get("strides", [1])) == {1} and set(attributes.get("dilations", [1])) == {1}
    return plain and 1 < dims[0] <= MAX_CLASSES and dims[2] * dims[3] > 1 and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
