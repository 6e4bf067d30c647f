"""What a checkpoint takes from the parts of a training, and gives back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gddctl.distill.assemble import Parts
from gddctl.distill.resume import Checkpoint, optimizer_tensors, restore_optimizer
from gddctl.models.weights import load_strictly

Snapshot = dict[str, Mapping[str, Tensor]]


def snapshot(parts: Parts) -> Snapshot:
    """All tensors that training changes, by part. The teacher is none of them."""
    found: Snapshot = {"student": parts.student.state_dict(), "optimizer": optimizer_tensors(parts.optimizer.optimizer)}
    if parts.distiller is not None:
        found["distiller"] = parts.distiller.state_dict()
    if parts.average is not None:
        found["average"] = parts.average.state_dict()
    if parts.quantised is not None:
        found["ranges"] = parts.quantised.ranges.state_dict()
    return found


def restore(parts: Parts, checkpoint: Checkpoint, place: str) -> None:
    """Put a snapshot back.

    Raises:
        ArtifactError: it is of other networks.
    """
    load_strictly(parts.student, checkpoint.part("student"), place=place, expected="this network")
    if parts.distiller is not None:
        load_strictly(parts.distiller, checkpoint.part("distiller"), place=place, expected="this distillation method")
    if parts.average is not None:
        load_strictly(parts.average.model, checkpoint.part("average"), place=place, expected="the weight average")
    if parts.quantised is not None:
        load_strictly(parts.quantised.ranges, checkpoint.part("ranges"), place=place, expected="these quantised tensors")
    restore_optimizer(parts.optimizer.optimizer, checkpoint.part("optimizer"))


def not_finite(found: Snapshot) -> str | None:
    """The first tensor, as ``part.name``, that holds NaN or Inf; None where all are finite: such a state alone is worth keeping."""
    floating = {f"{part}.{name}": value for part, state in found.items() for name, value in state.items() if value.is_floating_point()}
    fine = {name: torch.isfinite(value).all() for name, value in floating.items()}  # all are asked before the first answer is waited for
    return next((name for name, answer in fine.items() if not bool(answer)), None)
