"""Losses as their equations stand, in a few lines of PyTorch: what faster forms are held against."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def similarity_kl(student: Tensor, teacher: Tensor, student_keys: Tensor, teacher_keys: Tensor, temperature: float) -> Tensor:
    """KL between the distributions that a pixel's similarities to the keys make, for every pixel; the teacher's side gets no gradient.

    Shape: unit vectors: student (M, Cs), teacher (M, Ct), student_keys (J, Cs), teacher_keys (J, Ct) -> (M,).
    """
    log_student = F.log_softmax(student @ student_keys.T / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach() @ teacher_keys.detach().T / temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
