"""Settings of the distillation methods: one class each, joined in a closed union by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from gddctl.core.section import Section


class NoMethod(Section):
    """No distillation: labels only."""

    kind: Literal["none"] = "none"


class Gdd(Section):
    """Generative Denoise Distillation (arXiv:2401.08332), as its released code does it."""

    kind: Literal["gdd"] = "gdd"
    weight: PositiveFloat = 145.0  # authors' default for PSPNet-R101 -> PSPNet-R18; 175 for -> DeepLabV3-R18
    temperature: PositiveFloat = 4.0
    noise: Literal["shared", "channel", "none"] = "shared"  # one field per image (their code), one per channel, or none
    noise_std: NonNegativeFloat = 1.0
    noise_relative: bool = False  # extension: noise_std in units of the aligned feature's own spread
    stage: Literal["stage3", "stage4"] = "stage4"


Method = Annotated[NoMethod | Gdd, Field(discriminator="kind")]
