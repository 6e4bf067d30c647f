"""Label Assisted Distillation's models: the noised plane, the wide stem, the teacher that reads both, its bundle; and smoothed labels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl import __version__
from gddctl.core.artifact.card import CARD_NAME, Card, TrainingRecord
from gddctl.core.config.label_assisted import Codes, NoisingConfig, SmoothingConfig
from gddctl.core.config.sections import DataConfig, NetworkConfig
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.open import open_dataset
from gddctl.export.onnx_graph import export_logits
from gddctl.models.checkpoint import load_bundle, load_into, load_smoothed_labels, save_bundle
from gddctl.models.label_assisted import (
    _OPTIONS,
    LabelAssistedTeacher,
    LabelNoising,
    beside,
    build_label_assisted,
    differences_from_release,
    fixed_codes,
    no_label,
    planes_of,
)
from gddctl.models.protocol import Batch
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.smoothed_labels import SmoothedLabels, SmoothedLabelsTeacher
from gddctl.models.wide_stem import PLANE_STD, widen_stem
from gddctl.runtime.open import open_runtime
from gddctl.runtime.torch_teacher import TorchTeacher

CLASSES, SCALE = 3, 1.7
TINY = NetworkConfig(encoder="tu-test_resnet", output_stride=32)
SAME = 1e-5  # of the largest value: four channels instead of three change the order of sums
ALL: tuple[Codes, ...] = ("random", "fixed", "shuffled")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(seed: int = 0, shape: tuple[int, ...] = (2, 12, 16)) -> Tensor:
    found = torch.randint(0, CLASSES, shape, generator=seeded(seed))
    found[..., :3, :] = 255
    return found


# The plane


@pytest.mark.parametrize("codes", ALL)
def test_a_look_up_in_the_table_is_the_sum_over_one_hot_channels(codes: Codes) -> None:
    noising, y = LabelNoising(CLASSES, codes, 0.0, SCALE), labels()
    table = noising.table(len(y), y.device, seeded(1))
    shown = F.one_hot(torch.where(y == 255, CLASSES, y), CLASSES + 1)  # (B, H, W, K + 1)
    wanted = SCALE * torch.einsum("bhwk,bk->bhw", shown.float(), table)
    assert torch.allclose(noising(y, seeded(1))[:, 0], wanted)
    ignored = noising(y, seeded(1))[:, 0][y == 255].view(len(y), -1)
    assert torch.equal(ignored, (SCALE * table[:, -1:]).expand_as(ignored))  # code K, not that of any class


def test_the_fixed_table_is_the_published_one_for_21_classes() -> None:
    assert torch.allclose(fixed_codes(21), torch.tensor([(k - 11) / 10 for k in range(22)]), atol=1e-6)
    assert (
        fixed_codes(11)[0].item() == pytest.approx(-1.1) and fixed_codes(11)[-1].item() == pytest.approx(1.0) and len(fixed_codes(11)) == 12
    )


def test_where_the_codes_come_from() -> None:
    tables = {codes: LabelNoising(11, codes, 0.0, 1.0).table(2, torch.device("cpu"), seeded(2)) for codes in ALL}
    assert torch.equal(tables["fixed"][0], tables["fixed"][1])
    assert torch.equal(tables["shuffled"].sort().values, tables["fixed"]) and not torch.equal(tables["shuffled"][0], tables["shuffled"][1])
    assert not torch.equal(tables["random"][0], tables["random"][1])
    many = LabelNoising(21, "random", 0.0, 1.0).table(2000, torch.device("cpu"), seeded(3))
    assert many.mean().abs() < 0.03 and (many.std() - 1).abs() < 0.03  # 44 000 draws of N(0, 1)


@pytest.mark.parametrize("codes", ALL)
def test_same_seed_same_plane_and_two_paths_differ(codes: Codes) -> None:
    noising, y = LabelNoising(CLASSES, codes, 0.03, SCALE), labels()
    assert torch.equal(noising(y, seeded(4)), noising(y, seeded(4)))
    torch.manual_seed(4)
    first, second = noising(y), noising(y)  # one step: two paths, from the default generator
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    assert torch.equal(first, noising(y))


def test_sigma_is_the_noise_in_units_of_the_codes() -> None:
    y = torch.zeros(1, 200, 200, dtype=torch.int64)
    plane = LabelNoising(CLASSES, "fixed", 0.02, SCALE)(y, seeded(5))
    assert plane.shape == (1, 1, 200, 200) and plane.dtype == torch.float32
    assert plane.std().item() == pytest.approx(SCALE * 0.02, rel=0.02)  # 40 000 draws
    assert plane.mean().item() == pytest.approx(SCALE * -1.1, abs=1e-3)


def test_the_scale_follows_the_images_std() -> None:
    as_published = (1 / 255, 1 / 255, 1 / 255)  # images 0 .. 255, not divided by anything
    assert NoisingConfig().scale_for(as_published) == pytest.approx(100)
    assert NoisingConfig().scale_for((0.229, 0.224, 0.225)) == pytest.approx(100 / 57.63, rel=1e-3)
    assert NoisingConfig(scale=3.0).scale_for(as_published) == 3.0


def test_planes_to_judge_by_do_not_depend_on_the_batch() -> None:
    noising, y = LabelNoising(CLASSES, "random", 0.03, SCALE), labels(shape=(3, 8, 8))
    together = planes_of(noising, y, [5, 6, 7])
    assert torch.equal(together[1:2], planes_of(noising, y[1:2], [6]))
    assert not torch.equal(together[1:2], planes_of(noising, y[1:2], [8]))


def test_a_card_says_where_the_teacher_is_not_the_releases() -> None:
    published = NoisingConfig(scale=1.735)
    assert len(differences_from_release(published, 21)) == 2  # scale and corners: both follow from how images are treated here
    assert len(differences_from_release(published, 11)) == 3
    other = differences_from_release(published.model_copy(update={"consistency": 0.0, "joint": True}), 21)
    assert any("agreement: 0.0; published: 5.0" in words for words in other) and any("one forward pass: True" in words for words in other)
    left_out = {key for key in NoisingConfig.model_fields if key != "scale"} - set(_OPTIONS)
    assert not left_out  # every option is told


# The stem


@pytest.mark.parametrize("encoder", ["resnet18", "tu-test_resnet", "mobilenet_v2", "mobileone_s0", "mit_b0"])
def test_a_plane_of_zeros_and_a_sliced_stem_give_the_plain_network(encoder: str) -> None:
    network = NetworkConfig(arch="fpn", encoder=encoder, output_stride=32)
    torch.manual_seed(0)
    wide = build_label_assisted(network, CLASSES, aux=False).eval()
    torch.manual_seed(1)
    plain = build_segmenter(network, CLASSES, aux=False).eval()
    wanted = plain.state_dict()
    widened = [key for key, value in wide.state_dict().items() if value.shape != wanted[key].shape]
    assert widened
    plain.load_state_dict({key: value[:, :3] if key in widened else value for key, value in wide.state_dict().items()}, strict=True)
    images = torch.randn(2, 3, 64, 64, generator=seeded(6))
    with torch.no_grad():
        found, reference = wide(beside(images, no_label(images))).logits, plain(images).logits
        told = wide(beside(images, torch.ones(2, 1, 64, 64))).logits
    assert torch.allclose(found, reference, rtol=0, atol=SAME * reference.abs().max().item())
    assert not torch.allclose(told, reference, rtol=0, atol=SAME * reference.abs().max().item())  # the plane does arrive


def test_red_green_blue_begin_as_the_plain_networks_and_the_plane_small() -> None:
    torch.manual_seed(2)
    plain = build_segmenter(NetworkConfig(encoder="resnet18", output_stride=32), CLASSES, aux=True).state_dict()
    torch.manual_seed(2)
    wide = build_label_assisted(NetworkConfig(encoder="resnet18", output_stride=32), CLASSES, aux=True).state_dict()
    assert wide.keys() == plain.keys()
    stem = wide["encoder.conv1.weight"]
    assert stem.shape == (64, 4, 7, 7)
    assert torch.equal(stem[:, :3], plain["encoder.conv1.weight"])
    assert stem[:, 3].std().item() == pytest.approx(PLANE_STD, rel=0.05)  # 3136 draws
    assert all(torch.equal(wide[key], plain[key]) for key in plain if key != "encoder.conv1.weight")


class Odd(nn.Module):
    """An encoder whose stem cannot be widened, in one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.stem = nn.Conv2d(3, 6, 3, padding=1, groups=3 if way == "grouped" else 1)
        self.side = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.way == "shifted":
            return [self.stem(x - 1)]
        if self.way == "standardised":
            weight = self.stem.weight
            return [
                F.conv2d(x, (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)) + 0 * self.stem(x).mean()
            ]
        if self.way == "twice":
            return [self.stem(x).mean((2, 3)) + self.side(x.mean((2, 3)))]
        return [self.stem(x) * (0 if self.way == "deaf" else 1)]


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("grouped", "does not begin with a plain convolution"),
        ("shifted", "does not begin with a plain convolution"),
        ("standardised", "normalises its weights"),
        ("twice", "shapes"),
        ("deaf", "does not reach"),
    ],
)
def test_a_stem_that_cannot_be_widened_is_refused_in_words(way: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"'odd' cannot take the label as a fourth channel \(.*{reason}"):
        widen_stem(Odd(way), "odd")


def test_widening_draws_nothing_but_the_plane_and_keeps_the_mode() -> None:
    encoder = Odd("plain").train()
    torch.manual_seed(3)
    widen_stem(encoder, "odd")
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.empty(6, 1, 3, 3).normal_()
    assert torch.equal(after, torch.rand(1)) and encoder.training


# The teacher


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(4)
    return build_label_assisted(TINY, CLASSES, aux=False)


def batch(seed: int = 0) -> Batch:
    return Batch(torch.randn(2, 3, 64, 64, generator=seeded(7)), labels(seed, (2, 64, 64)))


def test_it_reads_the_label_and_draws_from_the_steps_seed(model: Segmenter) -> None:
    teacher = LabelAssistedTeacher(model, LabelNoising(CLASSES, "fixed", 0.02, SCALE))

    def answer(seed: int, of: int = 0) -> Tensor:
        torch.manual_seed(seed)
        return teacher(batch(of)).logits

    assert torch.equal(answer(1), answer(1))
    assert not torch.equal(answer(1), answer(2))
    assert not torch.equal(answer(1), answer(1, of=5))  # other labels, same images
    quiet = LabelAssistedTeacher(model, LabelNoising(CLASSES, "fixed", 0.0, SCALE))
    plane = SCALE * fixed_codes(CLASSES)[torch.where(batch().labels == 255, CLASSES, batch().labels)][:, None]
    with torch.no_grad():
        assert torch.allclose(quiet(batch()).logits, model(torch.cat([batch().images, plane], 1)).logits)


def test_it_neither_learns_nor_drifts(model: Segmenter) -> None:
    teacher = LabelAssistedTeacher(model, LabelNoising(CLASSES, "random", 0.03, SCALE))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()  # somebody walks over all modules
    outputs = teacher(batch())
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert not outputs.logits.requires_grad and outputs.features.keys() == teacher.feature_channels.keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    scale = torch.ones(1, requires_grad=True)
    torch.autograd.backward((scale * outputs.logits).sum())  # its answers may stand in a loss
    assert scale.grad is not None


# Bundles


def make_card(**update: Any) -> Card:
    data = DataConfig(preprocess=PreprocessSpec(size=(64, 96)))
    fields: dict[str, Any] = {
        "name": "t",
        "role": "teacher",
        "network": TINY,
        "parameters": 0,
        "classes": open_dataset(data, "train").classes,
        "preprocess": data.preprocess,
        "data": data,
        "weights_sha256": "",
        "config_digest": "",
        "training": TrainingRecord(iterations=0, best_iteration=0, seconds=0, images_seen=0, seed=0, devices=1, precision="fp32"),
        "gddctl_version": __version__,
    }
    return Card(**{**fields, **update})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assisted") / "teacher"
    card = make_card(kind="label_assisted", noising=NoisingConfig(scale=SCALE))
    torch.manual_seed(5)
    save_bundle(folder, build_label_assisted(TINY, len(card.classes), aux=True), card)
    return folder


def test_a_bundle_gives_its_network_back(bundle: Path) -> None:
    model, card = load_bundle(bundle)
    torch.manual_seed(5)
    wanted = build_label_assisted(TINY, len(card.classes), aux=True).eval()
    assert card.kind == "label_assisted" and card.noising == NoisingConfig(scale=SCALE) and not model.training
    images = torch.randn(1, 4, 64, 96, generator=seeded(8))
    with torch.no_grad():
        assert torch.equal(model(images).logits, wanted(images).logits)
    assert card.parameters == sum(parameter.numel() for name, parameter in wanted.named_parameters() if not name.startswith("aux"))


@pytest.mark.parametrize(("said", "really"), [("network", "label_assisted"), ("label_assisted", "network"), ("smoothed_labels", "network")])
def test_a_card_of_another_kind_does_not_load(tmp_path: Path, said: str, really: str) -> None:
    card, folder = make_card(), tmp_path / "b"
    build = build_label_assisted if really == "label_assisted" else build_segmenter
    save_bundle(folder, build(TINY, len(card.classes), aux=False), card)
    value = json.loads((folder / CARD_NAME).read_text())
    (folder / CARD_NAME).write_text(json.dumps({**value, "kind": said}))
    with pytest.raises(ArtifactError, match="not the weights of"):
        load_smoothed_labels(folder) if said == "smoothed_labels" else load_bundle(folder)


def test_it_is_refused_where_there_is_no_label(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="reads the label beside the image; it cannot be run on images"):
        open_runtime(bundle)
    with pytest.raises(ArtifactError, match="cannot be exported, because what ships never sees the label.*gddctl distill --teacher"):
        export_logits(bundle, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="cannot be started from"):
        load_into(build_segmenter(TINY, len(make_card().classes), aux=False), bundle)


def test_a_plain_network_is_no_teacher_that_sees_labels(tmp_path: Path) -> None:
    card = make_card()
    save_bundle(tmp_path / "plain", build_segmenter(TINY, len(card.classes), aux=False), card)
    with pytest.raises(ArtifactError, match="plain network"):
        TorchTeacher(tmp_path / "plain")


# Smoothed labels


def test_smoothed_labels_are_shares_of_a_cell_times_the_scale() -> None:
    y = labels(9, (1, 6, 9))
    found = SmoothedLabels(CLASSES, stride=4, scale=8.0, blur=0.0)(y)
    assert found.shape == (1, CLASSES, 2, 3)
    for k in range(CLASSES):
        for row in range(2):
            for column in range(3):
                cell = y[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                assert found[0, k, row, column].item() == pytest.approx(8.0 * (cell == k).float().mean().item())
    assert not SmoothedLabels(CLASSES, 1, 8.0, 0.0)(torch.full((1, 4, 4), 255)).any()  # nothing is known there


def test_the_blur_is_a_gaussian_that_keeps_what_is_uniform() -> None:
    y = torch.zeros(1, 40, 40, dtype=torch.int64)
    assert torch.allclose(SmoothedLabels(CLASSES, 2, 8.0, 1.5)(y)[:, 0], torch.tensor(8.0))
    y[:, 20, 20] = 1
    spread = SmoothedLabels(CLASSES, 1, 1.0, 1.5)(y)[0, 1]
    assert spread.sum().item() == pytest.approx(1.0, rel=1e-5)
    assert (spread[20, 21] / spread[20, 20]).item() == pytest.approx(math.exp(-1 / (2 * 1.5**2)), rel=1e-4)
    assert spread[20, 22].item() == pytest.approx(spread[22, 20].item())


def test_smoothed_labels_teach_logits_alone_and_survive_their_bundle(tmp_path: Path) -> None:
    smoothing = SmoothingConfig(scale=5.0, blur=0.7)
    card = make_card(kind="smoothed_labels", smoothing=smoothing)
    made = SmoothedLabels(len(card.classes), 8, smoothing.scale, smoothing.blur)
    save_bundle(tmp_path / "s", made, card)
    model, found = load_smoothed_labels(tmp_path / "s")
    y = labels(shape=(2, 64, 96))
    assert found.parameters == 0 and torch.equal(model(y), made(y))
    teacher = SmoothedLabelsTeacher(model)
    outputs = teacher(Batch(torch.zeros(2, 3, 64, 96), y))
    assert torch.equal(outputs.logits, made(y)) and outputs.features == {} and teacher.feature_channels == {}
    with pytest.raises(ArtifactError, match="smoothed labels, which are no network; it cannot be run on images"):
        open_runtime(tmp_path / "s")
    with pytest.raises(ArtifactError, match="no network"):
        load_bundle(tmp_path / "s")
    other = SmoothedLabels(len(card.classes), 8, 5.0, 0.8)
    save_bundle(tmp_path / "o", other, card)
    digests = {json.loads((tmp_path / name / CARD_NAME).read_text())["weights_sha256"] for name in ("s", "o")}
    assert len(digests) == 2  # what names a bundle follows from its settings
