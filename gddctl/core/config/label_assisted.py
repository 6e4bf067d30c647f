"""Settings of teachers that see the label: Label Assisted Distillation (arXiv:2407.13254), and the control that it has to beat.

Defaults are those of the released code; options that leave them say "deviation" or "ablation".
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from gddctl.core.section import Section

TeacherKind = Literal["network", "label_assisted", "smoothed_labels"]
Codes = Literal["random", "fixed", "shuffled"]


class NoisingConfig(Section):
    """How a label becomes the plane beside the image, and how the teacher that reads it trains.

    Each class, and the ignored pixels as one more, has a code; the plane is ``scale * (code of the pixel's class + sigma * normal noise)``.
    ``random`` codes are drawn from N(0, 1) per image, class and path; ``fixed`` ones are ``linspace(-1.1, 1.0, classes + 1)``, which for
    the published 21 classes is their table (other counts are our generalisation: the code has no rule for them); ``shuffled`` ones are the
    fixed table in a new order per image.
    """

    train_codes: Codes = "random"  # stage A, the teacher's training; shuffled: ablation without codes that fall together
    train_sigma: NonNegativeFloat = 0.03
    codes: Codes = "fixed"  # stage B, teaching a student; random and shuffled: variants that stand commented out in their code
    sigma: NonNegativeFloat = 0.02
    scale: PositiveFloat | None = None  # null: 100 / 255 / mean image std; their 100 is for images that are not divided by a std
    consistency: NonNegativeFloat = 5.0  # weight of the two paths' agreement; 0: ablation
    temperature: PositiveFloat = 4.0  # of that agreement
    labelled_only: bool = False  # deviation: compare the paths where there is a label; published: everywhere
    joint: bool = False  # deviation: both paths in one forward pass, so that batch norms see them together

    def scale_for(self, std: tuple[float, float, float]) -> float:
        """The plane's scale beside images that were divided by ``std`` (of pixel / 255).

        >>> round(NoisingConfig().scale_for((0.229, 0.224, 0.225)), 3)
        1.735
        """
        return self.scale if self.scale is not None else 100.0 / 255.0 / (sum(std) / len(std))


class SmoothingConfig(Section):
    """The control: a teacher without weights, whose logits are the label, averaged to their grid, blurred and scaled. Our own values."""

    scale: PositiveFloat = 8.0  # of a pixel's own class over the others; choose it so that its entropy is that of the teacher compared
    blur: NonNegativeFloat = 0.5  # standard deviation of a Gaussian, in places of the logits' grid; 0: the averages as they are
