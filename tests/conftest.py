"""Small real students, exported once per session and shared by the rooms that need finished files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gddctl import __version__
from gddctl.core.artifact.card import Card, TrainingRecord
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import Architecture, CalibrationConfig, DataConfig, NetworkConfig, SyntheticConfig
from gddctl.core.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from gddctl.core.artifact.calibration import CalibrationRecord
    from gddctl.data.synthetic.scenes import SyntheticDataset

SIZE = (64, 96)  # stage 4 is 8 x 12: small, yet no multiple of PSP's bins, and narrower than ASPP's dilations
CALIBRATION = CalibrationConfig(images=6, seed=0, method="minmax")


@dataclass(frozen=True)
class Exported:
    """A student and everything made from it."""

    bundle: Path
    fp32: Artifact
    fp32_deploy: Artifact
    int8: Artifact
    int8_deploy: Artifact
    record: CalibrationRecord
    train: SyntheticDataset
    val: SyntheticDataset


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines are cached in a folder of the tests', not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Path]:
    """Architecture -> folder of a student with random weights whose batch norms have settled on drawn scenes."""
    made: dict[str, Path] = {}

    def make(arch: Architecture) -> Path:
        if arch not in made:
            made[arch] = _bundle(tmp_path_factory.mktemp("bundles") / arch, arch)
        return made[arch]

    return make


@pytest.fixture(scope="session")
def make_exported(
    make_bundle: Callable[[Architecture], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Architecture], Exported]:
    """Architecture -> that student exported: FP32 and INT8, logits and deploy."""
    made: dict[str, Exported] = {}

    def make(arch: Architecture) -> Exported:
        if arch not in made:
            made[arch] = _export(make_bundle(arch), tmp_path_factory.mktemp("artifacts"))
        return made[arch]

    return make


@pytest.fixture(scope="session")
def psp(make_exported: Callable[[Architecture], Exported]) -> Exported:
    """The PSPNet student."""
    return make_exported("pspnet")


def _data() -> DataConfig:
    return DataConfig(
        preprocess=PreprocessSpec(size=SIZE), synthetic=SyntheticConfig(train_images=24, val_images=4, height=SIZE[0], width=SIZE[1])
    )


def _bundle(folder: Path, arch: Architecture) -> Path:
    import numpy as np
    import torch
    from torch import nn

    from gddctl.data.open import open_dataset
    from gddctl.data.preprocess import normalise
    from gddctl.models.checkpoint import save_bundle
    from gddctl.models.segmenter import build_segmenter

    data, network = _data(), NetworkConfig(arch=arch)
    train = open_dataset(data, "train")
    torch.manual_seed(3)
    model = build_segmenter(network, len(train.classes), aux=True).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # running statistics are the plain average over what is shown
    with torch.no_grad():
        for start in (0, 8, 16):
            model(torch.from_numpy(np.stack([normalise(train[index].image, data.preprocess) for index in range(start, start + 8)])))
    training = TrainingRecord(iterations=0, best_iteration=0, seconds=0.0, images_seen=0, seed=3, devices=1, precision="fp32")
    card = Card(
        name=f"{arch}-tiny",
        role="student",
        network=network,
        parameters=0,
        classes=train.classes,
        preprocess=data.preprocess,
        data=data,
        weights_sha256="",
        config_digest="0" * 64,
        training=training,
        gddctl_version=__version__,
    )
    save_bundle(folder, model, card)
    return folder


def _export(bundle: Path, out: Path) -> Exported:
    from gddctl.core.artifact.manifest import artifact_name, write_manifest
    from gddctl.data.synthetic.scenes import SyntheticDataset, train_seed, val_seed
    from gddctl.export.calibration.collect import calibrate
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.int8 import quantize
    from gddctl.export.onnx_graph import export_logits

    drawn = _data().synthetic
    train = SyntheticDataset(train_seed(drawn.seed), drawn.train_images, *SIZE)
    val = SyntheticDataset(val_seed(drawn.seed), drawn.val_images, *SIZE)
    fp32 = export_logits(bundle, out / artifact_name(bundle.name, "fp32", "any", "logits"))
    fp32_deploy = to_deploy(fp32, out / artifact_name(bundle.name, "fp32", "any", "deploy"))
    record = calibrate(fp32, train, CALIBRATION, held_out=val)
    int8 = quantize(fp32, record, out / artifact_name(bundle.name, "int8", "ort-cpu", "logits"))
    int8_deploy = to_deploy(int8, out / artifact_name(bundle.name, "int8", "ort-cpu", "deploy"))
    write_manifest(out, [fp32, fp32_deploy, int8, int8_deploy])
    return Exported(bundle, fp32, fp32_deploy, int8, int8_deploy, record, train, val)
