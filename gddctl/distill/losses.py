"""Losses as pure functions: cross entropy, divergences, distances, correlations. All in float32, whatever the autocast around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gddctl.core.classes import IGNORE

NOWHERE = -1e30  # a logit whose probability is exactly 0, and finite: infinities would make NaN
TINY = 1e-8  # keeps a correlation of constants finite; as in the released code of DIST


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


def channel_kl(student: Tensor, teacher: Tensor, temperature: float, labelled: Tensor | None = None) -> Tensor:
    """KL between per-channel spatial distributions, averaged over batch and channel, times the temperature squared.

    Each channel is read as a distribution over its H*W places: what is matched is *where* a channel looks, not how strongly. For a
    temperature large against the features it tends to half the spatial variance of their difference, whatever H*W: never divide by it.

    Shape: both (B, C, H, W), labelled (B, H, W) bool or None -> (). Places that are not labelled are left out of the distributions.
    The teacher's side gets no gradient.
    """
    _same_shape("channel_kl", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = _wide(student), _wide(teacher.detach())
        if labelled is not None:
            student, teacher = (x.masked_fill(~labelled[:, None], NOWHERE) for x in (student, teacher))
        log_student = F.log_softmax(student.flatten(2) / temperature, dim=-1)  # (B, C, H*W)
        log_teacher = F.log_softmax(teacher.flatten(2) / temperature, dim=-1)
        kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)  # (B, C)
        return kl.mean() * temperature**2


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float, labelled: Tensor | None = None) -> Tensor:
    """KL between per-pixel class distributions (Hinton), averaged over batch and pixels, times the temperature squared.

    Shape: both (B, K, H, W), labelled (B, H, W) bool or None -> (). With ``labelled`` the average is over those pixels, 0 where there are
    none. The teacher's side gets no gradient.
    """
    _same_shape("pixel_kl", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        log_student = F.log_softmax(_wide(student) / temperature, dim=1)
        log_teacher = F.log_softmax(_wide(teacher.detach()) / temperature, dim=1)
        kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)  # (B, H, W)
        mean = kl.mean() if labelled is None else torch.where(labelled, kl, 0.0).sum() / labelled.sum().clamp(min=1)
        return mean * temperature**2


def squared_error_per_image(student: Tensor, teacher: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Sum of squared differences of an image, averaged over the batch. It grows with H, W and C: its weight does not carry over.

    Shape: both (B, C, H, W), labelled (B, H, W) bool or None -> (). Places that are not labelled add nothing. The teacher's side gets no
    gradient.
    """
    _same_shape("squared_error_per_image", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        squares = (_wide(student) - _wide(teacher.detach())).square()
        if labelled is not None:
            squares = squares.masked_fill(~labelled[:, None], 0.0)
        return squares.sum() / student.shape[0]


def mean_squared_error(student: Tensor, teacher: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Mean of squared differences.

    Shape: both the same, labelled (B, H, W) bool or None -> (). With ``labelled``, of maps (B, C, H, W), the mean is over those places, 0
    where there are none. The teacher's side gets no gradient.
    """
    _same_shape("mean_squared_error", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        squares = (_wide(student) - _wide(teacher.detach())).square()
        if labelled is None:
            return squares.mean()
        return squares.masked_fill(~labelled[:, None], 0.0).sum() / (labelled.sum().clamp(min=1) * student.shape[1])


def class_correlation(student: Tensor, teacher: Tensor, temperature: float, labelled: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One minus the Pearson correlation of class probabilities, times the temperature squared: two views of DIST (arXiv:2205.10536).

    Shape: both (B, K, H, W), labelled (B, H, W) bool or None -> () between the classes of a pixel, averaged over pixels; () between all
    pixels of the batch for a class, averaged over classes. The teacher's side gets no gradient.
    """
    _same_shape("class_correlation", student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        rows = [F.softmax(_wide(x) / temperature, dim=1).movedim(1, -1).flatten(0, 2) for x in (student, teacher.detach())]  # (B*H*W, K)
        if labelled is not None:
            rows = [x[labelled.flatten()] for x in rows]
        if rows[0].shape[0] == 0:
            return student.sum() * 0, student.sum() * 0
        inter = 1 - _pearson(rows[0], rows[1]).mean()
        intra = 1 - _pearson(rows[0].T, rows[1].T).mean()
        return inter * temperature**2, intra * temperature**2


def labelled_pixels(labels: Tensor, feature: Tensor, ignore: int = IGNORE) -> Tensor:
    """Which places of ``feature`` have a label; nearest neighbour. Shape: (B, H, W) int64, (B, C, h, w) -> (B, h, w) bool."""
    return resized_labels(labels, feature) != ignore


def resized_labels(labels: Tensor, feature: Tensor) -> Tensor:
    """Labels at the size of ``feature``, nearest neighbour. Shape: (B, H, W) int64, (B, C, h, w) -> (B, h, w) int64."""
    return F.interpolate(labels[:, None].float(), size=feature.shape[-2:], mode="nearest")[:, 0].long()


def _pearson(left: Tensor, right: Tensor) -> Tensor:
    """Correlation of every row. Shape: both (M, K) -> (M,)."""
    left, right = left - left.mean(1, keepdim=True), right - right.mean(1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
    return (left * right).sum(1) / (norms + TINY)


def _wide(x: Tensor) -> Tensor:
    """At least float32; float64 stays, so that tests can be exact."""
    return x if x.dtype == torch.float64 else x.float()


def _same_shape(name: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(f"{name}: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in shape")
