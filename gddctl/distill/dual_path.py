"""One training step of a label-assisted teacher: the same images under two noisings of the label, held to agree (arXiv:2407.13254)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.distill.losses import channel_kl, labelled_pixels, masked_cross_entropy
from gddctl.models.label_assisted import LabelNoising, beside
from gddctl.models.protocol import Outputs


class DualPathStep(nn.Module):
    """As :class:`gddctl.distill.step.TrainStep`, for stage A: nobody teaches.

    ``CE(o1) + a CE(aux1) + CE(o2) + a CE(aux2) + w (D(o1, sg o2) + D(o2, sg o1))``, D the channel-wise spatial divergence of the logits
    at the head's size. Published: two forward passes, so that batch norms' statistics move twice a step.

    Args:
        student: the network to train, reading four channels, with its auxiliary head.
        noising: labels to planes; called once per path.
        aux_weight: of the auxiliary head's cross entropy.
        class_weights: (K,) or None.
        consistency: weight of the paths' agreement.
        temperature: of the agreement.
        labelled_only: compare the paths only where there is a label.
        joint: both paths in one forward pass.
    """

    class_weights: Tensor | None
    distiller: None = None

    def __init__(
        self,
        student: nn.Module,
        noising: LabelNoising,
        aux_weight: float,
        class_weights: Tensor | None,
        *,
        consistency: float,
        temperature: float,
        labelled_only: bool = False,
        joint: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.noising = noising
        self.aux_weight = aux_weight
        self.consistency, self.temperature = consistency, temperature
        self.labelled_only, self.joint = labelled_only, joint
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, images: Tensor, labels: Tensor, teacher: None = None) -> dict[str, Tensor]:
        """The weighted terms whose sum is the loss: ``ce`` and ``aux`` over both paths, and ``consistency``.

        Shape: images (B, 3, h, w) float, labels (B, h, w) int64 -> scalars. Both noisings are drawn before either path runs.
        """
        planes = [self.noising(labels), self.noising(labels)]
        paths = self._jointly(images, planes) if self.joint else [self.student(beside(images, plane)) for plane in planes]
        terms = {"ce": torch.stack([self._cross_entropy(path.logits, labels) for path in paths]).sum()}
        aux = [path.aux for path in paths if path.aux is not None]
        if aux:
            terms["aux"] = self.aux_weight * torch.stack([self._cross_entropy(logits, labels) for logits in aux]).sum()
        if self.consistency > 0:
            kept = labelled_pixels(labels, paths[0].logits) if self.labelled_only else None
            terms["consistency"] = self.consistency * agreement(paths[0].logits, paths[1].logits, self.temperature, kept)
        return terms

    def _jointly(self, images: Tensor, planes: list[Tensor]) -> list[Outputs]:
        both: Outputs = self.student(torch.cat([beside(images, plane) for plane in planes]))
        logits = both.logits.chunk(2)
        aux = (None, None) if both.aux is None else both.aux.chunk(2)
        return [Outputs(logits=logits[path], features={}, aux=aux[path]) for path in range(2)]

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        size = (labels.shape[-2], labels.shape[-1])
        return masked_cross_entropy(F.interpolate(logits.float(), size, mode="bilinear", align_corners=False), labels, self.class_weights)


def agreement(first: Tensor, second: Tensor, temperature: float, labelled: Tensor | None = None) -> Tensor:
    """``D(first, sg second) + D(second, sg first)``, each by :func:`gddctl.distill.losses.channel_kl`, whose target gets no gradient.

    Shape: both (B, K, h, w), labelled (B, h, w) bool or None -> ().
    """
    return channel_kl(first, second, temperature, labelled) + channel_kl(second, first, temperature, labelled)
