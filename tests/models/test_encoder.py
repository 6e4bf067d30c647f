"""Encoders by name, and where their weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gddctl.core.config.load import load_config
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.errors import ArtifactError, ConfigError, EnvironmentMissing, UsageError
from gddctl.models.encoder import build_encoder
from gddctl.models.segmenter import build_segmenter


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet81", "did you mean 'resnet18'"),
        ("tu-resnet81", "did you mean 'tu-resnet18'"),
        ("convnext_tiny", "did you mean 'tu-convnext_tiny'"),
        ("", "unknown"),
    ],
)
def test_unknown_encoder_names_the_closest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        build_encoder(NetworkConfig(encoder=name), 32)


def test_an_encoder_that_cannot_be_dilated_says_so() -> None:
    with pytest.raises(ConfigError, match="output_stride to 32"):
        build_encoder(NetworkConfig(encoder="densenet121"), 8)


def test_an_encoder_for_one_image_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="any size"):
        build_encoder(NetworkConfig(encoder="tu-swin_tiny_patch4_window7_224"), 32)


def test_timm_encoder_is_dilated() -> None:
    model = build_segmenter(NetworkConfig(encoder="tu-resnet18", output_stride=8), 3, aux=True).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 96)).features["stage4"].shape == (1, 512, 8, 12)


def test_probing_changes_neither_statistics_nor_random_numbers() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(NetworkConfig(), 16)
    after = torch.rand(1)
    state = encoder.state_dict()
    assert encoder.training
    assert all(int(value) == 0 for key, value in state.items() if key.endswith("num_batches_tracked"))
    torch.manual_seed(0)
    build_encoder(NetworkConfig(), 16)
    assert torch.equal(after, torch.rand(1))


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = build_encoder(NetworkConfig(), 8)
    file = tmp_path / "encoder.safetensors"
    save_file(source.state_dict(), file)
    loaded = build_encoder(NetworkConfig(encoder_weights=file), 16).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())


def test_a_configs_weight_file_lies_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("teacher: {encoder_weights: here.safetensors}\nstudent: {encoder_weights: imagenet}\n")
    config = load_config(tmp_path / "run.yaml")
    assert config.teacher.encoder_weights == tmp_path / "here.safetensors"
    assert config.student.encoder_weights == "imagenet"


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    save_file(build_encoder(NetworkConfig(encoder="resnet18"), 32).state_dict(), file)
    with pytest.raises(ArtifactError, match=r"encoder 'resnet34'.*missing"):
        build_encoder(NetworkConfig(encoder="resnet34", encoder_weights=file), 32)


def test_missing_damaged_and_pickled_weight_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        build_encoder(NetworkConfig(encoder_weights=tmp_path / "none.safetensors"), 32)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 50)
    with pytest.raises(ArtifactError, match="safetensors"):
        build_encoder(NetworkConfig(encoder_weights=damaged), 32)
    pickled = tmp_path / "weights.pth"
    torch.save({}, pickled)
    with pytest.raises(ArtifactError, match="pickle"):
        build_encoder(NetworkConfig(encoder_weights=pickled), 32)


@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18"])
def test_imagenet_offline_is_a_clear_error_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")  # discard port: refuses at once
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match=r"hub.*encoder_weights") as caught:
        build_encoder(NetworkConfig(encoder=name, encoder_weights="imagenet"), 32)
    assert caught.value.exit_code == 4
    assert hub.HF_HUB_OFFLINE is False  # only for the time of the attempt


def test_imagenet_weights_that_do_not_exist_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="encoder_weights to none"):
        build_encoder(NetworkConfig(encoder="tu-seresnet18", encoder_weights="imagenet"), 32)
