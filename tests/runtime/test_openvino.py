"""OpenVINO runs what it was asked for: the file made for it, in the precisions it holds, or it says why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError, EnvironmentMissing
from gddctl.data.preprocess import normalise
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import check_target

SAME_FLOATS = 2e-3  # of logits of a few units after 26 convolutions: another library sums in another order
SAME_ERROR = 1.25  # times ONNX Runtime's own error: a sum on the edge between two codes may fall on either side, and spreads from there
ABSENT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "openvino":
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import importlib.util
importlib.util.find_spec = lambda name, package=None, real=importlib.util.find_spec: None if name == "openvino" else real(name, package)
"""


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("openvino", reason="OpenVINO is not installed here")


def planes(psp: Any, count: int = 1) -> Any:
    return np.stack([normalise(psp.val[index].image, psp.fp32.info.preprocess) for index in range(count)])


def test_fp32_answers_as_on_onnx_runtime(psp: Any) -> None:
    batch = planes(psp, 2)
    with open_runtime(psp.fp32.path, threads=1) as ort, open_runtime(psp.fp32.path, device="openvino", threads=1) as openvino:
        np.testing.assert_allclose(openvino.run(batch), ort.run(batch), atol=SAME_FLOATS, rtol=0)
        assert openvino.environment()["floats"] == "f32"  # else BF16, silently, on a CPU that has it


def test_every_integer_convolution_runs_in_integers(openvino_int8: dict[str, Path]) -> None:
    from gddctl.runtime.openvino_runtime import OpenvinoRuntime

    with open_runtime(openvino_int8["deploy"], threads=1) as runtime:
        assert isinstance(runtime, OpenvinoRuntime)
        ran = runtime.executed()
        assert ran.get("u8", 0) + ran.get("i8", 0) == runtime.info.census["conv.int8"] > 20
        assert ran["f32"] == runtime.info.census["conv.float"]
        assert str(runtime.info.census["conv.float"]) in runtime.environment()["convolutions"]


def test_an_int8_file_that_computes_in_float_is_refused(psp: Any, tmp_path: Path) -> None:
    """The partner: a float graph that calls itself INT8."""
    from gddctl.export.graph_file import load_model, save_model

    info = psp.fp32.info.model_copy(update={"precision": "int8", "target": "openvino", "census": psp.int8.info.census})
    save_model(load_model(psp.fp32.path), info, tmp_path / "claims.onnx")
    with pytest.raises(EnvironmentMissing, match=r"computes only 0 of its \d+ INT8 convolutions in INT8") as caught:
        open_runtime(tmp_path / "claims.onnx", threads=1)
    assert "--target ort-cpu" in str(caught.value.remedy)


def test_int8_is_as_exact_as_on_onnx_runtime(psp: Any, openvino_int8: dict[str, Path]) -> None:
    from gddctl.runtime.describe import read_onnx_info
    from gddctl.runtime.ort_runtime import OrtRuntime

    path, batch = openvino_int8["logits"], planes(psp, 2)
    with open_runtime(path, threads=1) as openvino:
        here = openvino.run(batch)
    elsewhere = OrtRuntime(path, read_onnx_info(path), "", threads=1).run(batch)
    reference = open_runtime(psp.fp32.path, threads=1).run(batch)
    ours, theirs = (float(np.sqrt(np.mean((answer - reference) ** 2))) for answer in (here, elsewhere))
    assert 0 < ours < SAME_ERROR * theirs  # 0: it would be the float graph that answered


def test_the_deploy_graph_is_its_logits_graph_pixel_for_pixel(psp: Any, openvino_int8: dict[str, Path]) -> None:
    """Its argmax runs over another axis than elsewhere: the same answer, on both runtimes."""
    from gddctl.runtime.describe import read_onnx_info
    from gddctl.runtime.ort_runtime import OrtRuntime

    pixels = np.stack([psp.val[index].image for index in range(3)])
    for runtime in ("openvino", "onnxruntime"):
        answers = {}
        for graph, path in openvino_int8.items():
            batch = planes(psp, 3) if graph == "logits" else pixels
            opened = open_runtime(path, threads=1) if runtime == "openvino" else OrtRuntime(path, read_onnx_info(path), "", threads=1)
            answers[graph] = opened.run(batch)
        wanted = answers["logits"].argmax(1)
        assert len(np.unique(wanted)) > 1
        np.testing.assert_array_equal(answers["deploy"], wanted)


def test_ties_go_to_the_lower_class(psp: Any, tmp_path: Path) -> None:
    """A classifier that gives every class the same logit: class 0 everywhere."""
    import dataclasses

    import onnx

    from gddctl.core.digest import sha256_file
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.graph_file import load_model, save_model

    def mask(model: Any, name: str) -> Any:
        info = psp.fp32.info.model_copy(update={"target": "openvino"})
        save_model(model, info, tmp_path / f"{name}.onnx")
        logits = dataclasses.replace(psp.fp32, path=tmp_path / f"{name}.onnx", info=info, sha256=sha256_file(tmp_path / f"{name}.onnx"))
        deploy = to_deploy(logits, tmp_path / f"{name}.deploy.onnx")
        with open_runtime(deploy.path, device="openvino", threads=1) as runtime:
            return runtime.run(psp.val[0].image[None])

    model = load_model(psp.fp32.path)
    assert mask(model, "as it is").any()
    for item in model.graph.initializer:
        if "classifier" in item.name:
            item.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(item)), item.name))
    assert not mask(model, "flat").any()


def test_targets(psp: Any, openvino_int8: dict[str, Path]) -> None:
    with pytest.raises(ArtifactError, match="quantised for 'ort-cpu', opened on 'openvino'") as caught:
        open_runtime(psp.int8.path, device="openvino")
    assert "--target openvino" in str(caught.value.remedy)
    with pytest.raises(ArtifactError, match="quantised for 'openvino', opened on 'ort-cuda'"):
        open_runtime(openvino_int8["logits"], device="cuda")
    assert open_runtime(psp.int8.path, device="openvino", threads=1, allow_foreign_target=True).backend == "openvino-cpu"
    check_target(psp.fp32.info, "openvino", "x")


def test_a_bundle_takes_torch_on_the_cpu(psp: Any) -> None:
    assert open_runtime(psp.bundle, device="openvino", threads=1).backend == "torch-cpu"


def test_a_file_cut_short_is_named(psp: Any, tmp_path: Path) -> None:
    from gddctl.runtime.openvino_runtime import OpenvinoRuntime

    path = tmp_path / "short.onnx"
    path.write_bytes(psp.fp32.path.read_bytes()[: 1 << 20])
    with pytest.raises(ArtifactError, match=r"short\.onnx: OpenVINO cannot load it"):
        OpenvinoRuntime(path, psp.fp32.info, "")


def test_few_batch_sizes_stay_compiled(psp: Any) -> None:
    from gddctl.runtime.openvino_runtime import MAX_COMPILED, OpenvinoRuntime

    runtime = OpenvinoRuntime(psp.fp32.path, psp.fp32.info, "", threads=1)
    for count in (1, 2, 3, 4, 1):
        runtime.run(np.concatenate([planes(psp)] * count))
    assert len(runtime._compiled) == MAX_COMPILED
    assert list(runtime._compiled)[-1] == 1


@pytest.fixture(scope="session")
def made_for_openvino(psp: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gddctl.export.int8 import quantize

    path = tmp_path_factory.mktemp("made") / "int8-openvino.logits.onnx"
    return quantize(psp.fp32, psp.record, path, target="openvino").path


def test_without_openvino_the_error_says_what_to_install(made_for_openvino: Path) -> None:
    code = f"""{ABSENT}
from pathlib import Path
from gddctl.core.errors import EnvironmentMissing
from gddctl.runtime.open import open_runtime
path = Path({str(made_for_openvino)!r})
try:
    open_runtime(path)
except EnvironmentMissing as error:
    print(error.exit_code, error)
print(open_runtime(path, threads=1, allow_foreign_target=True).backend)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    refusal, backend = done.stdout.splitlines() or [done.stderr, ""]
    assert refusal.startswith("4 ") and 'pip install "gddctl[openvino]"' in refusal
    assert backend == "onnxruntime-cpu"  # to compare values, as the caller allowed
