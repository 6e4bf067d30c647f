"""One training step: the loss terms of a batch, and the optimiser over exactly the parameters that train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from typing_extensions import assert_never

from gddctl.core.config.sections import TrainConfig
from gddctl.distill.losses import masked_cross_entropy
from gddctl.models.protocol import Batch, Outputs

Answer = Callable[[Batch], Outputs]  # a teacher


class TrainStep(nn.Module):
    """Student and distiller in one module, so that one wrapper (precision, processes) serves both.

    The teacher is an argument of ``forward`` and no part of the module: no optimiser, gradient exchange or checkpoint sees it.

    Args:
        student: the network to train, with its auxiliary head.
        distiller: module that adds terms, or None.
        aux_weight: of the auxiliary head's cross entropy.
        class_weights: (K,) or None.
    """

    class_weights: Tensor | None

    def __init__(self, student: nn.Module, distiller: nn.Module | None, aux_weight: float, class_weights: Tensor | None) -> None:
        super().__init__()
        self.student = student
        self.distiller = distiller
        self.aux_weight = aux_weight
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, images: Tensor, labels: Tensor, teacher: Answer | None = None, keys: Sequence[str] = ()) -> dict[str, Tensor]:
        """The weighted terms whose sum is the loss: ``ce``, ``aux`` where there is such a head, and the distiller's.

        Shape: images (B, 3, h, w) float, labels (B, h, w) int64, keys of the images where the teacher asks for them -> scalars.
        """
        outputs: Outputs = self.student(images)
        terms = {"ce": self._cross_entropy(outputs.logits, labels)}
        if outputs.aux is not None:
            terms["aux"] = self.aux_weight * self._cross_entropy(outputs.aux, labels)
        if self.distiller is not None and teacher is not None:
            terms.update(self.distiller(outputs, teacher(Batch(images, labels, keys=keys)), labels))
        return terms

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        size = (labels.shape[-2], labels.shape[-1])
        return masked_cross_entropy(F.interpolate(logits.float(), size, mode="bilinear", align_corners=False), labels, self.class_weights)


class Trains(Protocol):
    """A step's parts with parameters."""

    @property
    def student(self) -> nn.Module:
        """The network."""
        ...

    @property
    def distiller(self) -> nn.Module | None:
        """What trains with it."""
        ...


def make_optimizer(module: Trains, train: TrainConfig, *, fused: bool) -> Optimizer:
    """The optimiser over student and distiller: same learning rate and decay for both, as in the released recipes.

    Args:
        module: what trains.
        train: optimiser, learning rate, momentum, weight decay.
        fused: use the fused implementation; not with a gradient scaler, which must unscale before clipping.
    """
    owners = [module.student, *([] if module.distiller is None else [module.distiller])]
    trained = [[parameter for parameter in owner.parameters() if parameter.requires_grad] for owner in owners]
    groups = [{"params": parameters} for parameters in trained if parameters]  # some methods have none
    match train.optimizer:
        case "sgd":
            return SGD(groups, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=fused)
        case "adamw":
            return AdamW(groups, lr=train.lr, weight_decay=train.weight_decay, fused=fused)
        case other:
            assert_never(other)


def check_groups(module: nn.Module, optimizer: Optimizer) -> None:
    """Every parameter that wants a gradient is in exactly one group, and nothing else is.

    Raises:
        ValueError: a bug in how the parts were put together; names the parameters.
    """
    counts: dict[int, int] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    wanted = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    wrong = [f"{name} in {counts.get(key, 0)} groups" for key, name in wanted.items() if counts.get(key, 0) != 1]
    wrong += [f"{counts[key]} unknown parameter" for key in counts if key not in wanted]
    if wrong:
        raise ValueError(f"optimiser groups: {'; '.join(wrong)}; expected every trained parameter in one")


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every group the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr
