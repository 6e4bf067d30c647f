"""What would go wrong later, looked for in a graph before minutes of work: pure checks, each with its place and remedy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.graph_file import MAX_IR, MAX_NODES
from gddctl.export.operators import NOT_IN_TENSORRT, NOWHERE, QUANTISED

STANDARD = frozenset({"", "ai.onnx"})  # two spellings of one domain
MIN_OPSET = 19  # the first with FP16 scales of Q/DQ nodes
TENSORRT_OPSET = 20  # the newest that TensorRT 10.3 (JetPack 6.1) reads
UNROLLED_GATHERS, UNROLLED_ADDS = 8, 4  # one adaptive pooling to 3 x 3 already leaves 20 and 16


@dataclass(frozen=True)
class Finding:
    """One thing about a graph: ``fixed`` by us, a ``note`` to know, or an ``error`` that stops."""

    severity: Literal["fixed", "note", "error"]
    what: str
    where: str = ""  # node, tensor or layer
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text


def preflight(model: Any, *, classes: Sequence[str] | None = None, opset: int | None = None) -> tuple[Finding, ...]:
    """Check an FP32 graph with one image going in and one map of logits coming out.

    Args:
        model: a ``ModelProto`` with its weights; it is not changed.
        classes: names that its output channels must match; None does not look.
        opset: what was asked for; None does not look.
    """
    checks: list[Callable[[Any], Iterable[Finding]]] = [
        *(_domains, _nowhere, _quantised, _not_everywhere, _weights_inside, _weights, _kernels, _batchnorm, _versions),
        *(_blow_up, _integer_layout, _extra_outputs, _sizes),
    ]
    found = [finding for check in checks for finding in check(model)]
    if opset is not None and (given := opset_of(model)) != opset:
        found.append(Finding("error", f"its opset is {given}, {opset} was asked for and not honoured", remedy="export with dynamo=True"))
    if not any(finding.severity == "error" for finding in found):  # shapes are inferred in sound graphs only
        found += _pool_edges(model)
    if classes is not None:
        found += _channels(model, classes)
    return tuple(found)


def refuse(findings: Iterable[Finding], place: str) -> None:
    """Raise when a finding is an error.

    Raises:
        ArtifactError: naming all of them.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ArtifactError(f"{place}: " + "; ".join(str(finding) for finding in errors))


def opset_of(model: Any) -> int:
    """Version of the standard operators; 0 where none is named."""
    return next((int(item.version) for item in model.opset_import if item.domain in STANDARD), 0)


def named(nodes: Sequence[Any]) -> str:
    """Up to three nodes by name (or by what they make), and how many more there are."""
    names = [node.name or (node.output[0] if node.output else node.op_type) for node in nodes]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def before_running(model: Any) -> list[Finding]:
    """What can be told of somebody else's graph before anything runs it: a stranger's operators, Q/DQ, unrolled layers."""
    return [*_domains(model), *_quantised(model), *_unrolled(model)]


def _by_kind(model: Any, kinds: frozenset[str]) -> Iterator[tuple[str, list[Any]]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        if node.domain in STANDARD and node.op_type in kinds:
            groups[node.op_type].append(node)
    yield from groups.items()


def _domains(model: Any) -> Iterator[Finding]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        if node.domain not in STANDARD:
            groups[f"{node.domain}::{node.op_type}"].append(node)
    for kind, nodes in groups.items():
        remedy = "export with standard operators (torch.onnx.export without custom symbolics or contrib operators)"
        yield Finding("error", f"the operator {kind} is not part of the ONNX standard, so no target runs it", named(nodes), remedy)


def _nowhere(model: Any) -> Iterator[Finding]:
    for kind, nodes in _by_kind(model, NOWHERE):
        what = f"{kind} needs control flow, random numbers or shapes that depend on values; no target compiles it"
        yield Finding("error", what, named(nodes), "rewrite that part of the network without it, for a fixed input size")


def _quantised(model: Any) -> Iterator[Finding]:
    for kind, nodes in _by_kind(model, QUANTISED):
        yield Finding("error", f"{kind}: the graph is quantised already", named(nodes), "give the FP32 file it was made from")


def _not_everywhere(model: Any) -> Iterator[Finding]:
    for kind, nodes in _by_kind(model, NOT_IN_TENSORRT):
        yield Finding(
            "note", f"TensorRT does not read {kind}; ONNX Runtime does", named(nodes), "leave the target tensorrt out, or replace it"
        )
    for kind, nodes in _by_kind(model, frozenset({"ConvTranspose"})):
        yield Finding("note", f"{kind} is not quantised: it computes in high precision in every INT8 file", named(nodes))


def _weights_inside(model: Any) -> Iterator[Finding]:
    onnx = require("onnx", extra="export", why="checking a graph")
    outside = [item.name for item in model.graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        yield Finding("error", f"{len(outside)} weights lie outside the file", outside[0], "save it with external_data=False")


def _weights(model: Any) -> Iterator[Finding]:
    onnx = require("onnx", extra="export", why="checking a graph")
    kinds = onnx.TensorProto
    others: Counter[str] = Counter()
    for item in model.graph.initializer:
        if item.data_type in (kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE):
            others[kinds.DataType.Name(item.data_type)] += 1
        elif item.data_type == kinds.FLOAT and item.data_location != kinds.EXTERNAL:
            value = onnx.numpy_helper.to_array(item)
            if not np.isfinite(value).all() and value.ndim:  # a scalar infinity is a limit or a mask, not a weight
                yield Finding("error", "NaN or infinity among its values", item.name, "the weights are broken; export a whole checkpoint")
    for kind, count in others.items():
        yield Finding("error", f"{count} of its constants are {kind}, expected FLOAT", remedy="export the network in FP32 (model.float())")


def _kernels(model: Any) -> Iterator[Finding]:
    constants = {item.name for item in model.graph.initializer}
    loose = [node for node in model.graph.node if node.op_type == "Conv" and not constants.issuperset(n for n in node.input[1:] if n)]
    if loose:
        yield Finding(
            "error", "the kernel is computed, not a constant; it cannot be quantised", named(loose), "export with constant weights"
        )


def _batchnorm(model: Any) -> Iterator[Finding]:
    for kind, nodes in _by_kind(model, frozenset({"BatchNormalization"})):
        yield Finding("error", f"{len(nodes)} {kind} nodes were not folded", named(nodes), "export with model.eval() and optimize=True")


def _versions(model: Any) -> Iterator[Finding]:
    opset = opset_of(model)
    if opset < MIN_OPSET:
        yield Finding("error", f"opset {opset}: FP16 scales need {MIN_OPSET} or later", remedy=f"export with opset {TENSORRT_OPSET}")
    if opset > TENSORRT_OPSET:
        yield Finding(
            "note", f"opset {opset}: TensorRT 10.3 reads up to {TENSORRT_OPSET}", remedy=f"export with opset {TENSORRT_OPSET} for it"
        )
    if model.ir_version > MAX_IR:
        yield Finding(
            "error", f"IR version {model.ir_version}, at most {MAX_IR} is readable everywhere", remedy="write it with an older onnx"
        )


def _blow_up(model: Any) -> Iterator[Finding]:
    unrolled = list(_unrolled(model))
    yield from unrolled
    if not unrolled and len(model.graph.node) > MAX_NODES:
        kinds = Counter(node.op_type for node in model.graph.node).most_common(3)
        most = ", ".join(f"{count} {kind}" for kind, count in kinds)
        what = f"{len(model.graph.node)} nodes ({most}), at most {MAX_NODES} expected: some layer was unrolled"
        yield Finding("error", what, remedy="export for a fixed size, and without Python loops over pixels or channels")


def _unrolled(model: Any) -> Iterator[Finding]:
    for root, (gathers, adds) in _unrolled_pools(model).items():
        what = f"pooling it was unrolled into {gathers} Gather and {adds} Add nodes, as adaptive pooling is where bins do not divide"
        remedy = "pool by two matrix products (rows of 1 / bin size), or choose an input size whose feature map the bins divide"
        yield Finding("error", what, root, remedy)


def _unrolled_pools(model: Any) -> dict[str, tuple[int, int]]:
    """Tensors that are picked apart and summed up again: name -> (Gather nodes, Add nodes)."""
    constants = {item.name for item in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    roots: dict[str, str] = {}  # a tensor made by picking -> what was picked from
    gathers, adds = Counter[str](), Counter[str]()
    for node in model.graph.node:
        live = [name for name in node.input if name and name not in constants]
        kind = node.op_type
        if kind in ("Gather", "GatherND", "Slice") and len(live) == 1:
            root = roots.get(live[0], live[0])
            gathers[root] += 1
        elif kind == "Add" and live and all(name in roots for name in live):
            root = roots[live[0]]
            adds[root] += 1
        elif kind in ("Transpose", "Where", "Unsqueeze", "Squeeze") and len(live) == 1:
            root = roots.get(live[0], live[0])  # a Transpose stands before the GatherND
        else:
            continue
        roots[node.output[0]] = root
    return {root: (count, adds[root]) for root, count in gathers.items() if count >= UNROLLED_GATHERS and adds[root] >= UNROLLED_ADDS}


def _integer_layout(model: Any) -> Iterator[Finding]:
    kinds = require("onnx", extra="export", why="checking a graph").TensorProto
    bytes_ = {item.name for item in model.graph.input if item.type.tensor_type.elem_type in (kinds.UINT8, kinds.INT8)}
    bad = [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in bytes_]
    if bad:
        yield Finding("error", "TensorRT refuses a Transpose of 8-bit integers", named(bad), "cast to float first, then transpose")


def _extra_outputs(model: Any) -> Iterator[Finding]:
    names = [item.name for item in model.graph.output]
    if len(names) > 1:
        yield Finding("error", f"{len(names)} outputs ({', '.join(names)}), expected one", remedy="export without the auxiliary heads")


def _sizes(model: Any) -> Iterator[Finding]:
    for item in model.graph.input:
        dims = [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        if len(dims) == 4 and not all(dims[1:]):
            yield Finding("error", "height and width are not fixed", item.name, "export for one size; the batch alone may vary")


def pool_edges(model: Any) -> list[tuple[Any, str]]:
    """Large average poolings that leave edge pixels out: node, and what it leaves out in words. Needs inferable shapes."""
    onnx = require("onnx", extra="export", why="checking a graph")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*inferred.value_info, *inferred.input)}
    found = []
    for node in model.graph.node:
        if node.op_type != "AveragePool":
            continue
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        kernel, stride = list(given["kernel_shape"]), list(given.get("strides", [1, 1]))
        size = shapes.get(node.input[0], [])[2:]
        if (
            max(kernel) < 4
            or kernel != stride
            or given.get("ceil_mode", 0)
            or any(given.get("pads", [0]))
            or len(size) != 2
            or not all(size)
        ):
            continue  # 2 x 2 and 3 x 3 are strided downsampling, which may leave an edge
        if any(length % step for length, step in zip(size, stride, strict=True)):
            found.append((node, f"{kernel[0]} x {kernel[1]} bins do not divide its {size[0]} x {size[1]} map"))
    return found


def _pool_edges(model: Any) -> Iterator[Finding]:
    for node, what in pool_edges(model):
        yield Finding("note", f"{what}: pixels at the edge are left out", named([node]))


def _channels(model: Any, classes: Sequence[str]) -> list[Finding]:
    dims = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    if len(dims) == 4 and dims[1] and dims[1] != len(classes):
        return [channel_finding(dims[1], classes, model.graph.output[0].name)]
    return []


def channel_finding(channels: int, classes: Sequence[str], where: str) -> Finding:
    """That ``channels`` and ``classes`` do not fit together, with both lists."""
    listed = ", ".join(f"{place} {classes[place] if place < len(classes) else '(no name)'}" for place in range(max(channels, len(classes))))
    what = f"{channels} channels for {len(classes)} class names: {listed}"
    remedy = "name every channel in the order of the output, a background class too"
    if channels == 1:
        remedy = "a binary network with one channel: export two channels (background, object), for example torch.cat([-x, x], 1)"
    return Finding("error", what, where, remedy)
