"""Losses as pure functions: masked cross entropy, channel_kl, pixel_kl. All in float32, whatever the autocast around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gddctl.core.classes import IGNORE


def masked_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ignore: int = IGNORE) -> Tensor:
    """Cross entropy over the pixels that have a label.

    Shape: logits (B, K, H, W), labels (B, H, W) int64, class_weights (K,) or None -> (). With weights, the mean is weighted.
    Where no pixel has a label the loss is 0 with a zero gradient, not NaN.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        weights = None if class_weights is None else class_weights.to(logits.device, torch.float32)
        total = F.cross_entropy(logits, labels, weight=weights, ignore_index=ignore, reduction="sum")
        valid = labels != ignore
        if weights is None:
            count = valid.sum()
        else:
            count = torch.where(valid, weights[labels.clamp(max=weights.numel() - 1)], 0.0).sum()
        return total / torch.where(count > 0, count, 1)


def channel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL between per-channel spatial distributions, averaged over batch and channel, times the temperature squared.

    Each channel is read as a distribution over its H*W places: what is matched is *where* a channel looks, not how strongly. For a
    temperature large against the features it tends to half the spatial variance of their difference, whatever H*W: never divide by it.

    Shape: both (B, C, H, W) -> (). The teacher's side gets no gradient.
    """
    _same_shape("channel_kl", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        log_student = F.log_softmax(_wide(student).flatten(2) / temperature, dim=-1)  # (B, C, H*W)
        log_teacher = F.log_softmax(_wide(teacher.detach()).flatten(2) / temperature, dim=-1)
        kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)  # (B, C)
        return kl.mean() * temperature**2


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL between per-pixel class distributions (Hinton), averaged over batch and pixels, times the temperature squared.

    Shape: both (B, K, H, W) -> (). The teacher's side gets no gradient.
    """
    _same_shape("pixel_kl", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        log_student = F.log_softmax(_wide(student) / temperature, dim=1)
        log_teacher = F.log_softmax(_wide(teacher.detach()) / temperature, dim=1)
        kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)  # (B, H, W)
        return kl.mean() * temperature**2


def _wide(x: Tensor) -> Tensor:
    """At least float32; float64 stays, so that tests can be exact."""
    return x if x.dtype == torch.float64 else x.float()


def _same_shape(name: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(f"{name}: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in shape")
