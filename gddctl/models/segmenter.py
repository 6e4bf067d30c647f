"""The segmentation network: an encoder, a decode head, and an auxiliary head while training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.config.sections import NetworkConfig
from gddctl.models.encoder import Encoder, build_encoder
from gddctl.models.heads import DeepLabV3Head, DeepLabV3PlusHead, FcnAuxHead, FpnHead, PspHead, UperHead, initialise
from gddctl.models.protocol import FEATURES, STAGES, Outputs

AUX_PREFIX = "aux_head."  # keys under it train and are thrown away
FULL_STRIDE = 32  # of an undilated encoder


class Segmenter(nn.Module):
    """Images to logits and features. Its state dict without ``aux_head.*`` is what a bundle holds.

    Args:
        encoder: images to features, shallow to deep.
        head: the last four features to logits and the feature that its ``classifier``, a convolution, reads.
        num_classes: of the logits.
        aux_head: stage 3 to logits, in training.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, num_classes: int, aux_head: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.aux_head = aux_head
        self.num_classes = num_classes

    @property
    def feature_channels(self) -> dict[str, int]:
        """Channels of ``"stage1"`` … ``"stage4"`` and ``"head"``."""
        read = cast(nn.Conv2d, self.head.classifier).in_channels
        return dict(zip(FEATURES, (*stage_channels(self.encoder), read), strict=True))

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised. Logits stay at the head's size; auxiliary logits only in training mode."""
        features: list[Tensor] = self.encoder(images)[-len(STAGES) :]
        logits, read = self.head(features)
        aux = self.aux_head(features[2]) if self.aux_head is not None and self.training else None
        return Outputs(logits=logits, features=dict(zip(FEATURES, (*features, read), strict=True)), aux=aux)

    def predict_logits(self, images: Tensor) -> Tensor:
        """Logits at the input's size. Shape: (B, 3, H, W) -> (B, K, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        return F.interpolate(self(images).logits, size=size, mode="bilinear", align_corners=False)

    def plain_state_dict(self) -> dict[str, Tensor]:
        """The state of the network without its auxiliary head: what ships."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(AUX_PREFIX)}


def build_segmenter(network: NetworkConfig, num_classes: int, *, aux: bool) -> Segmenter:
    """Build the network a config names.

    Args:
        network: architecture, encoder, stride, encoder weights.
        num_classes: of the logits.
        aux: with the auxiliary FCN head on stage 3.

    Raises:
        ConfigError, EnvironmentMissing, UsageError, ArtifactError: see :func:`gddctl.models.encoder.build_encoder`.
    """
    encoder = build_encoder(network, effective_stride(network))
    channels = stage_channels(encoder)
    head = _build_head(network, channels, num_classes)
    initialise(head)
    aux_head = None
    if aux:
        aux_head = FcnAuxHead(channels[2], num_classes)
        initialise(aux_head)
    return Segmenter(encoder, head, num_classes, aux_head)


def stage_channels(encoder: nn.Module) -> list[int]:
    """Channels of the last four features."""
    return list(cast(Encoder, encoder).out_channels)[-len(STAGES) :]


def effective_stride(network: NetworkConfig) -> int:
    """The stride of the last feature: pyramids take an undilated encoder, whatever ``output_stride`` says."""
    match network.arch:
        case "pspnet" | "deeplabv3" | "deeplabv3plus":
            return network.output_stride
        case "fpn" | "upernet":
            return FULL_STRIDE
        case other:
            assert_never(other)


def describe(network: NetworkConfig) -> str:
    """Architecture, encoder and real stride in one name.

    >>> describe(NetworkConfig(arch="fpn", encoder="resnet18", output_stride=8))
    'fpn-resnet18-s32'
    """
    return f"{network.arch}-{network.encoder}-s{effective_stride(network)}"


def differences_from_paper(network: NetworkConfig) -> tuple[str, ...]:
    """Where the network is not the one the distillation papers trained, one sentence each."""
    found = []
    if re.fullmatch(r"(tu-)?resnet\d+(\..*)?", network.encoder):
        found.append("The encoder's stem is one 7x7 convolution; the papers' ResNetV1c has three 3x3.")
    else:
        found.append(f"The encoder is {network.encoder}; the papers' are ResNetV1c.")
    stride = effective_stride(network)
    if stride != 8:
        found.append(f"The encoder ends at output stride {stride}; the papers' at 8.")
    elif not network.encoder.startswith("tu-"):
        found.append("The first block of a dilated stage has the stage's full dilation; the papers' has half of it.")
    match network.arch:
        case "pspnet":
            found.append(
                "The pooled maps are fused by a 1x1 convolution of 512 channels and classified by a 3x3; "
                "the papers' by a 3x3 (128 channels in students) and a 1x1."
            )
            found.append("The branch pooled to 1x1 has no batch norm, so that one image per process can train.")
        case "deeplabv3" | "deeplabv3plus":
            found.append("The head is 256 channels wide; the papers' is 128 in students, 512 in teachers.")
            found.append("The image-pooling branch has no batch norm, so that one image per process can train.")
            if stride != 8:
                found.append("The dilations 12, 24, 36 are kept at every stride; the DeepLab papers scale them with it.")
        case "fpn" | "upernet":
            found.append("The papers distil PSPNet and DeepLabV3 students; this architecture was not among them.")
        case other:
            assert_never(other)
    return tuple(found)


def _build_head(network: NetworkConfig, channels: Sequence[int], num_classes: int) -> nn.Module:
    match network.arch:
        case "pspnet":
            return PspHead(channels, num_classes)
        case "deeplabv3":
            return DeepLabV3Head(channels, num_classes)
        case "deeplabv3plus":
            return DeepLabV3PlusHead(channels, num_classes)
        case "fpn":
            return FpnHead(channels, num_classes)
        case "upernet":
            return UperHead(channels, num_classes)
        case other:
            assert_never(other)
