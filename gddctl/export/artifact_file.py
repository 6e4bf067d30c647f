"""A finished graph becomes an artifact: checked, counted, written whole, named by its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.digest import sha256_file
from gddctl.core.files import atomic_path
from gddctl.export.census import census_of
from gddctl.export.graph_file import check_graph, save_model


def write_artifact(model: Any, info: ModelInfo, out: Path) -> Artifact:
    """Write ``model`` to ``out`` with ``info`` and its census as metadata.

    Raises:
        ArtifactError: the graph is not what ``info`` says; nothing is written then.
    """
    check_graph(model, info)
    info = info.model_copy(update={"census": census_of(model)})
    with atomic_path(out) as temporary:
        save_model(model, info, temporary)
        sha256 = sha256_file(temporary)
    return Artifact(path=out, sha256=sha256, format="onnx", info=info)
