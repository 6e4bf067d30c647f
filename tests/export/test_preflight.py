"""What is looked for in a graph before minutes of work: our own students show nothing, each fault is found where it is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gddctl.core.errors import ArtifactError
from gddctl.export.graph_file import MAX_NODES, load_model
from gddctl.export.preflight import Finding, preflight, refuse

K = 3


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_our_own_students_show_nothing(make_exported: Callable[[str], Any], arch: str) -> None:
    fp32 = make_exported(arch).fp32
    assert preflight(load_model(fp32.path), classes=fp32.info.classes.names, opset=20) == ()


def small() -> Any:
    """image (batch, 3, 8, 8) -> Conv -> logits (batch, K, 8, 8)."""
    kernel = numpy_helper.from_array(np.ones((K, 3, 1, 1), np.float32), "head.weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "head.weight"], ["logits"], name="head")],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", K, 8, 8])],
        [kernel],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def put_before(model: Any, *nodes: Any) -> None:
    """Nodes whose last output the convolution reads instead of the image."""
    model.graph.node[0].input[0] = nodes[-1].output[0]
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)


def external(model: Any) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def old_opset(model: Any) -> None:
    model.opset_import[0].version = 18


def new_opset(model: Any) -> None:
    model.opset_import[0].version = 21


def new_ir(model: Any) -> None:
    model.ir_version = 11


def contrib(model: Any) -> None:
    put_before(model, helper.make_node("FusedConv", ["image"], ["x"], name="fused", domain="com.microsoft"))


def control_flow(model: Any) -> None:
    put_before(model, helper.make_node("Loop", ["image"], ["x"], name="repeat"))


def quantised(model: Any) -> None:
    put_before(model, helper.make_node("DequantizeLinear", ["image", "s"], ["x"], name="dq"))


def unpool(model: Any) -> None:
    put_before(model, helper.make_node("MaxUnpool", ["image", "i"], ["x"], name="unpool", kernel_shape=[2, 2]))


def transposed(model: Any) -> None:
    put_before(model, helper.make_node("ConvTranspose", ["image", "w"], ["x"], name="up"))


def batchnorm(model: Any) -> None:
    put_before(model, helper.make_node("BatchNormalization", ["image", *"sbmv"], ["x"], name="bn"))


def computed_kernel(model: Any) -> None:
    model.graph.node.insert(0, helper.make_node("Identity", ["head.weight"], ["computed"]))
    model.graph.node[1].input[1] = "computed"


def nan(model: Any) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((K, 3, 1, 1), np.nan, np.float32), "head.weight"))


def half(model: Any) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((K, 3, 1, 1), np.float16), "head.weight"))


def bytes_transposed(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x"], to=TensorProto.FLOAT),
    ]
    put_before(model, *nodes)


def bytes_cast(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x"], name="turn", perm=[0, 3, 1, 2]),
    ]
    put_before(model, *nodes)


def aux(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("aux", TensorProto.FLOAT, ["batch", K, 8, 8]))


def open_size(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def many_nodes(model: Any) -> None:
    names = ["image", *(f"x{place}" for place in range(MAX_NODES))]
    nodes = [helper.make_node("Abs", [a], [b]) for a, b in pairwise(names)]
    nodes.append(model.graph.node[0])
    nodes[-1].input[0] = names[-1]
    del model.graph.node[:-1]
    model.graph.node.extend(nodes[:-1])


def pool(kernel: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        put_before(model, helper.make_node("AveragePool", ["image"], ["x"], name="bins", kernel_shape=[kernel] * 2, strides=[kernel] * 2))

    return change


def unrolled(bins: int) -> Callable[[Any], None]:
    """Rows of the image picked one by one and summed, ``bins`` of them."""

    def change(model: Any) -> None:
        nodes = []
        for place in range(bins):
            model.graph.initializer.append(numpy_helper.from_array(np.array(place % 8), f"row{place}"))
            nodes.append(helper.make_node("Gather", ["image", f"row{place}"], [f"picked{place}"], axis=2))
        sums = ["picked0", *(f"sum{place}" for place in range(1, bins))]
        nodes += [helper.make_node("Add", [sums[place - 1], f"picked{place}"], [sums[place]]) for place in range(1, bins)]
        put_before(model, *nodes)

    return change


@pytest.mark.parametrize(
    ("change", "severity", "where", "words"),
    [
        (external, "error", "head.weight", "1 weights lie outside the file"),
        (old_opset, "error", "", "opset 18: FP16 scales need 19"),
        (new_opset, "note", "", "TensorRT 10.3 reads up to 20"),
        (new_ir, "error", "", "IR version 11, at most 10"),
        (contrib, "error", "fused", "com.microsoft::FusedConv is not part of the ONNX standard"),
        (control_flow, "error", "repeat", "Loop needs control flow"),
        (quantised, "error", "dq", "the graph is quantised already"),
        (unpool, "note", "unpool", "TensorRT does not read MaxUnpool"),
        (transposed, "note", "up", "ConvTranspose is not quantised"),
        (batchnorm, "error", "bn", "1 BatchNormalization nodes were not folded"),
        (computed_kernel, "error", "head", "the kernel is computed"),
        (nan, "error", "head.weight", "NaN or infinity"),
        (half, "error", "", "1 of its constants are FLOAT16"),
        (bytes_transposed, "error", "turn", "TensorRT refuses a Transpose of 8-bit integers"),
        (aux, "error", "", "2 outputs (logits, aux), expected one"),
        (open_size, "error", "image", "height and width are not fixed"),
        (many_nodes, "error", "", f"{MAX_NODES + 1} nodes ({MAX_NODES} Abs, 1 Conv)"),
        (pool(5), "note", "bins", "5 x 5 bins do not divide its 8 x 8 map"),
        (unrolled(9), "error", "image", "unrolled into 9 Gather and 8 Add nodes"),
    ],
)
def test_each_fault_is_found_where_it_is(change: Callable[[Any], None], severity: str, where: str, words: str) -> None:
    model = small()
    change(model)
    before = model.SerializeToString()
    (finding,) = preflight(model)
    assert (finding.severity, finding.where) == (severity, where) and words in finding.what
    assert model.SerializeToString() == before


@pytest.mark.parametrize("change", [None, bytes_cast, pool(4), unrolled(4)])
def test_their_sound_partners_show_nothing(change: Callable[[Any], None] | None) -> None:
    model = small()
    if change is not None:
        change(model)
    assert preflight(model, classes=("a", "b", "c"), opset=20) == ()


def test_an_opset_that_was_not_honoured_and_names_that_do_not_match() -> None:
    opset, names = preflight(small(), opset=19, classes=("a", "b"))
    assert "opset is 20, 19 was asked for" in opset.what
    assert names.what == "3 channels for 2 class names: 0 a, 1 b, 2 (no name)"


def test_notes_pass_and_errors_are_all_named() -> None:
    note, errors = Finding("note", "so it is"), [Finding("error", "one", "here", "do this"), Finding("error", "two")]
    refuse([note], "x.onnx")
    with pytest.raises(ArtifactError) as caught:
        refuse([note, *errors], "x.onnx")
    assert str(caught.value) == "x.onnx: here: one; do this; two"


def test_the_list_of_operators_is_what_the_parser_says() -> None:
    """TensorRT-RTX's own parser, where it is installed."""
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    from gddctl.export.operators import NOT_IN_TENSORRT

    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    parser = trt.OnnxParser(builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)), log)
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert not [name for name in sorted(NOT_IN_TENSORRT & known) if parser.supports_operator(name)]
    assert parser.supports_operator("ConvTranspose")
