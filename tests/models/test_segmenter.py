"""Segmenter: sizes, features, the auxiliary head, names."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from gddctl.core.config.sections import Architecture, NetworkConfig
from gddctl.models.protocol import STAGES
from gddctl.models.segmenter import AUX_PREFIX, Segmenter, build_segmenter, describe, differences_from_paper

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
CLASSES = 5
ODD = (90, 122)  # no stride divides it


def network(arch: Architecture = "pspnet", stride: int = 16) -> NetworkConfig:
    return NetworkConfig.model_validate({"arch": arch, "encoder": "resnet18", "output_stride": stride})


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(network(request.param), CLASSES, aux=True)


def test_odd_sizes_go_through(model: Segmenter) -> None:
    model.train()
    outputs = model(torch.randn(1, 3, *ODD))  # batch 1 in training mode: no norm of a 1x1 map
    model.eval()
    assert {name: feature.shape[1] for name, feature in outputs.features.items()} == model.feature_channels
    assert outputs.features["stage1"].shape[-2:] == (23, 31)
    assert outputs.features["stage3"].shape[-2:] == (6, 8)
    assert outputs.aux is not None and outputs.aux.shape == (1, CLASSES, 6, 8)
    with torch.no_grad():
        assert model.predict_logits(torch.randn(2, 3, *ODD)).shape == (2, CLASSES, *ODD)


def test_eval_mode_answers_without_aux_and_each_image_alone(model: Segmenter) -> None:
    model.eval()
    images = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        both = model(images)
        alone = model(images[1:])
    assert both.aux is None
    assert torch.allclose(both.logits[1:], alone.logits, atol=1e-5)  # float32 sums in another order


def test_every_parameter_learns(model: Segmenter) -> None:
    model.train()
    model.zero_grad()
    outputs = model(torch.randn(2, 3, 64, 96))
    assert outputs.aux is not None
    (outputs.logits.square().mean() + outputs.aux.square().mean()).backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert silent == []


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize(("stride", "size"), [(8, (8, 12)), (16, (4, 6)), (32, (2, 3))])
def test_output_stride_is_kept(arch: Architecture, stride: int, size: tuple[int, int]) -> None:
    model = build_segmenter(network(arch, stride), CLASSES, aux=False).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 96)).features["stage4"].shape == (1, 512, *size)


def test_aux_head_changes_no_other_key() -> None:
    with_aux = build_segmenter(network(), CLASSES, aux=True)
    plain = build_segmenter(network(), CLASSES, aux=False)
    assert with_aux.plain_state_dict().keys() == plain.state_dict().keys()
    extra = with_aux.state_dict().keys() - plain.state_dict().keys()
    assert extra and all(key.startswith(AUX_PREFIX) for key in extra)


def test_same_seed_same_network() -> None:
    torch.manual_seed(3)
    first = build_segmenter(network(), CLASSES, aux=True).state_dict()
    torch.manual_seed(3)
    second = build_segmenter(network(), CLASSES, aux=True).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_channels_last_gives_the_same_answer(model: Segmenter) -> None:
    model.eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        plain = model(images).logits
        last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last)).logits
    model.to(memory_format=torch.contiguous_format)
    assert torch.allclose(plain, last, atol=1e-4)  # other kernels, float32


def test_stage4_is_the_encoders_last_feature_and_no_head_writes_into_it(model: Segmenter) -> None:
    model.eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = [feature.clone() for feature in model.encoder(images)[-4:]]
        found = model(images).features
    assert all(torch.equal(left, found[stage]) for left, stage in zip(expected, STAGES, strict=True))


def test_the_head_feature_is_what_the_classifier_reads(model: Segmenter) -> None:
    model.eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 96))
        assert torch.equal(model.get_submodule("head.classifier")(outputs.features["head"]), outputs.logits)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_names_and_differences(arch: Architecture) -> None:
    pyramid = arch in ("fpn", "upernet")
    assert describe(network(arch, 8)) == f"{arch}-resnet18-s{32 if pyramid else 8}"
    sentences = differences_from_paper(network(arch, 16))
    assert sentences and all(sentence.endswith(".") for sentence in sentences)
    assert any("output stride" in sentence for sentence in sentences)


def test_the_stem_is_named_only_where_it_is_a_plain_resnets() -> None:
    def mentions_stem(encoder: str) -> bool:
        return any("stem" in sentence for sentence in differences_from_paper(NetworkConfig(encoder=encoder)))

    assert mentions_stem("resnet101") and mentions_stem("tu-resnet50.a1_in1k")
    assert not mentions_stem("tu-resnet50d") and not mentions_stem("mobilenet_v2")
