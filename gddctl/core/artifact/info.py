"""What a model file says of itself: classes, preprocessing, precision, lineage. The same in a bundle's card and in ONNX metadata."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from gddctl.core.classes import ClassTable
from gddctl.core.config.sections import Graph, Precision, Target
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.section import Section

INFO_SCHEMA = 1
METADATA_KEY = "gddctl.info"  # the ONNX metadata key that holds ModelInfo as JSON


class ModelInfo(Section):
    """Carried by every artifact.

    ``logits`` graph: ``image`` float32 (B, 3, H, W), normalised -> ``logits`` float32 (B, K, H, W).
    ``deploy`` graph: ``image`` uint8 (B, H, W, 3), RGB -> ``mask`` uint8 (B, H, W), class ids.
    """

    schema_version: Literal[1] = 1
    name: str
    graph: Graph
    precision: Precision
    target: Target
    classes: ClassTable
    preprocess: PreprocessSpec
    architecture: str  # "pspnet-resnet18-s8"
    output_stride: PositiveInt
    weights_sha256: str  # of the student's model.safetensors
    parent_sha256: str | None = None  # of the file this one was made from
    calibration_sha256: str | None = None  # of the calibration record, INT8 only
    kept: tuple[str, ...] = ()  # tensors whose makers compute in more precision than the file's name says, classifiers apart
    range_source: Literal["calibration", "weights"] | None = None  # what told, in an FP16 file, which tensors leave FP16's range
    census: dict[str, NonNegativeInt] = Field(default_factory=dict)  # what the graph really holds, e.g. {"conv.int8": 25, "conv.float": 1}
    opset: NonNegativeInt = 0
    licence: str = "unknown"
    gddctl_version: str = "0"


def flat_metadata(info: ModelInfo) -> dict[str, str]:
    """The metadata properties written into an ONNX file: the whole as JSON, and the parts other tools look for."""
    spec = info.preprocess
    parts: dict[str, Any] = {
        METADATA_KEY: info.model_dump_json(),
        "gddctl.schema": info.schema_version,
        "classes": ",".join(info.classes.names),
        "palette": ";".join(",".join(map(str, color)) for color in info.classes.palette),
        "ignore_index": 255,
        "mean": ",".join(map(str, spec.mean)),
        "std": ",".join(map(str, spec.std)),
        "channel_order": spec.channel_order,
        "resize": f"{spec.resize}/{spec.interpolation}",
        "input_size": f"{spec.size[0]}x{spec.size[1]}",
        "stride": info.output_stride,
        "precision": info.precision,
        "weights_sha256": info.weights_sha256,
        "licence": info.licence,
    }
    return {key: str(value) for key, value in parts.items()}
