"""Students in every precision that TensorRT takes, and a cache folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import Architecture

ArtifactOf = Callable[[Architecture, str, str], Artifact]


@pytest.fixture
def rtx() -> Any:
    """TensorRT-RTX's bindings: they parse and build without a GPU."""
    reason = 'TensorRT-RTX is not installed here: pip install "gddctl[rtx]" (x86-64 Linux)'
    return pytest.importorskip("tensorrt_rtx_bindings", reason=reason, exc_type=ImportError)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def artifact_of(make_exported: Callable[[Architecture], Any], tmp_path_factory: pytest.TempPathFactory) -> ArtifactOf:
    """(architecture, precision, graph) -> the ONNX file for TensorRT."""
    from gddctl.core.artifact.manifest import artifact_name
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.fp16 import to_fp16
    from gddctl.export.int8 import quantize

    made: dict[tuple[str, str], dict[str, Artifact]] = {}

    def logits_of(exported: Any, precision: str, folder: Path) -> Artifact:
        if precision == "fp16":
            return to_fp16(exported.fp32, folder / artifact_name("student", "fp16", "any", "logits"), record=exported.record)
        return quantize(exported.fp32, exported.record, folder / artifact_name("student", "int8", "tensorrt", "logits"), target="tensorrt")

    def make(arch: Architecture, precision: str, graph: str) -> Artifact:
        exported = make_exported(arch)
        if precision == "fp32":
            found: Artifact = exported.fp32 if graph == "logits" else exported.fp32_deploy
            return found
        if (arch, precision) not in made:
            folder = tmp_path_factory.mktemp(f"{arch}-{precision}")
            logits = logits_of(exported, precision, folder)
            deploy = to_deploy(logits, folder / logits.path.name.replace(".logits.", ".deploy."))
            made[arch, precision] = {"logits": logits, "deploy": deploy}
        return made[arch, precision][graph]

    return make
