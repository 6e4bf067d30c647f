"""What types a graph really holds, counted from the file: precision as verified, not as asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from gddctl.core.errors import ArtifactError
from gddctl.export.graph_file import load_model

MIN_INT8_SHARE = 0.9  # of the convolutions in an INT8 file; only a classifier or two may stay in float


def census(path: Path) -> dict[str, int]:
    """:func:`census_of` for a file."""
    return census_of(load_model(path))


def census_of(model: Any) -> dict[str, int]:
    """Count nodes by what they compute in.

    ``conv.int8``: both input and weight come out of a DequantizeLinear (the form runtimes fuse into an integer convolution);
    ``conv.float``: all others; likewise ``matmul.*``. ``quantize`` and ``dequantize`` count those nodes, ``batchnorm`` what was not folded,
    ``nodes`` everything.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    counts: Counter[str] = Counter({"conv.int8": 0, "conv.float": 0, "batchnorm": 0, "quantize": 0, "dequantize": 0})
    for node in model.graph.node:
        counts["nodes"] += 1
        match node.op_type:
            case "Conv" | "MatMul":
                sources = [makers.get(name) for name in node.input[:2]]
                whole = all(source is not None and source.op_type == "DequantizeLinear" for source in sources)
                counts[f"{node.op_type.lower()}.{'int8' if whole else 'float'}"] += 1
            case "QuantizeLinear":
                counts["quantize"] += 1
            case "DequantizeLinear":
                counts["dequantize"] += 1
            case "BatchNormalization":
                counts["batchnorm"] += 1
    return dict(counts)


def check_int8(counts: dict[str, int], place: str) -> None:
    """Refuse an INT8 file whose convolutions compute in float.

    Raises:
        ArtifactError: fewer than :data:`MIN_INT8_SHARE` of the convolutions are INT8.
    """
    whole, total = counts.get("conv.int8", 0), counts.get("conv.int8", 0) + counts.get("conv.float", 0)
    if total == 0 or whole < MIN_INT8_SHARE * total:
        raise ArtifactError(
            f"{place}: only {whole} of {total} convolutions compute in INT8, at least {MIN_INT8_SHARE:.0%} expected",
            remedy="the quantiser missed them; nothing was written",
        )
