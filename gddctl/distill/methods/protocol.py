"""What a distillation method is: weighted, named terms to add to the task loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn

from gddctl.models.protocol import Outputs


class Distiller(Protocol):
    """Weighted, named terms to add to the task loss.

    A method may own modules (aligners, generators); every implementation is an ``nn.Module``, so that it moves, wraps and resumes like
    one, and keeps what it remembers between steps in buffers. Its ``parameters`` train with the student and are thrown away after; they
    never enter the student's bundle.
    """

    def __call__(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """Weighted scalar terms by name, to add to the task loss; names begin with the method's kind, parts follow after a dot.

        Shape: labels (B, H, W) int64 at the images' size, 255 = ignore; for methods that ask for classes. Most do not.
        """
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What trains with the student."""
        ...

    def diagnostics(self) -> Mapping[str, float]:
        """Numbers worth logging beside the loss, of the last call; a slash in their names tells them from terms.

        Reads from the device: not at every step.
        """
        ...
