"""What a parsed TensorRT network computes in: the proof that an engine is of the precision it is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import assert_never

from gddctl.core.config.sections import Precision
from gddctl.core.errors import ArtifactError
from gddctl.export.census import MIN_INT8_SHARE

_CLASSIFIERS = 1  # convolutions that stay in FP16 by rule: of few others they are more than a tenth
_KINDS = {"CONVOLUTION": "conv", "DECONVOLUTION": "conv", "MATRIX_MULTIPLY": "matmul"}
_FLOATS = {"HALF": "fp16", "BF16": "bf16", "FLOAT": "float"}


def count_layers(network: Any) -> dict[str, int]:
    """Layers by type and tensor types: ``{"CONVOLUTION HALF -> HALF": 28, ...}``."""
    counts: Counter[str] = Counter()
    for layer in _layers(network):
        types = ",".join(tensor.dtype.name for tensor in _inputs(layer) if tensor is not None)
        counts[f"{layer.type.name} {types + ' ' if types else ''}-> {layer.get_output(0).dtype.name}"] += 1
    return dict(sorted(counts.items()))


def engine_census(network: Any) -> dict[str, int]:
    """The layers that cost, by what they compute in, under the names of :func:`gddctl.export.census.census_of`.

    ``conv.int8``: image and kernel both come out of a DEQUANTIZE of INT8, into FP16; ``conv.int8-fp32``: the same into FP32, which leaves
    everything between the convolutions in FP32; ``conv.fp16``, ``conv.float``: neither comes from codes; likewise ``matmul.*``.
    """
    makers = {layer.get_output(place).name: layer for layer in _layers(network) for place in range(layer.num_outputs)}
    counts: Counter[str] = Counter({"conv.int8": 0, "conv.fp16": 0, "conv.float": 0, "quantize": 0, "dequantize": 0})
    for layer in _layers(network):
        counts["layers"] += 1
        name = layer.type.name
        if name in ("QUANTIZE", "DEQUANTIZE"):
            counts[name.lower()] += 1
        elif name in _KINDS:
            counts[f"{_KINDS[name]}.{_computes_in(layer, makers)}"] += 1
    return dict(counts)


def check_engine_census(counts: Mapping[str, int], precision: Precision, place: str, *, kept: int = 0) -> None:
    """Refuse a network that is not of ``precision``.

    Args:
        counts: of :func:`engine_census`.
        precision: what the engine is called.
        place: the file, for the message.
        kept: convolutions that the exporter left in more precision on purpose, the classifier apart.

    Raises:
        ArtifactError: an FP32 network with anything but FP32 convolutions; an FP16 one with others than FP16; an INT8 one of whose
            convolutions fewer than 90 % are INT8 (the classifier may always be FP16), or with any left in FP32.
    """
    convs = {name.partition(".")[2]: count for name, count in counts.items() if name.startswith("conv.") and count}
    total = sum(convs.values())
    match precision:
        case "fp32":
            right = convs.get("float", 0) == total
        case "fp16":
            right = convs.get("fp16", 0) >= total - kept and convs.get("fp16", 0) + convs.get("float", 0) == total
        case "int8":
            int8, rest = convs.get("int8", 0), convs.get("fp16", 0)
            right = int8 >= min(MIN_INT8_SHARE * (total - kept), total - kept - _CLASSIFIERS) and total - int8 - rest <= kept
        case _ as never:
            assert_never(never)
    if total == 0 or not right:
        found = ", ".join(f"{count} {name.upper()}" for name, count in sorted(convs.items())) or "none"
        raise ArtifactError(
            f"{place}: asked for {precision}, but the convolutions that TensorRT parsed are: {found}",
            remedy=f"export the {precision} file for the target tensorrt again; nothing was written",
        )


def _computes_in(layer: Any, makers: Mapping[str, Any]) -> str:
    out = str(layer.get_output(0).dtype.name)
    operands = _inputs(layer)[:2]
    if len(operands) == 2 and all(tensor is not None and _from_codes(tensor, makers) for tensor in operands):
        return "int8" if out == "HALF" else "int8-fp32"
    return _FLOATS.get(out, out.lower())


def _from_codes(tensor: Any, makers: Mapping[str, Any]) -> bool:
    maker = makers.get(tensor.name)
    return maker is not None and maker.type.name == "DEQUANTIZE" and maker.get_input(0).dtype.name == "INT8"


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _inputs(layer: Any) -> list[Any]:
    return [layer.get_input(index) for index in range(layer.num_inputs)]  # an optional input that is not used is None
