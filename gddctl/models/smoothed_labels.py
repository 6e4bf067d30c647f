"""The control for label-assisted teachers: logits that are nothing but the label, averaged to a coarse grid, blurred and scaled.

Where a student learns as much from it as from a label-assisted teacher, that teacher did not contribute.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.classes import IGNORE
from gddctl.models.protocol import Batch, Outputs

REACH = 3  # standard deviations of the Gaussian that are summed on each side


class SmoothedLabels(nn.Module):
    """Labels to logits. Nothing in it trains; its settings are buffers, so that they are what its file holds.

    Args:
        num_classes: K.
        stride: of the logits' grid, pixels of the label.
        scale: logit of a place that shows one class alone; the others' are 0, and all are 0 where nothing has a label.
        blur: standard deviation of the Gaussian, in places of the grid; 0: none.
    """

    scale: Tensor
    blur: Tensor
    stride: Tensor

    def __init__(self, num_classes: int, stride: int, scale: float, blur: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("blur", torch.tensor(float(blur)))
        self.register_buffer("stride", torch.tensor(stride))

    @torch.no_grad()
    def forward(self, labels: Tensor) -> Tensor:
        """Shape: (B, H, W) int64, 255 = ignore -> (B, K, H / stride, W / stride) float32, sizes rounded up as a stride's are."""
        stride = int(self.stride)
        shown = F.one_hot(labels.masked_fill(labels == IGNORE, self.num_classes), self.num_classes + 1)[..., : self.num_classes]
        shares = F.avg_pool2d(shown.movedim(-1, 1).float(), stride, ceil_mode=True)
        return self.scale * self._blurred(shares)

    def predict_logits(self, labels: Tensor) -> Tensor:
        """Logits at the label's size. Shape: (B, H, W) int64 -> (B, K, H, W)."""
        return F.interpolate(self.forward(labels), size=labels.shape[-2:], mode="bilinear", align_corners=False)

    def plain_state_dict(self) -> dict[str, Tensor]:
        """What a bundle holds: the settings."""
        return self.state_dict()

    def _blurred(self, shares: Tensor) -> Tensor:
        """A Gaussian over the grid, edges repeated."""
        deviation = float(self.blur)
        if deviation == 0:
            return shares
        reach = max(1, round(REACH * deviation))
        steps = torch.arange(-reach, reach + 1, device=shares.device, dtype=shares.dtype)
        kernel = torch.exp(-(steps**2) / (2 * deviation**2))
        kernel = (kernel / kernel.sum()).expand(self.num_classes, 1, -1)
        rows = F.conv2d(F.pad(shares, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=self.num_classes)
        return F.conv2d(F.pad(rows, (0, 0, reach, reach), mode="replicate"), kernel[:, :, :, None], groups=self.num_classes)


class SmoothedLabelsTeacher:
    """The smoothed labels as a teacher: logits, and no features, so that methods that compare features refuse it."""

    def __init__(self, model: SmoothedLabels) -> None:
        self.model = model.eval()

    @property
    def feature_channels(self) -> dict[str, int]:
        """None."""
        return {}

    def __call__(self, batch: Batch) -> Outputs:
        """Logits of the batch's labels, on their device."""
        return Outputs(logits=self.model(batch.labels), features={})

    def to(self, device: torch.device | str) -> SmoothedLabelsTeacher:
        """Itself: its settings stay with the host, where they are read without waiting for a device."""
        return self
