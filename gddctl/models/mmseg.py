"""PSPNet and DeepLabV3 as mmsegmentation builds them: ResNetV1c, their heads, under the key names of their checkpoints.

Written from the papers (arXiv:1612.01105, 1706.05587, 1812.01187) and the published configs ``{pspnet,deeplabv3}_r*-d8``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.models.protocol import FEATURES, Outputs

Depth: TypeAlias = Literal[18, 34, 50, 101]

AUX_PREFIX = "auxiliary_head."  # keys under it train and are thrown away
CLASSIFIER = "decode_head.conv_seg.weight"  # its rows are the classes
POOL_SCALES = (1, 2, 3, 6)  # bins per side
ASPP_DILATIONS = (1, 12, 24, 36)
STRIDES = (1, 2, 1, 1)  # of the stages, after the stem's 4: output stride 8
DILATIONS = (1, 1, 2, 4)
_STEM = 64  # channels after the stem, half of it inside
_WIDTHS = (64, 128, 256, 512)  # of the stages, before a bottleneck's expansion
_DEEP_HEAD, _SHALLOW_HEAD = 512, 128  # head channels of the published configs: ResNet-50 and deeper, ResNet-18


def blocks_of(depth: Depth) -> tuple[int, int, int, int]:
    """Residual blocks per stage."""
    match depth:
        case 18:
            return (2, 2, 2, 2)
        case 34 | 50:
            return (3, 4, 6, 3)
        case 101:
            return (3, 4, 23, 3)
        case other:
            assert_never(other)


def head_channels(depth: Depth) -> int:
    """Width of the decode head in the published configs."""
    return _DEEP_HEAD if depth >= 50 else _SHALLOW_HEAD


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU; its keys are ``conv.*`` and ``bn.*``."""

    def __init__(self, inward: int, outward: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, outward, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, h, w) -> (B, C', h, w)."""
        return F.relu(self.bn(self.conv(x)))


class Basic(nn.Module):
    """Two 3x3 convolutions. Only the first is dilated: in the stages that are, mmsegmentation leaves the second as it is."""

    expansion = 1

    def __init__(self, inward: int, width: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inward, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, h, w) -> (B, width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; stride and dilation are the 3x3's ("pytorch" style)."""

    expansion = 4

    def __init__(self, inward: int, width: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inward, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, h, w) -> (B, 4 * width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(inner)) + shortcut)


class ResNetV1c(nn.Module):
    """ResNet whose stem is three 3x3 convolutions, at output stride 8.

    The first block of a dilated stage has half of the stage's dilation ("contract dilation").
    """

    def __init__(self, depth: Depth) -> None:
        super().__init__()
        half = _STEM // 2
        self.stem = nn.Sequential(*_norm_relu(3, half, stride=2), *_norm_relu(half, half), *_norm_relu(half, _STEM))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        block = Basic if depth < 50 else Bottleneck
        stages, inward = [], _STEM
        for width, count, stride, dilation in zip(_WIDTHS, blocks_of(depth), STRIDES, DILATIONS, strict=True):
            stages.append(_stage(block, inward, width, count, stride, dilation))
            inward = width * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = tuple(width * block.expansion for width in _WIDTHS)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four stages' features, shallow to deep, at strides 4, 8, 8, 8."""
        x = self.maxpool(self.stem(images))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


class PspHead(nn.Module):
    """Pooled at four scales, each through a 1x1; with the feature itself through a 3x3; classified by a 1x1."""

    def __init__(self, inward: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNorm(inward, channels, 1)) for scale in POOL_SCALES)
        self.bottleneck = ConvNorm(inward + len(POOL_SCALES) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the feature they are read from (published dropout 0.1 lies between: a teacher never trains)."""
        pooled = [F.interpolate(branch(x), size=x.shape[-2:], mode="bilinear", align_corners=False) for branch in self.psp_modules]
        read = self.bottleneck(torch.cat([x, *pooled], dim=1))
        return self.conv_seg(read), read


class AsppHead(nn.Module):
    """A pooled image and four dilations side by side; together through a 3x3; classified by a 1x1."""

    def __init__(self, inward: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNorm(inward, channels, 1))
        self.aspp_modules = nn.ModuleList(ConvNorm(inward, channels, 1 if dilation == 1 else 3, dilation) for dilation in ASPP_DILATIONS)
        self.bottleneck = ConvNorm((1 + len(ASPP_DILATIONS)) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the feature they are read from."""
        image = F.interpolate(self.image_pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        read = self.bottleneck(torch.cat([image, *(branch(x) for branch in self.aspp_modules)], dim=1))
        return self.conv_seg(read), read


class AuxHead(nn.Module):
    """One 3x3 and a 1x1 on stage 3. It trained with the network; here it is only checked, and left behind."""

    def __init__(self, inward: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvNorm(inward, channels, 3))
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.conv_seg(self.convs(x))
        return logits


class MmsegNetwork(nn.Module):
    """An mmsegmentation ``EncoderDecoder``; its keys are those of the published checkpoints.

    Args:
        arch: which decode head.
        depth: of the ResNetV1c.
        num_classes: of the logits.
        channels: of the decode head; None: the published config's, 512 from ResNet-50 on, 128 below.
        aux: with the auxiliary head, of half the decode head's width.
    """

    def __init__(
        self, arch: Literal["pspnet", "deeplabv3"], depth: Depth, num_classes: int, *, channels: int | None = None, aux: bool = False
    ) -> None:
        super().__init__()
        channels = channels or head_channels(depth)
        self.backbone = ResNetV1c(depth)
        inward: Sequence[int] = self.backbone.out_channels
        self.decode_head = PspHead(inward[3], channels, num_classes) if arch == "pspnet" else AsppHead(inward[3], channels, num_classes)
        self.auxiliary_head = AuxHead(inward[2], channels // 2, num_classes) if aux else None

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised -> logits at stride 8."""
        features = self.backbone(images)
        logits, read = self.decode_head(features[3])
        return Outputs(logits=logits, features=dict(zip(FEATURES, (*features, read), strict=True)))


def _norm_relu(inward: int, outward: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inward, outward, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outward), nn.ReLU(inplace=True)]


def _stage(block: type[Basic | Bottleneck], inward: int, width: int, count: int, stride: int, dilation: int) -> nn.Sequential:
    outward = width * block.expansion
    downsample = None
    if stride != 1 or inward != outward:
        downsample = nn.Sequential(nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward))
    first = block(inward, width, stride, max(1, dilation // 2), downsample)
    return nn.Sequential(first, *(block(outward, width, 1, dilation, None) for _ in range(count - 1)))
