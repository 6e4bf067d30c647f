"""Networks from torchvision and segmentation_models_pytorch, and what holds for every imported one."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gddctl.core.artifact.network import SmpNetwork, TorchvisionNetwork
from gddctl.core.config.external import SmpSource, TorchvisionArch, TorchvisionSource
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.models.bring import bring
from gddctl.models.external import External, build_external, fitted
from gddctl.models.from_smp import read_smp
from gddctl.models.from_torchvision import read_torchvision
from gddctl.models.licence import licence_in
from gddctl.models.pickled import read_checkpoint
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.renormalise import Renormalise
from gddctl.models.teacher import FrozenTeacher

torchvision_nets = pytest.importorskip("torchvision.models.segmentation")
smp = pytest.importorskip("segmentation_models_pytorch")

SPEC = PreprocessSpec(size=(48, 64))
NAMES = ("road", "sky", "car")
SAME_SUMS = 1e-5  # of float32 logits near 1: one interpolation more or less


class Known(nn.Module):
    """A body whose logits say what went in: channel k is (k + 1) times the red channel's mean; one feature is the images."""

    def forward(self, images: Tensor) -> Outputs:
        red = images[:, :1].mean((2, 3), keepdim=True)
        return Outputs(torch.cat([red * (k + 1) for k in range(3)], 1).expand(-1, -1, 4, 4), {"stage4": images})


def test_logits_come_in_the_order_of_our_classes() -> None:
    images = torch.rand(2, 3, 8, 8)
    plain = Known()(images).logits
    assert torch.equal(External(Known(), (2, 0, 1), {})(images).logits, plain[:, [2, 0, 1]])
    assert torch.equal(External(Known(), (0, 1, 2), {})(images).logits, plain)
    dropped = External(Known(), (2, 0), {})
    assert dropped.num_classes == 2 and torch.equal(dropped(images).logits, plain[:, [2, 0]])
    assert External(Known(), (2, 0, 1), {}).predict_logits(images).shape == (2, 3, 8, 8)


def test_images_are_brought_to_what_the_network_takes() -> None:
    images = torch.rand(1, 3, 40, 64)
    assert fitted(images, 8, None) is images
    assert fitted(images, 32, None).shape == (1, 3, 64, 64)
    assert fitted(images, 32, (24, 24)).shape == (1, 3, 24, 24)
    model = External(Known(), (0, 1, 2), {"stage4": 3}, multiple=32)
    assert model(images).features["stage4"].shape == (1, 3, 64, 64)
    assert model.predict_logits(images).shape == (1, 3, 40, 64)  # logits go back to what was given


def test_a_promised_feature_that_is_not_there_is_named() -> None:
    with pytest.raises(ArtifactError, match="gives no stage1 for images of 8 x 8"):
        External(Known(), (0, 1, 2), {"stage1": 3, "stage4": 3})(torch.rand(1, 3, 8, 8))


def test_a_frozen_imported_teacher_stays_frozen_and_sees_its_own_normalisation() -> None:
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = body

        def forward(self, images: Tensor) -> Outputs:
            return Outputs(self.inner(images), {})

    own = SPEC.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    renormalise = Renormalise(SPEC, own)
    teacher = FrozenTeacher(External(Wrapped(), (0, 1, 2), {}), renormalise)
    assert not isinstance(teacher, nn.Module)
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    body.train()  # somebody walks over all modules
    before = {key: value.clone() for key, value in body.state_dict().items()}
    answer = teacher(Batch(images, torch.zeros(2, 8, 8, dtype=torch.int64)))
    assert not body.training and not answer.logits.requires_grad
    assert all(torch.equal(before[key], value) for key, value in body.state_dict().items())
    assert not any(parameter.requires_grad for parameter in body.parameters())
    with torch.no_grad():
        assert torch.equal(answer.logits, body(renormalise(images)))
        assert not torch.allclose(answer.logits, body(images))  # the partner


TORCHVISION: list[tuple[TorchvisionArch, dict[str, int], int]] = [
    ("lraspp_mobilenet_v3_large", {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 16}, 8),
    ("deeplabv3_mobilenet_v3_large", {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 16, "head": 16}, 16),
    ("fcn_resnet50", {"stage1": 4, "stage2": 8, "stage3": 8, "stage4": 8, "head": 8}, 8),
]


def _torchvision(folder: Path, arch: TorchvisionArch, aux: bool = False, change: Any = None) -> tuple[nn.Module, TorchvisionSource]:
    torch.manual_seed(0)
    more = {} if arch.startswith("lraspp") else {"aux_loss": aux}
    model: nn.Module = getattr(torchvision_nets, arch)(weights=None, weights_backbone=None, num_classes=3, **more)
    state = dict(model.state_dict())
    if change is not None:
        change(state)
    torch.save(state, folder / "net.pth")
    return model.eval(), TorchvisionSource(path=folder / "net.pth", arch=arch, classes=NAMES)


@pytest.mark.parametrize(("arch", "strides", "stride"), TORCHVISION, ids=[case[0] for case in TORCHVISION])
def test_torchvision_answers_as_the_library_and_shows_its_features(
    tmp_path: Path, arch: TorchvisionArch, strides: dict[str, int], stride: int
) -> None:
    model, source = _torchvision(tmp_path, arch, aux=not arch.startswith("lraspp"))
    brought = bring(source, ("sky", "car", "road"), SPEC, ((64, 64), (48, 64)), NAMES)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs = model(images)["out"][:, [1, 2, 0]]
        answer = brought.model(images)
        assert torch.allclose(brought.model.predict_logits(images), theirs, atol=SAME_SUMS)
    assert {name: 64 // feature.shape[-2] for name, feature in answer.features.items()} == strides
    assert brought.network.features == {name: feature.shape[1] for name, feature in answer.features.items()}
    assert isinstance(brought.network, TorchvisionNetwork) and brought.network.stride == stride == 64 // answer.logits.shape[-2]
    if "head" in answer.features:
        classifier: Any = brought.model.body.classifier
        with torch.no_grad():
            assert torch.equal(classifier[-1](answer.features["head"])[:, [1, 2, 0]], answer.logits)
    assert not any(key.startswith("aux") for key in brought.model.plain_state_dict())
    again = build_external(brought.network)
    again.body.load_state_dict(brought.model.plain_state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images).logits, answer.logits)


def test_one_key_off_in_torchvision(tmp_path: Path) -> None:
    def rename(state: dict[str, Tensor]) -> None:
        state["backbone.17.0.weight"] = state.pop("backbone.16.0.weight")

    def resize(state: dict[str, Tensor]) -> None:
        state["classifier.high_classifier.weight"] = torch.zeros(4, 128, 1, 1)

    _, source = _torchvision(tmp_path, "lraspp_mobilenet_v3_large", change=rename)
    with pytest.raises(ArtifactError, match=r"missing: backbone\.16\.0\.weight; unexpected: backbone\.17\.0\.weight"):
        read_torchvision(source)
    _, source = _torchvision(tmp_path, "lraspp_mobilenet_v3_large", change=resize)
    with pytest.raises(ArtifactError, match=r"high_classifier\.weight is \(4, 128, 1, 1\), expected \(3, 128, 1, 1\)"):
        read_torchvision(source)


def _smp_file(folder: Path, change: Any, arch: str = "unet", **options: Any) -> SmpSource:
    torch.manual_seed(0)
    model = smp.create_model(arch, encoder_name="tu-test_resnet", encoder_weights=None, classes=3, **options)
    state = dict(model.state_dict())
    if change is not None:
        change(state)
    torch.save(OrderedDict(state), folder / "net.pth")
    return SmpSource(path=folder / "net.pth", arch=arch, encoder="tu-test_resnet", options=options, classes=NAMES)


@torch.no_grad()
def test_smp_state_dict_answers_as_the_library_at_any_size(tmp_path: Path) -> None:
    source = _smp_file(tmp_path, None, "unetplusplus", decoder_channels=[32, 24, 16, 16, 8])
    brought = bring(source, ("car", "sky", "road"), SPEC, ((64, 96), (40, 56)), NAMES)  # 40 x 56 is no multiple of 32
    torch.manual_seed(0)
    model = smp.create_model("unetplusplus", "tu-test_resnet", None, classes=3, decoder_channels=[32, 24, 16, 16, 8]).eval()
    images = torch.randn(1, 3, 64, 96)
    assert torch.allclose(brought.model.predict_logits(images), model(images)[:, [2, 1, 0]], atol=SAME_SUMS)
    odd = torch.randn(1, 3, 40, 56)
    resized = F.interpolate(odd, size=(64, 64), mode="bilinear", align_corners=False)
    expected = F.interpolate(model(resized)[:, [2, 1, 0]], size=(40, 56), mode="bilinear", align_corners=False)
    assert torch.allclose(brought.model.predict_logits(odd), expected, atol=SAME_SUMS)
    with pytest.raises(RuntimeError, match="Wrong input shape"):
        model(odd)  # the partner: the library itself refuses such images
    assert set(brought.network.features) == {"stage1", "stage2", "stage3", "stage4", "head"}
    assert brought.network.features["head"] == 8


@torch.no_grad()
@pytest.mark.parametrize(("arch", "stride"), [("fpn", 4), ("deeplabv3", 8), ("pspnet", 8)])
def test_smp_logits_are_enlarged_as_its_own_head_does(tmp_path: Path, arch: str, stride: int) -> None:
    """Its heads align the corners; reading them otherwise shifts every border near the edges of the image."""
    source = _smp_file(tmp_path, None, arch)
    brought = bring(source, ("car", "sky", "road"), SPEC, ((64, 96),), NAMES)
    model = smp.create_model(arch, "tu-test_resnet", None, classes=3).eval()
    model.load_state_dict(torch.load(source.path, weights_only=True))
    images = torch.randn(1, 3, 64, 96)
    theirs = model(images)[:, [2, 1, 0]]
    again = build_external(brought.network)  # as a bundle is opened
    again.body.load_state_dict(brought.model.plain_state_dict())
    for ours in (brought.model, again.eval()):
        assert ours(images).logits.shape[-1] == 96 // stride
        assert torch.allclose(ours.predict_logits(images), theirs, atol=SAME_SUMS)
    shifted = F.interpolate(brought.model(images).logits, size=(64, 96), mode="bilinear", align_corners=False)
    assert not torch.allclose(shifted, theirs, atol=SAME_SUMS)  # the partner: it does make a difference


@torch.no_grad()
def test_smp_folder_says_everything_by_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = smp.Unet("tu-test_resnet", encoder_weights=None, classes=3, decoder_channels=(32, 24, 16, 16, 8)).eval()
    model.save_pretrained(tmp_path / "unet")
    brought = bring(SmpSource(path=tmp_path / "unet", classes=NAMES), NAMES, SPEC, ((64, 64),), NAMES)
    assert isinstance(brought.network, SmpNetwork) and (brought.network.arch, brought.network.encoder) == ("unet", "tu-test_resnet")
    images = torch.randn(1, 3, 64, 64)
    assert torch.allclose(brought.model.predict_logits(images), model(images), atol=SAME_SUMS)
    old = tmp_path / "unet" / "pytorch_model.bin"  # as versions before safetensors wrote it
    torch.save(load_file(tmp_path / "unet" / "model.safetensors"), old)
    (tmp_path / "unet" / "model.safetensors").unlink()
    assert read_smp(SmpSource(path=tmp_path / "unet")).outputs == 3
    network = SmpNetwork.model_validate_json(brought.network.model_dump_json())  # as a card holds it
    again = build_external(network)
    again.body.load_state_dict(brought.model.plain_state_dict())
    assert torch.equal(again.eval()(images).logits, brought.model(images).logits)


def test_smp_mistakes(tmp_path: Path) -> None:
    source = _smp_file(tmp_path, lambda state: state.pop("decoder.blocks.0.conv1.0.weight"))
    with pytest.raises(ArtifactError, match=r"missing: decoder\.blocks\.0\.conv1\.0\.weight"):
        read_smp(source)
    with pytest.raises(ConfigError, match="does not say which network it belongs to"):
        read_smp(SmpSource(path=tmp_path / "net.pth"))
    with pytest.raises(ConfigError, match="smp makes no 'unetz'"):
        read_smp(source.model_copy(update={"arch": "unetz"}))
    with pytest.raises(ConfigError, match="smp's dpt is not read"):
        read_smp(source.model_copy(update={"arch": "dpt"}))
    with pytest.raises(ConfigError, match="smp makes no 'unet' on 'resnet17'"):
        read_smp(source.model_copy(update={"encoder": "resnet17"}))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no _model_class"):
        read_smp(SmpSource(path=folder))
    (folder / "config.json").write_text('{"_model_class": "Unet", "encoder_name": "tu-test_resnet", "activation": "softmax"}')
    with pytest.raises(ArtifactError, match="activation softmax"):
        read_smp(SmpSource(path=folder))


def test_classes_must_be_known_and_as_many_as_logits(tmp_path: Path) -> None:
    source = _smp_file(tmp_path, None)
    with pytest.raises(ConfigError, match="does not name its 3 classes"):
        bring(source, NAMES, SPEC, ((64, 64),), None)
    with pytest.raises(ConfigError, match=r"3 channels of logits, but teacher\.external\.classes names 2 classes \(road, sky\)"):
        bring(source, NAMES, SPEC, ((64, 64),), ("road", "sky"))
    with pytest.raises(ArtifactError, match="only in the dataset: tree; only in the teacher: car"):
        bring(source, ("road", "sky", "tree"), SPEC, ((64, 64),), NAMES)


def test_normalisation_is_the_settings_else_the_family_s(tmp_path: Path) -> None:
    source = _smp_file(tmp_path, None)
    ours = SPEC.model_copy(update={"mean": (0.1, 0.2, 0.3), "resize": "letterbox"})
    plain = bring(source, NAMES, ours, ((64, 64),), NAMES).preprocess
    assert plain == SPEC.model_copy(update={"resize": "letterbox"})  # ImageNet's, with the dataset's geometry
    said = source.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255), "channel_order": "bgr"})
    told = bring(said, NAMES, ours, ((64, 64),), NAMES).preprocess
    assert (told.std[0], told.channel_order, told.size) == (1 / 255, "bgr", SPEC.size)


def test_a_network_that_answers_nonsense_is_refused(tmp_path: Path) -> None:
    def spoil(state: dict[str, Tensor]) -> None:
        state["segmentation_head.0.bias"] = torch.full((3,), float("nan"))

    with pytest.raises(ArtifactError, match="not finite"):
        bring(_smp_file(tmp_path, spoil), NAMES, SPEC, ((64, 64),), NAMES)


class Harmful:
    """Stands for any object; unpickling it would leave a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_in_words_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "message_hub": Harmful(mark)}, tmp_path / "net.pth")
    with pytest.raises(ArtifactError, match=r"holds a Python object \(posix.mkdir\).*not loaded; where you trust its source"):
        read_checkpoint(tmp_path / "net.pth")
    assert not mark.exists()
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Harmful(mark)))
    pickle.loads((tmp_path / "plain.pkl").read_bytes())
    assert mark.exists()  # the partner: it would have
    mark.rmdir()
    with pytest.raises(ArtifactError):
        read_checkpoint(tmp_path / "plain.pkl")
    assert not mark.exists()


@pytest.mark.parametrize("form", ["state_dict", "model", "module", "module under a key"])
def test_the_remedy_for_pickled_objects_makes_a_file_that_is_read(tmp_path: Path, form: str) -> None:
    net = nn.Linear(2, 3)
    whole: dict[str, Any] = {
        "state_dict": {"state_dict": net.state_dict(), "args": Harmful(tmp_path / "ran")},
        "model": {"model": net.state_dict(), "args": Harmful(tmp_path / "ran")},
        "module": net,
        "module under a key": {"model": net, "epoch": 3},
    }
    torch.save(whole[form], tmp_path / "in.pth")
    with pytest.raises(ArtifactError, match="holds a Python object") as refused:
        read_checkpoint(tmp_path / "in.pth")
    line = str(refused.value).partition("save the weights alone: ")[2]
    exec(line.replace("FILE", str(tmp_path / "in.pth")).replace("NEW", str(tmp_path / "out.pth")), {"torch": torch})
    assert torch.equal(read_checkpoint(tmp_path / "out.pth").state["weight"], net.weight)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.pth", b"no checkpoint", "not a checkpoint"),
        ("empty.pth", b"", "not a checkpoint"),
        ("pops_nothing.pth", b"\x80\x02.", "not a checkpoint"),
        ("keys_of_lists.pth", b"\x80\x02}]K\x01s.", "not a checkpoint"),
        ("short.safetensors", b"\x00\x01", "not a whole safetensors file"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=words):
        read_checkpoint(tmp_path / name)


def test_truncated_and_missing_and_weightless_checkpoints(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "a.pth")
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ArtifactError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"epoch": 3, "a": torch.zeros(1)}, tmp_path / "mixed.pth")
    with pytest.raises(ArtifactError, match=r"1 tensors and 1 other entries \(epoch\)"):
        read_checkpoint(tmp_path / "mixed.pth")


def test_safetensors_and_wrappers_read_alike(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(3.0)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert torch.equal(read_checkpoint(tmp_path / name).state["a.weight"], state["a.weight"])


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlicense: apache-2.0\ntags: [x]\n---\n# Net\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: nvidia-source\n---\n"}, "nvidia-source"),
        ({"README.md": "---\nlicense: other\n---\n"}, "other"),
        ({"README.md": "# license: none of it\n", "LICENSE": "\n   MIT License\n\nCopyright"}, "MIT License"),
        ({"README.md": "---\n: : :\n---\n"}, None),
        ({}, None),
    ],
)
def test_licence_of_a_folder(tmp_path: Path, files: dict[str, str], licence: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_in(tmp_path) == licence
