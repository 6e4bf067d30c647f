"""Engines built and run on the GPU that is here, against ONNX Runtime on the CPU. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.config.sections import EngineConfig
from gddctl.core.errors import EnvironmentMissing
from gddctl.data.preprocess import normalise
from gddctl.runtime.open import open_runtime
from gddctl.runtime.probe import nvidia_driver
from gddctl.runtime.trt_bindings import find_bindings

# Random weights lose a decibel per layer; trained students are held to their gates where they are judged.
MIN_DB = {"fp32": 60.0, "fp16": 30.0, "int8": 10.0}


def reason() -> str:
    """Why this cannot run here; empty when it can."""
    driver = nvidia_driver()
    if not driver.devices:
        return f"no NVIDIA GPU: {driver.reason}"
    try:
        find_bindings()
    except EnvironmentMissing as error:
        return error.message
    return ""


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(reason()), reason=reason() or "-")]


def files(exported: Any, folder: Path) -> dict[str, Any]:
    from gddctl.export.fp16 import to_fp16
    from gddctl.export.int8 import quantize

    return {
        "fp32": exported.fp32,
        "fp16": to_fp16(exported.fp32, folder / "fp16.onnx", record=exported.record),
        "int8": quantize(exported.fp32, exported.record, folder / "int8.onnx", target="tensorrt"),
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_an_engine_answers_like_its_file(make_exported: Any, tmp_path: Path, arch: Any, precision: str) -> None:
    from gddctl.export.trt_engine import build_engine

    exported = make_exported(arch)
    source = files(exported, tmp_path)[precision]
    engine = build_engine(source, tmp_path / "x.engine", EngineConfig(max_batch=4, cache=False))
    batch = np.stack([normalise(exported.val[index].image, source.info.preprocess) for index in range(3)])
    with open_runtime(source.path, threads=2, allow_foreign_target=True) as reference:
        wanted = reference.run(batch).astype(np.float64)
    found = {}
    for cuda_graph in (False, True):
        with open_runtime(engine.path, cuda_graph=cuda_graph) as runtime:
            found[cuda_graph] = [runtime.run(batch) for _ in range(3)]
            alone = np.concatenate([runtime.run(batch[index : index + 1]) for index in range(3)])
            np.testing.assert_allclose(alone, found[cuda_graph][0], atol=1e-2, rtol=0)
    for answer in (*found[False], *found[True]):
        assert 10 * np.log10(np.square(wanted).sum() / np.square(wanted - answer).sum()) > MIN_DB[precision]
    np.testing.assert_array_equal(found[True][0], found[True][2])  # a launched graph answers like the plain run before it
