"""Decode heads: encoder features to logits and the feature they are classified from, at any input size.

Widths and order of the layers are those of segmentation_models_pytorch 0.6. The heads are written here because that library's own refuse
sizes which the stride does not divide, resize by factors, pool by ops that export badly, and normalise a 1x1 map, which fails in training
with one image per process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.models.psp_pooling import PspPooling

DROPOUT = 0.1  # mmsegmentation's decode heads
PSP_BINS = (1, 2, 3, 6)  # arXiv:1612.01105
ASPP_RATES = (12, 24, 36)  # arXiv:1706.05587, at stride 8
AUX_SHRINK = 4  # the auxiliary head is a quarter as wide as its input, as FCN heads are


Decoded = tuple[Tensor, Tensor]  # logits (B, K, h, w); the feature that the classifier reads (B, C, h, w), before dropout


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize to an explicit size, corners not aligned: never by a factor, which misses sizes the stride does not divide."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def size_of(x: Tensor) -> tuple[int, int]:
    """(height, width) of a map."""
    return x.shape[-2], x.shape[-1]


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PooledBranch(nn.Module):
    """Pool into bins, 1x1 convolution, resize back. A single bin has no norm: batch norm of a 1x1 map fails with one image."""

    def __init__(self, inputs: int, outputs: int, bins: int) -> None:
        super().__init__()
        self.pool = PspPooling(bins)
        conv = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.conv = conv if bins == 1 else conv_bn_relu(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, H, W) -> (B, outputs, H, W)."""
        return resize(self.conv(self.pool(x)), size_of(x))


class PspHead(nn.Module):
    """PSPNet (arXiv:1612.01105): the map and its averages at four scales, fused by a 1x1 convolution."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        inputs, width = channels[-1], 512
        self.branches = nn.ModuleList(PooledBranch(inputs, inputs // len(PSP_BINS), bins) for bins in PSP_BINS)
        self.fuse = conv_bn_relu(inputs + inputs // len(PSP_BINS) * len(PSP_BINS), width)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Decoded:
        """Four features, shallow to deep, to logits and head feature at stage 4's size."""
        x = features[-1]
        x = self.fuse(torch.cat([*(branch(x) for branch in self.branches), x], dim=1))
        return self.classifier(self.dropout(x)), x


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling (arXiv:1706.05587)."""

    def __init__(self, inputs: int, width: int, *, depthwise: bool) -> None:
        super().__init__()
        dilated = [separable(inputs, width, rate) if depthwise else conv_bn_relu(inputs, width, 3, rate) for rate in ASPP_RATES]
        self.branches = nn.ModuleList([conv_bn_relu(inputs, width), *dilated, PooledBranch(inputs, width, 1)])
        self.project = conv_bn_relu(width * 5, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, H, W) -> (B, width, H, W)."""
        return cast(Tensor, self.dropout(self.project(torch.cat([branch(x) for branch in self.branches], dim=1))))


class DeepLabV3Head(nn.Module):
    """DeepLabV3 (arXiv:1706.05587)."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = 256
        self.aspp = Aspp(channels[-1], width, depthwise=False)
        self.refine = conv_bn_relu(width, width, 3)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Decoded:
        """Four features, shallow to deep, to logits and head feature at stage 4's size."""
        x = self.refine(self.aspp(features[-1]))
        return self.classifier(x), x


class DeepLabV3PlusHead(nn.Module):
    """DeepLabV3+ (arXiv:1802.02611): ASPP, then stage 1 brings back the edges."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width, edges = 256, 48
        self.aspp = Aspp(channels[-1], width, depthwise=True)
        self.deep = separable(width, width)
        self.edges = conv_bn_relu(channels[0], edges)
        self.fuse = separable(width + edges, width)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Decoded:
        """Four features, shallow to deep, to logits and head feature at stage 1's size."""
        edges = self.edges(features[0])
        deep = resize(self.deep(self.aspp(features[-1])), size_of(edges))
        x = self.fuse(torch.cat([deep, edges], dim=1))
        return self.classifier(x), x


class FpnHead(nn.Module):
    """Feature pyramid with a semantic branch (arXiv:1901.02446): every level brought to stage 1's size, summed."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width, narrow, groups = 256, 128, 32
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.levels = nn.ModuleList()
        for index in range(len(channels)):
            steps = [
                nn.Sequential(
                    nn.Conv2d(width if step == 0 else narrow, narrow, 3, padding=1, bias=False), nn.GroupNorm(groups, narrow), nn.ReLU()
                )
                for step in range(max(index, 1))
            ]
            self.levels.append(nn.ModuleList(steps))
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(narrow, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Decoded:
        """Four features, shallow to deep, to logits and head feature at stage 1's size."""
        pyramid = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for index in range(len(pyramid) - 2, -1, -1):
            pyramid[index] = pyramid[index] + F.interpolate(pyramid[index + 1], size=size_of(pyramid[index]), mode="nearest")
        total: Tensor | None = None
        for index, steps in enumerate(self.levels):
            x = pyramid[index]
            for count, step in enumerate(cast(nn.ModuleList, steps)):
                x = resize(step(x), size_of(features[max(index - count - 1, 0)]))
            total = x if total is None else total + x
        assert total is not None
        return self.classifier(self.dropout(total)), total


class UperHead(nn.Module):
    """UPerNet (arXiv:1807.10221): pyramid pooling on top of a feature pyramid, all levels fused at stage 1's size."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = 256
        self.branches = nn.ModuleList(PooledBranch(channels[-1], width, bins) for bins in PSP_BINS)
        self.top = conv_bn_relu(channels[-1] + len(PSP_BINS) * width, width, 3)
        self.lateral = nn.ModuleList(conv_bn_relu(count, width) for count in channels[:-1])
        self.smooth = nn.ModuleList(conv_bn_relu(width, width, 3) for _ in channels[:-1])
        self.fuse = conv_bn_relu(width * len(channels), width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Decoded:
        """Four features, shallow to deep, to logits and head feature at stage 1's size."""
        last = features[-1]
        top = self.top(torch.cat([last, *(branch(last) for branch in self.branches)], dim=1))
        pyramid = [lateral(feature) for lateral, feature in zip(self.lateral, features[:-1], strict=True)] + [top]
        for index in range(len(pyramid) - 2, -1, -1):
            pyramid[index] = pyramid[index] + resize(pyramid[index + 1], size_of(pyramid[index]))
        smooth = [layer(x) for layer, x in zip(self.smooth, pyramid[:-1], strict=True)] + [top]
        fused = self.fuse(torch.cat([resize(x, size_of(features[0])) for x in smooth], dim=1))
        return self.classifier(self.dropout(fused)), fused


class FcnAuxHead(nn.Module):
    """The auxiliary head on stage 3: 3x3 convolution, dropout, classifier. Trains the encoder, never ships."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        width = max(inputs // AUX_SHRINK, 1)
        self.conv = conv_bn_relu(inputs, width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, h, w) -> (B, K, h, w)."""
        return cast(Tensor, self.classifier(self.dropout(self.conv(x))))


def initialise(head: nn.Module) -> None:
    """Kaiming for convolutions before a ReLU, a small normal for classifiers, identity for norms."""
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith("classifier"):
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
