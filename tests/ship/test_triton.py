"""``config.pbtxt`` is what Triton's own message accepts, and says of every file what the file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import artifact_name
from gddctl.ship.shipped import Shipped
from gddctl.ship.triton_config import QUEUE, config_text, quoted
from gddctl.ship.triton_model import BATCH_BYTES, MOST_BATCH, TritonModel, choose, largest_batch
from tests.conftest import Exported
from tests.ship.making import engine_of, retold, shipped_of

text_format = pytest.importorskip("google.protobuf.text_format")
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")

TRITON_TYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


def parsed(text: str) -> Any:
    """The ``ModelConfig`` message that ``text`` is."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def differences(config: Any, path: Path) -> list[str]:
    """What the graph in ``path`` says otherwise than ``config``, and what Triton's rules forbid in it."""
    graph = onnx.load(str(path), load_external_data=False).graph
    found = []
    for kind, values, tensors in (("input", graph.input, config.input), ("output", graph.output, config.output)):
        if [value.name for value in values] != [tensor.name for tensor in tensors]:
            found.append(f"{kind} names")
            continue
        for value, tensor in zip(values, tensors, strict=True):
            told = value.type.tensor_type
            if TRITON_TYPES[told.elem_type] != model_config_pb2.DataType.Name(tensor.data_type):
                found.append(f"{kind} type")
            if [dim.dim_value for dim in told.shape.dim[1:]] != list(tensor.dims):
                found.append(f"{kind} dims")
            if config.max_batch_size > 0 and not told.shape.dim[0].dim_param:
                found.append(f"{kind} batch")
    image = config.input[0]
    for sample in config.model_warmup:
        warm = sample.inputs.get(image.name)
        if warm is None or (warm.data_type, list(warm.dims)) != (image.data_type, list(image.dims)):
            found.append("warm-up")
        elif not 1 <= sample.batch_size <= config.max_batch_size:
            found.append("warm-up batch")
    if any(not 1 <= size <= config.max_batch_size for size in config.dynamic_batching.preferred_batch_size):
        found.append("preferred batch")
    if config.backend == "tensorrt" and config.platform != "tensorrt_plan":
        found.append("platform")
    return found


@pytest.fixture(scope="module")
def real(psp: Exported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Shipped, Path]]:
    """Stem of every file of a release that Triton serves, in all precisions and graphs -> what ships, and the file."""
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.fp16 import to_fp16
    from gddctl.export.int8 import quantize

    folder = tmp_path_factory.mktemp("triton")
    fp16 = to_fp16(psp.fp32, folder / artifact_name("psp", "fp16", "any", "logits"))
    trt = quantize(psp.fp32, psp.record, folder / artifact_name("psp", "int8", "tensorrt", "logits"), target="tensorrt")
    deploy = [to_deploy(item, folder / item.path.name.replace(".logits.", ".deploy.")) for item in (fp16, trt)]
    artifacts = [psp.fp32, psp.fp32_deploy, psp.int8, psp.int8_deploy, fp16, trt, *deploy]
    return {item.path.stem: (shipped_of(item), item.path) for item in artifacts}


def models_of(real: dict[str, tuple[Shipped, Path]]) -> list[tuple[TritonModel, Path]]:
    chosen, left = choose([shipped for shipped, _ in real.values()])
    assert left == ()
    return [(model, real[(model.source or model.onnx).path.stem][1]) for model in chosen]  # type: ignore[union-attr]


def test_every_configuration_parses_and_agrees_with_its_file(real: dict[str, tuple[Shipped, Path]]) -> None:
    models = models_of(real)
    assert {model.name for model, _ in models} == {
        *(stem for stem in real if "tensorrt" not in stem),
        *(f"psp-{precision}-tensorrt.{graph}" for precision in ("fp16", "int8") for graph in ("logits", "deploy")),
    }
    for model, path in models:
        config = parsed(config_text(model))
        assert differences(config, path) == [], model.name
        assert config.name == model.name
        assert config.default_model_filename == {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}[config.backend]
        assert len(config.model_warmup) == 2
        assert config.dynamic_batching.default_queue_policy.max_queue_size == QUEUE
        assert config.version_policy.latest.num_versions == 1


BREAKS: list[tuple[str, Callable[[str], str], list[str]]] = [
    (
        "another type",
        lambda text: text.replace("data_type: TYPE_UINT8\n  format", "data_type: TYPE_INT8\n  format"),
        ["input type", "warm-up"],
    ),
    ("another side", lambda text: text.replace("dims: [ 64, 96, 3 ]", "dims: [ 64, 97, 3 ]"), ["input dims"]),
    ("a mask with a channel", lambda text: text.replace("dims: [ 64, 96 ]", "dims: [ 1, 64, 96 ]"), ["output dims"]),
    ("another name", lambda text: text.replace('name: "mask"', 'name: "labels"'), ["output names"]),
    ("a warm-up of another size", lambda text: text.replace("dims: [ 64, 96, 3 ] random", "dims: [ 3, 64, 96 ] random"), ["warm-up"]),
    ("a warm-up over the batch", lambda text: text.replace("batch_size: 8\n  count", "batch_size: 9\n  count"), ["warm-up batch"]),
]


@pytest.mark.parametrize(("what", "break_it", "named"), BREAKS, ids=[item[0] for item in BREAKS])
def test_a_configuration_that_disagrees_is_seen(psp: Exported, what: str, break_it: Callable[[str], str], named: list[str]) -> None:
    """Partner of the agreement: each kind of disagreement is found."""
    (model,), _ = choose([shipped_of(psp.fp32_deploy)])
    good = config_text(model)
    bad = break_it(good)
    assert bad != good
    assert set(differences(parsed(bad), psp.fp32_deploy.path)) == set(named)


@pytest.mark.parametrize(
    "line", ["max_batchsize: 8", 'input { name: "image" dtype: TYPE_FP32 }', "instance_group { kind: KIND_TPU }", 'name: "open']
)
def test_what_is_no_configuration_does_not_parse(psp: Exported, line: str) -> None:
    (model,), _ = choose([shipped_of(psp.fp32_deploy)])
    with pytest.raises(text_format.ParseError):
        parsed(f"{config_text(model)}\n{line}\n")


def test_each_file_goes_where_it_was_proven(psp: Exported) -> None:
    kinds = model_config_pb2.ModelInstanceGroup.Kind
    base = shipped_of(psp.fp32_deploy)
    files = [
        base,
        retold(base, precision="fp16"),
        retold(base, precision="int8", target="ort-cpu"),
        retold(base, precision="int8", target="ort-cuda"),
    ]
    found = {model.info.precision + model.info.target + model.backend: parsed(config_text(model)) for model in choose(files)[0]}
    assert {key: kinds.Name(config.instance_group[0].kind) for key, config in found.items()} == {
        "fp32anyonnxruntime": "KIND_AUTO",
        "fp16anyonnxruntime": "KIND_GPU",
        "fp16anytensorrt": "KIND_GPU",
        "int8ort-cpuonnxruntime": "KIND_CPU",
        "int8ort-cudaonnxruntime": "KIND_GPU",
    }
    accelerators = found["fp16anyonnxruntime"].optimization.execution_accelerators.gpu_execution_accelerator
    assert [(item.name, dict(item.parameters)) for item in accelerators] == [("cuda", {"use_tf32": "0"})]
    on_cpu = found["int8ort-cpuonnxruntime"]
    assert not on_cpu.optimization.execution_accelerators.gpu_execution_accelerator
    assert on_cpu.parameters["intra_op_thread_count"].string_value == "0"
    assert on_cpu.dynamic_batching.max_queue_delay_microseconds == 0


def test_a_plan_says_its_profile(psp: Exported) -> None:
    source = retold(shipped_of(psp.fp32_deploy), precision="fp16")
    (plan,) = [model for model in choose([source, engine_of(source, "tensorrt")])[0] if model.backend == "tensorrt"]
    config = parsed(config_text(plan))
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (4, [2, 4])
    assert list(config.instance_group[0].profile) == ["0"]
    assert [sample.batch_size for sample in config.model_warmup] == [1, 4]
    assert plan.source is not None and plan.source.path.suffix == ".engine" and plan.onnx is source
    few = engine_of(source, "tensorrt", (2, 2, 4))
    text = config_text(choose([few])[0][0])
    assert "answers no batch under 2" in text and [sample.batch_size for sample in parsed(text).model_warmup] == [2, 4]


def test_what_triton_does_not_serve_is_named(psp: Exported) -> None:
    base = shipped_of(psp.fp32_deploy)
    fp16 = retold(base, precision="fp16")
    rtx = engine_of(fp16, "tensorrt-rtx")
    models, left = choose([retold(base, precision="int8", target="openvino"), rtx])
    assert models == () and [item.file for item in left] == [rtx.path.name, "tiny-int8-openvino.deploy.onnx"]
    models, left = choose([fp16, rtx])  # with its source the plan is built anew by the TensorRT that Triton has
    (plan,) = [model for model in models if model.backend == "tensorrt"]
    assert left == () and plan.source is None and plan.onnx is fp16 and plan.batches.usual == 2


def test_batches_stay_within_memory(psp: Exported) -> None:
    small = psp.fp32.info
    large = ModelInfo.model_validate({**small.model_dump(), "preprocess": {"size": (1024, 2048)}})
    each = 4 * (3 + len(small.classes)) * 1024 * 2048
    assert largest_batch(small) == MOST_BATCH
    assert largest_batch(large) * each <= BATCH_BYTES < 2 * largest_batch(large) * each


@given(st.text())
def test_strings_survive_the_text_format(text: str) -> None:
    assert parsed(f"name: {quoted(text)}").name == text


def test_what_a_client_needs_stands_in_the_parameters(psp: Exported) -> None:
    import json

    (model,), _ = choose([shipped_of(psp.fp32_deploy)])
    parameters = {key: item.string_value for key, item in parsed(config_text(model)).parameters.items()}
    info = psp.fp32_deploy.info
    assert parameters["gddctl.sha256"] == psp.fp32_deploy.sha256
    assert json.loads(parameters["gddctl.preprocess"]) == info.preprocess.model_dump(mode="json")
    assert tuple(json.loads(parameters["gddctl.classes"])) == info.classes.names
