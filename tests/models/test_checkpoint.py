"""Bundles: a round trip, and every way one can be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gddctl.core.artifact.card import CARD_NAME, WEIGHTS_NAME, Card, TrainingRecord
from gddctl.core.artifact.card_io import read_card
from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.sections import DataConfig, NetworkConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.models.checkpoint import count_parameters, load_bundle, load_into, save_bundle
from gddctl.models.segmenter import Segmenter, build_segmenter

NETWORK = NetworkConfig(output_stride=32)


def card(classes: int = 3, network: NetworkConfig = NETWORK) -> Card:
    return Card(
        name="student",
        role="student",
        network=network,
        parameters=0,
        classes=ClassTable(classes=tuple(SegClass(name=f"class{index}", color=(index, 0, 0)) for index in range(classes))),
        preprocess=PreprocessSpec(size=(64, 96)),
        data=DataConfig(),
        weights_sha256="",
        config_digest="0",
        training=TrainingRecord(
            iterations=1, best_iteration=1, seconds=0.0, images_seen=1, seed=0, devices=1, precision="fp32", method={"kind": "none"}
        ),
        gddctl_version="0",
    )


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(NETWORK, 3, aux=True)


@pytest.fixture
def bundle(model: Segmenter, tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    save_bundle(folder, model, card())
    return folder


def rewrite(bundle: Path, state: dict[str, torch.Tensor]) -> None:
    """Other weights with a card that vouches for them: past the hash check."""
    save_file(state, bundle / WEIGHTS_NAME)
    value = json.loads((bundle / CARD_NAME).read_text())
    value["weights_sha256"] = sha256_file(bundle / WEIGHTS_NAME)
    (bundle / CARD_NAME).write_text(json.dumps(value))


def test_round_trip(model: Segmenter, bundle: Path) -> None:
    loaded, found = load_bundle(bundle)
    images = torch.randn(1, 3, 64, 96)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(images).logits, loaded(images).logits)
    assert not loaded.training and loaded.aux_head is None
    assert found.weights_sha256 == sha256_file(bundle / WEIGHTS_NAME)
    assert found.parameters == count_parameters(model) == sum(parameter.numel() for parameter in loaded.parameters())
    assert found == read_card(bundle)


def test_keys_are_those_of_a_fresh_plain_student(bundle: Path) -> None:
    assert load_file(bundle / WEIGHTS_NAME).keys() == build_segmenter(NETWORK, 3, aux=False).state_dict().keys()


def test_same_weights_same_bytes_whatever_their_memory_format(model: Segmenter, bundle: Path, tmp_path: Path) -> None:
    model.to(memory_format=torch.channels_last)
    save_bundle(tmp_path / "again", model, card())
    model.to(memory_format=torch.contiguous_format)
    assert (tmp_path / "again" / WEIGHTS_NAME).read_bytes() == (bundle / WEIGHTS_NAME).read_bytes()


def test_loading_never_fetches_encoder_weights(model: Segmenter, tmp_path: Path) -> None:
    gone = NETWORK.model_copy(update={"encoder_weights": tmp_path / "gone.safetensors"})
    save_bundle(tmp_path / "student", model, card(network=gone))
    load_bundle(tmp_path / "student")


def test_saving_again_replaces_the_whole_folder(model: Segmenter, bundle: Path) -> None:
    (bundle / "stray").touch()
    save_bundle(bundle, model, card())
    assert {path.name for path in bundle.iterdir()} == {CARD_NAME, WEIGHTS_NAME}
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_one_changed_weight_is_seen(bundle: Path) -> None:
    data = bytearray((bundle / WEIGHTS_NAME).read_bytes())
    data[-1] ^= 1
    (bundle / WEIGHTS_NAME).write_bytes(data)
    with pytest.raises(ArtifactError, match="do not match the card"):
        load_bundle(bundle)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights(bundle: Path, keep: int) -> None:
    data = (bundle / WEIGHTS_NAME).read_bytes()
    (bundle / WEIGHTS_NAME).write_bytes(data[:keep])
    with pytest.raises(ArtifactError, match="do not match the card|not a whole safetensors file"):
        load_bundle(bundle)


def test_head_of_another_size_names_both(bundle: Path) -> None:
    other = build_segmenter(NETWORK, 7, aux=False)
    rewrite(bundle, other.state_dict())
    with pytest.raises(ArtifactError, match=r"7 classes.*names 3"):
        load_bundle(bundle)


def test_missing_and_unexpected_keys_are_named(bundle: Path) -> None:
    state = load_file(bundle / WEIGHTS_NAME)
    state["loss.generator.0.weight"] = state.pop("encoder.conv1.weight")
    rewrite(bundle, state)
    with pytest.raises(ArtifactError, match=r"missing: encoder.conv1.weight; unexpected: loss.generator.0.weight"):
        load_bundle(bundle)


def test_a_weight_of_another_shape_is_named(bundle: Path) -> None:
    state = load_file(bundle / WEIGHTS_NAME)
    state["encoder.bn1.bias"] = torch.zeros(3)
    rewrite(bundle, state)
    with pytest.raises(ArtifactError, match=r"encoder.bn1.bias is \(3,\), expected \(64,\)"):
        load_bundle(bundle)


def test_network_and_card_of_different_classes_are_not_saved(model: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"3 classes.*names 4"):
        save_bundle(tmp_path / "student", model, card(classes=4))
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_no_bundles(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such bundle") as caught:
        load_bundle(tmp_path / "none")
    assert caught.value.exit_code == 2
    with pytest.raises(ArtifactError, match=r"no card\.json"):
        load_bundle(tmp_path)
    with pytest.raises(ArtifactError, match="expected a bundle folder"):
        load_bundle(bundle / CARD_NAME)
    (bundle / WEIGHTS_NAME).unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load_bundle(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 2}'])
def test_broken_cards(bundle: Path, text: str) -> None:
    (bundle / CARD_NAME).write_text(text)
    with pytest.raises(ArtifactError, match=CARD_NAME):
        read_card(bundle)


def test_starting_from_a_bundle_keeps_the_aux_head(bundle: Path) -> None:
    torch.manual_seed(1)
    fresh = build_segmenter(NETWORK, 3, aux=True)
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    assert load_into(fresh, bundle) == read_card(bundle)
    plain = load_file(bundle / WEIGHTS_NAME)
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, plain.get(key, before[key]))
    assert any(not torch.equal(before[key], plain[key]) for key in plain)


def test_starting_from_a_bundle_of_other_classes_or_network(bundle: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has 3 classes.*has 4"):
        load_into(build_segmenter(NETWORK, 4, aux=True), bundle)
    other = NetworkConfig(arch="deeplabv3", output_stride=32)
    with pytest.raises(ArtifactError, match="not the weights"):
        load_into(build_segmenter(other, 3, aux=True), bundle)
