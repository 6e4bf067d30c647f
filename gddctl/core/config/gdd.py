"""Settings of GDD: as published, and its extensions; presets fill what is not set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from gddctl.core.section import Section

Feature = Literal["stage1", "stage2", "stage3", "stage4", "head"]  # of the encoder; what the head's classifier reads
Place = Literal["logits", "stage1", "stage2", "stage3", "stage4", "head"]
Preset = Literal["paper", "fast", "best"]
Noise = Literal["shared", "channel", "none"]
GeneratorForm = Literal["full", "bottleneck", "depthwise"]
Normalise = Literal["none", "channel", "feature"]
Decay = Literal["none", "linear", "cosine"]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]

_CHEAP: dict[str, Any] = {
    "weight": 2.0,  # of a target at unit spread: the term begins near 1, whatever the teacher
    "noise": "channel",
    "noise_std": 0.5,
    "noise_relative": True,
    "normalise": "channel",
    "target_channels": 256,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},  # the defaults below
    "fast": _CHEAP,
    "best": {**_CHEAP, "logits_weight": 3.0, "decay": "cosine"},
}
_FIRST = ("kind", "weight", "temperature", "noise", "noise_std", "noise_relative", "stage")  # the keys before there were extensions


def filled_by(preset: object) -> dict[str, Any]:
    """Every key as ``preset`` leaves it where nobody set it, as JSON-like data; an unknown one fills what the published form does."""
    fills = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    return {name: field.default for name, field in Gdd.model_fields.items()} | fills


class Gdd(Section):
    """Generative Denoise Distillation (arXiv:2401.08332): by default as its released code does it.

    ``preset`` gives the values of keys that are not set; the resolved settings show them.
    """

    kind: Literal["gdd"] = "gdd"
    preset: Preset = "paper"  # published; "fast": a fraction of its time and memory; "best": fast, the logits too, fading
    weight: PositiveFloat = 145.0  # authors' default for PSPNet-R101 -> PSPNet-R18; 175 for -> DeepLabV3-R18; of each stage
    temperature: PositiveFloat = 4.0
    noise: Noise = "shared"  # one field per image (their code), one per channel, or none
    noise_std: NonNegativeFloat = 1.0
    noise_relative: bool = False  # extension: noise_std in units of the aligned feature's own spread
    stage: Place | tuple[Place, ...] = "stage4"  # or a list: each with its own generator, the terms add up
    normalise: Normalise = "none"  # extension: compare with the teacher's feature at unit spread, by channel or as a whole
    target_channels: PositiveInt | None = None  # extension: compare a fixed orthogonal projection of wider teacher features
    generator: GeneratorForm = "full"  # published: 3x3, ReLU, 3x3 at the target's channels; the others are extensions
    reduction: PositiveInt = 4  # bottleneck and depthwise work at the target's channels divided by this; full does not
    logits_weight: NonNegativeFloat = 0.0  # their option, off in their configs: CWD on the logits; 3 where it is on
    labelled_only: bool = False  # deviation: leave out pixels without a label; published: every pixel
    warmup: Share = 0.0  # extension: share of the training over which the weight rises
    decay: Decay = "none"  # extension: the weight falls to 0 at the end of training; the logits' does not

    @model_validator(mode="before")
    @classmethod
    def _preset_fills(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("preset") in PRESETS:
            return {**PRESETS[value["preset"]], **value}
        return value

    @model_validator(mode="after")
    def _names_places(self) -> Gdd:
        if not self.places or len(set(self.places)) < len(self.places):
            raise ValueError(f"'stage' {list(self.places)} is empty or names a place twice; expected one or more different places")
        return self

    @model_serializer(mode="wrap")
    def _published_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The published form reads, and is named by its digest, as it was before it had extensions; anything else shows every key."""
        settings: dict[str, Any] = handler(self)
        younger = {name: field.default for name, field in Gdd.model_fields.items() if name not in _FIRST}
        if all(getattr(self, name) == default for name, default in younger.items()):
            return {name: settings[name] for name in _FIRST}
        return settings

    @property
    def places(self) -> tuple[Place, ...]:
        """The places compared through a generator."""
        return self.stage if isinstance(self.stage, tuple) else (self.stage,)
