"""Encoders from segmentation_models_pytorch and timm, by name, dilated, with or without weights."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gddctl.core.config.sections import NetworkConfig
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.lazy import require
from gddctl.models.hub import fetch_imagenet
from gddctl.models.weights import load_strictly, read_weights

DEPTH = 5  # the library's own PSPNet stops at 3; the papers distil the last of ResNet's stages
TIMM_PREFIX = "tu-"
_PROBE = (64, 96)  # (height, width) of the image an encoder is tried with; divisible by every stride


class Encoder(Protocol):
    """What an encoder of either library offers."""

    out_channels: list[int]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Features from the image itself (or its half) down to the deepest."""
        ...


def build_encoder(network: NetworkConfig, output_stride: int) -> nn.Module:
    """The encoder ``network`` names, at ``output_stride``, with the weights it asks for.

    Raises:
        ConfigError: unknown name, an encoder that cannot be dilated, or one without ImageNet weights.
        EnvironmentMissing: a library is not installed, or ImageNet weights cannot be fetched.
        UsageError: the weights file is not there.
        ArtifactError: the weights file is damaged or belongs to another encoder.
    """
    check_name(network.encoder)
    if network.encoder_weights == "imagenet":
        encoder = _with_imagenet(network.encoder, output_stride)
    else:
        encoder = _create(network.encoder, output_stride, weights=None)
    if isinstance(network.encoder_weights, Path):
        _load_file(encoder, network.encoder_weights, network.encoder)
    _probe(encoder, network.encoder, output_stride)
    return encoder


def check_name(name: str) -> None:
    """Refuse an encoder name that neither library knows, with the closest one that they do."""
    encoders = require("segmentation_models_pytorch.encoders", extra="train", why=f"the encoder '{name}'")
    if name.startswith(TIMM_PREFIX):
        timm = require("timm", extra="train", why=f"the encoder '{name}'")
        plain = name.removeprefix(TIMM_PREFIX).partition(".")[0]
        if timm.is_model(plain):
            return
        known = [TIMM_PREFIX + model for model in timm.list_models()]
    else:
        known = list(encoders.get_encoder_names())
        if name in known:
            return
        timm = require("timm", extra="train", why=f"the encoder '{name}'")
        if timm.is_model(name):
            raise ConfigError(f"encoder '{name}': unknown; did you mean '{TIMM_PREFIX}{name}'? (timm's models take the prefix)")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'?" if close else f"take one of segmentation_models_pytorch, or {TIMM_PREFIX}NAME of timm"
    raise ConfigError(f"encoder '{name}': unknown; {hint}")


def _create(name: str, output_stride: int, weights: Any) -> nn.Module:
    encoders = require("segmentation_models_pytorch.encoders", extra="train", why=f"the encoder '{name}'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries about themselves; nothing a user of ours can act on
            encoder = encoders.get_encoder(name, in_channels=3, depth=DEPTH, weights=weights, output_stride=output_stride)
    except (NotImplementedError, TypeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:160]
        if output_stride != 32:
            raise ConfigError(
                f"encoder '{name}' cannot be dilated to output stride {output_stride} ({reason or type(error).__name__})",
                remedy="set output_stride to 32, or take a ResNet",
            ) from error
        raise ConfigError(f"encoder '{name}' cannot be used for segmentation ({reason or type(error).__name__})") from error
    return cast(nn.Module, encoder)


@torch.no_grad()
def _probe(encoder: nn.Module, name: str, output_stride: int) -> None:
    """Send one small image through: an encoder may take a single size only, give too few stages, or ignore the stride."""
    was_training = encoder.training
    encoder.eval()  # neither statistics nor random numbers are touched
    try:
        features: list[Tensor] = encoder(torch.zeros(1, 3, *_PROBE))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"encoder '{name}' does not take images of any size ({reason})", remedy="take a convolutional one") from error
    finally:
        encoder.train(was_training)
    channels = [feature.shape[1] for feature in features[-4:]]
    if len(channels) < 4 or 0 in channels or channels != list(cast(Encoder, encoder).out_channels)[-4:]:
        raise ConfigError(f"encoder '{name}' gives features of {channels} channels; four stages are needed", remedy="take another encoder")
    stride = _PROBE[0] // features[-1].shape[-2]
    if stride != output_stride:
        raise ConfigError(f"encoder '{name}' ends at stride {stride}, not {output_stride}", remedy=f"set output_stride to {stride}")


def _with_imagenet(name: str, output_stride: int) -> nn.Module:
    try:
        return fetch_imagenet(name, lambda: _create(name, output_stride, weights=True if name.startswith(TIMM_PREFIX) else "imagenet"))
    except (KeyError, RuntimeError) as error:  # how either library says that it has none
        reason = " ".join(str(error).strip("\"'").split())[:200]
        raise ConfigError(f"encoder '{name}' has no weights called 'imagenet' ({reason})", remedy="set encoder_weights to none") from error


def _load_file(encoder: nn.Module, path: Path, name: str) -> None:
    if not path.is_file():
        raise UsageError(f"encoder_weights {path}: no such file", remedy="set it to none, imagenet or a .safetensors file")
    if path.suffix != ".safetensors":
        raise ArtifactError(f"encoder_weights {path}: expected a .safetensors file", remedy="convert it; pickled weights are never loaded")
    load_strictly(encoder, read_weights(path), place=f"{path}", expected=f"encoder '{name}'")
