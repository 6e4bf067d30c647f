"""What a release ships, made of the tests' small students."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gddctl.core.artifact.engine import EngineBuilder, EngineRecord
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact, artifact_name
from gddctl.ship.shipped import Shipped


def shipped_of(artifact: Artifact) -> Shipped:
    return Shipped(PurePosixPath("models") / artifact.path.name, artifact.info, "onnx", artifact.sha256)


def retold(shipped: Shipped, *, suffix: str = ".onnx", **changes: object) -> Shipped:
    """The same file told of otherwise: for what depends on the description alone."""
    info = ModelInfo.model_validate({**shipped.info.model_dump(), **changes})
    name = artifact_name("tiny", info.precision, info.target, info.graph, suffix)
    return Shipped(PurePosixPath("models") / name, info, "onnx" if suffix == ".onnx" else "engine", shipped.sha256)


def engine_of(source: Shipped, builder: EngineBuilder, batches: tuple[int, int, int] = (1, 2, 4)) -> Shipped:
    engine = retold(source, suffix=".engine", target="tensorrt")
    record = EngineRecord(
        info=engine.info, builder=builder, version="10.3.0.26", device="Orin", compute_capabilities=("8.7",), flags=(),
        min_batch=batches[0], opt_batch=batches[1], max_batch=batches[2], workspace_mb=1024, optimization_level=3,
        onnx=source.path.name, onnx_sha256=source.sha256, engine_sha256="e" * 64, engine_bytes=1, build_seconds=1.0,
    )  # fmt: skip
    return replace(engine, engine=record, sha256="e" * 64)


def lay(folder: Path, artifacts: list[Artifact]) -> list[Shipped]:
    """A folder as a release has it: ``models/``."""
    (folder / "models").mkdir(parents=True)
    found = []
    for item in artifacts:
        shutil.copy(item.path, folder / "models" / item.path.name)
        found.append(Shipped(PurePosixPath("models") / item.path.name, item.info, "onnx", item.sha256))
    return found
