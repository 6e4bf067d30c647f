"""The diffusion schedule of DDPM and the deterministic steps of DDIM, in float32 whatever the autocast around them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS = 1000
BETAS = (1e-4, 0.02)  # first and last, linear between (arXiv:2006.11239)
TIMESTEPS = (400, 300, 200, 100, 0)  # the last five of a grid of ten, as the released DiffKD code runs
STRIDE = 100

Predict = Callable[[Tensor, Tensor], Tensor]  # (x, timesteps (B,)) -> the noise in x


class Schedule(nn.Module):
    """alpha-bar by timestep, (1000,) float32: near 1 half precision would round it to 1, and the next division would be 0/0."""

    alpha_bar: Tensor

    def __init__(self) -> None:
        super().__init__()
        betas = torch.linspace(*BETAS, STEPS, dtype=torch.float64)
        self.register_buffer("alpha_bar", torch.cumprod(1 - betas, dim=0).float(), persistent=False)

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``sqrt(alpha_bar) * clean + sqrt(1 - alpha_bar) * noise``. Shape: both (B, ...), timesteps (B,) -> (B, ...) float32."""
        with torch.autocast(clean.device.type, enabled=False):
            kept = self.alpha_bar[timesteps].view(-1, *[1] * (clean.dim() - 1))
            return kept.sqrt() * clean.float() + (1 - kept).sqrt() * noise.float()

    def denoise(self, x: Tensor, predict: Predict) -> Tensor:
        """Five DDIM steps (arXiv:2010.02502, eta 0) from timestep 400 down to the clean tensor. Shape: (B, ...) -> (B, ...) float32."""
        x = x.float()
        one = torch.ones((), device=x.device)
        for timestep in TIMESTEPS:
            here = self.alpha_bar[timestep]
            after = self.alpha_bar[timestep - STRIDE] if timestep >= STRIDE else one  # past the end: nothing but the clean tensor
            noise = predict(x, torch.full((x.shape[0],), timestep, device=x.device))
            with torch.autocast(x.device.type, enabled=False):
                noise = noise.float()
                clean = (x - (1 - here).sqrt() * noise) / here.sqrt()
                x = after.sqrt() * clean + (1 - after).sqrt() * noise
        return x
