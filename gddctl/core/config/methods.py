"""Settings of the distillation methods: one class each, joined in a closed union by ``kind``; a list of them is a combination.

Defaults are the published settings; options that leave them say "extension" or "deviation".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gddctl.core.config.gdd import Feature, Place
from gddctl.core.config.gdd import Gdd as Gdd
from gddctl.core.section import Section, without_younger

Unit = Annotated[float, Field(ge=0.0, lt=1.0)]


class NoMethod(Section):
    """No distillation: labels only."""

    kind: Literal["none"] = "none"


class Kd(Section):
    """Pixel-wise knowledge distillation (arXiv:1503.02531 at every pixel), as the CIRKD code base does it."""

    kind: Literal["kd"] = "kd"
    weight: PositiveFloat = 1.0  # CIRKD's code
    temperature: PositiveFloat = 1.0  # CIRKD's code
    labelled_only: bool = False  # deviation: leave out pixels without a label; published: every pixel


class Cwd(Section):
    """Channel-wise Knowledge Distillation (arXiv:2011.13256), on the logits or on a feature.

    The default is the form on the logits alone, weight 3; the published configuration (CIRKD's code) has weight 50 on the feature that
    the classifier reads, 3 on the logits, pixel-wise distillation and an adversarial loss: ``[{kind: cwd}, {kind: cwd, place: head},
    {kind: kd}]`` but for the last, which is not implemented.
    """

    kind: Literal["cwd"] = "cwd"
    place: Place = "logits"  # published: "logits" or "head"
    weight: PositiveFloat | None = None  # null: the published 3 on logits, 50 on features
    temperature: PositiveFloat = 4.0  # authors' and CIRKD's code
    labelled_only: bool = False  # deviation: leave out pixels without a label; published: every pixel

    @property
    def strength(self) -> float:
        """The weight, published where none is set."""
        return self.weight if self.weight is not None else 3.0 if self.place == "logits" else 50.0


class Mgd(Section):
    """Masked Generative Distillation (arXiv:2205.01529), as its released segmentation configs do it."""

    kind: Literal["mgd"] = "mgd"
    weight: PositiveFloat = 2e-5  # of a sum of squares: retune it when crop or channels change
    masked: Unit = 0.75  # share of places set to zero; authors' value for segmentation
    stage: Feature = "stage4"
    logits_weight: NonNegativeFloat = 3.0  # their configs add CWD on the logits; 0: the feature alone
    logits_temperature: PositiveFloat = 4.0
    labelled_only: bool = False  # deviation: leave out places without a label; published: every place

    @model_serializer(mode="wrap")
    def _plain_without_extras(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("labelled_only",))


class Dist(Section):
    """Distillation from a Stronger Teacher (arXiv:2205.10536): match correlations, not values."""

    kind: Literal["dist"] = "dist"
    inter_weight: NonNegativeFloat = 1.0  # beta: between the classes of a pixel
    intra_weight: NonNegativeFloat = 1.0  # gamma: between the pixels of a class
    temperature: PositiveFloat = 1.0
    labelled_only: bool = False  # deviation: leave out pixels without a label; published: every pixel


class Cirkd(Section):
    """Cross-Image Relational Distillation (arXiv:2204.06986), without the adversarial term that its code base adds to others.

    The queues hold ``classes * (pixel_queue + region_queue) * channels`` float32 and are part of every checkpoint.
    """

    kind: Literal["cirkd"] = "cirkd"
    kd_weight: NonNegativeFloat = 1.0  # pixel-wise distillation at temperature 1
    image_weight: NonNegativeFloat = 1.0  # relations between the images of a batch
    pixel_weight: NonNegativeFloat = 0.1  # relations to queued pixels; 0.01 on Pascal VOC
    region_weight: NonNegativeFloat = 0.1  # relations to queued regions; 0.01 on Pascal VOC
    temperature: PositiveFloat = 0.1  # of similarities
    kd_temperature: PositiveFloat = 1.0
    pixel_queue: PositiveInt = 20_000  # per class
    region_queue: PositiveInt = 2_000  # per class
    pixels_per_image: PositiveInt = 16  # that enter the queue, per image and class
    pixels_from: Literal["class", "first places"] = "class"  # as the paper says; the released code draws from the map's first places
    pixel_samples: PositiveInt = 4096  # compared with at every step: this // classes + 1 per class
    region_samples: PositiveInt = 1024
    pool: bool = False  # their option: 2x2 average pooling before the relations between images
    feature: Feature = "head"  # published: "head"
    labelled_only: bool = False  # deviation: leave pixels without a label out of all terms; published: only of those with a memory

    @model_serializer(mode="wrap")
    def _plain_without_extras(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("labelled_only",))


class DiffKd(Section):
    """Knowledge Diffusion (arXiv:2305.15712). Its segmentation code is not public: places, kernel and latent width here are our choice."""

    kind: Literal["diffkd"] = "diffkd"
    feature: Feature | None = "head"  # null: logits alone
    feature_weight: PositiveFloat = 1.0
    latent: PositiveInt | Literal["auto"] | None = (
        "auto"  # the autoencoder's channels; auto: 512 where the teacher has 1024 or more, else none
    )
    logits: bool = True
    logits_weight: PositiveFloat = 1.0
    logits_kernel: Literal[1, 3] = 3  # 1 is the published form for logits of whole images
    diffusion_weight: PositiveFloat = 1.0
    autoencoder_weight: PositiveFloat = 1.0
    adapter: bool = True  # learn how much noise to add; false (ablation): gamma is 1, none is added
    denoiser: Literal["diffusion", "projector"] = "diffusion"  # projector (control): its layers, run once; no noise, no adapter
    labelled_only: bool = False  # deviation: compare where there is a label; published: every place

    @model_serializer(mode="wrap")
    def _plain_without_extras(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("denoiser", "labelled_only"))

    @model_validator(mode="after")
    def _compares_something(self) -> DiffKd:
        if self.feature is None and not self.logits:
            raise ValueError("neither 'feature' nor 'logits' is compared; expected at least one")
        return self


Single = Kd | Cwd | Mgd | Dist | Cirkd | DiffKd | Gdd


class Combined(Section):
    """Several methods at once, each with its own weights; written as a plain list."""

    kind: Literal["combined"] = "combined"
    methods: tuple[Annotated[Single, Field(discriminator="kind")], ...]

    @model_validator(mode="after")
    def _not_empty(self) -> Combined:
        if not self.methods:
            raise ValueError("an empty list of methods; expected at least one, or {kind: none}")
        return self


def _list_is_combined(value: Any) -> Any:
    """``[{kind: a}, {kind: b}]`` as a combination; lists as tuples, because a validator's result is no longer read as JSON."""
    if isinstance(value, (list, tuple)):
        return {"kind": "combined", "methods": _tuples(value)}
    return _tuples(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


Method = Annotated[NoMethod | Single | Combined, Field(discriminator="kind"), BeforeValidator(_list_is_combined)]
