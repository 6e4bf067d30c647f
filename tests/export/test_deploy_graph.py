"""The deploy graph is the logits graph with its ends moved inside: equal masks, pixel for pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import normalise
from gddctl.export.deploy_graph import to_deploy
from gddctl.export.graph_file import load_model, save_model
from gddctl.runtime.open import open_runtime


def images(exported: Any) -> np.ndarray[Any, Any]:
    drawn = [exported.val[index].image for index in range(3)]
    noise = np.random.default_rng(5).integers(0, 256, (1, *drawn[0].shape), dtype=np.uint8)
    return np.concatenate([np.stack(drawn), noise])


def masks_from_logits(path: Path, pixels: Any) -> Any:
    with open_runtime(path, threads=1) as runtime:
        return runtime.run(np.stack([normalise(image, runtime.info.preprocess) for image in pixels])).argmax(1)


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_its_mask_is_the_argmax_of_the_logits_file(make_exported: Callable[[str], Any], arch: str, precision: str) -> None:
    exported = make_exported(arch)
    logits, deploy = getattr(exported, precision), getattr(exported, f"{precision}_deploy")
    pixels = images(exported)
    wanted = masks_from_logits(logits.path, pixels)
    assert len(np.unique(wanted)) > 1
    with open_runtime(deploy.path, threads=1) as runtime:
        np.testing.assert_array_equal(runtime.run(pixels), wanted)
    assert deploy.info.graph == "deploy" and deploy.info.parent_sha256 == logits.sha256
    assert deploy.info.calibration_sha256 == logits.info.calibration_sha256
    assert deploy.info.census["conv.int8"] == logits.info.census["conv.int8"]


def test_bgr_networks_get_their_channels_swapped(psp: Any, tmp_path: Path) -> None:
    """The same weights under another channel order must answer otherwise, and still like their logits file."""
    import dataclasses

    spec = psp.fp32.info.preprocess.model_copy(update={"channel_order": "bgr"})
    info = psp.fp32.info.model_copy(update={"preprocess": spec})
    save_model(load_model(psp.fp32.path), info, tmp_path / "bgr.logits.onnx")
    deploy = to_deploy(
        dataclasses.replace(psp.fp32, path=tmp_path / "bgr.logits.onnx", info=info, sha256=sha256_file(tmp_path / "bgr.logits.onnx")),
        tmp_path / "bgr.deploy.onnx",
    )
    pixels = images(psp)
    with open_runtime(deploy.path, threads=1) as runtime:
        mask = runtime.run(pixels)
    np.testing.assert_array_equal(mask, masks_from_logits(tmp_path / "bgr.logits.onnx", pixels))
    assert not np.array_equal(mask, masks_from_logits(psp.fp32.path, pixels))


def test_ties_go_to_the_lower_class(psp: Any, tmp_path: Path) -> None:
    """A classifier that gives every class the same logit: the mask is class 0 everywhere, as numpy's argmax says."""
    import dataclasses

    import onnx

    model = load_model(psp.fp32.path)
    for item in model.graph.initializer:
        if "classifier" in item.name:
            item.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(item)), item.name))
    save_model(model, psp.fp32.info, tmp_path / "flat.onnx")
    deploy = to_deploy(
        dataclasses.replace(psp.fp32, path=tmp_path / "flat.onnx", sha256=sha256_file(tmp_path / "flat.onnx")),
        tmp_path / "flat.deploy.onnx",
    )
    with open_runtime(deploy.path, threads=1) as runtime:
        assert not runtime.run(images(psp)).any()


def test_a_deploy_graph_is_not_wrapped_again(psp: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="already a deploy graph"):
        to_deploy(psp.fp32_deploy, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_changed_since_is_refused(psp: Any, tmp_path: Path) -> None:
    import dataclasses

    data = bytearray(psp.fp32.path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match="changed since it was made"):
        to_deploy(dataclasses.replace(psp.fp32, path=tmp_path / "x.onnx"), tmp_path / "y.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
