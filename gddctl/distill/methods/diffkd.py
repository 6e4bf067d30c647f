"""Knowledge Diffusion (arXiv:2305.15712): the student's tensor is a noisy teacher's; denoise it before comparing.

Equations as in the released classification code. Where biases stand before a batch norm there they are left out here: it removes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from gddctl.core.config.methods import DiffKd
from gddctl.distill.diffusion import STEPS, Schedule
from gddctl.distill.losses import labelled_pixels, mean_squared_error, pixel_kl
from gddctl.distill.methods.places import LOGITS, channels_at, like, take
from gddctl.models.protocol import Outputs

EMBEDDINGS = 1280  # rows of their timestep table; the schedule uses the first 1000
WIDE = 1024  # teacher channels from which on an autoencoder is worth its cost
LATENT = 512
NARROWEST = 8  # a bottleneck's channels; a fraction of a dozen classes would be one or two, and features never come near it
WIDENED = 4  # the 1x1 form's hidden layers, in units of its channels
TAU = 1.0  # of the divergence between logits


def _conv_bn(inputs: int, outputs: int, kernel: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a skip; no ReLU after the sum. Shape: (B, D, h, w) -> the same."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(channels // reduction, NARROWEST)
        self.block = nn.Sequential(
            *_conv_bn(channels, inner), nn.ReLU(inplace=True), *_conv_bn(inner, inner, 3), nn.ReLU(inplace=True), *_conv_bn(inner, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + cast(Tensor, self.block(x))


class NoisePredictor(nn.Module):
    """The noise in a tensor, given the timestep it is believed to be at. Shape: (B, D, h, w), (B,) int64 -> (B, D, h, w)."""

    def __init__(self, channels: int, kernel: Literal[1, 3]) -> None:
        super().__init__()
        self.time = nn.Embedding(EMBEDDINGS, channels)
        wide = channels * WIDENED
        if kernel == 3:
            layers = [Bottleneck(channels, 4), Bottleneck(channels, 4), *_conv_bn(channels, channels)]
        else:
            there_and_back = [*_conv_bn(channels, wide), nn.ReLU(inplace=True), *_conv_bn(wide, channels)]
            layers = [*there_and_back, *_conv_bn(channels, wide), nn.ReLU(inplace=True), nn.Conv2d(wide, channels, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise."""
        return cast(Tensor, self.layers(x + self.time(timesteps)[..., None, None]))


class NoiseAdapter(nn.Module):
    """gamma, the share of the student's tensor in what is denoised. Shape: (B, D, h, w) -> (B,) float32 in (0, 1)."""

    def __init__(self, channels: int, kernel: Literal[1, 3]) -> None:
        super().__init__()
        self.layers: nn.Module
        if kernel == 3:
            self.layers = Bottleneck(channels, 8)
        else:
            self.layers = nn.Sequential(*_conv_bn(channels, 2 * channels), nn.ReLU(inplace=True), *_conv_bn(2 * channels, channels))
        self.decide = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The first of two shares."""
        shares: Tensor = self.decide(self.layers(x).mean(dim=(2, 3)))
        return shares.float().softmax(dim=-1)[:, 0]


class Autoencoder(nn.Module):
    """A linear one. Shape: (B, C, h, w) <-> (B, latent, h, w)."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(*_conv_bn(channels, latent))
        self.decode = nn.Conv2d(latent, channels, 1)


@dataclass(frozen=True)
class Denoised:
    """What comes of one pair of tensors: the refined student, its target without gradient, the losses of the parts it has, gamma."""

    refined: Tensor
    target: Tensor
    diffusion: Tensor | None
    autoencoder: Tensor | None
    gamma: Tensor


class DenoisedPair(nn.Module):
    """All modules for one distilled tensor; it does not compare.

    Args:
        student_channels: of the student's tensor.
        teacher_channels: of the teacher's.
        kernel: of predictor and adapter.
        latent: channels of the autoencoder; None: none.
        adapter: learn gamma; else it is 1.
        diffusion: denoise in steps, and train the predictor on noise; else its layers are a plain projector of the same size,
            run once on the student's tensor: the control that tells whether the diffusion contributes. Has no adapter.
        generator: draws noise and timesteps, on the tensor's device; None: the device's default one.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        kernel: Literal[1, 3],
        *,
        latent: int | None = None,
        adapter: bool = True,
        diffusion: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        channels = latent or teacher_channels
        self.autoencoder = Autoencoder(teacher_channels, latent) if latent is not None else None
        self.trans = nn.Conv2d(student_channels, channels, 1)
        self.predictor = NoisePredictor(channels, kernel)
        self.adapter = NoiseAdapter(channels, kernel) if adapter and diffusion else None
        self.proj = nn.Sequential(*_conv_bn(channels, channels))
        self.schedule = Schedule() if diffusion else None
        self.random = generator

    def forward(self, student: Tensor, teacher: Tensor) -> Denoised:
        """Shape: (B, Cs, h, w), (B, Ct, H, W)."""
        teacher = teacher.detach()
        target, reconstruction = self._latent(teacher)
        hidden = self.trans(like(student, teacher)).float()
        gamma, denoised = self._denoise(hidden)
        refined = self.proj(denoised).float()
        return Denoised(refined, target, self._diffusion(target), reconstruction, gamma)

    def _denoise(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma, and the student's tensor without its noise."""
        gamma = hidden.new_ones(hidden.shape[0])
        if self.schedule is None:
            start = torch.zeros(hidden.shape[0], dtype=torch.int64, device=hidden.device)
            return gamma, self.predictor(hidden, start)
        noisy = hidden
        if self.adapter is not None:
            gamma = self.adapter(hidden)
            share = gamma[:, None, None, None]
            noisy = share * hidden + (1 - share) * self._noise(hidden)
        return gamma, self.schedule.denoise(noisy, self.predictor)

    def _latent(self, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        """The target, detached: the encoder learns from reconstruction alone."""
        if self.autoencoder is None:
            return teacher.float(), None
        teacher = teacher.float()  # it may compute in less than the student does
        latent = self.autoencoder.encode(teacher)
        return latent.detach().float(), mean_squared_error(self.autoencoder.decode(latent), teacher)

    def _diffusion(self, target: Tensor) -> Tensor | None:
        """How well the noise is told in the teacher's own tensor."""
        if self.schedule is None:
            return None
        noise = self._noise(target)
        timesteps = torch.randint(0, STEPS, (target.shape[0],), device=target.device, generator=self.random)
        return mean_squared_error(self.predictor(self.schedule.noised(target, noise, timesteps), timesteps), noise)

    def _noise(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, device=x.device, dtype=torch.float32, generator=self.random)


class DiffKdDistiller(nn.Module):
    """Terms ``diffkd.feature`` and ``diffkd.logits``, and of each what trains its denoiser: ``…_noise``, ``…_autoencoder``."""

    def __init__(self, config: DiffKd, pairs: Mapping[str, DenoisedPair]) -> None:
        super().__init__()
        self.config = config
        self.pairs = nn.ModuleDict(pairs)
        self._last: dict[str, Tensor] = {}

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted terms."""
        config, terms = self.config, {}
        self._last = {}
        for place, pair in self.pairs.items():
            found: Denoised = pair(take(student, place), take(teacher, place))
            kept = labelled_pixels(labels, found.target) if config.labelled_only else None
            if place == LOGITS:
                name, compared = "diffkd.logits", config.logits_weight * pixel_kl(found.refined, found.target, TAU, kept)
            else:
                name, compared = "diffkd.feature", config.feature_weight * mean_squared_error(found.refined, found.target, kept)
            terms[name] = compared
            if found.diffusion is not None:
                terms[f"{name}_noise"] = config.diffusion_weight * found.diffusion
            if found.autoencoder is not None:
                terms[f"{name}_autoencoder"] = config.autoencoder_weight * found.autoencoder
            self._last[f"diffkd/{place}_gamma"] = found.gamma.detach().mean()
            self._last[f"diffkd/{place}_std"] = found.target.std()
        return terms

    def diagnostics(self) -> dict[str, float]:
        """Of the last call, by place: mean gamma (near 1: nothing is denoised), standard deviation of the target (the schedule wants 1)."""
        return {name: float(value) for name, value in self._last.items()}


def build_diffkd(
    config: DiffKd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int], generator: torch.Generator | None
) -> DiffKdDistiller:
    """DiffKD as its settings say.

    Raises:
        ConfigError: see :func:`gddctl.distill.methods.places.channels_at`.
    """
    pairs: dict[str, DenoisedPair] = {}
    form = {"adapter": config.adapter, "diffusion": config.denoiser == "diffusion"}
    if config.feature is not None:
        own, wanted = channels_at("diffkd", config.feature, student_channels, teacher_channels)
        latent = (LATENT if wanted >= WIDE else None) if config.latent == "auto" else config.latent
        pairs[config.feature] = DenoisedPair(own, wanted, 3, latent=latent, **form, generator=generator)
    if config.logits:
        own, wanted = channels_at("diffkd", LOGITS, student_channels, teacher_channels)
        pairs[LOGITS] = DenoisedPair(own, wanted, config.logits_kernel, **form, generator=generator)
    return DiffKdDistiller(config, pairs)
