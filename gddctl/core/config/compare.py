"""Settings of a comparison of methods, and of the training images that it may hold out."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from gddctl.core.config.methods import Method
from gddctl.core.section import Section, without_younger
from gddctl.core.views import windowless_scales, wrong_scales

HELD_OUT = "held-out"  # name of the split of images that ``data.holdout`` keeps out of the training split
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]  # also part of a folder's name


class HoldoutConfig(Section):
    """Training images kept out of training, so that settings can be chosen on them and never on val; their split is ``HELD_OUT``."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # of the training split
    seed: NonNegativeInt = 0


class ViewsConfig(Section):
    """What cells are shown of an image when they are scored; the default is the whole image, once."""

    flip: bool = False  # the mirrored image too
    scales: tuple[float, ...] = (1.0,)  # factors on the image's own size; other than 1 only with a window
    window: bool = False  # windows of the network's input size over the scaled image

    @model_validator(mode="after")
    def _can_be_shown(self) -> ViewsConfig:
        if wrong := wrong_scales(self.scales):
            raise ValueError(f"{wrong}; for example {{scales: [0.75, 1, 1.25], window: true}}")
        if wrong := windowless_scales(self.scales, window=self.window):
            raise ValueError(f"{wrong}; add 'window: true', which scales the image and slides the graph's input over it")
        return self


class CompareConfig(Section):
    """What ``gddctl compare`` knows besides the training: methods under labels of the user's, and how they are held against each other."""

    methods: dict[Label, Method] = {}  # noqa: RUF012 - pydantic copies it
    teachers: dict[Label, dict[str, Any]] = {}  # noqa: RUF012 - keys of ``teacher`` that differ for the method of that label
    seeds: PositiveInt = 5  # trainings of each method
    holdout: HoldoutConfig = HoldoutConfig()  # with --on heldout
    views: ViewsConfig = ViewsConfig()  # of the scores in the table; those while training show the image once
    neighbours: PositiveInt = 1  # images that intervals resample together; more than 1 for frames of one video, which are alike
    blocks: PositiveInt = 10  # turns each method takes when step times are measured
    block_steps: PositiveInt = 5  # steps in a turn; a turn to warm up, and the first steps after a loader starts, are left out

    @model_validator(mode="after")
    def _teachers_have_a_method(self) -> CompareConfig:
        if alone := sorted(set(self.teachers) - set(self.methods)):
            raise ValueError(f"'teachers' names {', '.join(alone)}, which 'methods' does not; expected one of: {', '.join(self.methods)}")
        return self

    @model_serializer(mode="wrap")
    def _named_as_before_there_were_views(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("views",))
