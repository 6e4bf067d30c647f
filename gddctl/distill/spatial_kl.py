"""The KL between per-channel spatial distributions in one autograd function: what ``losses.channel_kl`` computes, in less memory.

Written out with library functions, the loss keeps both log-softmaxes and their product in float32 until the backward pass. Here the
gradient, T / (B C) * (softmax(student / T) - softmax(teacher / T)), is formed beside the value, a few images at a time, and is
all that is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gddctl.distill.losses import NOWHERE

CHUNK = 2**21  # elements worked on at a time: 8 MiB in float32, which some caches hold


def spatial_kl(
    student: Tensor, teacher: Tensor, temperature: float, factor: Tensor | None = None, labelled: Tensor | None = None
) -> Tensor:
    """As :func:`gddctl.distill.losses.channel_kl`; in float32 at least, whatever the autocast around it.

    Shape: student, teacher (B, C, H, W), factor (C,) or None: what the teacher's channels are multiplied by, labelled (B, H, W) bool or
    None -> (). The teacher's side gets no gradient; there is no second derivative.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"spatial_kl: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in shape")
    with torch.autocast(student.device.type, enabled=False):
        value: Tensor = _SpatialKl.apply(student, teacher.detach(), temperature, factor, labelled)
        return value


class _SpatialKl(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float, factor: Tensor | None, labelled: Tensor | None) -> Tensor:
        if not student.is_contiguous(memory_format=torch.channels_last):
            student = student.contiguous()
        last = not student.is_contiguous()  # channels last
        wide = torch.float64 if student.dtype == torch.float64 else torch.float32
        kept = torch.bfloat16 if student.dtype == torch.bfloat16 else wide  # float16 has not the range
        wants = ctx.needs_input_grad[0]
        difference = torch.empty_like(student, dtype=kept) if wants else None
        total = torch.zeros((), dtype=wide, device=student.device)
        axis = 1 if last else 2
        images = max(1, CHUNK // max(1, student[0].numel()))
        for first in range(0, student.shape[0], images):
            part = slice(first, first + images)
            own, wanted = (_rows(x[part], last).to(wide) / temperature for x in (student, teacher))
            if factor is not None:
                wanted *= factor.to(wide) if last else factor.to(wide)[:, None]
            if labelled is not None:
                hidden = ~labelled[part].flatten(1).unsqueeze(3 - axis)
                own, wanted = own.masked_fill_(hidden, NOWHERE), wanted.masked_fill_(hidden, NOWHERE)
            own, wanted = own.log_softmax(axis), wanted.log_softmax(axis)
            target = wanted.exp()
            total += wanted.sub_(own).mul_(target).sum()
            if difference is not None:
                _rows(difference[part], last).copy_(own.exp_().sub_(target))
        ctx.scale = scale = temperature / (student.shape[0] * student.shape[1])
        ctx.dtype = student.dtype
        ctx.save_for_backward(difference)
        return total * (temperature * scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (difference,) = ctx.saved_tensors
        if difference is None:
            return None, None, None, None, None
        return (difference * (gradient * ctx.scale)).to(ctx.dtype), None, None, None, None


def _rows(x: Tensor, last: bool) -> Tensor:
    """The map with its places in one axis, a view where the layout allows: (B, C, M), or (B, M, C) for channels last."""
    rows: Tensor = x.permute(0, 2, 3, 1).flatten(1, 2) if last else x.flatten(2)
    return rows
