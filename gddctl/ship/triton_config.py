"""One ``config.pbtxt`` of a Triton model repository: what the file takes and gives, where it runs, how requests are put together.

Field names and meanings: model_config.proto of triton-inference-server/common; docs/user_guide/model_configuration.md and batcher.md of
triton-inference-server/server; the README of triton-inference-server/onnxruntime_backend. Tests parse every text written here into the
``ModelConfig`` message that ``tritonclient[grpc]`` carries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from typing_extensions import assert_never

from gddctl.core.artifact.tensors import TensorSpec, tensor_specs
from gddctl.ship.triton_model import TritonModel

QUEUE = 256  # requests that wait; one more is refused at once, so that a flood is told instead of timing out
GPU_DELAY_US = 500  # how long a request on a GPU waits for company; small against an answer's time on any GPU
CPU_DELAY_US = 0  # on a CPU a batch takes its images' times together: nothing is gained by waiting


def config_text(model: TritonModel) -> str:
    """The whole file."""
    return "\n".join([*_header(model), *_identity(model), *_tensors(model), *_batching(model), *_place(model), *_parameters(model), ""])


def quoted(text: str) -> str:
    """A string of protobuf's text format. UTF-8 stays as it is; backslash, quote and control characters are escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\{ord(char):03o}" if ord(char) < 32 or ord(char) == 127 else char for char in escaped) + '"'


def _header(model: TritonModel) -> Iterator[str]:
    yield "# Not run here: parsed into Triton's ModelConfig message and compared with the model file, but no Triton server has loaded it."
    yield "# Placed in a model repository, beside the model file, by triton/assemble.sh."
    record = model.source.engine if model.source is not None else None
    if record is not None:
        yield f"# The plan in this release was built by TensorRT {record.version} on {record.device}: it loads there alone."
        yield "# A Triton image with another TensorRT needs its own: triton/build-plans.sh."
    elif model.source is None:
        yield "# The plan is built first, by the TensorRT that will run it: triton/build-plans.sh."
    if model.batches.smallest > 1:
        yield f"# This plan answers no batch under {model.batches.smallest}: clients send at least that many images in one request."


def _identity(model: TritonModel) -> Iterator[str]:
    yield f"name: {quoted(model.name)}"
    yield f"platform: {quoted(model.platform)}"
    yield f"backend: {quoted(model.backend)}"
    yield f"default_model_filename: {quoted(model.file)}"
    yield f"max_batch_size: {model.batches.largest}"
    yield "version_policy { latest { num_versions: 1 } }"


def _tensors(model: TritonModel) -> Iterator[str]:
    """``dims`` leave out the batch, because ``max_batch_size`` is not 0. No label file: it is for top-k of scores, and a mask has none."""
    specs = tensor_specs(model.info)
    for spec in specs.inputs:
        layout = f"format: {_format(spec)}\n  dims: {_dims(spec)}"
        yield f"input {{\n  name: {quoted(spec.name)}\n  data_type: {spec.triton_type}\n  {layout}\n}}"
    for spec in specs.outputs:
        yield f"output {{\n  name: {quoted(spec.name)}\n  data_type: {spec.triton_type}\n  dims: {_dims(spec)}\n}}"


def _format(spec: TensorSpec) -> str:
    return {"BHWC": "FORMAT_NHWC", "BCHW": "FORMAT_NCHW"}.get(spec.axes, "FORMAT_NONE")


def _dims(spec: TensorSpec) -> str:
    return f"[ {', '.join(str(side) for side in spec.item_shape)} ]"


def _batching(model: TritonModel) -> Iterator[str]:
    """Preferred sizes for plans alone, tuned for one size: "should not be used for most models" (batcher.md)."""
    preferred = sorted({model.batches.usual, model.batches.largest} - {1}) if model.backend == "tensorrt" else []
    yield "dynamic_batching {"
    if preferred:
        yield f"  preferred_batch_size: [ {', '.join(map(str, preferred))} ]"
    yield f"  max_queue_delay_microseconds: {CPU_DELAY_US if model.kind == 'KIND_CPU' else GPU_DELAY_US}"
    yield f"  default_queue_policy {{ timeout_action: REJECT max_queue_size: {QUEUE} }}"
    yield "}"
    for batch in sorted({model.batches.smallest, model.batches.largest}):
        yield from _warmup(model, batch)


def _warmup(model: TritonModel, batch: int) -> Iterator[str]:
    """Random bytes are an image; random bytes read as floats are not numbers, so those are zeros."""
    yield f"model_warmup {{\n  name: {quoted(f'batch {batch}')}\n  batch_size: {batch}\n  count: 2"
    for spec in tensor_specs(model.info).inputs:
        match spec.dtype:
            case "uint8":
                data = "random_data: true"
            case "float32":
                data = "zero_data: true"
            case _ as never:
                assert_never(never)
        value = f"data_type: {spec.triton_type} dims: {_dims(spec)} {data}"
        yield f"  inputs {{ key: {quoted(spec.name)} value {{ {value} }} }}"
    yield "}"


def _place(model: TritonModel) -> Iterator[str]:
    """One instance; a second one on the same device shares its cores, and is worth measuring before it is written here."""
    match model.backend:
        case "tensorrt":
            yield f'instance_group {{ count: 1 kind: {model.kind} profile: "0" }}'
        case "onnxruntime":
            yield f"instance_group {{ count: 1 kind: {model.kind} }}"
            if model.kind != "KIND_CPU":
                yield '# FP32 with its whole mantissa, as this file was proven. The name "cuda" here is known to Triton 24.06 and later.'
                accelerator = 'gpu_execution_accelerator { name: "cuda" parameters { key: "use_tf32" value: "0" } }'
                yield f"optimization {{ execution_accelerators {{ {accelerator} }} }}"
        case _ as never:
            assert_never(never)


def _parameters(model: TritonModel) -> Iterator[str]:
    """What a client needs to know of the model, under ``gddctl.``; backends ignore keys that they do not know."""
    info = model.info
    shipped = model.source or model.onnx
    if model.backend == "onnxruntime" and model.kind != "KIND_GPU":
        yield "# 0: as many threads as the machine has cores. In a container with fewer, write their number."
        yield from _parameter("intra_op_thread_count", "0")
        yield from _parameter("inter_op_thread_count", "1")
        yield from _parameter("execution_mode", "0")
    if shipped is not None:
        yield from _parameter("gddctl.file", shipped.path.name)
        yield from _parameter("gddctl.sha256", shipped.sha256)
    yield from _parameter("gddctl.weights_sha256", info.weights_sha256)
    yield from _parameter("gddctl.graph", info.graph)
    yield from _parameter("gddctl.precision", info.precision)
    yield from _parameter("gddctl.preprocess", info.preprocess.model_dump_json())
    yield from _parameter("gddctl.classes", json.dumps(info.classes.names, ensure_ascii=False))
    yield from _parameter("gddctl.palette", json.dumps(info.classes.palette))
    yield from _parameter("gddctl.licence", info.licence)


def _parameter(key: str, value: str) -> Iterator[str]:
    yield f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"
