"""An ONNX file to a strongly typed TensorRT network: every tensor keeps the type that the file gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError, EnvironmentMissing, RunFailed
from gddctl.runtime.trt_bindings import Bindings, last_errors, make_logger

_DYNAMIC = -1  # how TensorRT writes an axis that is known only at run time


@dataclass(frozen=True)
class Parsed:
    """A network and what it needs to stay alive."""

    bindings: Bindings
    logger: Any
    builder: Any
    network: Any
    parser: Any  # owns the weights that the network points to

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that is baked into the file; None when it is open."""
        batch = int(self.network.get_input(0).shape[0])
        return None if batch == _DYNAMIC else batch

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch."""
        return tuple(int(size) for size in self.network.get_input(0).shape)[1:]


def parse_network(bindings: Bindings, onnx: Path, info: ModelInfo) -> Parsed:
    """Parse ``onnx``.

    Raises:
        EnvironmentMissing: this TensorRT knows no strong typing.
        RunFailed: the builder cannot be made.
        ArtifactError: the parser refuses a node, or inputs and outputs are not those of ``info``.
    """
    trt, logger = bindings.trt, make_logger(bindings.trt)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if typed is None:
        raise EnvironmentMissing(
            f"{bindings.name} knows no strongly typed networks, so it would choose precisions by itself",
            remedy="install TensorRT 10.3 or later",
        )
    try:
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(typed))  # the bit differs between 10 and 11: only its name is stable
    except (RuntimeError, TypeError) as error:  # a null pointer from the library surfaces as one of these
        raise RunFailed(
            f"{bindings.name} cannot start its builder ({error}; {last_errors(logger)})", remedy="see: gddctl doctor"
        ) from error
    if bindings.can_be_weak and not network.get_flag(typed):
        raise RunFailed(f"{bindings.name} made a weakly typed network although a strongly typed one was asked for")
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):  # from the file, not from bytes: weights may lie beside it
        raise ArtifactError(
            f"{onnx}: {bindings.name} cannot take this graph: {'; '.join(_complaints(parser)) or last_errors(logger)}",
            remedy="export it again with opset 20 and the target tensorrt",
        )
    parsed = Parsed(bindings, logger, builder, network, parser)
    _check_io(parsed, onnx, info)
    _reach_uint8_from_float(trt, network)
    return parsed


def _reach_uint8_from_float(trt: Any, network: Any) -> None:
    """Cast class ids to FP32 on their way to UINT8, which TensorRT converts from floats alone, say its headers (NvInferRuntimeBase.h)."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if (
            layer.type.name == "CAST"
            and layer.get_output(0).dtype.name == "UINT8"
            and layer.get_input(0).dtype.name not in ("FLOAT", "HALF")
        ):
            between = network.add_cast(layer.get_input(0), trt.DataType.FLOAT)
            layer.set_input(0, between.get_output(0))


def _complaints(parser: Any) -> Iterator[str]:
    """Each error of the parser with the node it is about."""
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        text = " ".join(error.desc().split())
        where = f"node '{error.node_name()}' ({error.node_operator()})" if error.node_operator() else "the file"
        yield f"{where}: {text}"


def _check_io(parsed: Parsed, onnx: Path, info: ModelInfo) -> None:
    network = parsed.network
    found = [network.get_input(index).name for index in range(network.num_inputs)]
    found += [network.get_output(index).name for index in range(network.num_outputs)]
    wanted = ["image", "logits" if info.graph == "logits" else "mask"]
    if found != wanted:
        raise ArtifactError(f"{onnx}: it takes and gives {found}, expected {wanted}", remedy="export it again")
    height, width = info.preprocess.size
    shape = (3, height, width) if info.graph == "logits" else (height, width, 3)
    if parsed.image_shape != shape:
        raise ArtifactError(
            f"{onnx}: 'image' is {parsed.image_shape} without the batch, its description says {shape}", remedy="export it again"
        )
