"""Widely dilated INT8 convolutions without the multiplications by padding: the same codes, region by region.

A 3x3 convolution with dilation 24 on a 45x60 map reads zeros for more than half of its products. The integer kernels multiply them; the
float kernels skip them. Here the output is cut into regions by which taps fall inside the map, and each region is computed with
those taps alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gddctl.core.lazy import require
from gddctl.export.simplify import copies, drop_unread

MAX_SHARE = 0.8  # of products that read the map, not padding; above it the extra nodes cost what they save (measured on AVX512-VNNI)
MIN_SAVED = 2e8  # products per image; about half a millisecond on two cores with AVX512-VNNI, what the extra nodes cost at most


@dataclass(frozen=True)
class Stretch:
    """Output places ``start..stop`` along one axis, and the taps ``first..last`` that fall inside the map for all of them."""

    start: int
    stop: int
    first: int
    last: int


def stretches(size: int, taps: int, dilation: int) -> list[Stretch]:
    """Cut an axis of a stride-1 convolution with 'same' padding by which taps read the map.

    >>> stretches(5, 3, 4)
    [Stretch(start=0, stop=1, first=1, last=2), Stretch(start=1, stop=4, first=1, last=1), Stretch(start=4, stop=5, first=0, last=1)]
    """
    middle = taps // 2
    found: list[Stretch] = []
    for place in range(size):
        inside = [tap for tap in range(taps) if 0 <= place + (tap - middle) * dilation < size]
        if found and (found[-1].first, found[-1].last) == (inside[0], inside[-1]):
            found[-1] = Stretch(found[-1].start, place + 1, inside[0], inside[-1])
        else:
            found.append(Stretch(place, place + 1, inside[0], inside[-1]))
    return found


def share_inside(parts: list[Stretch], taps: int) -> float:
    """Share of an axis' products that read the map."""
    return sum((part.stop - part.start) * (part.last - part.first + 1) for part in parts) / (parts[-1].stop * taps)


def trim_padding(model: Any, *, max_share: float = MAX_SHARE, min_saved: float = MIN_SAVED) -> int:
    """Rewrite, in place, the dilated Q/DQ convolutions that mostly read padding. Returns how many were rewritten."""
    onnx = require("onnx", extra="export", why="quantising a graph")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred.value_info}
    graph, count = model.graph, 0
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        site = _site(onnx, graph, conv)
        if site is None or len(shapes.get(conv.input[0], ())) != 4:
            continue
        height, width = shapes[conv.input[0]][2:]
        rows, columns = stretches(height, site.taps[0], site.dilation[0]), stretches(width, site.taps[1], site.dilation[1])
        share = share_inside(rows, site.taps[0]) * share_inside(columns, site.taps[1])
        if share <= max_share and (1 - share) * site.weight_size * height * width >= min_saved:
            _rewrite(onnx, graph, site, rows, columns)
            count += 1
    return count


@dataclass(frozen=True)
class _Site:
    """DQ -> Conv -> [ReLU] -> Q, with the DQ of its weight."""

    conv: Any
    source: Any
    weight: Any
    relu: Any | None
    sink: Any
    taps: tuple[int, int]
    dilation: tuple[int, int]
    weight_size: int  # products per place of the output


def _site(onnx: Any, graph: Any, conv: Any) -> _Site | None:
    makers = {name: node for node in graph.node for name in node.output}
    sizes = {item.name: int(np.prod(item.dims)) for item in graph.initializer}
    readers = [node for node in graph.node if conv.output[0] in node.input]
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in conv.attribute}
    taps, dilation = tuple(attributes["kernel_shape"]), tuple(attributes.get("dilations", (1, 1)))
    same = [d * (t // 2) for d, t in zip(dilation, taps, strict=True)] * 2
    if any(t % 2 == 0 for t in taps) or list(attributes.get("pads", [])) != same or set(attributes.get("strides", [1])) != {1}:
        return None
    if max(dilation) == 1 or attributes.get("group", 1) != 1 or len(readers) != 1:
        return None
    relu = readers[0] if readers[0].op_type == "Relu" else None
    sinks = [node for node in graph.node if relu.output[0] in node.input] if relu is not None else readers
    source, weight = makers.get(conv.input[0]), makers.get(conv.input[1])
    if len(sinks) != 1 or sinks[0].op_type != "QuantizeLinear" or source is None or weight is None:
        return None
    if source.op_type != "DequantizeLinear" or weight.op_type != "DequantizeLinear" or weight.input[0] not in sizes:
        return None
    return _Site(conv, source, weight, relu, sinks[0], (taps[0], taps[1]), (dilation[0], dilation[1]), sizes[weight.input[0]])


def _rewrite(onnx: Any, graph: Any, site: _Site, rows: list[Stretch], columns: list[Stretch]) -> None:
    """Codes in, codes out: slices of the input's codes, one small convolution each, their codes joined."""
    helper = onnx.helper
    new = _Part(onnx, site)
    base, lines = site.conv.output[0], []
    for row in rows:
        regions = [new.region(row, column) for column in columns]
        if len(regions) > 1:
            strip = f"{base}_strip_{row.start}"
            new.nodes.append(helper.make_node("Concat", regions, [strip], name=strip, axis=3))
            regions = [strip]
        lines += regions
    new.nodes.append(helper.make_node("Concat", lines, [site.sink.output[0]], name=f"{base}_whole", axis=2))
    _replace(graph, {node.output[0] for node in (site.conv, site.relu, site.sink) if node is not None}, new.nodes)
    graph.initializer.extend(new.constants.values())
    drop_unread(graph)


class _Part:
    """Collects the nodes and constants that stand for one convolution."""

    def __init__(self, onnx: Any, site: _Site) -> None:
        self._onnx, self._site = onnx, site
        self._base = site.conv.output[0]
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def region(self, row: Stretch, column: Stretch) -> str:
        """The codes of one region of the output."""
        name = f"{self._base}_{row.start}_{column.start}"
        offset = [
            (part.first - taps // 2) * step for part, taps, step in zip((row, column), self._site.taps, self._site.dilation, strict=True)
        ]
        reach = [
            (part.last - taps // 2) * step for part, taps, step in zip((row, column), self._site.taps, self._site.dilation, strict=True)
        ]
        begin = self._constant(f"{name}_begin", np.array([row.start + offset[0], column.start + offset[1]], np.int64))
        end = self._constant(f"{name}_end", np.array([row.stop + reach[0], column.stop + reach[1]], np.int64))
        axes = self._constant(f"{self._base}_axes", np.array([2, 3], np.int64))
        coding, result = self._site.source.input[1:], self._site.sink.input[1:]
        cut = self._add("Slice", [self._site.source.input[0], begin, end, axes], f"{name}_codes")
        value = self._add("DequantizeLinear", [cut, *coding], f"{name}_values")
        kernel = [row.last - row.first + 1, column.last - column.first + 1]
        inputs = [value, self._weight(row, column), *self._site.conv.input[2:]]
        answer = self._add(
            "Conv", inputs, f"{name}_conv", kernel_shape=kernel, dilations=list(self._site.dilation), pads=[0] * 4, strides=[1, 1]
        )
        if self._site.relu is not None:
            answer = self._add("Relu", [answer], f"{name}_relu")
        return self._add("QuantizeLinear", [answer, *result], f"{name}_answer")

    def _weight(self, row: Stretch, column: Stretch) -> str:
        """The taps of a region, cut out of the whole weight; runtimes fold that cut when they load the file."""
        name = f"{self._base}_taps_{row.first}{row.last}_{column.first}{column.last}"
        if f"{name}_begin" not in self.constants:
            begin = self._constant(f"{name}_begin", np.array([row.first, column.first], np.int64))
            end = self._constant(f"{name}_end", np.array([row.last + 1, column.last + 1], np.int64))
            axes = self._constant(f"{self._base}_axes", np.array([2, 3], np.int64))
            self._add("Slice", [self._site.weight.input[0], begin, end, axes], name)
            self._add("DequantizeLinear", [name, *self._site.weight.input[1:]], f"{name}_dq", axis=0)
        return f"{name}_dq"

    def _constant(self, name: str, value: Any) -> str:
        self.constants[name] = self._onnx.numpy_helper.from_array(value, name)
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def _replace(graph: Any, old: set[str], new: list[Any]) -> None:
    """Put ``new`` where the last of the nodes that make ``old`` stood."""
    nodes = copies(graph.node)
    place = max(index for index, node in enumerate(nodes) if node.output[0] in old)
    before = [node for node in nodes[:place] if node.output[0] not in old]
    del graph.node[:]
    graph.node.extend([*before, *new, *nodes[place + 1 :]])
