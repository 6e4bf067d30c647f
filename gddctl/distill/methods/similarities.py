"""What CIRKD compares, at the cost of its matrix products: gradients are formed beside the loss, while similarities are at hand.

Autograd would hold every matrix of similarities until the backward pass, or compute it again there. The gradient of the divergence in a
similarity is one probability minus another, so it is formed at once, and what is held is of the size of the features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def between_images(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """For every ordered pair of images, KL between the distributions of a place's similarities to all places of the other, summed.

    A matrix of similarities serves both orders of its pair: by rows and by columns.

    Shape: student (B, M, Cs), teacher (B, M, Ct), weights (B, M) of the first image's places -> (). Gradients reach ``student`` alone, on
    both sides of its similarities.
    """
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        total, gradient = student.new_zeros(()), torch.zeros_like(student)
        for i in range(len(student)):
            for j in range(i, len(student)):
                own, wanted = (x[i] @ x[j].T / temperature for x in (student, teacher))
                loss, slope = _divergence(own, wanted, weights[i], 1)
                total += loss
                if i != j:
                    loss, turned = _divergence(own, wanted, weights[j], 0)
                    total += loss
                    slope += turned
                gradient[i].addmm_(slope, student[j], alpha=1 / temperature)
                gradient[j].addmm_(slope.T, student[i], alpha=1 / temperature)
    return _with_gradient(student, total, gradient)


def with_memory(student: Tensor, teacher: Tensor, keys: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """KL between the distributions of a place's similarities to ``keys``, summed.

    Shape: student (B, M, C), teacher (B, M, C), keys (J, C), weights (B, M) -> (). Gradients reach ``student`` alone.
    """
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        total, gradient = student.new_zeros(()), torch.zeros_like(student)
        for i in range(len(student)):
            own, wanted = (x[i] @ keys.T / temperature for x in (student, teacher))
            loss, slope = _divergence(own, wanted, weights[i], 1)
            total += loss
            gradient[i].addmm_(slope, keys, alpha=1 / temperature)
    return _with_gradient(student, total, gradient)


class _Formed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None, None


def _with_gradient(student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """``value``, whose gradient in ``student`` is ``gradient``; there is no second derivative."""
    found: Tensor = _Formed.apply(student, value, gradient)
    return found


def _divergence(own: Tensor, wanted: Tensor, weights: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Weighted sum of KL(wanted, own) along ``dim`` of (M, J) logits, and its gradient in ``own``."""
    log_own, log_wanted = F.log_softmax(own, dim), F.log_softmax(wanted, dim)
    probability = log_wanted.exp()
    loss = log_wanted.sub_(log_own).mul_(probability).sum(dim) @ weights  # in place: these matrices are the memory that is used
    return loss, log_own.exp_().sub_(probability).mul_(weights.unsqueeze(dim))
