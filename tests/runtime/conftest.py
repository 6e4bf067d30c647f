"""Files for runtimes that not every machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def openvino_int8(psp: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The PSPNet student's INT8 files for OpenVINO, by graph."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed here")
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.int8 import quantize

    folder = tmp_path_factory.mktemp("openvino")
    logits = quantize(psp.fp32, psp.record, folder / "int8-openvino.logits.onnx", target="openvino")
    return {"logits": logits.path, "deploy": to_deploy(logits, folder / "int8-openvino.deploy.onnx").path}
