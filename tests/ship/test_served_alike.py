"""A real release behind the real server: tensors as its ``config.pbtxt`` says, and the golden mask through ``triton/check.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gddctl.core.artifact.tensors import TensorSpec, tensor_specs
from gddctl.runtime.describe import read_info
from tests.commands.conftest import GDDCTL
from tests.conftest import Exported
from tests.serve.http.conftest import running

text_format = pytest.importorskip("google.protobuf.text_format")
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
http = pytest.importorskip("tritonclient.http")
for module in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(module)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(words), capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )


@contextmanager
def served(*models: Path, **environment: str) -> Iterator[str]:
    """``gddctl serve`` on a free port, ready: its HOST:PORT."""
    with running(*models, code=None, bugs=False, **environment) as server:
        server.wait_ready()
        yield server.address


@pytest.fixture(scope="module")
def release(psp: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "release"
    sources = [str(item.path) for item in (psp.fp32_deploy, psp.fp32, psp.int8_deploy)]
    done = run(GDDCTL, "ship", *sources, "--allow-unproven", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def server(release: Path) -> Iterator[str]:
    with served(*sorted((release / "models").glob("*.onnx"))) as address:
        yield address


def config_of(release: Path, name: str) -> Any:
    return text_format.Parse((release / "triton" / "models" / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def told(tensors: Any) -> list[tuple[str, str, list[int]]]:
    """(name, datatype, shape) of what a server's metadata lists."""
    return [(item["name"], item["datatype"], [int(side) for side in item["shape"]]) for item in tensors]


def of_config(tensors: Any) -> list[tuple[str, str, list[int]]]:
    """The same of a configuration: Triton puts a free batch before ``dims`` where ``max_batch_size`` is not 0."""
    types = model_config_pb2.DataType
    return [(item.name, types.Name(item.data_type).removeprefix("TYPE_"), [-1, *item.dims]) for item in tensors]


def of_specs(specs: tuple[TensorSpec, ...]) -> list[tuple[str, str, list[int]]]:
    return [(spec.name, spec.datatype, list(spec.shape)) for spec in specs]


def test_our_server_and_triton_expose_the_same_tensors(release: Path, server: str) -> None:
    client = http.InferenceServerClient(server, network_timeout=120)
    models = sorted((release / "models").glob("*.onnx"))
    assert len(models) == 3
    for path in models:
        metadata, config, specs = client.get_model_metadata(path.stem), config_of(release, path.stem), tensor_specs(read_info(path))
        assert told(metadata["inputs"]) == of_config(config.input) == of_specs(specs.inputs), path.stem
        assert told(metadata["outputs"]) == of_config(config.output) == of_specs(specs.outputs), path.stem
        assert (metadata["name"], metadata["platform"]) == (config.name, config.platform)
        assert client.get_model_config(path.stem)["max_batch_size"] == config.max_batch_size
    client.close()


def test_other_tensors_are_seen(release: Path, server: str) -> None:
    """Partner: logits and deploy graph of one student are told apart by what is compared above."""
    deploy, logits = (next((release / "models").glob(f"*fp32*.{graph}.onnx")).stem for graph in ("deploy", "logits"))
    with http.InferenceServerClient(server, network_timeout=120) as client:
        metadata = client.get_model_metadata(deploy)
    assert told(metadata["inputs"]) != of_config(config_of(release, logits).input)
    assert told(metadata["outputs"]) != of_config(config_of(release, logits).output)


def check(release: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, str(release / "triton" / "check.py"), *words, **environment)


def test_the_golden_image_passes_through_a_server(release: Path, server: str) -> None:
    done = check(release, server)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.endswith(": ok") for line in lines), done.stdout
    exact = next(line for line in lines if "fp32" in line)
    assert "100.0000 % of the golden mask" in exact, "the file that gave the mask, on the same machine"


def test_another_mask_leaves_with_3(release: Path, server: str, tmp_path: Path) -> None:
    """Partner: were the answers shifted by a pixel's row, the check would say so."""
    copy = tmp_path / "release"
    shutil.copytree(release, copy)
    mask = np.array(Image.open(copy / "golden" / "mask.png"))
    Image.fromarray(np.roll(mask, mask.shape[0] // 2, axis=0)).save(copy / "golden" / "mask.png")
    done = check(copy, server)
    assert done.returncode == 3 and "DIFFERS" in done.stdout


def test_what_is_not_served_is_said(release: Path, server: str) -> None:
    assert check(release, server, "no-such-model").returncode == 2
    fp32 = next((release / "models").glob("*fp32*.deploy.onnx"))
    with served(fp32, GDDCTL_TOKEN="a-token") as address:
        done = check(release, address, GDDCTL_TOKEN="a-token")
        assert done.returncode == 0 and "not served there" in done.stdout, done.stdout + done.stderr
        missing = next((release / "models").glob("*int8*.deploy.onnx")).stem
        assert check(release, address, missing, "--token", "a-token").returncode == 3
        refused = check(release, address, "--token", "another")
        assert refused.returncode in (3, 4) and "ok" not in refused.stdout
    gone = check(release, address)
    assert gone.returncode == 4 and "Traceback" not in gone.stderr, gone.stderr


def test_a_release_is_still_whole_after_a_repository_was_made_of_it(release: Path, tmp_path: Path) -> None:
    done = run("sh", str(release / "triton" / "assemble.sh"), str(tmp_path / "repository"))
    assert done.returncode == 0, done.stderr
    assert run(GDDCTL, "verify", str(release)).returncode == 0
