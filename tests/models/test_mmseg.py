"""The networks of mmsegmentation: key and shape table, published sizes, and every module against a second way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.external import MmsegArch, MmsegDepth, MmsegSource
from gddctl.core.errors import ArtifactError
from gddctl.models.mmseg import AsppHead, Basic, Bottleneck, MmsegNetwork, PspHead, ResNetV1c
from gddctl.models.read_external import read_mmseg

Shape = tuple[int, ...]
ROUNDING = 2e-4  # float32 sums of some thousand products in another order
PUBLISHED_M_PARAMETERS = 48.98  # docs of mmsegmentation, get_flops.py of pspnet_r50-d8_512x1024_40k_cityscapes, which counts both heads
PUBLISHED_GMAC = 1429.68  # the same, input 3 x 2048 x 1024; without the auxiliary head


def norm(key: str, channels: int) -> dict[str, Shape]:
    table: dict[str, Shape] = {f"{key}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**table, f"{key}.num_batches_tracked": ()}


def conv_module(key: str, outward: int, inward: int, kernel: int) -> dict[str, Shape]:
    """mmcv's ConvModule: a convolution without bias, then its norm."""
    return {f"{key}.conv.weight": (outward, inward, kernel, kernel), **norm(f"{key}.bn", outward)}


def published(arch: str, depth: int, classes: int, *, aux: bool = True) -> dict[str, Shape]:
    """The table as configs/_base_/models/{pspnet,deeplabv3}_r50-d8.py and mmseg's documentation of ResNetV1c and the heads give it."""
    table: dict[str, Shape] = {}
    for place, (outward, inward) in {0: (32, 3), 3: (32, 32), 6: (64, 32)}.items():
        table |= {f"backbone.stem.{place}.weight": (outward, inward, 3, 3), **norm(f"backbone.stem.{place + 1}", outward)}
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    deep, inward = depth >= 50, 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        outward = 4 * width if deep else width
        for block in range(count):
            key = f"backbone.layer{stage + 1}.{block}"
            shapes = (
                [(width, inward, 1, 1), (width, width, 3, 3), (outward, width, 1, 1)]
                if deep
                else [
                    (width, inward, 3, 3),
                    (width, width, 3, 3),
                ]
            )
            for place, shape in enumerate(shapes, start=1):
                table |= {f"{key}.conv{place}.weight": shape, **norm(f"{key}.bn{place}", shape[0])}
            if block == 0 and inward != outward:
                table |= {f"{key}.downsample.0.weight": (outward, inward, 1, 1), **norm(f"{key}.downsample.1", outward)}
            inward = outward
    channels, half = (512, 256) if deep else (128, 64)
    if arch == "pspnet":
        for branch in range(4):
            table |= conv_module(f"decode_head.psp_modules.{branch}.1", channels, inward, 1)
        table |= conv_module("decode_head.bottleneck", channels, inward + 4 * channels, 3)
    else:
        table |= conv_module("decode_head.image_pool.1", channels, inward, 1)
        for branch, kernel in enumerate((1, 3, 3, 3)):
            table |= conv_module(f"decode_head.aspp_modules.{branch}", channels, inward, kernel)
        table |= conv_module("decode_head.bottleneck", channels, 5 * channels, 3)
    table |= {"decode_head.conv_seg.weight": (classes, channels, 1, 1), "decode_head.conv_seg.bias": (classes,)}
    if aux:
        table |= conv_module("auxiliary_head.convs.0", half, inward // 2, 3)
        table |= {"auxiliary_head.conv_seg.weight": (classes, half, 1, 1), "auxiliary_head.conv_seg.bias": (classes,)}
    return table


def on_meta(arch: MmsegArch, depth: MmsegDepth, classes: int = 19, *, aux: bool = True) -> MmsegNetwork:
    with torch.device("meta"):
        return MmsegNetwork(arch, depth, classes, aux=aux).eval()


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_keys_and_shapes_are_the_published_ones(arch: MmsegArch, depth: MmsegDepth) -> None:
    own = {key: tuple(value.shape) for key, value in on_meta(arch, depth).state_dict().items()}
    assert own == published(arch, depth, 19)
    without = on_meta(arch, depth, 7, aux=False).state_dict()
    assert {key: tuple(value.shape) for key, value in without.items()} == published(arch, depth, 7, aux=False)


def test_size_and_work_are_the_published_ones() -> None:
    both = sum(parameter.numel() for parameter in on_meta("pspnet", 50).parameters())
    assert round(both / 1e6, 2) == PUBLISHED_M_PARAMETERS
    # 68.1 M: PSPNet-R101 on ADE20K's 150 classes, table 2 of arXiv:2105.15203.
    assert round(sum(parameter.numel() for parameter in on_meta("pspnet", 101, 150).parameters()) / 1e6, 1) == 68.1

    model, work = on_meta("pspnet", 50, aux=False), 0

    def count(module: nn.Module, _: Any, answer: Tensor) -> None:
        nonlocal work
        work += answer.numel() * (module.weight[0].numel() if isinstance(module, nn.Conv2d) else 2)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(count)
    answer = model(torch.empty(1, 3, 2048, 1024, device="meta"))
    assert answer.logits.shape == (1, 19, 256, 128)
    assert work / 1e9 == pytest.approx(PUBLISHED_GMAC, rel=2e-3)  # theirs also counts activations and pooling


def test_strides_dilations_and_paddings_of_the_stages() -> None:
    """From the config: strides (1, 2, 1, 1), dilations (1, 1, 2, 4), contracted in each stage's first block."""
    for depth, expected in {50: [(1, 1), (1, 1), (1, 2), (2, 4)], 18: [(1, 1), (1, 1), (1, 2), (2, 4)]}.items():
        with torch.device("meta"):
            backbone = ResNetV1c(depth)  # type: ignore[arg-type]
        for stage, (first, rest) in enumerate(expected):
            blocks = list(getattr(backbone, f"layer{stage + 1}"))
            convs = [block.conv2 if isinstance(block, Bottleneck) else block.conv1 for block in blocks]
            assert [conv.dilation for conv in convs] == [(first, first)] + [(rest, rest)] * (len(blocks) - 1)
            assert all(conv.padding == conv.dilation for conv in convs)
            assert [conv.stride for conv in convs] == [(2, 2) if stage == 1 else (1, 1)] + [(1, 1)] * (len(blocks) - 1)
    with torch.device("meta"):
        assert all(block.conv2.dilation == (1, 1) for block in ResNetV1c(18).layer4 if isinstance(block, Basic))


def settle(module: nn.Module) -> nn.Module:
    """Statistics and weights that no formula gets right by accident."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.weight.data, 0.5), (part.bias.data, -0.5)):
                assert tensor is not None
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module.eval()


def by_hand(module: Any, x: Tensor, kernel: int, dilation: int) -> Tensor:
    """A ConvModule in double precision from its published formula: convolve, normalise by running statistics, cut below zero."""
    weight = module.conv.weight.double()
    pad = dilation * (kernel // 2)
    patches = F.unfold(x.double(), kernel, dilation=dilation, padding=pad)  # (B, C * k * k, L)
    out = (weight.flatten(1) @ patches).unflatten(2, x.shape[-2:])
    bn = module.bn
    scale = (bn.weight / (bn.running_var + bn.eps).sqrt()).double()
    shifted = (out - bn.running_mean.double().view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + bn.bias.double().view(1, -1, 1, 1)
    result: Tensor = shifted.clamp(min=0)
    return result


def binned(x: Tensor, bins: int) -> Tensor:
    """Adaptive average pooling by its definition: bin i covers floor(i * n / bins) to ceil((i + 1) * n / bins)."""
    height, width = x.shape[-2:]
    out = torch.zeros(*x.shape[:2], bins, bins, dtype=torch.float64)
    for i in range(bins):
        for j in range(bins):
            rows = slice(i * height // bins, -(-(i + 1) * height // bins))
            columns = slice(j * width // bins, -(-(j + 1) * width // bins))
            out[:, :, i, j] = x[:, :, rows, columns].double().mean((2, 3))
    return out


def stretched(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned, written out: place p of n samples the source at (p + 0.5) * m / n - 0.5, held at the border."""

    def weights(wanted: int, given: int) -> Tensor:
        matrix = torch.zeros(wanted, given, dtype=torch.float64)
        for place in range(wanted):
            at = min(max((place + 0.5) * given / wanted - 0.5, 0.0), given - 1.0)
            low = min(int(at), max(given - 2, 0))
            high = min(low + 1, given - 1)
            matrix[place, low] += 1 - (at - low)
            matrix[place, high] += at - low
        return matrix

    return weights(size[0], x.shape[-2]) @ x.double() @ weights(size[1], x.shape[-1]).T


def classified(head: Any, read: Tensor) -> Tensor:
    weight, bias = head.conv_seg.weight.double()[:, :, 0, 0], head.conv_seg.bias.double().view(1, -1, 1, 1)
    result: Tensor = torch.einsum("kc,bchw->bkhw", weight, read) + bias
    return result


@torch.no_grad()
def test_the_psp_head_is_its_formula() -> None:
    torch.manual_seed(0)
    head: Any = settle(PspHead(24, 8, 5))
    x = torch.randn(2, 24, 7, 11)  # no multiple of any bin count
    pooled = [
        stretched(by_hand(branch[1], binned(x, bins), 1, 1), (7, 11)) for branch, bins in zip(head.psp_modules, (1, 2, 3, 6), strict=True)
    ]
    read = by_hand(head.bottleneck, torch.cat([x.double(), *pooled], 1), 3, 1)
    logits, found = head(x)
    assert torch.allclose(found.double(), read, atol=ROUNDING) and torch.allclose(logits.double(), classified(head, read), atol=ROUNDING)
    # The partner: pooled maps in another order are another network.
    swapped = by_hand(head.bottleneck, torch.cat([*pooled, x.double()], 1), 3, 1)
    assert not torch.allclose(found.double(), swapped, atol=0.1)


@torch.no_grad()
def test_the_aspp_head_is_its_formula() -> None:
    torch.manual_seed(0)
    head: Any = settle(AsppHead(24, 8, 5))
    x = torch.randn(2, 24, 30, 41)  # wider than the smaller dilations, narrower than the largest
    image = by_hand(head.image_pool[1], x.double().mean((2, 3), keepdim=True), 1, 1).expand(-1, -1, 30, 41)
    kernels = ((1, 1), (3, 12), (3, 24), (3, 36))
    branches = [by_hand(module, x, *kernel) for module, kernel in zip(head.aspp_modules, kernels, strict=True)]
    read = by_hand(head.bottleneck, torch.cat([image, *branches], 1), 3, 1)
    logits, found = head(x)
    assert torch.allclose(found.double(), read, atol=ROUNDING) and torch.allclose(logits.double(), classified(head, read), atol=ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Basic, Bottleneck])
def test_a_block_is_its_formula(kind: type[Basic | Bottleneck]) -> None:
    torch.manual_seed(0)
    block: Any = settle(
        kind(16, 8, 1, 2, nn.Sequential(nn.Conv2d(16, 8 * kind.expansion, 1, bias=False), nn.BatchNorm2d(8 * kind.expansion)))
    )
    x = torch.randn(1, 16, 9, 10)

    def step(conv: Any, bn: Any, x: Tensor) -> Tensor:
        padding = conv.dilation[0] * (conv.kernel_size[0] // 2)
        out = F.unfold(x.double(), conv.kernel_size, dilation=conv.dilation, padding=padding)
        out = (conv.weight.double().flatten(1) @ out).unflatten(2, x.shape[-2:])
        mean, scale = bn.running_mean.double(), (bn.weight / (bn.running_var + bn.eps).sqrt()).double()
        result: Tensor = (out - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + bn.bias.double().view(1, -1, 1, 1)
        return result

    inner = step(block.conv1, block.bn1, x).clamp(min=0)
    inner = step(block.conv2, block.bn2, inner)
    if kind is Bottleneck:
        inner = step(block.conv3, block.bn3, inner.clamp(min=0))
    convolution, normalisation = block.downsample
    expected = (inner + step(convolution, normalisation, x)).clamp(min=0)
    assert torch.allclose(block(x).double(), expected, atol=ROUNDING)


@torch.no_grad()
def test_features_and_logits_stand_at_stride_8() -> None:
    torch.manual_seed(0)
    model = MmsegNetwork("pspnet", 18, 4).eval()
    answer = model(torch.randn(1, 3, 64, 96))
    strides = {name: 64 // feature.shape[-2] for name, feature in answer.features.items()}
    assert strides == {"stage1": 4, "stage2": 8, "stage3": 8, "stage4": 8, "head": 8}
    assert answer.logits.shape == (1, 4, 8, 12)
    assert torch.equal(answer.logits, model.decode_head.conv_seg(answer.features["head"]))


def saved(folder: Path, change: Any = None, meta: Any = None, wrap: bool = True, prefix: str = "") -> MmsegSource:
    torch.manual_seed(1)
    state = dict(MmsegNetwork("pspnet", 18, 3, aux=True).state_dict())
    if change is not None:
        change(state)
    state = {prefix + key: value for key, value in state.items()}
    torch.save({"state_dict": state, "meta": meta or {}} if wrap else state, folder / "net.pth")
    return MmsegSource(path=folder / "net.pth", arch="pspnet", depth=18)


@pytest.mark.parametrize(("wrap", "prefix"), [(True, ""), (False, ""), (True, "module.")])
def test_a_checkpoint_is_read_whole_and_its_aux_head_left_behind(tmp_path: Path, wrap: bool, prefix: str) -> None:
    found = read_mmseg(saved(tmp_path, wrap=wrap, prefix=prefix))
    torch.manual_seed(1)
    original = MmsegNetwork("pspnet", 18, 3, aux=True).eval()
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(found.body.eval()(images).logits, original(images).logits)
    assert not any(key.startswith("auxiliary_head") for key in found.body.state_dict()) and found.outputs == 3


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": ("road", "sky", "car")}, ("road", "sky", "car")),
        ({"dataset_meta": {"classes": ["road", "sky", "car"]}}, ("road", "sky", "car")),
        ({"CLASSES": None}, None),
        ({}, None),
    ],
)
def test_class_names_of_both_generations_of_checkpoints(tmp_path: Path, meta: Any, names: Any) -> None:
    assert read_mmseg(saved(tmp_path, meta=meta)).names == names


def test_counters_that_old_torch_did_not_save_are_no_mistake(tmp_path: Path) -> None:
    def drop(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            del state[key]

    read_mmseg(saved(tmp_path, drop))


def _missing(state: dict[str, Tensor]) -> None:
    del state["backbone.layer3.1.conv2.weight"]


def _unexpected(state: dict[str, Tensor]) -> None:
    state["decode_head.psp_modules.4.1.conv.weight"] = torch.zeros(1)


def _wrong_shape(state: dict[str, Tensor]) -> None:
    state["decode_head.bottleneck.conv.weight"] = torch.zeros(128, 1024, 1, 1)


def _aux_shape(state: dict[str, Tensor]) -> None:
    state["auxiliary_head.convs.0.conv.weight"] = torch.zeros(64, 512, 3, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_missing, r"missing: backbone\.layer3\.1\.conv2\.weight"),
        (_unexpected, r"unexpected: decode_head\.psp_modules\.4\.1\.conv\.weight"),
        (_wrong_shape, r"decode_head\.bottleneck\.conv\.weight is \(128, 1024, 1, 1\), expected \(128, 1024, 3, 3\)"),
        (_aux_shape, r"auxiliary_head\.convs\.0\.conv\.weight is \(64, 512, 3, 3\), expected \(64, 256, 3, 3\)"),
    ],
)
def test_one_key_off_and_the_checkpoint_is_refused_by_name(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        read_mmseg(saved(tmp_path, change))


def test_another_network_than_the_settings_say(tmp_path: Path) -> None:
    source = saved(tmp_path)
    with pytest.raises(ArtifactError, match=r"not the weights of mmsegmentation's deeplabv3 on ResNetV1c-18 \(missing: decode_head\.aspp"):
        read_mmseg(source.model_copy(update={"arch": "deeplabv3"}))
    with pytest.raises(ArtifactError, match="ResNetV1c-50"):
        read_mmseg(source.model_copy(update={"depth": 50}))


@torch.no_grad()
def test_the_backbone_is_timm_s_of_the_same_paper() -> None:
    """timm's resnet50c, at output stride 8, written by others: same three-layer stem, strides and contracted dilations, other key names."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet50c", pretrained=False, output_stride=8, num_classes=0)
    settle(theirs)
    stem = {"conv1.0": "stem.0", "conv1.1": "stem.1", "conv1.3": "stem.3", "conv1.4": "stem.4", "conv1.6": "stem.6", "bn1": "stem.7"}
    state = {}
    for key, value in theirs.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        state[f"{stem.get(owner, owner)}.{leaf}"] = value
    ours = ResNetV1c(50).eval()
    ours.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, 48, 64)
    x, expected = theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(images)))), []
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        x = stage(x)
        expected.append(x)
    for found, wanted in zip(ours(images), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=ROUNDING, atol=ROUNDING * float(wanted.abs().max()))
    first: Any = ours.layer4[0]
    first.conv2.dilation = first.conv2.padding = (4, 4)  # the partner: not contracted
    assert not torch.allclose(ours(images)[3], expected[3], rtol=0.1, atol=0.1 * float(expected[3].abs().max()))
