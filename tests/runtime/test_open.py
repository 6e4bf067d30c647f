"""What opening refuses, and with which words and exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.errors import ArtifactError, EnvironmentMissing, UsageError
from gddctl.runtime.open import open_runtime, read_info
from gddctl.runtime.protocol import check_target


def cuda_loads() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


no_gpu = pytest.mark.skipif(cuda_loads(), reason="this machine has CUDA")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for opener in (open_runtime, read_info):
        with pytest.raises(UsageError, match=r"nowhere\.onnx: no such file"):
            opener(tmp_path / "nowhere.onnx")


def test_a_folder_that_is_no_bundle_and_a_file_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"without card\.json"):
        open_runtime(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"'\.pt'"):
        open_runtime(tmp_path / "model.pt")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999, -1])
def test_a_truncated_file(psp: Any, tmp_path: Path, kept: float) -> None:
    data = psp.fp32.path.read_bytes()
    length = int(len(data) * kept) if 0 < kept < 1 else int(kept)
    (tmp_path / "cut.onnx").write_bytes(data[:length])
    with pytest.raises(ArtifactError, match=r"cut\.onnx") as caught:
        open_runtime(tmp_path / "cut.onnx")
    assert caught.value.remedy


def test_a_whole_copy_opens(psp: Any, tmp_path: Path) -> None:
    """Partner of the above: it is the cut that is refused."""
    (tmp_path / "copy.onnx").write_bytes(psp.fp32.path.read_bytes())
    assert open_runtime(tmp_path / "copy.onnx", threads=1).sha256 == psp.fp32.sha256


def test_a_file_changed_after_export(psp: Any, tmp_path: Path) -> None:
    """One bit of one weight: only the manifest can tell."""
    for name in (psp.fp32.path.name, "manifest.json"):
        (tmp_path / name).write_bytes((psp.fp32.path.parent / name).read_bytes())
    path = tmp_path / psp.fp32.path.name
    open_runtime(path, threads=1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="does not match its manifest"):
        open_runtime(path)


def test_somebody_elses_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("image", 1, ["batch", 3, 8, 8])
    answer = onnx.helper.make_tensor_value_info("logits", 1, ["batch", 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["image"], ["logits"])], "g", [value], [answer])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]), str(tmp_path / "foreign.onnx")
    )
    with pytest.raises(ArtifactError, match=r"without gddctl's description") as caught:
        open_runtime(tmp_path / "foreign.onnx")
    assert "gddctl export" in str(caught.value)


@no_gpu
@pytest.mark.parametrize("kind", ["bundle", "fp32"])
def test_a_device_that_does_not_load_is_exit_4(psp: Any, kind: str) -> None:
    path = psp.bundle if kind == "bundle" else psp.fp32.path
    with pytest.raises(EnvironmentMissing) as caught:
        open_runtime(path, device="cuda")
    assert caught.value.exit_code == 4 and "doctor" in str(caught.value)


@no_gpu
def test_and_says_so_without_the_librarys_own_noise(psp: Any) -> None:
    code = f"""
from pathlib import Path
from gddctl.core.errors import EnvironmentMissing
from gddctl.runtime.open import open_runtime
try:
    open_runtime(Path({str(psp.fp32.path)!r}), device="cuda")
except EnvironmentMissing:
    pass
open_runtime(Path({str(psp.int8.path)!r}), threads=1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_int8_file_of_another_target_is_refused(psp: Any, tmp_path: Path) -> None:
    from gddctl.export.graph_file import load_model, save_model

    info = psp.int8.info.model_copy(update={"target": "tensorrt"})
    save_model(load_model(psp.int8.path), info, tmp_path / "trt.onnx")
    with pytest.raises(ArtifactError, match=r"quantised for 'tensorrt', opened on 'ort-cpu'"):
        open_runtime(tmp_path / "trt.onnx")
    assert open_runtime(tmp_path / "trt.onnx", threads=1, allow_foreign_target=True).info.target == "tensorrt"


def test_targets() -> None:
    """The CPU's INT8 file on CUDA is foreign; FP32 never is."""
    from gddctl.core.artifact.info import ModelInfo

    fields: dict[str, Any] = {"precision": "int8", "target": "ort-cpu"}
    check_target(ModelInfo.model_construct(**fields), "cpu", "x")
    with pytest.raises(ArtifactError):
        check_target(ModelInfo.model_construct(**fields), "cuda", "x")
    check_target(ModelInfo.model_construct(**{**fields, "precision": "fp32"}), "cuda", "x")


def test_no_torch_to_run_an_exported_file(psp: Any) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import numpy as np
from pathlib import Path
from gddctl.runtime.open import open_runtime
with open_runtime(Path({str(psp.int8_deploy.path)!r}), threads=1) as runtime:
    print(runtime.run(np.zeros((1, 64, 96, 3), np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "(1, 64, 96)", done.stderr
