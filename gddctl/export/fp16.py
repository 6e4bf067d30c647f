"""An FP32 logits graph to an FP16 one: FP32 in and out, tensors that leave FP16's range kept in FP32."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.errors import ArtifactError
from gddctl.export.artifact_file import write_artifact
from gddctl.export.census import census_of, check_fp16
from gddctl.export.graph_file import load_artifact
from gddctl.export.half import beyond_half, cast_to_half, float_nodes
from gddctl.export.int8 import check_pair


def to_fp16(fp32: Artifact, out: Path, *, record: CalibrationRecord | None = None) -> Artifact:
    """Write ``fp32`` in FP16.

    Args:
        fp32: an FP32 logits graph.
        out: the .onnx file; written whole, or not at all.
        record: calibrated ranges, which say what leaves FP16's range; without, only weights are looked at, and the file says so.

    Raises:
        ArtifactError: not an FP32 logits graph, a record of another model, or a result whose convolutions are not FP16.
    """
    if fp32.info.graph != "logits" or fp32.info.precision != "fp32":
        raise ArtifactError(
            f"{fp32.path}: FP16 is made from an fp32 logits graph, this is {fp32.info.precision} {fp32.info.graph}",
            remedy="give the fp32 logits file; make the deploy graph afterwards",
        )
    if record is not None:
        check_pair(fp32, record)
    model = load_artifact(fp32)
    kept = beyond_half(record.observed) if record is not None else set[str]()
    convs = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    in_float = len(convs & float_nodes(model.graph, kept))
    cast_to_half(model, kept)
    check_fp16(census_of(model), str(out), kept=in_float)
    info = fp32.info.model_copy(
        update={
            "precision": "fp16",
            "parent_sha256": fp32.sha256,
            "kept": tuple(sorted(kept)),
            "range_source": "weights" if record is None else "calibration",
        }
    )
    return write_artifact(model, info, out)
