"""What stands beside a TensorRT engine: who built it, with what, for which device, from which file. An engine itself tells nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.config.load import parse
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.files import read_json, write_json
from gddctl.core.section import Section

EngineBuilder = Literal["tensorrt", "tensorrt-rtx"]

PORTABLE = "any GPU of compute capability 8.0 or later"  # what TensorRT-RTX builds for when no device is named


class EngineRecord(Section):
    """The sidecar ``NAME.engine.json`` of ``NAME.engine``."""

    schema_version: Literal[1] = 1
    info: ModelInfo  # of the engine; its parent is the ONNX file
    builder: EngineBuilder
    version: str  # of the builder, e.g. "10.3.0.26": an engine runs on that version alone
    device: str  # the GPU it was built on, or for TensorRT-RTX what it was built for
    compute_capabilities: tuple[str, ...]  # of the devices it is for, e.g. ("8.7",); empty: see PORTABLE
    flags: tuple[str, ...]  # how it was built: "STRONGLY_TYPED", "TF32 off", …
    min_batch: PositiveInt  # the optimisation profile: it answers batches from min to max and is tuned for opt
    opt_batch: PositiveInt
    max_batch: PositiveInt
    workspace_mb: PositiveInt
    optimization_level: NonNegativeInt
    onnx: str  # name of the file it was built from
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: PositiveInt
    layers: dict[str, NonNegativeInt] = Field(default_factory=dict)  # of the parsed network: "CONVOLUTION HALF -> HALF": 28
    build_seconds: NonNegativeFloat

    @property
    def rebuild(self) -> str:
        """The command that builds this engine anew, here."""
        return f"gddctl export {self.onnx} --trt"

    @property
    def built_for(self) -> str:
        """The devices, in words."""
        if not self.compute_capabilities:
            return PORTABLE
        return f"{self.device} (compute capability {', '.join(self.compute_capabilities)})"


def sidecar_path(engine: Path) -> Path:
    """Where an engine's record lies.

    >>> sidecar_path(Path("a/student-fp16-tensorrt.logits.engine")).name
    'student-fp16-tensorrt.logits.engine.json'
    """
    return engine.with_name(f"{engine.name}.json")


def write_record(engine: Path, record: EngineRecord) -> None:
    """Write the record beside ``engine``, whole or not at all."""
    write_json(sidecar_path(engine), record.model_dump(mode="json"))


def read_record(engine: Path) -> EngineRecord:
    """The record beside ``engine``.

    Raises:
        ArtifactError: there is none, or it is not one of ours.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ArtifactError(
            f"{engine}: no {path.name} beside it, so nobody knows what this engine is",
            remedy="copy both files together, or build it here from its ONNX file: gddctl export FILE.onnx --trt",
        )
    value = read_json(path)
    try:
        return parse(EngineRecord, value if isinstance(value, dict) else {})
    except ConfigError as error:
        raise ArtifactError(
            f"{path}: not a record of an engine ({error})", remedy="build it again: gddctl export FILE.onnx --trt"
        ) from error
