"""What types a graph really holds, counted from the file: precision as verified, not as asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require
from gddctl.export.graph_file import load_model

MIN_INT8_SHARE = 0.9  # of the convolutions in an INT8 file; only a classifier or two may stay in float


def census(path: Path) -> dict[str, int]:
    """:func:`census_of` for a file."""
    return census_of(load_model(path))


def census_of(model: Any) -> dict[str, int]:
    """Count nodes by what they compute in.

    ``conv.int8``: both input and weight come out of a DequantizeLinear (the form runtimes fuse into an integer convolution);
    ``conv.fp16``: an FP16 weight; ``conv.float``: all others; likewise ``matmul.*``. ``quantize`` and ``dequantize`` count those nodes,
    ``batchnorm`` what was not folded, ``nodes`` everything.
    """
    onnx = require("onnx", extra="export", why="counting a graph's types")
    makers = {name: node for node in model.graph.node for name in node.output}
    halves = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT16}
    counts: Counter[str] = Counter({"conv.int8": 0, "conv.fp16": 0, "conv.float": 0, "batchnorm": 0, "quantize": 0, "dequantize": 0})
    for node in model.graph.node:
        counts["nodes"] += 1
        match node.op_type:
            case "Conv" | "MatMul":
                sources = [makers.get(name) for name in node.input[:2]]
                whole = all(source is not None and source.op_type == "DequantizeLinear" for source in sources)
                kind = "int8" if whole else "fp16" if halves.intersection(node.input[:2]) else "float"
                counts[f"{node.op_type.lower()}.{kind}"] += 1
            case "QuantizeLinear":
                counts["quantize"] += 1
            case "DequantizeLinear":
                counts["dequantize"] += 1
            case "BatchNormalization":
                counts["batchnorm"] += 1
    return dict(counts)


def check_int8(counts: dict[str, int], place: str, *, kept: int = 0) -> None:
    """Refuse an INT8 file whose convolutions compute in float, but for ``kept`` that were left so on purpose.

    Raises:
        ArtifactError: fewer than :data:`MIN_INT8_SHARE` of the others are INT8.
    """
    _check_share(counts, "int8", kept, MIN_INT8_SHARE, place)


def check_fp16(counts: dict[str, int], place: str, *, kept: int = 0) -> None:
    """Refuse an FP16 file with convolutions that compute in FP32, but for ``kept`` that were left so on purpose.

    Raises:
        ArtifactError: there are others.
    """
    _check_share(counts, "fp16", kept, 1.0, place)


def _check_share(counts: dict[str, int], kind: str, kept: int, share: float, place: str) -> None:
    found, total = counts.get(f"conv.{kind}", 0), sum(count for name, count in counts.items() if name.startswith("conv."))
    if total == 0 or found < share * (total - kept):
        raise ArtifactError(
            f"{place}: only {found} of {total} convolutions compute in {kind.upper()}, at least {share:.0%} of {total - kept} expected",
            remedy="nothing was written; please report it with the versions that gddctl doctor prints",
        )
