"""One model file of a release: where it lies in the folder, what it says of itself, which batches it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from gddctl.core.artifact.engine import EngineRecord
from gddctl.core.artifact.info import ModelInfo


@dataclass(frozen=True)
class Shipped:
    """A file under ``models/``. Of an engine, its record lies beside it as ``NAME.engine.json``."""

    path: PurePosixPath  # within the release: models/student-fp32-any.deploy.onnx
    info: ModelInfo
    format: Literal["onnx", "engine"]
    sha256: str  # of the file
    engine: EngineRecord | None = None  # of an engine

    @property
    def min_batch(self) -> int:
        """Smallest batch it answers."""
        return self.engine.min_batch if self.engine is not None else 1

    @property
    def max_batch(self) -> int | None:
        """Largest batch it answers; None where any will do, as in an ONNX file."""
        return self.engine.max_batch if self.engine is not None else None
