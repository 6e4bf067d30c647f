"""Label Assisted Distillation (arXiv:2407.13254): the label as a noised plane beside the image, and the teacher that reads both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import assert_never

from gddctl.core.classes import IGNORE
from gddctl.core.config.label_assisted import Codes, NoisingConfig
from gddctl.core.config.sections import NetworkConfig
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.renormalise import Renormalise
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.wide_stem import widen_stem

CLASSES_OF_RELEASE = 21  # Pascal VOC's
_OPTIONS = {
    "train_codes": "Codes of the teacher's training",
    "train_sigma": "Noise of the teacher's training",
    "codes": "Codes by which it teaches",
    "sigma": "Noise by which it teaches",
    "consistency": "Weight of the two paths' agreement",
    "temperature": "Temperature of the two paths' agreement",
    "labelled_only": "The paths are compared where there is a label alone",
    "joint": "Both paths run in one forward pass",
}
LOWEST, HIGHEST = -1.1, 1.0  # of the fixed codes; the released table for 21 classes is (k - 11) / 10, k = 0 .. 21


class LabelNoising:
    """Labels to planes: ``scale * (code of the pixel's class + sigma * e)``, e normal per pixel; ignored pixels have a code of their own.

    Args:
        num_classes: K; there are K + 1 codes.
        codes: where they come from, see :class:`gddctl.core.config.label_assisted.NoisingConfig`.
        sigma: of the noise, in units of the codes.
        scale: of the plane beside the normalised image.
    """

    def __init__(self, num_classes: int, codes: Codes, sigma: float, scale: float) -> None:
        self.num_classes, self.codes, self.sigma, self.scale = num_classes, codes, sigma, scale

    def __call__(self, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shape: labels (B, H, W) int64, 255 = ignore -> (B, 1, H, W) float32, on the labels' device, where all is drawn."""
        table = self.table(len(labels), labels.device, generator)
        places = labels.masked_fill(labels == IGNORE, self.num_classes)
        plane = table.gather(1, places.flatten(1)).view(labels.shape)
        if self.sigma > 0:
            plane = plane + self.sigma * torch.randn(labels.shape, generator=generator, device=labels.device)
        return self.scale * plane[:, None]

    def table(self, batch: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """The codes of ``batch`` images, the ignored pixels' last. Shape: (B, K + 1) float32."""
        count = self.num_classes + 1
        match self.codes:
            case "random":
                return torch.randn(batch, count, generator=generator, device=device)
            case "fixed":
                return fixed_codes(self.num_classes, device).expand(batch, -1)
            case "shuffled":
                order = torch.rand(batch, count, generator=generator, device=device).argsort(dim=1)
                return fixed_codes(self.num_classes, device)[order]
            case other:
                assert_never(other)


def planes_of(noising: LabelNoising, labels: Tensor, indices: Sequence[int]) -> Tensor:
    """The planes by which a network is judged: each image's draws follow from its index alone, on every device, in any batch.

    Shape: (B, H, W) int64 on the CPU -> (B, 1, H, W) float32.
    """
    drawn = (noising(label[None], torch.Generator().manual_seed(index)) for label, index in zip(labels, indices, strict=True))
    return torch.cat(list(drawn))


def fixed_codes(num_classes: int, device: torch.device | str = "cpu") -> Tensor:
    """The table that is the same for every image. Shape: (K + 1,) float32."""
    return torch.linspace(LOWEST, HIGHEST, num_classes + 1, device=device)


def beside(images: Tensor, plane: Tensor) -> Tensor:
    """What a label-assisted network reads. Shape: (B, 3, H, W), (B, 1, H, W) -> (B, 4, H, W)."""
    return torch.cat([images, plane.to(images.dtype)], dim=1)


def no_label(images: Tensor) -> Tensor:
    """The plane of zeros: what there is where nobody knows the label. Shape: (B, 3, H, W) -> (B, 1, H, W)."""
    return torch.zeros_like(images[:, :1])


def build_label_assisted(network: NetworkConfig, num_classes: int, *, aux: bool) -> Segmenter:
    """The network a config names, reading four channels; red, green and blue begin as the plain network's of the same seed.

    Raises:
        ConfigError: its encoder cannot take a fourth channel; else see :func:`gddctl.models.segmenter.build_segmenter`.
    """
    model = build_segmenter(network, num_classes, aux=aux)
    widen_stem(model.encoder, network.encoder)
    return model


def differences_from_release(noising: NoisingConfig, num_classes: int) -> tuple[str, ...]:
    """Where a label-assisted teacher is not trained as the released code does it, one sentence each; ``noising`` with its scale."""
    found = [
        f"The label plane is scaled by {noising.scale:.3g}, not 100: the released code does not divide images by a std.",
        "Logits are upsampled with corners not aligned; the released code aligns them.",
    ]
    if num_classes != CLASSES_OF_RELEASE and noising.codes != "random":
        found.append(f"The fixed codes are {num_classes + 1} even steps from {LOWEST} to {HIGHEST}; the released table is for 21 classes.")
    for key, words in _OPTIONS.items():
        value, published = getattr(noising, key), NoisingConfig.model_fields[key].default
        if value != published:
            found.append(f"{words}: {value}; published: {published}.")
    return tuple(found)


class LabelAssistedTeacher:
    """A trained network of four channels, frozen, that noises the labels of its batch and reads them; it never learns.

    Not an ``nn.Module``, for the reasons of :class:`gddctl.models.teacher.FrozenTeacher`.

    Args:
        model: as :func:`build_label_assisted` makes it, trained.
        noising: of stage B; it draws from the default generator of the batch's device, which the loop seeds at every step.
        renormalise: from the student's normalisation of images to the model's own; None: they are the same.
    """

    def __init__(self, model: Segmenter, noising: LabelNoising, renormalise: Renormalise | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.noising = noising
        self._renormalise = renormalise

    @property
    def feature_channels(self) -> dict[str, int]:
        """Channels of ``"stage1"`` … ``"stage4"`` and ``"head"``."""
        return self.model.feature_channels

    def __call__(self, batch: Batch) -> Outputs:
        """Outputs without gradient, for images and labels of one size."""
        self.model.eval()
        with torch.no_grad():
            images = batch.images if self._renormalise is None else self._renormalise(batch.images)
            outputs: Outputs = self.model(beside(images, self.noising(batch.labels)))
        return outputs

    def to(self, device: torch.device | str) -> LabelAssistedTeacher:
        """Move the teacher."""
        self.model.to(device)
        if self._renormalise is not None:
            self._renormalise.to(device)
        return self
